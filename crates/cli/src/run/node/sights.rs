//! What the live page shows of all nodes: who has the role, who answers, who reads from the primary, and the last hand-overs.
//! It is a courtesy: whatever cannot be found out is left out, and nothing waits for it.

use std::collections::BTreeMap;
use std::time::Duration;

use relevo_connect::SqlSession;
use relevo_handover::{Claim, Cluster, Word, last_handovers};
use relevo_source::inspect_slot;
use relevo_telemetry::{Heard, NodeSight, ReaderStatus, Role};
use tokio::time::{Instant, timeout};
use tracing::debug;

use crate::run::around;
use crate::run::board::FlowBoard;

/// How often it is shown what the nodes say.
const SHOW_INTERVAL: Duration = Duration::from_secs(1);
/// How often the slots of the others are looked at.
const SLOTS_INTERVAL: Duration = Duration::from_secs(2);
/// How often the last hand-overs are read when none is known to have happened.
const HANDOVERS_INTERVAL: Duration = Duration::from_secs(10);
/// How many hand-overs are shown.
const HANDOVERS_SHOWN: i64 = 10;
/// Nobody waits longer for what is only shown.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);

/// What was seen, and when.
#[derive(Default)]
pub struct Sights {
    shown: Option<Instant>,
    /// How the others read from here, while this node is the primary.
    readers: BTreeMap<String, ReaderStatus>,
    readers_seen: Option<Instant>,
    handovers_seen: Option<(Instant, u64)>,
}

/// Whether something that was done then is to be done again.
fn is_due(last: Option<Instant>, interval: Duration) -> bool {
    last.is_none_or(|at| at.elapsed() >= interval)
}

impl Sights {
    /// Shows what the nodes have said; `source`: whom this node follows.
    pub fn show(
        &mut self,
        cluster: &Cluster,
        me: &str,
        (source, words): (Option<&str>, &BTreeMap<String, (Word, Duration)>),
        board: &FlowBoard,
    ) {
        if is_due(self.shown, SHOW_INTERVAL) {
            self.shown = Some(Instant::now());
            board.nodes_seen(sights(cluster, me, source, words, &self.readers));
        }
    }

    /// The node's own database does not answer.
    pub fn lost(&mut self, board: &FlowBoard) {
        self.readers.clear();
        board.standby_slots_seen(&self.readers);
    }

    /// Looks at what only the node's own database knows; schema `relevo` is there. `epoch`: the present one.
    pub async fn look(
        &mut self,
        (cluster, me): (&Cluster, &str),
        (epoch, is_primary): (u64, bool),
        session: &SqlSession,
        board: &FlowBoard,
    ) {
        if !is_primary {
            self.readers.clear();
        }
        if is_due(self.readers_seen, SLOTS_INTERVAL) {
            self.readers_seen = Some(Instant::now());
            let readers = timeout(ANSWER_LIMIT, readers(cluster, me, session)).await.unwrap_or_default();
            // A former primary keeps WAL for them too.
            board.standby_slots_seen(&readers);
            if is_primary {
                self.readers = readers;
            }
        }
        let news = self.handovers_seen.is_none_or(|(_, known)| known != epoch);
        if news || is_due(self.handovers_seen.map(|(at, _)| at), HANDOVERS_INTERVAL) {
            self.handovers_seen = Some((Instant::now(), epoch));
            match timeout(ANSWER_LIMIT, last_handovers(session, me, HANDOVERS_SHOWN)).await {
                Ok(Ok(handovers)) => board.handovers_seen(&handovers),
                Ok(Err(error)) => debug!(%error, "the last hand-overs could not be read"),
                Err(_) => {}
            }
        }
    }
}

/// How each of the others reads from the primary.
async fn readers(cluster: &Cluster, me: &str, session: &SqlSession) -> BTreeMap<String, ReaderStatus> {
    let mut readers = BTreeMap::new();
    for node in cluster.others(me) {
        let Ok(flow) = cluster.flow_into(node) else { continue };
        match inspect_slot(session, &flow.slot()).await {
            Ok(Some(slot)) => {
                let reader = ReaderStatus { active: slot.active, slot: around::slot(&flow.slot(), &slot) };
                readers.insert(node.to_owned(), reader);
            }
            Ok(None) => {}
            Err(error) => debug!(%error, node, "the slot of a node could not be looked at"),
        }
    }
    readers
}

