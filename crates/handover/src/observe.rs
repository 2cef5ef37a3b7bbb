//! What plans are made from: what every node says of itself, or that it does not answer.

use std::collections::BTreeMap;
use std::time::Duration;

use relevo_catalog::ServerFacts;
use relevo_connect::{ReplicaRole, SessionSettings, SqlSession, act_as_replica, connect_sql};
use relevo_model::{Side, SourceIdentity, SourceLsn, Timestamp};
use relevo_state::{self as state, HandoverRecord, NodeRecord};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_postgres::types::PgLsn;

use crate::role::Claim;
use crate::{Cluster, HandoverError, guard, sql};

/// A node that says nothing for so long counts as one that cannot be reached.
pub(crate) const ANSWER_LIMIT: Duration = Duration::from_secs(10);
const LOCK_TIMEOUT: &str = "10s";

/// A node as it was seen.
#[derive(Debug, Clone, PartialEq)]
pub enum Sight {
    /// It does not answer, and why.
    Unreachable(String),
    /// It answers.
    Seen(Box<Seen>),
}

/// What a node says of itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    /// The database, as a source of positions.
    pub identity: SourceIdentity,
    /// What it says of the role; `None` before `relevo init`.
    pub record: Option<NodeRecord>,
    /// Where its WAL ends.
    pub wal_lsn: SourceLsn,
    /// It is a physical standby.
    pub in_recovery: bool,
    /// Prepared transactions hold their locks for as long as they please.
    pub prepared_transactions: u64,
    /// Tables that belong to others, so that no guard can stand before them.
    pub out_of_reach: Vec<String>,
    /// The role may change the database's settings.
    pub owns_database: bool,
    /// The role may make event triggers.
    pub superuser: bool,
    /// The flow into this node, unless it holds itself for the primary.
    pub flow: Option<FlowSight>,
    /// Relevo's slots here, and up to which LSN whoever reads them has everything.
    pub slots: BTreeMap<String, SourceLsn>,
    /// The hand-overs that this node took part in, newest first.
    pub handovers: Vec<HandoverRecord>,
}

/// The flow into a node.
#[derive(Debug, Clone, PartialEq)]
pub struct FlowSight {
    /// Where it comes from.
    pub source: SourceIdentity,
    /// What has been applied.
    pub applied: SourceLsn,
    /// The last transaction that was.
    pub commit_lsn: Option<SourceLsn>,
    /// When the source committed it.
    pub commit_time: Option<Timestamp>,
    /// Every table has arrived.
    pub complete: bool,
    /// Somebody applies.
    pub works: bool,
    /// What it last said of itself.
    pub detail: Option<String>,
}

/// All nodes.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Observed {
    /// By name.
    pub nodes: BTreeMap<String, Sight>,
}

impl Observed {
    /// A node that answers.
    #[must_use]
    pub fn seen(&self, node: &str) -> Option<&Seen> {
        match self.nodes.get(node) {
            Some(Sight::Seen(seen)) => Some(seen),
            Some(Sight::Unreachable(_)) | None => None,
        }
    }

    /// What a node says of the role, if it answers and was initialised.
    #[must_use]
    pub fn record(&self, node: &str) -> Option<&NodeRecord> {
        self.seen(node)?.record.as_ref()
    }

    /// Every node that answers.
    pub fn all_seen(&self) -> impl Iterator<Item = (&str, &Seen)> {
        self.nodes.iter().filter_map(|(name, sight)| match sight {
            Sight::Seen(seen) => Some((name.as_str(), &**seen)),
            Sight::Unreachable(_) => None,
        })
    }

    /// What each of them says of the role.
    #[must_use]
    pub fn claims(&self) -> Vec<Claim> {
        let records = self.all_seen().filter_map(|(_, seen)| seen.record.as_ref());
        records.map(|record| Claim { epoch: record.epoch, primary: record.primary.clone() }).collect()
    }
}

/// A session for the work of a hand-over. Ordinary triggers and rules do not stand in its way.
pub(crate) async fn connect(cluster: &Cluster, node: &str) -> Result<SqlSession, HandoverError> {
    connect_with(cluster, node, &[]).await
}

