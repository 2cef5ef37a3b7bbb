//! A flow that is held at a position: it gets there at once, stands there, and goes on by itself.

use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use relevo_model::SourceLsn;
use relevo_pipeline::{FlowOptions, FlowState};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::world::{Item, State, Told, World, on_a_paused_clock};

type Holder = watch::Sender<Option<SourceLsn>>;

fn held() -> (Holder, FlowOptions) {
    let (holder, hold) = watch::channel(None);
    (holder, FlowOptions { hold, ..FlowOptions::default() })
}

/// Holds as the database does: whoever applies is refused from now on, and learns of it if `told`.
fn hold(world: &World, holder: &Holder, at: Option<u64>, told: bool) {
    world.change(|state| state.refused_behind = at);
    if told {
        holder.send_replace(at.map(SourceLsn::new));
    }
}

fn small(count: usize) -> Vec<Item> {
    vec![Item::Transaction(vec![10]); count]
}

fn said(state: &State, at: u64) -> bool {
    state.told.contains(&Told::State(FlowState::Held(SourceLsn::new(at))))
}

#[test]
fn it_stands_exactly_there_at_once_and_goes_on_at_once() {
    on_a_paused_clock(async {
        let (holder, options) = held();
        let world = World::new(small(10));
        let running = world.start(options);
        world.until_all_is_applied().await;
        // Between two transactions: the next one ends at 1115.
        hold(&world, &holder, Some(1105), true);
        let begin = Instant::now();
        world.change(|state| state.add([Item::Keepalive].into_iter().chain(small(5))));
        world.until("standing there", |state| state.progress() == 1105).await;
        world.until("saying so", |state| said(state, 1105)).await;
        assert!(begin.elapsed() < Duration::from_millis(10), "{:?}", begin.elapsed());
        sleep(Duration::from_secs(60)).await;
        let (progress, opens) = world.change(|state| (state.progress(), state.opens));
        assert_eq!((progress, opens), (1105, 1));
        let begin = Instant::now();
        hold(&world, &holder, None, true);
        world.until_all_is_applied().await;
        assert!(begin.elapsed() < Duration::from_millis(10), "{:?}", begin.elapsed());
        running.stop().await;
        world.assert_sound();
        assert_eq!(world.state().told.iter().filter(|told| matches!(told, Told::Failed { .. })).count(), 0);
    });
}

#[test]
fn an_idle_source_that_has_passed_the_position_is_enough() {
    on_a_paused_clock(async {
        let (holder, options) = held();
        let world = World::new(small(1));
        let running = world.start(options);
        world.until_all_is_applied().await;
        hold(&world, &holder, Some(1012), true);
        sleep(Duration::from_secs(1)).await;
        assert_eq!(world.state().progress(), 1010, "the source has not said that nothing lies before it");
        let begin = Instant::now();
        world.change(|state| state.add([Item::Keepalive]));
        world.until("standing there", |state| state.progress() == 1012).await;
        assert!(begin.elapsed() < Duration::from_millis(10), "{:?}", begin.elapsed());
        hold(&world, &holder, None, true);
        world.until("going on", |state| state.progress() == 1015).await;
        running.stop().await;
        world.assert_sound();
    });
}

#[test]
fn a_transaction_in_parts_ends_before_the_position_and_does_not_begin_behind_it() {
    on_a_paused_clock(async {
        let (holder, options) = held();
        let options = FlowOptions { batch_bytes: 100, memory_bytes: 300, ..options };
        let large = Item::Transaction(vec![90; 20]);
        let world = World::new(Vec::new());
        world.change(|state| state.apply_takes = Duration::from_millis(5));
        let running = world.start(options);
        world.change(|state| state.add([large.clone()]));
        world.until("being half-way", |state| state.yielded > 5).await;
        hold(&world, &holder, Some(1010), true);
        world.change(|state| state.add([large]));
        world.until("standing behind the first", |state| said(state, 1010)).await;
        sleep(Duration::from_secs(5)).await;
        let (applied, progress) = world.change(|state| (state.applied(), state.progress()));
        assert_eq!((applied, progress), (vec![1000], 1010));
        hold(&world, &holder, None, true);
        world.until_all_is_applied().await;
        assert_eq!(world.state().opens, 1);
        running.stop().await;
        world.assert_sound();
    });
}

#[test]
fn who_does_not_know_is_refused_and_no_harm_is_done() {
    on_a_paused_clock(async {
        let (holder, options) = held();
        let world = World::new(small(10));
        let running = world.start(options);
        world.until_all_is_applied().await;
        hold(&world, &holder, Some(1100), false);
        world.change(|state| state.add(small(5)));
        world.until("being refused", |state| state.opens > 3).await;
        assert_eq!(world.state().progress(), 1100);
        holder.send_replace(Some(SourceLsn::new(1100)));
        world.until("standing there", |state| said(state, 1100)).await;
        hold(&world, &holder, None, true);
        world.until_all_is_applied().await;
        running.stop().await;
        world.assert_sound();
        let told = world.state().told.clone();
        assert!(!told.iter().any(|told| matches!(told, Told::Failed { .. })), "{told:?}");
        assert!(!told.contains(&Told::State(FlowState::Retrying)), "{told:?}");
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn held_anywhere_at_any_moment_it_stands_there_and_loses_nothing(
        before in vec(1..4_usize, 0..12),
        behind in vec(1..4_usize, 1..12),
        in_parts: bool,
        batch_bytes in 1..200_usize,
        apply_takes_ms in 0..20_u64,
        wait_ms in 0..60_u64,
        told: bool,
        tape in vec(any::<u8>(), 0..200),
    ) {
        let item = |parts: usize| Item::Transaction(vec![40; if in_parts { parts } else { 1 }]);
        let world = World::new(before.iter().map(|parts| item(*parts)).collect());
        world.change(|state| {
            state.apply_takes = Duration::from_millis(apply_takes_ms);
            state.tape = tape.into();
        });
        let (holder, options) = held();
        let options = FlowOptions { batch_bytes, ..options };
        on_a_paused_clock(async {
            let running = world.start(options);
            sleep(Duration::from_millis(wait_ms)).await;
            // Where the source's WAL ends now: whatever is half-way commits before it.
            let at = world.state().end();
            hold(&world, &holder, Some(at), told);
            world.change(|state| state.add(behind.iter().map(|parts| item(*parts))));
            if !told {
                sleep(Duration::from_millis(50)).await;
                hold(&world, &holder, Some(at), true);
            }
            world.until("standing there", |state| state.progress() == at).await;
            sleep(Duration::from_secs(20)).await;
            assert_eq!(world.state().progress(), at);
            hold(&world, &holder, None, true);
            world.until_all_is_applied().await;
            running.stop().await;
        });
        world.assert_sound();
    }
}
