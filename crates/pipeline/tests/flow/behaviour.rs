//! What a flow does when nothing, or one thing, goes wrong.

use std::time::Duration;

use relevo_model::{Fault, FaultClass};
use relevo_pipeline::{FlowOptions, FlowState};
use tokio::time::{Instant, sleep, timeout};

use crate::world::{Item, Operation, Told, Trouble, World, on_a_paused_clock};

fn small(count: usize) -> Vec<Item> {
    vec![Item::Transaction(vec![10]); count]
}

fn states(world: &World) -> Vec<FlowState> {
    let told = world.state().told.clone();
    let mut states: Vec<FlowState> = told
        .iter()
        .filter_map(|told| if let Told::State(state) = told { Some(*state) } else { None })
        .collect();
    states.dedup();
    states
}

#[test]
fn an_idle_target_gets_what_is_there_at_once_and_together() {
    on_a_paused_clock(async {
        let world = World::new(Vec::new());
        let running = world.start(FlowOptions::default());
        world.until("confirming the start", |state| state.confirmed == 1000).await;
        world.change(|state| {
            state.apply_takes = Duration::from_millis(5);
            state.add(small(100));
        });
        let begin = Instant::now();
        world.until_all_is_applied().await;
        assert_eq!(world.state().batches(), [100]);
        assert_eq!(begin.elapsed(), Duration::from_millis(5), "one batch of 5 ms and no other wait");
        running.stop().await;
        world.assert_sound();
        assert_eq!(states(&world), [FlowState::Opening, FlowState::Streaming, FlowState::Stopped]);
    });
}

#[test]
fn an_idle_target_waits_for_nothing_that_is_not_there_and_the_rest_piles_up() {
    on_a_paused_clock(async {
        let world = World::new(Vec::new());
        let running = world.start(FlowOptions::default());
        world.until("confirming the start", |state| state.confirmed == 1000).await;
        world.change(|state| {
            state.apply_takes = Duration::from_millis(5);
            state.add(small(1));
        });
        let begin = Instant::now();
        world.until("handing over the first", |state| state.told.contains(&Told::HandedOver(1))).await;
        assert_eq!(begin.elapsed(), Duration::ZERO, "it goes alone, at once");
        for _ in 0..3 {
            sleep(Duration::from_millis(1)).await;
            world.change(|state| state.add(small(33)));
        }
        world.until_all_is_applied().await;
        assert_eq!(world.state().batches(), [1, 99]);
        assert_eq!(begin.elapsed(), Duration::from_millis(10), "two batches of 5 ms and no other wait");
        running.stop().await;
        world.assert_sound();
    });
}

#[test]
fn work_of_the_targets_own_is_done_though_the_source_has_nothing() {
    on_a_paused_clock(async {
        let world = World::new(Vec::new());
        let running = world.start(FlowOptions::default());
        world.until("confirming the start", |state| state.confirmed == 1000).await;
        world.change(|state| state.own_work = 3);
        world.until("work of its own", |state| state.own_work == 0).await;
        world.change(|state| state.add(small(3)));
        world.until_all_is_applied().await;
        running.stop().await;
        world.assert_sound();
    });
}

#[test]
fn work_of_the_targets_own_that_fails_opens_both_ends_again() {
    on_a_paused_clock(async {
        let world = World::new(small(1));
        let running = world.start(FlowOptions::default());
        world.until_all_is_applied().await;
        world.until("confirming it", |state| state.confirmed == state.progress()).await;
        let opens = world.state().opens;
        world.change(|state| {
            state.planned.push((Operation::Apply, Trouble::Fails(FaultClass::Transient)));
            state.own_work = 1;
        });
        world.until("another session", |state| state.opens > opens && state.own_work == 0).await;
        running.stop().await;
        world.assert_sound();
    });
}

#[test]
fn a_slow_target_holds_the_source_back() {
    on_a_paused_clock(async {
        let options = FlowOptions { batch_bytes: 50, memory_bytes: 200, ..FlowOptions::default() };
        let world = World::new(small(1000));
        world.change(|state| state.planned.push((Operation::Apply, Trouble::Hangs)));
        let running = world.start(options);
        world.until("filling the memory", |state| state.yielded >= 20).await;
        sleep(Duration::from_secs(30)).await;
        assert_eq!(world.state().yielded, 20, "200 bytes in transactions of 10");
        running.stop().await;
    });
}

