//! Plans over observations: those that were thought of, and random ones.

use std::collections::BTreeMap;

use proptest::prelude::*;
use relevo_model::{SourceIdentity, SourceLsn, Timestamp};
use relevo_state::{HandoverKind, HandoverRecord, HandoverState, HookState, NodeRecord};

use super::{Inherited, Plan, Refusal, Step, failover, may_follow, next_epoch, rejoin, switchover};
use crate::{FlowSight, Observed, Seen, Sight};

pub(super) fn identity(node: &str) -> SourceIdentity {
    SourceIdentity { system_id: format!("system of {node}"), timeline: 1, database: "shop".to_owned() }
}

pub(super) fn record(node: &str, epoch: u64, primary: &str, fenced: bool) -> NodeRecord {
    let now = Timestamp::from_unix_us(0);
    NodeRecord {
        cluster: "shop".to_owned(),
        name: node.to_owned(),
        epoch,
        primary: primary.to_owned(),
        fenced,
        fence_lsn: None,
        promised_to: None,
        heartbeat_at: None,
        updated_at: now,
        now,
    }
}

pub(super) fn flow(source: &str, applied: u64) -> FlowSight {
    FlowSight {
        source: identity(source),
        applied: SourceLsn::new(applied),
        commit_lsn: Some(SourceLsn::new(applied - 8)),
        commit_time: None,
        complete: true,
        works: true,
        detail: None,
    }
}

pub(super) fn seen(node: &str, record: NodeRecord, flow: Option<FlowSight>) -> Seen {
    Seen {
        identity: identity(node),
        record: Some(record),
        wal_lsn: SourceLsn::new(1000),
        in_recovery: false,
        prepared_transactions: 0,
        out_of_reach: Vec::new(),
        owns_database: true,
        superuser: false,
        flow,
        slots: BTreeMap::new(),
        handovers: Vec::new(),
    }
}

pub(super) fn slots<const N: usize>(followers: [&str; N]) -> BTreeMap<String, SourceLsn> {
    followers.map(|node| (format!("relevo_shop_{node}"), SourceLsn::new(100))).into()
}

