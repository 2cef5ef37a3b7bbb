//! Many commands, each of which sees only some of the nodes and may be killed after any step, with the Relevos beside the nodes
//! in between: under no epoch do two nodes ever accept writes.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use relevo_model::{SourceLsn, Timestamp};
use relevo_state::{HandoverKind, HandoverRecord, HandoverState};

use super::tests::{flow, identity, observed, record, seen, slots};
use super::{Plan, Step, failover, rejoin, switchover};
use crate::{Claim, Observed, Seen, Stand, stand};

const NAMES: [&str; 3] = ["a", "b", "c"];

/// Somebody does something, and sees these nodes.
#[derive(Debug, Clone)]
struct Act {
    sees: [bool; 3],
    what: What,
    /// Killed after so many steps.
    steps: usize,
}

#[derive(Debug, Clone)]
enum What {
    Switchover(usize),
    Failover(usize, bool),
    Rejoin(usize),
    /// The Relevo beside a node, which always sees its own.
    Relevo(usize),
}

fn any_act() -> impl Strategy<Value = Act> {
    let what = prop_oneof![
        (0..3_usize).prop_map(What::Switchover),
        (0..3_usize, any::<bool>()).prop_map(|(to, force)| What::Failover(to, force)),
        (0..3_usize).prop_map(What::Rejoin),
        (0..3_usize).prop_map(What::Relevo),
    ];
    (prop::array::uniform3(prop::bool::weighted(0.7)), what, 0..12_usize)
        .prop_map(|(sees, what, steps)| Act { sees, what, steps })
}

/// The nodes, and who has ever accepted writes under which epoch.
struct World {
    nodes: BTreeMap<String, Seen>,
    accepted: BTreeMap<u64, BTreeSet<String>>,
}

impl World {
    fn new() -> Self {
        let node = |name: &str| {
            let standby = name != "a";
            let mut seen = seen(name, record(name, 1, "a", standby), standby.then(|| flow("a", 900)));
            seen.slots = slots(NAMES);
            (name.to_owned(), seen)
        };
        let mut world = Self { nodes: NAMES.map(node).into(), accepted: BTreeMap::new() };
        world.write();
        world
    }

    fn write(&mut self) {
        for (name, seen) in &self.nodes {
            let record = seen.record.as_ref().unwrap();
            if record.primary == *name && !record.fenced {
                self.accepted.entry(record.epoch).or_default().insert(name.clone());
            }
        }
    }

    fn observe(&self, sees: [bool; 3]) -> Observed {
        let sight = |(name, sees): (&'static str, bool)| (name, sees.then(|| self.nodes[name].clone()));
        observed(NAMES.into_iter().zip(sees).map(sight))
    }

    fn act(&mut self, act: &Act) {
        let observed = self.observe(act.sees);
        let plan = match act.what {
            What::Switchover(to) => switchover(&observed, NAMES[to]),
            What::Failover(to, force) => failover(&observed, NAMES[to], force),
            What::Rejoin(node) => rejoin(&observed, NAMES[node]),
            What::Relevo(me) => return self.look(NAMES[me], &observed),
        };
        let Ok(plan) = plan else { return };
        for step in plan.steps.iter().take(act.steps) {
            if !self.take(&plan, step, &observed) {
                return;
            }
            self.write();
        }
    }

    /// Takes a step, as far as it concerns who may write; `false`: it fails.
    fn take(&mut self, plan: &Plan, step: &Step, observed: &Observed) -> bool {
        match step {
            Step::Fence { node, promised_to } => self.fence(node, promised_to.clone()),
            Step::Unfence { node } => {
                let record = self.nodes.get_mut(node).unwrap().record.as_mut().unwrap();
                (record.fenced, record.fence_lsn, record.promised_to) = (false, None, None);
            }
            Step::Promote { node, from, epoch } => {
                let handover = HandoverRecord {
                    state: HandoverState::Done,
                    old_system_id: self.nodes[node].flow.as_ref().map(|flow| flow.source.system_id.clone()),
                    old_lsn: Some(SourceLsn::new(900)),
                    new_lsn: Some(SourceLsn::new(500)),
                    ..HandoverRecord::begun(
                        plan.kind,
                        *epoch,
                        (Some(from), node),
                        ("", Timestamp::from_unix_us(0)),
                    )
                };
                let seen = self.nodes.get_mut(node).unwrap();
                seen.record = Some(record(node, *epoch, node, false));
                seen.flow = None;
                seen.handovers.insert(0, handover);
            }
            Step::Follow { node, primary }
            | Step::Undo { node, primary }
            | Step::Resync { node, primary } => {
                if observed.seen(node).is_none() || observed.seen(primary).is_none() {
                    return false;
                }
                self.follow(node, primary);
            }
            Step::Arm { on, .. } | Step::Retire { on, .. } => return observed.seen(on).is_some(),
            _ => {}
        }
        true
    }

    fn fence(&mut self, node: &str, promised_to: Option<String>) {
        let record = self.nodes.get_mut(node).unwrap().record.as_mut().unwrap();
        (record.fenced, record.fence_lsn, record.promised_to) =
            (true, Some(SourceLsn::new(900)), promised_to);
    }

    fn follow(&mut self, node: &str, primary: &str) {
        let lead = self.nodes[primary].record.clone().unwrap();
        if lead.primary != primary {
            return;
        }
        let follower = self.nodes.get_mut(node).unwrap();
        let fenced = follower.record.as_ref().unwrap().fenced;
        follower.record = Some(record(node, lead.epoch, primary, fenced));
        follower.flow = Some(crate::FlowSight { source: identity(primary), ..flow(primary, 900) });
    }

    /// What the Relevo beside a node does.
    fn look(&mut self, me: &str, observed: &Observed) {
        let claim = |seen: &Seen| {
            let record = seen.record.as_ref().unwrap();
            Claim { epoch: record.epoch, primary: record.primary.clone() }
        };
        let own = claim(&self.nodes[me]);
        let others: Vec<Claim> =
            observed.all_seen().filter(|(name, _)| *name != me).map(|(_, seen)| claim(seen)).collect();
        match stand(me, Some(&own), &others) {
            Stand::Stale { .. } | Stand::Contested { .. } if own.primary == me => self.fence(me, None),
            _ => {}
        }
        self.write();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn under_no_epoch_two_nodes_ever_accept_writes(acts in prop::collection::vec(any_act(), 1..16)) {
        let mut world = World::new();
        for act in &acts {
            world.act(act);
            for (epoch, nodes) in &world.accepted {
                prop_assert!(nodes.len() == 1, "epoch {}: {:?} after {:?}", epoch, nodes, act);
            }
        }
    }
}

/// The acts above reach what they are about: roles that move again and again, and come back.
#[test]
fn the_acts_let_the_role_move() {
    let mut world = World::new();
    let all = |what| Act { sees: [true; 3], what, steps: 12 };
    for (what, epoch) in [(What::Switchover(1), 2), (What::Failover(2, true), 3), (What::Switchover(0), 4)] {
        world.act(&all(what));
        assert_eq!(world.accepted.keys().max(), Some(&epoch), "{:?}", world.accepted);
    }
    let kinds = ["b", "c", "a"].map(|name| world.nodes[name].handovers[0].kind);
    assert_eq!(kinds, [HandoverKind::Switchover, HandoverKind::Failover, HandoverKind::Switchover]);
}