#[test]
fn a_stream_of_keepalives_costs_the_target_one_write_in_ten_seconds() {
    on_a_paused_clock(async {
        let world = World::new(Vec::new());
        let running = world.start(FlowOptions::default());
        world.until("confirming the start", |state| state.confirmed == 1000).await;
        let before = world.state().commits();
        for _ in 0..600 {
            world.change(|state| state.add([Item::Keepalive]));
            sleep(Duration::from_millis(100)).await;
        }
        let writes = world.state().commits() - before;
        assert!((5..=6).contains(&writes), "{writes} writes in 60 s");

        // They are followed in what is said, though, and confirmed once they stand still.
        let end = world.state().end();
        assert!(world.state().told.contains(&Told::Reached(end - 5)));
        world.until("confirming the last", |state| state.confirmed == end).await;
        running.stop().await;
        world.assert_sound();
    });
}

#[test]
fn an_asynchronous_commit_is_confirmed_only_after_its_flush() {
    on_a_paused_clock(async {
        let world = World::new(small(3));
        world.change(|state| {
            state.async_commit = true;
            state.never_flush = true;
        });
        let running = world.start(FlowOptions::default());
        world.until_all_is_applied().await;
        sleep(Duration::from_secs(60)).await;
        assert_eq!(world.state().confirmed, 0, "not even what was there at the start");
        let end = world.state().end();
        world.until("saying what is applied", |state| state.reported.applied.as_u64() == end).await;
        world.change(|state| state.never_flush = false);
        let begin = Instant::now();
        world.until("confirming", |state| state.confirmed == end).await;
        assert!(begin.elapsed() <= Duration::from_millis(50), "{:?}", begin.elapsed());
        running.stop().await;
        world.assert_sound();
    });
}

#[test]
fn what_is_refused_ends_the_flow_at_once() {
    on_a_paused_clock(async {
        for operation in [Operation::Open, Operation::Next, Operation::Apply, Operation::Probe] {
            let world = World::new(small(3));
            world.change(|state| state.planned.push((operation, Trouble::Fails(FaultClass::Refused))));
            let running = world.start(FlowOptions::default());
            let ended = timeout(Duration::from_secs(1), running.task).await.unwrap().unwrap();
            let error = ended.unwrap_err();
            assert_eq!(error.class(), FaultClass::Refused);
            assert!(error.text().contains("scripted trouble"), "{}", error.text());
            assert_eq!(states(&world).last(), Some(&FlowState::Failed));
        }
    });
}

#[test]
fn what_is_blocked_stays_failed_until_it_is_mended_and_then_goes_on() {
    on_a_paused_clock(async {
        let world = World::new(Vec::new());
        let running = world.start(FlowOptions::default());
        world.until("confirming the start", |state| state.confirmed == 1000).await;
        world.change(|state| {
            state.standing.push((Operation::Apply, Trouble::Fails(FaultClass::Blocked)));
            state.add(small(2));
        });
        sleep(Duration::from_secs(120)).await;
        assert_eq!(states(&world), [FlowState::Opening, FlowState::Streaming, FlowState::Failed]);
        let failures: Vec<_> = {
            let state = world.state();
            let told = state.told.iter();
            told.filter_map(|told| if let Told::Failed { retry_in, .. } = told { *retry_in } else { None })
                .collect()
        };
        assert!(failures.len() > 20, "it is tried every 5 s or more often: {}", failures.len());
        assert!(failures.iter().all(|pause| *pause <= Duration::from_secs(5)));

        world.change(|state| state.standing.clear());
        let mended = Instant::now();
        world.until_all_is_applied().await;
        assert!(mended.elapsed() <= Duration::from_secs(5));
        world.until("saying so", |state| state.told.last() != Some(&Told::State(FlowState::Failed))).await;
        running.stop().await;
        let states = states(&world);
        assert_eq!(states[3..], [FlowState::Streaming, FlowState::Stopped]);
    });
}

