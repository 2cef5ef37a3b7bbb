//! Transactions that are applied before they have committed: when they are, and when they are taken back.

use std::time::Duration;

use relevo_model::{FaultClass, SourceLsn};
use relevo_pipeline::FlowOptions;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::world::{Item, Operation, Told, Trouble, World, on_a_paused_clock};

fn small() -> Item {
    Item::Transaction(vec![10])
}

fn running() -> Item {
    Item::Running(vec![10, 10, 10, 10])
}

/// What became of the transactions that went ahead.
fn outcomes(world: &World) -> Vec<bool> {
    let told = world.state().told.clone();
    told.iter()
        .filter_map(|told| if let Told::Ahead(committed) = told { Some(*committed) } else { None })
        .collect()
}

/// Runs a flow over these items, to the end.
fn outcomes_of(items: Vec<Item>, prepare: impl FnOnce(&World)) -> Vec<bool> {
    let world = World::new(items);
    prepare(&world);
    on_a_paused_clock(async {
        let flow = world.start(FlowOptions::default());
        world.until_all_is_applied().await;
        world.until("confirming the last position", |state| state.confirmed == state.end()).await;
        flow.stop().await;
    });
    world.assert_sound();
    outcomes(&world)
}

#[test]
fn a_running_transaction_is_there_when_it_commits() {
    let items = vec![small(), small(), small(), running(), small()];
    assert_eq!(outcomes_of(items, |_| {}), [true]);
}

#[test]
fn its_parts_are_applied_while_the_source_sends_the_next() {
    on_a_paused_clock(async {
        let world = World::new(Vec::new());
        let flow = world.start(FlowOptions::default());
        world.until("confirming the start", |state| state.confirmed == 1000).await;
        world.change(|state| {
            state.apply_takes = Duration::from_millis(10);
            state.add([running()]);
        });
        let begin = Instant::now();
        world.until_all_is_applied().await;
        assert_eq!(begin.elapsed(), Duration::from_millis(40), "nothing but its four parts takes time");
        flow.stop().await;
        world.assert_sound();
        assert_eq!(outcomes(&world), [true]);
    });
}

#[test]
fn what_is_rolled_back_leaves_nothing_and_is_no_trouble() {
    let items = vec![small(), Item::RolledBack(vec![10, 10, 10]), small(), small(), running()];
    assert_eq!(outcomes_of(items, |_| {}), [true]);
}

#[test]
fn nothing_goes_ahead_while_tables_are_on_their_way() {
    let items = vec![small(), small(), small(), running(), small()];
    assert_eq!(outcomes_of(items, |world| world.change(|state| state.stays_behind = true)), []);
}

#[test]
fn a_part_that_fails_is_taken_back_and_the_next_transaction_is_not_tried() {
    for trouble in [
        Trouble::Fails(FaultClass::Blocked),
        Trouble::FailsAfterwards(FaultClass::Transient),
        Trouble::Hangs,
        Trouble::Panics,
    ] {
        let items = vec![running(), running(), running(), running()];
        let outcomes = outcomes_of(items, |world| {
            world.change(|state| state.planned = vec![(Operation::Ahead, trouble)]);
        });
        assert_eq!(outcomes, [false, true, true], "{trouble:?}: the second is left out");
    }
}

#[test]
fn a_commit_that_fails_opens_both_ends_again_whether_or_not_it_happened() {
    for class in [FaultClass::Blocked, FaultClass::Transient] {
        for trouble in [Trouble::Fails(class), Trouble::FailsAfterwards(class)] {
            on_a_paused_clock(async {
                let world = World::new(Vec::new());
                let flow = world.start(FlowOptions::default());
                world.until("confirming the start", |state| state.confirmed == 1000).await;
                world.change(|state| {
                    state.apply_takes = Duration::from_millis(10);
                    state.add([running()]);
                });
                sleep(Duration::from_millis(35)).await;
                world.change(|state| state.planned.push((Operation::Ahead, trouble)));
                world.until_all_is_applied().await;
                world.until("confirming it", |state| state.confirmed == state.end()).await;
                assert_eq!(world.state().opens, 2, "{trouble:?}");
                flow.stop().await;
                world.assert_sound();
            });
        }
    }
}

#[test]
fn a_hold_takes_back_what_lies_behind_it() {
    on_a_paused_clock(async {
        let (hold, held) = watch::channel(None);
        let world = World::new(vec![small()]);
        let flow = world.start(FlowOptions { hold: held, ..FlowOptions::default() });
        world.until_all_is_applied().await;
        world.change(|state| {
            state.apply_takes = Duration::from_millis(10);
            state.add([running()]);
        });
        sleep(Duration::from_millis(15)).await;
        let at = world.state().progress();
        world.change(|state| state.refused_behind = Some(at));
        hold.send_replace(Some(SourceLsn::new(at)));
        world.until("taking it back", |state| state.told.contains(&Told::Ahead(false))).await;
        world.change(|state| state.refused_behind = None);
        hold.send_replace(None);
        world.until_all_is_applied().await;
        flow.stop().await;
        world.assert_sound();
    });
}

#[test]
fn other_transactions_do_not_wait_long_for_one_that_goes_ahead() {
    on_a_paused_clock(async {
        let world = World::new(vec![small(), small(), running()]);
        // Every part takes longer than the others may be kept waiting for those that wait.
        world.change(|state| state.apply_takes = Duration::from_millis(900));
        let flow = world.start(FlowOptions::default());
        world.until_all_is_applied().await;
        flow.stop().await;
        world.assert_sound();
        assert_eq!(outcomes(&world), [false]);
    });
}

#[test]
fn a_transaction_of_which_nothing_comes_for_long_keeps_no_locks() {
    on_a_paused_clock(async {
        let world = World::new(Vec::new());
        let flow = world.start(FlowOptions::default());
        world.until("confirming the start", |state| state.confirmed == 1000).await;
        // Nothing is yielded but its first part, until the item before it comes.
        world.change(|state| state.next_waits = true);
        world.change(|state| state.add([Item::Running(vec![10, 10])]));
        world.until("taking it back", |state| state.told.contains(&Told::Ahead(false))).await;
        world.change(|state| state.next_waits = false);
        world.until_all_is_applied().await;
        flow.stop().await;
        world.assert_sound();
    });
}
