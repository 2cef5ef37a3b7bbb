//! What the Relevo beside a node asks all the time: cheap looks at what databases say of the role.

use std::collections::BTreeMap;

use relevo_connect::SqlSession;
use relevo_model::SourceIdentity;
use relevo_state::{self as state, HandoverRecord, NodeRecord, RoleNote};

use crate::observe::{connect, identity};
use crate::{Claim, Cluster, HandoverError, Stand, stand};

/// What a node says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    /// Which database it is.
    pub identity: SourceIdentity,
    /// What it says of the role; `None` before `relevo init`.
    pub claim: Option<Claim>,
}

/// Opens a session on a node.
///
/// # Errors
/// [`HandoverError::Connect`], [`HandoverError::Waited`]: it does not answer.
pub async fn connect_node(cluster: &Cluster, node: &str) -> Result<SqlSession, HandoverError> {
    connect(cluster, node).await
}

async fn is_installed(session: &SqlSession, node: &str) -> Result<bool, HandoverError> {
    let version = state::installed_version(&**session).await.map_err(HandoverError::state(node))?;
    Ok(version == Some(state::VERSION))
}

/// Which database a node is. It stays so as long as the session does.
///
/// # Errors
/// It does not answer, or its catalogs cannot be read.
pub async fn identify(session: &SqlSession, node: &str) -> Result<SourceIdentity, HandoverError> {
    let facts = relevo_catalog::server(session).await.map_err(HandoverError::catalog(node))?;
    Ok(identity(&facts))
}

/// What a node says of the role now. Cheap: it is asked all the time.
///
/// # Errors
/// It does not answer.
pub async fn listen(session: &SqlSession, node: &str) -> Result<Option<Claim>, HandoverError> {
    let record = match is_installed(session, node).await? {
        true => state::node(&**session).await.map_err(HandoverError::state(node))?,
        false => None,
    };
    Ok(record.map(|record| Claim { epoch: record.epoch, primary: record.primary }))
}

/// What this node says of itself; when it says nothing yet and others name a primary, that is written down.
///
/// # Errors
/// The database does not answer, or schema `relevo` cannot be made.
pub async fn announce(
    cluster: &Cluster,
    node: &str,
    session: &mut SqlSession,
    others: &[Claim],
) -> Result<Option<NodeRecord>, HandoverError> {
    let failed = || HandoverError::state(node);
    if is_installed(session, node).await?
        && let Some(record) = state::node(&**session).await.map_err(failed())?
    {
        if (&*record.cluster, &*record.name) != (&*cluster.name, node) {
            let found = format!("it says that it is node {} of cluster {}", record.name, record.cluster);
            return Err(HandoverError::Overtaken { node: node.to_owned(), found });
        }
        return Ok(Some(record));
    }
    let Stand::Standby { epoch, primary } = stand(node, None, others) else { return Ok(None) };
    state::install(session).await.map_err(failed())?;
    let role = RoleNote { epoch, primary: &primary, fenced: false, fence_lsn: None, promised_to: None };
    state::init_node(&**session, (&cluster.name, node), role).await.map_err(failed())?;
    state::node(&**session).await.map_err(failed())
}

/// Says that the Relevo beside the node lives.
///
/// # Errors
/// [`HandoverError::State`].
pub async fn beat(session: &SqlSession, node: &str) -> Result<(), HandoverError> {
    state::beat(&**session).await.map_err(HandoverError::state(node))
}

/// The last hand-overs that a node remembers, the newest first, `limit` at most. Schema `relevo` must be there.
///
/// # Errors
/// [`HandoverError::State`].
pub async fn last_handovers(
    session: &SqlSession,
    node: &str,
    limit: i64,
) -> Result<Vec<HandoverRecord>, HandoverError> {
    state::last_handovers(&**session, limit).await.map_err(HandoverError::state(node))
}

/// Which node the flow into `node` comes from by its stored progress. `None`: it has none. `Some(None)`: it comes from a
/// database that is no node, or has not answered yet.
///
/// # Errors
/// [`HandoverError::State`].
pub async fn source_of(
    cluster: &Cluster,
    node: &str,
    session: &SqlSession,
    identities: BTreeMap<String, SourceIdentity>,
) -> Result<Option<Option<String>>, HandoverError> {
    let flow = cluster.flow_into(node)?;
    let progress = state::progress(&**session, &flow).await.map_err(HandoverError::state(node))?;
    Ok(progress.map(|progress| {
        let of = |identity: &SourceIdentity| {
            (&identity.system_id, &identity.database)
                == (&progress.source.system_id, &progress.source.database)
        };
        identities.into_iter().find(|(_, identity)| of(identity)).map(|(name, _)| name)
    }))
}