pub(super) fn observed(nodes: impl IntoIterator<Item = (&'static str, Option<Seen>)>) -> Observed {
    let sight = |seen: Option<Seen>| match seen {
        Some(seen) => Sight::Seen(Box::new(seen)),
        None => Sight::Unreachable("no answer".to_owned()),
    };
    Observed { nodes: nodes.into_iter().map(|(name, seen)| (name.to_owned(), sight(seen))).collect() }
}

/// `a` has the role, `b` and `c` follow.
fn healthy() -> [(&'static str, Option<Seen>); 3] {
    let standby = |name, applied| Some(seen(name, record(name, 1, "a", true), Some(flow("a", applied))));
    [
        ("a", Some(seen("a", record("a", 1, "a", false), None))),
        ("b", standby("b", 900)),
        ("c", standby("c", 900)),
    ]
}

fn words(plan: &Plan) -> Vec<&'static str> {
    plan.steps.iter().map(Step::word).collect()
}

#[test]
fn a_switchover_arms_before_it_fences_and_promotes_after_all_has_arrived() {
    let plan = switchover(&observed(healthy()), "b").unwrap();
    let expected = [
        "arm",
        "arm",
        "fence",
        "drain",
        "drain_others",
        "sequences",
        "promote",
        "follow",
        "follow",
        "retire",
        "retire",
    ];
    assert_eq!((words(&plan).as_slice(), plan.epoch), (expected.as_slice(), 2));
}

#[test]
fn a_switchover_is_refused_for_what_stands_in_its_way() {
    let change = |change: fn(&mut [(&'static str, Option<Seen>); 3])| {
        let mut nodes = healthy();
        change(&mut nodes);
        switchover(&observed(nodes), "b").unwrap_err()
    };
    fn of<'n>(nodes: &'n mut [(&'static str, Option<Seen>); 3], at: usize) -> &'n mut Seen {
        nodes[at].1.as_mut().unwrap()
    }
    assert!(matches!(change(|n| n[0].1 = None), Refusal::Unreachable { node, .. } if node == "a"));
    assert!(matches!(change(|n| n[1].1 = None), Refusal::Unreachable { node, .. } if node == "b"));
    assert!(matches!(change(|n| of(n, 1).flow = None), Refusal::NotReady { .. }));
    assert!(matches!(change(|n| of(n, 1).flow = Some(flow("c", 9))), Refusal::NotReady { .. }));
    assert!(matches!(change(|n| of(n, 1).flow.as_mut().unwrap().complete = false), Refusal::NotReady { .. }));
    assert!(matches!(change(|n| of(n, 1).flow.as_mut().unwrap().works = false), Refusal::NotReady { .. }));
    assert!(matches!(change(|n| of(n, 0).prepared_transactions = 1), Refusal::CannotFence { .. }));
    assert!(matches!(change(|n| of(n, 0).out_of_reach = vec!["t".to_owned()]), Refusal::CannotFence { .. }));
    assert!(matches!(change(|n| of(n, 1).owns_database = false), Refusal::CannotFence { .. }));
    assert!(matches!(
        change(|n| of(n, 0).record.as_mut().unwrap().name = "z".to_owned()),
        Refusal::WrongNode { .. }
    ));
    let contested = |n: &mut [(&'static str, Option<Seen>); 3]| {
        of(n, 2).record = Some(record("c", 1, "c", false));
    };
    assert!(matches!(change(contested), Refusal::Contested { epoch: 1, .. }));
    let promised = |n: &mut [(&'static str, Option<Seen>); 3]| {
        let record = of(n, 0).record.as_mut().unwrap();
        (record.fenced, record.promised_to) = (true, Some("c".to_owned()));
    };
    assert!(matches!(change(promised), Refusal::Interrupted { .. }));
    assert!(matches!(switchover(&observed(healthy()), "z").unwrap_err(), Refusal::NoSuchNode { .. }));
}

#[test]
fn a_failover_is_refused_while_the_primary_takes_writes_or_another_standby_has_more() {
    let refused = failover(&observed(healthy()), "b", false).unwrap_err();
    assert!(matches!(refused, Refusal::PrimaryLives { .. }), "{refused}");
    assert_eq!(words(&failover(&observed(healthy()), "b", true).unwrap())[0], "fence");
    let mut nodes = healthy();
    nodes[0].1 = None;
    let plan = failover(&observed(nodes.clone()), "b", false).unwrap();
    assert_eq!(words(&plan), ["settle", "arm", "arm", "advance_sequences", "promote", "follow"]);
    nodes[2].1.as_mut().unwrap().flow = Some(flow("a", 950));
    let refused = failover(&observed(nodes.clone()), "b", false).unwrap_err();
    assert!(matches!(refused, Refusal::Behind { better, .. } if better == "c"));
    failover(&observed(nodes.clone()), "c", false).unwrap();
    failover(&observed(nodes), "b", true).unwrap();
}

#[test]
fn an_old_primary_rejoins_by_salvage_and_only_as_long_as_its_slot_is_there() {
    let mut nodes = healthy();
    let began = ("", Timestamp::from_unix_us(0));
    let handover = HandoverRecord {
        state: HandoverState::Done,
        old_system_id: Some(identity("a").system_id),
        old_lsn: Some(SourceLsn::new(900)),
        new_lsn: Some(SourceLsn::new(500)),
        ..HandoverRecord::begun(HandoverKind::Failover, 2, (Some("a"), "b"), began)
    };
    let b = nodes[1].1.as_mut().unwrap();
    (b.record, b.flow, b.handovers) = (Some(record("b", 2, "b", false)), None, vec![handover]);
    b.slots = slots(["a", "c"]);
    assert!(
        matches!(rejoin(&observed(nodes.clone()), "a"), Err(Refusal::CannotRejoin { .. })),
        "without its slot"
    );
    nodes[0].1.as_mut().unwrap().slots = slots(["b"]);
    let plan = rejoin(&observed(nodes.clone()), "a").unwrap();
    assert_eq!(words(&plan), ["fence", "salvage", "undo", "restore", "retire"]);
    // c stands where b stood.
    assert_eq!(words(&rejoin(&observed(nodes.clone()), "c").unwrap()), ["follow"]);
    nodes[2].1.as_mut().unwrap().flow = Some(flow("a", 950));
    assert_eq!(words(&rejoin(&observed(nodes.clone()), "c").unwrap()), ["resync"], "c has more");
    assert!(matches!(rejoin(&observed(nodes), "b"), Err(Refusal::CannotRejoin { .. })), "b has the role");
}

/// b and c got the role from a by two commands that saw nothing of each other; the later epoch counts.
#[test]
fn whoever_had_the_role_and_lost_it_to_another_line_rejoins_by_what_it_wrote_itself() {
    let began = ("", Timestamp::from_unix_us(0));
    let lost_to = |epoch, to: &str| HandoverRecord {
        state: HandoverState::Done,
        old_system_id: Some(identity("a").system_id),
        old_lsn: Some(SourceLsn::new(900)),
        new_lsn: Some(SourceLsn::new(500)),
        ..HandoverRecord::begun(HandoverKind::Failover, epoch, (Some("a"), to), began)
    };
    let mut nodes = healthy();
    for (at, name, epoch) in [(1, "b", 2), (2, "c", 3)] {
        let node = nodes[at].1.as_mut().unwrap();
        (node.record, node.flow) = (Some(record(name, epoch, name, false)), None);
        node.handovers = vec![lost_to(epoch, name)];
    }
    let refused = rejoin(&observed(nodes.clone()), "b").unwrap_err();
    assert!(matches!(refused, Refusal::CannotRejoin { .. }), "without slots: {refused}");
    // Made before it got the role, for whomever.
    nodes[1].1.as_mut().unwrap().slots = slots(["a"]);
    let plan = rejoin(&observed(nodes.clone()), "b").unwrap();
    assert_eq!(words(&plan), ["fence", "salvage", "arm", "resync", "retire"]);
    let salvage = Step::Salvage {
        node: "b".to_owned(),
        reader: "a".to_owned(),
        from: SourceLsn::new(500),
        inherited: Inherited::Nothing,
    };
    assert!(plan.steps.contains(&salvage), "{plan:?}");
    // One that was read on does not have all of it.
    nodes[1].1.as_mut().unwrap().slots.insert("relevo_shop_a".to_owned(), SourceLsn::new(501));
    rejoin(&observed(nodes.clone()), "b").unwrap_err();
    // And once more when the present primary has had the role from somebody else still.
    nodes[0].1.as_mut().unwrap().slots = slots(["b", "c"]);
    nodes[2].1.as_mut().unwrap().slots = slots(["a", "b"]);
    assert_eq!(
        words(&rejoin(&observed(nodes), "a").unwrap()),
        ["fence", "salvage", "undo", "restore", "retire", "retire"]
    );
}

/// c was behind b when that one got the role from a, and gets it itself without either. What b had and c had not is only there.
#[test]
fn what_a_former_primary_had_from_the_one_before_it_is_salvaged_too() {
    let began = ("", Timestamp::from_unix_us(0));
    let taken = |epoch, (from, to): (&str, &str), old_lsn, new_lsn| HandoverRecord {
        old_system_id: Some(identity(from).system_id),
        old_lsn: Some(SourceLsn::new(old_lsn)),
        new_lsn: Some(SourceLsn::new(new_lsn)),
        ..HandoverRecord::begun(HandoverKind::Failover, epoch, (Some(from), to), began)
    };
    let inherited = |c: HandoverRecord| {
        let mut nodes = healthy();
        nodes[0].1 = None;
        let b = nodes[1].1.as_mut().unwrap();
        (b.record, b.flow) = (Some(record("b", 2, "b", true)), None);
        (b.handovers, b.slots) = (vec![taken(2, ("a", "b"), 900, 500)], slots(["a", "c"]));
        b.slots.insert("relevo_shop_c".to_owned(), SourceLsn::new(300));
        b.slots.insert("relevo_shop_a".to_owned(), SourceLsn::new(450));
        let other = nodes[2].1.as_mut().unwrap();
        (other.record, other.flow, other.handovers) = (Some(record("c", 3, "c", false)), None, vec![c]);
        let plan = rejoin(&observed(nodes), "b").unwrap();
        let salvage = plan.steps.into_iter().find(|step| step.word() == "salvage");
        let Some(Step::Salvage { from, inherited, reader, .. }) = salvage else { panic!("{salvage:?}") };
        assert_eq!(reader, "c", "whose slot begins first");
        (from.as_u64(), inherited)
    };
    let of = |from| Inherited::Of { system_id: identity("a").system_id, from: SourceLsn::new(from) };
    assert_eq!(inherited(taken(3, ("a", "c"), 800, 700)), (500, of(800)), "it never followed b");
    assert_eq!(inherited(taken(3, ("a", "c"), 900, 700)), (500, Inherited::Nothing), "it had all of it");
    let before = Inherited::Before(SourceLsn::new(500));
    assert_eq!(inherited(taken(3, ("b", "c"), 400, 700)), (400, before), "it followed b from before that");
    assert_eq!(inherited(taken(3, ("b", "c"), 600, 700)), (600, Inherited::Nothing));
}

/// A decision between two claims leaves no position of the one that gives way.
#[test]
fn a_position_of_another_server_is_not_taken_for_one_of_its_own() {
    let began = ("", Timestamp::from_unix_us(0));
    let mut nodes = healthy();
    nodes[0].1 = None;
    let decided = HandoverRecord {
        old_system_id: Some(identity("a").system_id),
        old_lsn: Some(SourceLsn::new(900)),
        new_lsn: Some(SourceLsn::new(700)),
        ..HandoverRecord::begun(HandoverKind::Failover, 5, (Some("c"), "b"), began)
    };
    let claimed = HandoverRecord {
        new_lsn: Some(SourceLsn::new(600)),
        ..HandoverRecord::begun(HandoverKind::Failover, 2, (Some("a"), "c"), began)
    };
    let b = nodes[1].1.as_mut().unwrap();
    (b.record, b.flow, b.handovers) = (Some(record("b", 5, "b", false)), None, vec![decided]);
    b.slots = slots(["c"]);
    let c = nodes[2].1.as_mut().unwrap();
    (c.record, c.flow, c.handovers) = (Some(record("c", 2, "c", true)), None, vec![claimed]);
    c.slots = slots(["b"]);
    let plan = rejoin(&observed(nodes), "c").unwrap();
    assert_eq!(words(&plan), ["fence", "salvage", "resync", "retire"]);
    let salvage = Step::Salvage {
        node: "c".to_owned(),
        reader: "b".to_owned(),
        from: SourceLsn::new(600),
        inherited: Inherited::Nothing,
    };
    assert!(plan.steps.contains(&salvage), "{plan:?}");
}

#[test]
fn each_node_has_epochs_of_its_own() {
    let nodes = observed(healthy());
    for epoch in 1..20 {
        let next: Vec<u64> = ["a", "b", "c"].map(|node| next_epoch(&nodes, node, epoch)).into();
        assert!(next.iter().all(|next| (epoch + 1..=epoch + 3).contains(next)), "{next:?}");
        assert_eq!(next.iter().map(|next| next % 3).collect::<Vec<_>>(), [1, 2, 0], "{next:?}");
    }
    let two = observed(healthy().into_iter().take(2));
    assert_eq!((next_epoch(&two, "b", 1), next_epoch(&two, "a", 2)), (2, 3), "one after the other");
}

/// What is taken back while nobody sees whether it was finished leaves two nodes that accept writes.
#[test]
fn an_interrupted_switchover_is_taken_back_only_in_sight_of_the_other_node() {
    let mut nodes = healthy();
    let record = nodes[0].1.as_mut().unwrap().record.as_mut().unwrap();
    (record.fenced, record.promised_to) = (true, Some("b".to_owned()));
    assert_eq!(words(&switchover(&observed(nodes.clone()), "a").unwrap()), ["unfence", "retire", "retire"]);
    nodes[1].1 = None;
    let refused = switchover(&observed(nodes.clone()), "a").unwrap_err();
    assert!(matches!(&refused, Refusal::Unreachable { node, .. } if node == "b"), "{refused}");
    assert_eq!(words(&failover(&observed(nodes), "a", true).unwrap()), ["unfence"]);
}

#[test]
fn a_hook_that_nobody_has_run_is_a_step_of_the_next_plan() {
    let began = ("", Timestamp::from_unix_us(0));
    let mut nodes = healthy();
    let mut promoted = HandoverRecord {
        state: HandoverState::Done,
        new_lsn: Some(SourceLsn::new(500)),
        on_promote: Some(HookState::Due),
        ..HandoverRecord::begun(HandoverKind::Switchover, 1, (Some("b"), "a"), began)
    };
    let mut plan = |promoted: &HandoverRecord| {
        nodes[0].1.as_mut().unwrap().handovers = vec![promoted.clone()];
        words(&switchover(&observed(nodes.clone()), "a").unwrap())
    };
    assert_eq!(plan(&promoted), ["tell"]);
    promoted.on_promote = Some(HookState::Done);
    assert!(plan(&promoted).is_empty());
}

#[test]
fn a_hand_over_of_another_epoch_that_was_left_unfinished_is_not_gone_on_with() {
    let mut nodes = healthy();
    let left = |epoch| {
        let began = ("", Timestamp::from_unix_us(0));
        HandoverRecord::begun(HandoverKind::Switchover, epoch, (Some("a"), "b"), began)
    };
    nodes[1].1.as_mut().unwrap().handovers = vec![left(7)];
    assert_eq!(switchover(&observed(nodes.clone()), "b").unwrap().resumes, None);
    nodes[1].1.as_mut().unwrap().handovers = vec![left(7), left(2)];
    assert_eq!(switchover(&observed(nodes), "b").unwrap().resumes.map(|record| record.epoch), Some(2));
}

/// What the steps do to who may write, and nothing else.
#[derive(Debug, Clone)]
struct World(BTreeMap<String, (u64, String, bool)>);

impl World {
    fn of(observed: &Observed) -> Self {
        let records = observed.all_seen().filter_map(|(name, seen)| {
            let record = seen.record.as_ref()?;
            Some((name.to_owned(), (record.epoch, record.primary.clone(), record.fenced)))
        });
        Self(records.collect())
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Fence { node, .. } => self.0.get_mut(node).unwrap().2 = true,
            Step::Unfence { node } => self.0.get_mut(node).unwrap().2 = false,
            Step::Promote { node, epoch, .. } => {
                self.0.insert(node.clone(), (*epoch, node.clone(), false));
            }
            Step::Follow { node, primary } | Step::Undo { node, primary } => {
                let epoch = self.0[primary].0;
                let fenced = self.0[node].2;
                self.0.insert(node.clone(), (epoch, primary.clone(), fenced));
            }
            _ => {}
        }
    }

    /// Nodes that accept writes, by the epoch under which they do.
    fn writers(&self) -> BTreeMap<u64, Vec<&str>> {
        let mut writers: BTreeMap<u64, Vec<&str>> = BTreeMap::new();
        for (node, (epoch, primary, fenced)) in &self.0 {
            if primary == node && !fenced {
                writers.entry(*epoch).or_default().push(node);
            }
        }
        writers
    }
}

fn any_seen(name: &'static str) -> impl Strategy<Value = Option<Seen>> {
    let names = prop::sample::select(vec!["a", "b", "c"]);
    let facts =
        (1u64..4, names.clone(), any::<bool>(), prop::option::of(names.clone()), prop::option::of(names));
    (prop::option::weighted(0.8, facts), 0u64..3, any::<bool>()).prop_map(move |(facts, applied, whole)| {
        let (epoch, primary, fenced, promised, source) = facts?;
        // A standby is guarded before anything else happens to it.
        let fenced = fenced || primary != name;
        let mut record = record(name, epoch, primary, fenced);
        record.promised_to = promised.filter(|_| fenced && primary == name).map(str::to_owned);
        record.fence_lsn = fenced.then(|| SourceLsn::new(900));
        let flow = source
            .filter(|source| *source != name)
            .map(|source| FlowSight { complete: whole, ..flow(source, 890 + applied * 10) });
        let mut seen = seen(name, record, flow);
        seen.slots = slots(["a", "b", "c"]);
        Some(seen)
    })
}

fn any_observed() -> impl Strategy<Value = Observed> {
    (any_seen("a"), any_seen("b"), any_seen("c"))
        .prop_map(|(a, b, c)| observed([("a", a), ("b", b), ("c", c)]))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Whatever is observed and whatever is asked: no plan lets two nodes accept writes under one epoch, wherever it is
    /// interrupted, unless they did so before.
    #[test]
    fn no_plan_lets_two_nodes_write_under_one_epoch(
        observed in any_observed(), to in prop::sample::select(vec!["a", "b", "c"]), force in any::<bool>(), what in 0..3
    ) {
        let plan = match what {
            0 => switchover(&observed, to),
            1 => failover(&observed, to, force),
            _ => rejoin(&observed, to),
        };
        let Ok(plan) = plan else { return Ok(()) };
        let mut world = World::of(&observed);
        prop_assume!(world.writers().values().all(|writers| writers.len() == 1));
        for step in &plan.steps {
            world.take(step);
            let writers = world.writers();
            prop_assert!(writers.values().all(|writers| writers.len() == 1), "{step}: {world:?} by {plan:?}");
        }
    }

    /// The role is only ever taken in a new epoch, from a primary that is fenced or does not answer; and in a switchover
    /// only after all that it wrote has arrived.
    #[test]
    fn the_role_is_taken_only_behind_a_fence(
        observed in any_observed(), to in prop::sample::select(vec!["a", "b", "c"]), planned in any::<bool>()
    ) {
        let plan = if planned { switchover(&observed, to) } else { failover(&observed, to, false) };
        let Ok(plan) = plan else { return Ok(()) };
        let highest = observed.claims().iter().map(|claim| claim.epoch).max().unwrap();
        for (at, step) in plan.steps.iter().enumerate() {
            let Step::Promote { node, from, epoch } = step else { continue };
            prop_assert_eq!(node, to);
            prop_assert!((highest + 1..=highest + 3).contains(epoch), "{}", epoch);
            let before = words(&plan)[..at].to_vec();
            let fenced = before.contains(&"fence") || observed.record(from).is_none_or(|record| record.fenced);
            prop_assert!(fenced || observed.seen(from).is_none_or(|seen| seen.record.is_none()));
            prop_assert!(!planned || before.contains(&"drain"), "{:?}", plan);
        }
    }
}

/// A standby that was copied after the new primary's last word from the old one, and to which nothing came since, was taken for
/// equal; but its rows may hold what the new primary never got.
#[test]
fn who_was_copied_behind_the_new_primary_at_a_failover_is_not_taken_for_equal() {
    let follows = |kind, applied, commit: Option<u64>| {
        let mut of_c = flow("a", applied);
        of_c.commit_lsn = commit.map(SourceLsn::new);
        let c = seen("c", record("c", 1, "a", true), Some(of_c));
        let by_which = HandoverRecord {
            old_lsn: Some(SourceLsn::new(950)),
            old_system_id: Some(identity("a").system_id),
            new_lsn: Some(SourceLsn::new(5000)),
            ..HandoverRecord::begun(kind, 2, (Some("a"), "b"), ("test", Timestamp::from_unix_us(0)))
        };
        may_follow("c", &c, "b", &by_which)
    };
    assert!(!follows(HandoverKind::Failover, 960, None));
    assert!(follows(HandoverKind::Failover, 950, None));
    assert!(follows(HandoverKind::Failover, 960, Some(940)), "only a keepalive brought it further");
    assert!(!follows(HandoverKind::Failover, 960, Some(955)));
    assert!(!follows(HandoverKind::Failover, 940, Some(930)), "it lacks something");
    assert!(follows(HandoverKind::Switchover, 960, None), "the old primary was fenced before");
}
