//! Slots that a standby keeps armed for the other standbys, for the case that it becomes the primary by a failover: whoever is
//! behind it then gets from them what it lacks.
//!
//! The Relevo beside a standby makes such a slot, with the publications that belong to it, and moves it on as the other standby
//! comes forward. It is no more than an offer: what the slot really holds is told by the transactions in it (see
//! `work::lacking`), so nothing here can make anybody lose a row. What may not enter: what becomes of it at a failover.

mod pairs;

use std::collections::BTreeMap;
use std::time::Duration;

use relevo_connect::SqlSession;
use relevo_model::{FlowName, SourceLsn};
use relevo_snapshot::Existing;
use relevo_source::{SlotInfo, inspect_slot};
use relevo_state::{self as state, FlowLock, NodeRecord};
use tokio::time::timeout;
use tokio_postgres::types::PgLsn;
use tracing::{info, warn};

use self::pairs::Pairs;
use crate::observe::{connect, see};
use crate::work::tables_here;
use crate::{Cluster, HandoverError, sql};

/// A slot is moved when it would give up so much WAL, or when it was not looked at for long.
const STRIDE_BYTES: u64 = 16 << 20;
/// Every so many looks a slot is moved however little it gives up, and its publications are compared with the tables.
const LOOKS: u32 = 10;
/// A primary that says nothing for so long counts as one that cannot be reached.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// A standby that lacks more of the limit than this part of it gets no new slot: it would hardly serve it.
const NEAR: u64 = 4;

/// The armed slot for a flow. Another name than that of the slot which the flow reads, so that neither is taken for the other.
pub(crate) fn armed_slot(flow: &FlowName) -> String {
    format!("relevo_armed_{flow}")
}

/// Whether the publications of the flow on this node are what these tables ask for.
pub(crate) async fn published_right(
    cluster: &Cluster,
    node: &str,
    session: &SqlSession,
    flow: &FlowName,
) -> Result<bool, HandoverError> {
    let tables = tables_here(cluster, node, session).await?;
    let findings =
        relevo_snapshot::publish(session, flow, &tables, cluster.via_partition_root, Existing::Report)
            .await
            .map_err(HandoverError::snapshot(node))?;
    // That one is about the tables themselves.
    Ok(findings.iter().all(|finding| finding.check == "partition_identity"))
}

/// Drops the armed slots of this database but some: it is the primary and needs none, or it is a standby, and another node is the
/// primary.
pub(crate) async fn disarm(session: &SqlSession, node: &str, but: &[String]) -> Result<(), HandoverError> {
    let slots = session.query(sql::ARMED_SLOTS, &[]).await;
    let slots = slots.map_err(HandoverError::sql(node, "looking at the slots"))?;
    for slot in slots.iter().map(|row| row.get::<_, String>(0)).filter(|slot| !but.contains(slot)) {
        drop_slot(session, node, &slot).await?;
    }
    Ok(())
}

/// Nobody reads an armed slot; while somebody copies it, it cannot be dropped, which is tried again.
async fn drop_slot(session: &SqlSession, node: &str, slot: &str) -> Result<(), HandoverError> {
    let dropped = session.execute(sql::DROP_SLOT, &[&slot]).await;
    dropped.map(drop).map_err(HandoverError::sql(node, "dropping an armed slot"))
}

/// What is to be done with the slot for another standby.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Act {
    Nothing,
    Make,
    Drop(String),
    Advance(SourceLsn),
}

/// How another standby reads from the primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Reader {
    active: bool,
    has: SourceLsn,
}

/// Decides by what was seen. `here`: what this node has of the primary; `reached`: how far the slot may move.
fn decide(
    limit_bytes: u64,
    slot: Option<&SlotInfo>,
    (reader, here): (Option<Reader>, SourceLsn),
    (reached, due): (Option<SourceLsn>, bool),
) -> Act {
    let Some(slot) = slot else {
        let near = |reader: Reader| here.bytes_since(reader.has) <= limit_bytes / NEAR;
        let serves = reader.is_some_and(|reader| reader.active && near(reader));
        return if serves { Act::Make } else { Act::Nothing };
    };
    if let Some(reason) = slot.lost() {
        return Act::Drop(format!("the server has given it up: {reason}"));
    }
    let retained = slot.retained_bytes.unwrap_or_default().unsigned_abs();
    if retained > limit_bytes {
        return Act::Drop(format!(
            "it keeps {retained} bytes of WAL, and handover.armed_wal is {limit_bytes}"
        ));
    }
    let confirmed = slot.confirmed_flush_lsn.unwrap_or_default();
    match reached.filter(|reached| *reached > confirmed) {
        Some(to) if due || to.bytes_since(confirmed) >= STRIDE_BYTES => Act::Advance(to),
        _ => Act::Nothing,
    }
}

