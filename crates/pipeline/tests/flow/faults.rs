//! Chance against the guarantees: whatever fails, whenever it fails, the target ends with exactly the source's
//! transactions, in order, each once; nothing is confirmed early; memory stays within its bound.

use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use relevo_pipeline::{FlowOptions, IdleRules};
use tokio::time::sleep;

use crate::world::{Item, Running, World, on_a_paused_clock};

const LARGEST_PART_BYTES: usize = 120;

fn items() -> impl Strategy<Value = Vec<Item>> {
    let item = prop_oneof![
        5 => (1..40_usize).prop_map(|size| Item::Transaction(vec![size])),
        1 => vec(1..=LARGEST_PART_BYTES, 2..6).prop_map(Item::Transaction),
        2 => Just(Item::Keepalive),
        2 => vec(1..=LARGEST_PART_BYTES, 2..6).prop_map(Item::Running),
        1 => vec(1..=LARGEST_PART_BYTES, 1..6).prop_map(Item::RolledBack),
    ];
    vec(item, 1..40)
}

fn options() -> impl Strategy<Value = FlowOptions> {
    (1..200_usize, 1..400_usize, 0..2000_u64).prop_map(|(batch_bytes, memory_bytes, idle_ms)| FlowOptions {
        batch_bytes,
        memory_bytes,
        // Eager ones too, so that a bare position falls due in the pauses inside a transaction.
        idle: IdleRules {
            interval: Duration::from_millis(idle_ms * 10),
            settled: Duration::from_millis(idle_ms),
            ..IdleRules::default()
        },
        ..FlowOptions::default()
    })
}

fn world(items: Vec<Item>, async_commit: bool, tape: Vec<u8>) -> World {
    let world = World::new(items);
    world.change(|state| {
        state.own_work = 5;
        state.async_commit = async_commit;
        state.tape = tape.into();
    });
    world
}

/// All transactions are there, and the last position is confirmed: keepalives behind them too.
async fn finish(world: &World, running: Running) {
    world.until_all_is_applied().await;
    world.until("confirming the last position", |state| state.confirmed == state.end()).await;
    let took = running.stop().await;
    assert!(took < Duration::from_secs(5), "it took {took:?} to stop");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn every_fault_at_every_await(
        items in items(),
        options in options(),
        async_commit: bool,
        tape in vec(any::<u8>(), 0..600),
    ) {
        let world = world(items, async_commit, tape);
        on_a_paused_clock(async {
            let running = world.start(options.clone());
            finish(&world, running).await;
        });
        world.assert_sound();
        let bound = options.memory_bytes + LARGEST_PART_BYTES;
        let peak = world.state().peak_held_bytes;
        prop_assert!(peak <= bound, "{peak} bytes were held, {bound} allowed");
    }

    #[test]
    fn stopped_at_any_moment_and_started_again(
        items in items(),
        options in options(),
        async_commit: bool,
        tape in vec(any::<u8>(), 0..600),
        stops_ms in vec(0..400_u64, 1..8),
        apply_takes_ms in prop_oneof![Just(0_u64), 1..50_u64, 2_500..4_000_u64],
    ) {
        let world = world(items, async_commit, tape);
        on_a_paused_clock(async {
            world.change(|state| state.apply_takes = Duration::from_millis(apply_takes_ms));
            for stop_ms in stops_ms {
                let running = world.start(options.clone());
                sleep(Duration::from_millis(stop_ms)).await;
                let took = running.stop().await;
                assert!(took < Duration::from_secs(5), "it took {took:?} to stop");
            }
            let running = world.start(options);
            finish(&world, running).await;
        });
        world.assert_sound();
    }
}