/// Every node of the file, the primary first, then by name.
fn sights(
    cluster: &Cluster,
    me: &str,
    source: Option<&str>,
    words: &BTreeMap<String, (Word, Duration)>,
    readers: &BTreeMap<String, ReaderStatus>,
) -> Vec<NodeSight> {
    let claim = |node: &str| words.get(node).and_then(|(word, _)| word.claim.as_ref());
    let newest: Option<&Claim> = words.keys().filter_map(|node| claim(node)).max_by_key(|claim| claim.epoch);
    let role = |node: &str| match newest {
        Some(newest) if newest.primary == node => Some(Role::Primary),
        // Whoever has said nothing yet may be anything.
        Some(_) if claim(node).is_some() => Some(Role::Standby),
        Some(_) | None => None,
    };
    let mut sights: Vec<NodeSight> = (cluster.nodes.iter())
        .map(|(node, conf)| NodeSight {
            name: node.clone(),
            place: around::place(&conf.info),
            role: role(node),
            epoch: claim(node).map(|claim| claim.epoch),
            here: node == me,
            source: source.filter(|_| node == me).map(str::to_owned),
            heard: words.get(node).map_or(Heard::Never, |(_, ago)| Heard::Ago(*ago)),
            reader: readers.get(node).cloned(),
        })
        .collect();
    sights.sort_by_key(|sight| sight.role != Some(Role::Primary));
    sights
}

#[cfg(test)]
mod tests {
    use relevo_catalog::Selection;
    use relevo_handover::NodeConf;
    use relevo_model::SourceIdentity;

    use super::*;

    fn cluster() -> Cluster {
        let conf = |name: &str| NodeConf { info: format!("postgres://u@db-{name}/shop").parse().unwrap() };
        let nodes = ["a", "b", "c"].map(|name| (name.to_owned(), conf(name)));
        Cluster::new("shop".to_owned(), nodes.into(), Selection::default(), false).unwrap()
    }

    fn word(epoch: u64, primary: &str) -> (Word, Duration) {
        let identity = SourceIdentity { system_id: "1".to_owned(), timeline: 1, database: "shop".to_owned() };
        let claim = (epoch > 0).then(|| Claim { epoch, primary: primary.to_owned() });
        (Word { identity, claim }, Duration::from_secs(epoch))
    }

    fn seen(
        words: &[(&str, u64, &str)],
        source: Option<&str>,
    ) -> Vec<(String, Option<Role>, bool, Option<String>)> {
        let words = words.iter().map(|(node, epoch, primary)| ((*node).to_owned(), word(*epoch, primary)));
        let sights = sights(&cluster(), "b", source, &words.collect(), &BTreeMap::new());
        sights.into_iter().map(|sight| (sight.name, sight.role, sight.here, sight.source)).collect()
    }

    #[test]
    fn the_highest_epoch_says_who_the_primary_is_and_nobody_is_guessed() {
        // Node a has not heard of it yet; c has never answered.
        let all = seen(&[("a", 1, "a"), ("b", 2, "b")], None);
        let name = |sight: &(String, Option<Role>, bool, Option<String>)| (sight.0.clone(), sight.1, sight.2);
        assert_eq!(
            all.iter().map(name).collect::<Vec<_>>(),
            [
                ("b".to_owned(), Some(Role::Primary), true),
                ("a".to_owned(), Some(Role::Standby), false),
                ("c".to_owned(), None, false)
            ]
        );
        assert!(seen(&[("a", 0, "")], None).iter().all(|sight| sight.1.is_none()), "nobody has said");
        let following = seen(&[("a", 1, "a"), ("b", 1, "a"), ("c", 1, "a")], Some("a"));
        assert_eq!(following[1], ("b".to_owned(), Some(Role::Standby), true, Some("a".to_owned())));
        assert_eq!((following[2].3.as_deref(), following[0].3.as_deref()), (None, None));
        // A primary that never answered has the role all the same.
        assert_eq!(seen(&[("b", 3, "a")], None)[0].1, Some(Role::Primary));
    }
}