/// Keeps the slots of one standby.
#[derive(Debug)]
pub struct Arming {
    cluster: Cluster,
    me: String,
    limit_bytes: u64,
    primary: Option<(String, SqlSession)>,
    pairs: Pairs,
    /// The server that the pairs are about.
    source: Option<String>,
    looks: u32,
    /// What was said last of each standby, so that it is said once.
    told: BTreeMap<String, String>,
}

impl Arming {
    /// For a node; a slot that keeps more than `limit_bytes` of WAL is dropped, and with 0 none is made.
    #[must_use]
    pub fn new(cluster: &Cluster, me: &str, limit_bytes: u64) -> Self {
        Self {
            cluster: cluster.clone(),
            me: me.to_owned(),
            limit_bytes,
            primary: None,
            pairs: Pairs::default(),
            source: None,
            looks: 0,
            told: BTreeMap::new(),
        }
    }

    /// A session on the own node for [`Arming::look`].
    ///
    /// # Errors
    /// The node does not answer.
    pub async fn connect(&self) -> Result<SqlSession, HandoverError> {
        let session = connect(&self.cluster, &self.me).await?;
        session.batch_execute(sql::IMPATIENT).await.map_err(self.failed("setting up the session"))?;
        Ok(session)
    }

    fn failed(&self, action: &str) -> impl FnOnce(tokio_postgres::Error) -> HandoverError {
        HandoverError::sql(&self.me, action)
    }

    /// Looks at what there is, and does what is to be done. Returns the standbys for which a slot is armed, each with the WAL
    /// that it keeps, in bytes.
    ///
    /// # Errors
    /// One of the nodes does not answer, or does not let us.
    pub async fn look(&mut self, own: &SqlSession) -> Result<BTreeMap<String, u64>, HandoverError> {
        let failed = || HandoverError::state(&self.me);
        if state::installed_version(&**own).await.map_err(failed())? != Some(state::VERSION) {
            return Ok(BTreeMap::new());
        }
        let Some(record) = state::node(&**own).await.map_err(failed())? else { return Ok(BTreeMap::new()) };
        let others: Vec<String> =
            self.cluster.others(&self.me).filter(|node| *node != record.primary).map(str::to_owned).collect();
        if record.primary == self.me || others.is_empty() || self.limit_bytes == 0 {
            self.primary = None;
            disarm(own, &self.me, &[]).await?;
            return Ok(BTreeMap::new());
        }
        let flows = others.iter().map(|other| Ok(armed_slot(&self.cluster.flow_into(other)?)));
        let kept = flows.collect::<Result<Vec<_>, HandoverError>>()?;
        disarm(own, &self.me, &kept).await?;
        self.looks = self.looks.wrapping_add(1);
        let here = match self.sample(own, &record).await? {
            Some(here) => here,
            // Nothing can be made or moved now; what keeps too much goes all the same.
            None => SourceLsn::ZERO,
        };
        for other in &others {
            if let Err(error) = self.serve(own, (&record.primary, other), here).await {
                self.tell(other, format!("the armed slot for {other} could not be looked after: {error}"));
            }
        }
        let slots = own.query(sql::ARMED_RETAINED, &[]).await;
        let slots = slots.map_err(HandoverError::sql(&self.me, "reading the armed slots"))?;
        let retained: BTreeMap<String, i64> = slots.iter().map(|row| (row.get(0), row.get(1))).collect();
        let of = |(other, slot): (&String, &String)| {
            Some((other.clone(), u64::try_from(*retained.get(slot)?).unwrap_or_default()))
        };
        Ok(others.iter().zip(&kept).filter_map(of).collect())
    }