/// The same with more settings.
pub(crate) async fn connect_with(
    cluster: &Cluster,
    node: &str,
    more: &[(&str, &str)],
) -> Result<SqlSession, HandoverError> {
    let Some(conf) = cluster.nodes.get(node) else {
        // Whoever asks has looked the name up.
        return Err(HandoverError::Waited(format!("the configuration names no node {node}")));
    };
    // A lock that somebody keeps must not keep a hand-over for ever; the fence has limits of its own.
    let settings = SessionSettings::for_values("relevo_handover")
        .with("synchronous_commit", "local")
        .with("lock_timeout", LOCK_TIMEOUT);
    let settings = more.iter().fold(settings, |settings, (name, value)| settings.with(name, value));
    let dialed = timeout(ANSWER_LIMIT, connect_sql(&conf.info, Side::Source, &settings)).await;
    let session = dialed
        .map_err(|_| HandoverError::Waited(format!("node {node} does not answer")))?
        .map_err(|source| HandoverError::Connect { node: node.to_owned(), source: Box::new(source) })?;
    // A role that may not do this is no role for a standby, which is said where it applies; here it only keeps the triggers
    // of users, event triggers too, from acting when guards are made.
    match act_as_replica(&session, ReplicaRole::Session).await {
        Err(error) if error.as_db_error().is_none() => {
            Err(HandoverError::sql(node, "setting up the session")(error))
        }
        _ => Ok(session),
    }
}

pub(crate) fn identity(facts: &ServerFacts) -> SourceIdentity {
    SourceIdentity {
        system_id: facts.system_id.clone(),
        timeline: facts.timeline,
        database: facts.database.clone(),
    }
}

/// Looks at every node, side by side.
pub async fn observe(cluster: &Cluster) -> Observed {
    let mut looks = JoinSet::new();
    for node in cluster.nodes.keys() {
        let (cluster, node) = (cluster.clone(), node.clone());
        looks.spawn(async move {
            let sight = observe_one(&cluster, &node).await;
            (node, sight)
        });
    }
    let mut nodes = BTreeMap::new();
    while let Some(look) = looks.join_next().await {
        if let Ok((node, sight)) = look {
            nodes.insert(node, sight);
        }
    }
    Observed { nodes }
}

/// Looks at one node.
pub async fn observe_one(cluster: &Cluster, node: &str) -> Sight {
    match timeout(ANSWER_LIMIT, look(cluster, node)).await {
        Ok(Ok(seen)) => Sight::Seen(Box::new(seen)),
        Ok(Err(error)) => Sight::Unreachable(error.to_string()),
        Err(_) => Sight::Unreachable(format!("node {node} does not answer")),
    }
}

async fn look(cluster: &Cluster, node: &str) -> Result<Seen, HandoverError> {
    let session = connect(cluster, node).await?;
    see(cluster, node, &session).await
}

pub(crate) async fn see(cluster: &Cluster, node: &str, session: &SqlSession) -> Result<Seen, HandoverError> {
    let facts = relevo_catalog::server(session).await.map_err(HandoverError::catalog(node))?;
    let row = session
        .query_one(sql::FACTS, &[])
        .await
        .map_err(HandoverError::sql(node, "looking at the server"))?;
    let slots =
        session.query(sql::SLOTS, &[]).await.map_err(HandoverError::sql(node, "looking at the slots"))?;
    let mut seen = Seen {
        identity: identity(&facts),
        record: None,
        wal_lsn: SourceLsn::new(row.get::<_, PgLsn>(0).into()),
        in_recovery: facts.in_recovery,
        prepared_transactions: row.get::<_, i64>(1).unsigned_abs(),
        out_of_reach: guard::out_of_reach(session, node).await?,
        owns_database: row.get(2),
        superuser: row.get(3),
        flow: None,
        slots: slots.iter().map(|row| (row.get(0), SourceLsn::new(row.get::<_, PgLsn>(1).into()))).collect(),
        handovers: Vec::new(),
    };
    let failed = || HandoverError::state(node);
    let version = state::installed_version(&**session).await.map_err(failed())?;
    if version != Some(state::VERSION) {
        return Ok(seen);
    }
    seen.record = state::node(&**session).await.map_err(failed())?;
    seen.handovers = state::handovers(&**session).await.map_err(failed())?;
    if seen.record.as_ref().is_some_and(|record| record.primary == node) {
        // What it had from others ended when it got the role.
        return Ok(seen);
    }
    let flow = cluster.flow_into(node)?;
    let Some(progress) = state::progress(&**session, &flow).await.map_err(failed())? else {
        return Ok(seen);
    };
    let record = state::flow(&**session, &flow).await.map_err(failed())?;
    let (_, away) = state::table_counts(&**session, &flow).await.map_err(failed())?;
    let works = session
        .query_one(sql::APPLIES, &[&flow.lock_key()])
        .await
        .map_err(HandoverError::sql(node, "looking whether somebody applies"))?;
    seen.flow = Some(FlowSight {
        source: progress.source,
        applied: progress.progress.applied,
        commit_lsn: progress.progress.commit_lsn,
        commit_time: progress.progress.commit_time,
        complete: record.as_ref().is_some_and(|record| record.copied) && away == 0,
        works: works.get(0),
        detail: record.and_then(|record| record.detail),
    });
    Ok(seen)
}
