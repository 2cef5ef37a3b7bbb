//! Batches that are applied beside the one before them: when they are, and when they are taken back.

use std::time::Duration;

use relevo_model::FaultClass;
use relevo_pipeline::FlowOptions;
use tokio::time::Instant;

use crate::world::{Item, Operation, Told, Trouble, World, on_a_paused_clock};

const TAKES: Duration = Duration::from_millis(100);

/// Batches hold two of these.
fn transaction() -> Item {
    Item::Transaction(vec![10])
}

fn options() -> FlowOptions {
    FlowOptions { batch_bytes: 20, ..FlowOptions::default() }
}

/// What became of the batches that went beside another one.
fn outcomes(world: &World) -> Vec<bool> {
    let told = world.state().told.clone();
    told.iter()
        .filter_map(|told| if let Told::Beside(committed) = told { Some(*committed) } else { None })
        .collect()
}

/// Gives an idle flow nine transactions at once, and says how long it takes for them.
fn applies_nine(prepare: impl FnOnce(&World)) -> (World, Duration) {
    let world = World::new(Vec::new());
    let took = on_a_paused_clock(async {
        let flow = world.start(options());
        world.until("confirming the start", |state| state.confirmed == 1000).await;
        prepare(&world);
        world.change(|state| {
            state.apply_takes = TAKES;
            state.add((0..9).map(|_| transaction()));
        });
        let begin = Instant::now();
        world.until_all_is_applied().await;
        let took = begin.elapsed();
        world.until("confirming the last position", |state| state.confirmed == state.end()).await;
        flow.stop().await;
        took
    });
    world.assert_sound();
    (world, took)
}

#[test]
fn two_batches_take_as_long_as_one() {
    let (world, took) = applies_nine(|_| {});
    assert_eq!(outcomes(&world), [true, true]);
    assert_eq!(world.state().batches(), [2, 2, 2, 2, 1]);
    assert_eq!(took, TAKES * 3);
}

#[test]
fn less_than_a_whole_batch_waits_for_more() {
    let world = World::new(Vec::new());
    on_a_paused_clock(async {
        let flow = world.start(options());
        world.until("confirming the start", |state| state.confirmed == 1000).await;
        world.change(|state| {
            state.apply_takes = TAKES;
            state.add((0..3).map(|_| transaction()));
        });
        world.until_all_is_applied().await;
        flow.stop().await;
    });
    world.assert_sound();
    assert_eq!(outcomes(&world), []);
}

#[test]
fn none_goes_beside_another_while_tables_are_on_their_way() {
    let (world, took) = applies_nine(|world| world.change(|state| state.stays_behind = true));
    assert_eq!(outcomes(&world), []);
    assert_eq!(took, TAKES * 5);
}

#[test]
fn one_that_has_to_go_alone_goes_behind_and_the_next_is_not_tried() {
    let (world, took) = applies_nine(|world| world.change(|state| state.goes_alone = true));
    assert_eq!(outcomes(&world), [false, false]);
    assert_eq!(world.state().batches(), [2, 2, 2, 2, 1]);
    assert_eq!(took, TAKES * 5, "what was done in vain holds nobody up");
}

#[test]
fn one_that_cannot_be_applied_goes_behind() {
    for trouble in [
        Trouble::Fails(FaultClass::Blocked),
        Trouble::FailsAfterwards(FaultClass::Transient),
        Trouble::Hangs,
        Trouble::Panics,
    ] {
        let (world, _) = applies_nine(|world| {
            world.change(|state| state.planned = vec![(Operation::Beside, trouble)]);
        });
        assert_eq!(outcomes(&world).first(), Some(&false), "{trouble:?}");
        assert_eq!(world.state().opens, 1, "{trouble:?} is no trouble of the flow");
    }
}

#[test]
fn a_commit_that_fails_opens_both_ends_again_whether_or_not_it_happened() {
    for class in [FaultClass::Blocked, FaultClass::Transient] {
        for trouble in [Trouble::Fails(class), Trouble::FailsAfterwards(class)] {
            let world = World::new(Vec::new());
            on_a_paused_clock(async {
                let flow = world.start(options());
                world.until("confirming the start", |state| state.confirmed == 1000).await;
                world.change(|state| {
                    state.apply_takes = TAKES;
                    state.add((0..9).map(|_| transaction()));
                });
                tokio::time::sleep(TAKES / 2).await;
                world.change(|state| state.planned.push((Operation::Beside, trouble)));
                world.until_all_is_applied().await;
                world.until("confirming it", |state| state.confirmed == state.end()).await;
                assert_eq!(world.state().opens, 2, "{trouble:?}");
                flow.stop().await;
            });
            world.assert_sound();
        }
    }
}

#[test]
fn one_that_the_batch_in_hand_waits_for_is_taken_back() {
    let world = World::new(Vec::new());
    on_a_paused_clock(async {
        let flow = world.start(options());
        world.until("confirming the start", |state| state.confirmed == 1000).await;
        world.change(|state| {
            state.somebody_waits = true;
            state.planned.push((Operation::Apply, Trouble::Hangs));
            state.add((0..9).map(|_| transaction()));
        });
        world.until("taking it back", |state| state.told.contains(&Told::Beside(false))).await;
        assert_eq!(world.state().applied(), Vec::<u64>::new());
        flow.stop().await;
    });
    world.assert_sound();
}

#[test]
fn two_that_wait_for_each_other_do_not_do_so_for_ever() {
    let world = World::new(Vec::new());
    on_a_paused_clock(async {
        let flow = world.start(options());
        world.until("confirming the start", |state| state.confirmed == 1000).await;
        world.change(|state| {
            (state.deadlocks, state.apply_takes) = (true, TAKES);
            state.add((0..40).map(|_| transaction()));
        });
        world.until_all_is_applied().await;
        flow.stop().await;
    });
    world.assert_sound();
    let opens = world.state().opens;
    assert!((2..7).contains(&opens), "each attempt is followed by twice as many that are left out: {opens}");
}

#[test]
fn a_large_transaction_goes_ahead_once_no_batch_is_beside_another() {
    let world = World::new(Vec::new());
    on_a_paused_clock(async {
        let flow = world.start(options());
        world.until("confirming the start", |state| state.confirmed == 1000).await;
        world.change(|state| {
            state.apply_takes = TAKES;
            state.add((0..8).map(|_| transaction()));
        });
        tokio::time::sleep(TAKES / 2).await;
        world.change(|state| state.add([Item::Running(vec![10, 10])]));
        world.until_all_is_applied().await;
        assert!(!world.state().told.contains(&Told::Ahead(true)), "the session is in use");
        world.change(|state| state.add([Item::Running(vec![10, 10])]));
        world.until_all_is_applied().await;
        flow.stop().await;
    });
    world.assert_sound();
    assert!(outcomes(&world).contains(&true), "{:?}", outcomes(&world));
    assert!(world.state().told.contains(&Told::Ahead(true)), "it serves both");
}