    /// A pair of positions, if this node follows the primary with all its tables.
    async fn sample(
        &mut self,
        own: &SqlSession,
        record: &NodeRecord,
    ) -> Result<Option<SourceLsn>, HandoverError> {
        let flow = self.cluster.flow_into(&self.me)?;
        let me = self.me.clone();
        let failed = || HandoverError::state(&me);
        let (_, away) = state::table_counts(&**own, &flow).await.map_err(failed())?;
        let copied = state::flow(&**own, &flow).await.map_err(failed())?.is_some_and(|flow| flow.copied);
        let Some(stored) = state::progress(&**own, &flow).await.map_err(failed())? else { return Ok(None) };
        if away > 0 || !copied || !self.reaches(record, &stored.source).await {
            return Ok(None);
        }
        if self.source.as_ref() != Some(&stored.source.system_id) {
            // Positions of another server.
            self.pairs = Pairs::default();
            self.source = Some(stored.source.system_id.clone());
        }
        if self.pairs.last() == Some(stored.progress.applied) {
            return Ok(Some(stored.progress.applied));
        }
        let pair = state::sample_progress(&**own, &flow).await.map_err(failed())?;
        let Some((here, there)) = pair else { return Ok(None) };
        self.pairs.note(here, there);
        Ok(Some(there))
    }

    /// Whether the primary answers, and is the source of what this node has.
    async fn reaches(&mut self, record: &NodeRecord, source: &relevo_model::SourceIdentity) -> bool {
        if self.primary.as_ref().is_some_and(|(name, _)| *name != record.primary) {
            self.primary = None;
        }
        if self.primary.is_none() {
            let Ok(session) = connect(&self.cluster, &record.primary).await else { return false };
            match see(&self.cluster, &record.primary, &session).await {
                Ok(seen) if seen.identity.system_id == source.system_id => {
                    self.primary = Some((record.primary.clone(), session));
                }
                _ => return false,
            }
        }
        true
    }

    async fn reader(&mut self, flow: &FlowName) -> Option<Reader> {
        let (_, session) = self.primary.as_ref()?;
        match timeout(ANSWER_LIMIT, session.query_opt(sql::READER, &[&flow.slot()])).await {
            Ok(Ok(row)) => row
                .map(|row| Reader { active: row.get(0), has: SourceLsn::new(row.get::<_, PgLsn>(1).into()) }),
            Ok(Err(_)) | Err(_) => {
                self.primary = None;
                None
            }
        }
    }

    /// Looks after the slot for one other standby, unless a hand-over is at it.
    async fn serve(
        &mut self,
        own: &SqlSession,
        (primary, other): (&str, &str),
        here: SourceLsn,
    ) -> Result<(), HandoverError> {
        let flow = self.cluster.flow_into(other)?;
        let me = self.me.clone();
        let failed = || HandoverError::state(&me);
        if !state::try_lock(&**own, &flow, FlowLock::Arm).await.map_err(failed())? {
            return Ok(());
        }
        let done = self.serve_locked(own, (primary, other), &flow, here).await;
        state::unlock(&**own, &flow, FlowLock::Arm).await.map_err(failed())?;
        done
    }

    async fn serve_locked(
        &mut self,
        own: &SqlSession,
        (primary, other): (&str, &str),
        flow: &FlowName,
        here: SourceLsn,
    ) -> Result<(), HandoverError> {
        let me = self.me.clone();
        // The role may have come here since: then a slot is none of ours any more.
        if state::node(&**own)
            .await
            .map_err(HandoverError::state(&me))?
            .is_none_or(|now| now.primary != primary)
        {
            return Ok(());
        }
        let name = armed_slot(flow);
        let slot = inspect_slot(own, &name).await.map_err(HandoverError::slot(&me))?;
        let reader = if here == SourceLsn::ZERO { None } else { self.reader(flow).await };
        let reached = reader.and_then(|reader| self.pairs.reached(reader.has));
        let due = self.looks.is_multiple_of(LOOKS);
        let act = decide(self.limit_bytes, slot.as_ref(), (reader, here), (reached, due));
        let moves = matches!(act, Act::Advance(_)) || (due && slot.is_some());
        if moves && !published_right(&self.cluster, &me, own, flow).await? {
            // What was written before a table was published is not in the slot.
            drop_slot(own, &me, &name).await?;
            return self.make(own, other, flow).await;
        }
        match act {
            Act::Nothing => {}
            Act::Make => self.make(own, other, flow).await?,
            Act::Drop(why) => {
                drop_slot(own, &me, &name).await?;
                self.tell(other, format!("the armed slot for {other} is dropped: {why}"));
            }
            Act::Advance(to) => {
                let to = PgLsn::from(to.as_u64());
                let moved = own.execute(sql::ADVANCE_SLOT, &[&name, &to]).await;
                moved.map(drop).map_err(HandoverError::sql(&me, "moving the armed slot"))?;
            }
        }
        Ok(())
    }

