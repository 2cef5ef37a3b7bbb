//! A request to stop: what is in hand, what it may cost, what is said last.

use std::time::Duration;

use relevo_pipeline::FlowOptions;

use crate::world::{Item, Operation, Trouble, World, on_a_paused_clock};

fn small(count: usize) -> Vec<Item> {
    vec![Item::Transaction(vec![10]); count]
}

#[test]
fn the_batch_in_hand_commits_and_is_confirmed() {
    on_a_paused_clock(async {
        let world = World::new(Vec::new());
        world.change(|state| state.async_commit = true);
        let running = world.start(FlowOptions::default());
        world.until("confirming the start", |state| state.confirmed == 1000).await;
        world.change(|state| {
            state.apply_takes = Duration::from_secs(2);
            state.add(small(3));
        });
        world.until("the first transaction arriving", |state| state.yielded > 0).await;
        let took = running.stop().await;
        assert!((Duration::from_secs(2)..Duration::from_secs(3)).contains(&took), "{took:?}");
        let state = world.state();
        assert!(!state.applied().is_empty());
        assert_eq!(state.confirmed, state.progress());
        assert_eq!(state.closes, 1, "the stream ended in order");
    });
}

#[test]
fn a_batch_that_does_not_end_in_time_is_rolled_back() {
    on_a_paused_clock(async {
        let world = World::new(small(3));
        world.change(|state| state.planned.push((Operation::Apply, Trouble::Hangs)));
        let running = world.start(FlowOptions::default());
        world.until("a session", |state| state.yielded > 0).await;
        let took = running.stop().await;
        assert!(took < Duration::from_secs(5), "{took:?}");
        assert!(world.state().applied().is_empty());

        let running = world.start(FlowOptions::default());
        world.until_all_is_applied().await;
        running.stop().await;
        world.assert_sound();
    });
}

#[test]
fn a_transaction_that_is_not_complete_is_not_waited_for() {
    on_a_paused_clock(async {
        let options = FlowOptions { batch_bytes: 10, memory_bytes: 10, ..FlowOptions::default() };
        let world = World::new(Vec::new());
        let running = world.start(options);
        world.until("confirming the start", |state| state.confirmed == 1000).await;
        world.change(|state| {
            state.apply_takes = Duration::from_secs(2);
            state.add([Item::Transaction(vec![10; 5])]);
        });
        world.until("its beginning", |state| state.yielded > 0).await;
        let took = running.stop().await;
        assert!(took < Duration::from_secs(1), "{took:?}");
        assert!(world.state().applied().is_empty());
        assert_eq!(world.state().confirmed, 1000);
        world.assert_sound();
    });
}

#[test]
fn a_target_that_never_flushes_costs_its_limit_and_nothing_is_confirmed() {
    on_a_paused_clock(async {
        let world = World::new(small(3));
        world.change(|state| {
            state.async_commit = true;
            state.never_flush = true;
        });
        let running = world.start(FlowOptions::default());
        world.until_all_is_applied().await;
        let took = running.stop().await;
        assert!(took < Duration::from_secs(2), "the limit of the flush alone: {took:?}");
        assert_eq!(world.state().confirmed, 0);
    });
}

#[test]
fn a_stop_interrupts_opening_and_pausing() {
    on_a_paused_clock(async {
        for trouble in [Trouble::Hangs, Trouble::Fails(relevo_model::FaultClass::Blocked)] {
            let world = World::new(small(1));
            world.change(|state| state.standing.push((Operation::Open, trouble)));
            let running = world.start(FlowOptions::default());
            world.until("its begin", |state| !state.told.is_empty()).await;
            let took = running.stop().await;
            assert!(took < Duration::from_millis(100), "{took:?}");
        }
    });
}