/// What mends it may be what breaks those before it: they have to come in first.
#[test]
fn of_a_batch_that_cannot_be_applied_the_transactions_before_the_one_that_is_in_the_way_are() {
    on_a_paused_clock(async {
        let world = World::new(Vec::new());
        let running = world.start(FlowOptions::default());
        world.until("confirming the start", |state| state.confirmed == 1000).await;
        let blocked = world.change(|state| {
            state.add(small(20));
            state.fails_at = Some(state.commit_lsns()[7]);
            state.commit_lsns()[7]
        });
        world.until("coming up to it", |state| state.progress() == blocked).await;
        assert_eq!(world.state().batches(), [1; 7]);
        sleep(Duration::from_secs(60)).await;
        assert_eq!(states(&world).last(), Some(&FlowState::Failed));
        assert_eq!(world.state().progress(), blocked);
        world.change(|state| {
            state.fails_at = None;
            state.add(small(30));
        });
        world.until_all_is_applied().await;
        let batches = world.state().batches();
        assert_eq!((batches[..20].to_vec(), batches.len()), (vec![1; 20], 21), "the first batch one by one");
        running.stop().await;
        world.assert_sound();
    });
}

#[test]
fn a_batch_that_takes_long_before_it_fails_is_no_sign_of_health() {
    on_a_paused_clock(async {
        let world = World::new(Vec::new());
        let running = world.start(FlowOptions::default());
        world.until("confirming the start", |state| state.confirmed == 1000).await;
        world.change(|state| {
            // A large transaction whose last row hurts, after 12 s in all.
            state.apply_takes = Duration::from_secs(4);
            state.fails_inside = true;
            state.add([Item::Transaction(vec![9 << 20; 3])]);
        });
        sleep(Duration::from_secs(120)).await;
        assert_eq!(states(&world), [FlowState::Opening, FlowState::Streaming, FlowState::Failed]);
        world.change(|state| state.fails_inside = false);
        world.until_all_is_applied().await;
        running.stop().await;
        world.assert_sound();
    });
}

#[test]
fn a_lost_end_is_opened_again_soon_and_said_to_be_retrying() {
    on_a_paused_clock(async {
        let world = World::new(small(1));
        let running = world.start(FlowOptions::default());
        world.until_all_is_applied().await;
        world.change(|state| {
            state.planned.push((Operation::Probe, Trouble::Fails(FaultClass::Transient)));
        });
        world.until("opening again", |state| state.opens == 2).await;
        world.change(|state| state.add(small(1)));
        world.until_all_is_applied().await;
        running.stop().await;
        let expected = [
            FlowState::Opening,
            FlowState::Streaming,
            FlowState::Retrying,
            FlowState::Streaming,
            FlowState::Stopped,
        ];
        assert_eq!(states(&world), expected);
        world.assert_sound();
    });
}

#[test]
fn a_panic_of_the_target_fails_the_flow_and_not_the_process() {
    on_a_paused_clock(async {
        let world = World::new(small(2));
        world.change(|state| state.planned.push((Operation::Apply, Trouble::Panics)));
        let running = world.start(FlowOptions::default());
        world.until_all_is_applied().await;
        running.stop().await;
        assert!(states(&world).contains(&FlowState::Failed));
        world.assert_sound();
    });
}

#[test]
fn a_target_that_falls_silent_is_opened_again() {
    on_a_paused_clock(async {
        let world = World::new(small(2));
        world.change(|state| state.planned.push((Operation::Probe, Trouble::Hangs)));
        let running = world.start(FlowOptions::default());
        world.until("opening again", |state| state.opens == 2).await;
        let told = world.state().told.clone();
        let silent = |told: &Told| matches!(told, Told::Failed { text, .. } if text.contains("60 s"));
        assert!(told.iter().any(silent), "{told:?}");
        running.stop().await;
    });
}

#[test]
fn the_oldest_transaction_that_waits_is_known_for_as_long_as_it_waits() {
    on_a_paused_clock(async {
        let world = World::new(small(1));
        world.change(|state| state.apply_takes = Duration::from_secs(60));
        let running = world.start(FlowOptions::default());
        world.until("handing it over", |state| state.told.contains(&Told::HandedOver(1))).await;
        sleep(Duration::from_secs(30)).await;
        let oldest = |told: &&Told| matches!(told, Told::Oldest(_));
        assert_eq!(world.state().told.iter().rfind(oldest), Some(&Told::Oldest(true)));
        world.until_all_is_applied().await;
        world.until("saying so", |state| state.told.iter().rfind(oldest) == Some(&Told::Oldest(false))).await;
        running.stop().await;
    });
}