    /// Publications first: the slot decodes only for those that were there before it.
    async fn make(&mut self, own: &SqlSession, other: &str, flow: &FlowName) -> Result<(), HandoverError> {
        let me = self.me.clone();
        let tables = tables_here(&self.cluster, &me, own).await?;
        relevo_snapshot::publish(own, flow, &tables, self.cluster.via_partition_root, Existing::Replace)
            .await
            .map_err(HandoverError::snapshot(&me))?;
        let made = own.query_one(sql::CREATE_SLOT, &[&armed_slot(flow)]).await;
        made.map(drop).map_err(HandoverError::sql(&me, "making the armed slot"))?;
        self.told.remove(other);
        info!(node = me, standby = other, "a slot is armed for the case that this node becomes the primary");
        Ok(())
    }

    /// Says something if it is news.
    fn tell(&mut self, other: &str, text: String) {
        if self.told.get(other) != Some(&text) {
            warn!(node = self.me, "{text}");
            self.told.insert(other.to_owned(), text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn slot(confirmed: u64, retained: u64) -> SlotInfo {
        SlotInfo {
            confirmed_flush_lsn: Some(SourceLsn::new(confirmed)),
            retained_bytes: i64::try_from(retained).ok(),
            wal_status: Some("reserved".to_owned()),
            ..SlotInfo::default()
        }
    }

    fn reader(active: bool, has: u64) -> Option<Reader> {
        Some(Reader { active, has: SourceLsn::new(has) })
    }

    #[test]
    fn a_slot_is_made_for_a_standby_that_reads_and_is_near() {
        let here = SourceLsn::new(1000 * MIB);
        let made = |reader| decide(400 * MIB, None, (reader, here), (None, true));
        assert_eq!(made(reader(true, 950 * MIB)), Act::Make);
        assert_eq!(made(reader(true, 1100 * MIB)), Act::Make, "it may be ahead");
        for reader in [None, reader(false, 1000 * MIB), reader(true, 800 * MIB)] {
            assert_eq!(made(reader), Act::Nothing, "{reader:?}");
        }
    }

    #[test]
    fn a_slot_moves_in_strides_or_when_it_is_time_and_never_back() {
        let at = |reached: u64, due| {
            let reached = Some(SourceLsn::new(reached));
            decide(400 * MIB, Some(&slot(100, MIB)), (None, SourceLsn::ZERO), (reached, due))
        };
        assert_eq!(at(200, false), Act::Nothing);
        assert_eq!(at(200, true), Act::Advance(SourceLsn::new(200)));
        assert_eq!(at(100 + STRIDE_BYTES, false), Act::Advance(SourceLsn::new(100 + STRIDE_BYTES)));
        assert_eq!(at(100, true), Act::Nothing);
        assert_eq!(at(99, true), Act::Nothing);
    }

    #[test]
    fn a_slot_that_keeps_too_much_or_is_lost_goes_even_if_nobody_answers() {
        let act = |slot| decide(400 * MIB, Some(&slot), (None, SourceLsn::ZERO), (None, false));
        assert!(matches!(act(slot(1, 401 * MIB)), Act::Drop(why) if why.contains("armed_wal")));
        let lost = SlotInfo { wal_status: Some("lost".to_owned()), ..slot(1, 0) };
        assert!(matches!(act(lost), Act::Drop(why) if why.contains("lost")));
        assert_eq!(act(slot(1, 399 * MIB)), Act::Nothing);
    }
}
