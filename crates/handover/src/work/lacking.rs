//! A standby that was behind the new primary at a failover gets what it lacks from the slot that was armed for it there.
//!
//! The slot is read once, to its end, to find the position from which on it holds just that; nothing is confirmed by this. Then
//! the standby follows from that position, in one transaction, and gets the rest as it gets everything else.

mod search;

use relevo_model::{ChangeSource as _, Fault as _, FaultClass, FlowName, SourceEvent, SourceLsn};
use relevo_running::RunningStore;
use relevo_source::{PgSource, SourceError, StartOptions};
use relevo_spool::SharedSpool;
use relevo_state::{self as state, HandoverRecord, TableRecord};
use tracing::info;

use self::search::Search;
use crate::guard::Place;
use crate::observe::Seen;
use crate::{Cluster, HandoverError};

/// What large transactions may take on the disk while they are read, and in memory.
const SPOOL_BYTES: u64 = 64 << 30;
const RUNNING_BYTES: u64 = 64 << 20;
/// How long somebody else may read the slot: the command and the Relevo beside the standby may both be at it.
const SLOT_WAIT: std::time::Duration = std::time::Duration::from_secs(5);

/// What was found of a standby that cannot have what it lacks, so that the slot is not read again and again: in which epoch,
/// and what it had.
#[derive(Debug, Default)]
pub struct Refused(Option<(u64, SourceLsn)>);

/// The two ends.
pub(super) struct Ends<'a> {
    pub(super) cluster: &'a Cluster,
    pub(super) node: (&'a str, &'a relevo_connect::SqlSession, &'a Seen),
    pub(super) primary: (&'a str, &'a relevo_connect::SqlSession, &'a Seen),
    pub(super) handover: &'a HandoverRecord,
}

impl Ends<'_> {
    /// From where on the new primary's slot holds just what the node lacks, and what the node has of the old one: what has to
    /// be so still when it follows. `None`: there is no such position.
    ///
    /// # Errors
    /// One of the two does not answer.
    pub(super) async fn find(
        &self,
        refused: &mut Refused,
    ) -> Result<Option<(SourceLsn, SourceLsn)>, HandoverError> {
        let Some(flow) = &self.node.2.flow else { return Ok(None) };
        let what = (self.handover.epoch, flow.applied);
        if refused.0 == Some(what) {
            return Ok(None);
        }
        let node = self.node.0;
        match self.search(flow.applied).await {
            Ok(Ok(from)) => Ok(Some((from, flow.applied))),
            Ok(Err(why)) => {
                info!(node, has = %flow.applied, "it cannot get what it lacks from the slot that was armed for it: {why}");
                refused.0 = Some(what);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    async fn search(&self, has: SourceLsn) -> Result<Result<SourceLsn, String>, HandoverError> {
        let (node, _, _) = self.node;
        let (primary, session, lead) = self.primary;
        let flow = self.cluster.flow_into(node)?;
        let begin = lead.slots.get(&flow.slot()).copied();
        let (Some(begin), Some(end), Some(system_id)) =
            (begin, self.handover.new_lsn, &self.handover.old_system_id)
        else {
            return Ok(Err("there is no slot".to_owned()));
        };
        if self.tables(self.node).await? != self.tables(self.primary).await? {
            return Ok(Err("the two do not hold the same tables".to_owned()));
        }
        let into = self.cluster.flow_into(primary)?;
        let stored = state::progress(&**session, &into).await.map_err(HandoverError::state(primary))?;
        let Some(stored) = stored.filter(|stored| stored.source.system_id == *system_id) else {
            return Ok(Err(format!("{primary} does not know what it had")));
        };
        let before = SourceLsn::new(stored.progress.applied.as_u64().saturating_sub(1));
        let last = stored.progress.commit_lsn.unwrap_or(before);
        // So that something comes behind it, and the end is seen.
        let database = &lead.identity.database;
        Place { client: session, node: primary, database, superuser: lead.superuser }.mark().await?;
        let search = Search::new(system_id, has, begin);
        match self.read(&flow, search, (begin, end)).await {
            Ok(search) => Ok(search.end(end, last).map_err(|nowhere| nowhere.to_string())),
            // Whoever reads it does the same, or follows already.
            Err(error) if error.class() == FaultClass::Transient => Err(HandoverError::slot(primary)(error)),
            Err(error) => Ok(Err(error.to_string())),
        }
    }

    /// The tables that the flow into a node has brought, and whether all of each is replicated.
    async fn tables(
        &self,
        (node, session, _): (&str, &relevo_connect::SqlSession, &Seen),
    ) -> Result<Vec<(String, String, bool)>, HandoverError> {
        let flow = self.cluster.flow_into(node)?;
        let tables = state::tables(&**session, &flow).await.map_err(HandoverError::state(node))?;
        let what = |table: TableRecord| (table.schema, table.name, table.insert_only);
        let mut tables: Vec<_> = tables.into_iter().map(what).collect();
        tables.sort();
        Ok(tables)
    }

    /// Takes all that was committed before the new primary took the role.
    async fn read(
        &self,
        flow: &FlowName,
        mut search: Search,
        (begin, end): (SourceLsn, SourceLsn),
    ) -> Result<Search, SourceError> {
        let (primary, _, lead) = self.primary;
        let info = self.cluster.nodes[primary].info.clone();
        let name = format!("relevo-{flow}-lacks-{}", std::process::id());
        let spool = SharedSpool::among_others(std::env::temp_dir().join(name), SPOOL_BYTES);
        let options = StartOptions {
            slot_wait: SLOT_WAIT,
            ..StartOptions::new(info, flow, lead.identity.clone(), begin)
        };
        let mut source = PgSource::start(options, RunningStore::new(spool, RUNNING_BYTES)).await?;
        loop {
            match source.next().await? {
                SourceEvent::Part(part) if part.first && part.header.commit_lsn >= end => break,
                SourceEvent::Part(part) if search.take(&part) => {}
                SourceEvent::Part(_) => break,
                SourceEvent::Keepalive(position) if position >= end => break,
                SourceEvent::Keepalive(_) | SourceEvent::Ahead(_) => {}
            }
        }
        // Nothing was confirmed. The slot is free once the connection has ended.
        source.close().await?;
        Ok(search)
    }
}
