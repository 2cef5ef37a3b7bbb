//! What the board shows besides the flow itself, under a clock that only moves when it is told to.

#![allow(clippy::unwrap_used, reason = "all of this is test code, helpers too")]

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use relevo_model::{Side, SourceLsn, Timestamp};
use relevo_telemetry::{
    Board, Clock, Heard, Identity, NodeSight, NodeStatus, Role, RunState, Sample, SlotStatus,
};

/// A board, and its clock.
fn board() -> (Arc<Board>, Arc<AtomicI64>) {
    let clock = Arc::new(AtomicI64::new(800_000_000_000_000));
    let reader = Arc::clone(&clock);
    let identity = Identity {
        name: "shop".to_owned(),
        node: None,
        role: Role::Standby,
        epoch: 1,
        version: "1.2.3".to_owned(),
    };
    let now = Clock::from_fn(move || Timestamp::from_postgres_us(reader.load(Ordering::SeqCst)));
    (Board::with_clock(identity, now).unwrap(), clock)
}

/// So many seconds go by, in which the board is looked at as often.
fn seconds(board: &Board, clock: &AtomicI64, count: u32, mut each: impl FnMut(u32)) {
    for second in 0..count {
        each(second);
        board.look();
        clock.fetch_add(1_000_000, Ordering::SeqCst);
    }
}

fn slot(retained_bytes: u64, safe_bytes: u64) -> Option<SlotStatus> {
    Some(SlotStatus {
        name: "relevo_shop".to_owned(),
        wal_status: Some("reserved".to_owned()),
        retained_bytes: Some(retained_bytes),
        safe_bytes: Some(safe_bytes),
    })
}

#[test]
fn a_source_that_does_not_answer_has_no_rate_and_its_slot_no_future() {
    let (board, clock) = board();
    board.set_state(RunState::Streaming, None);
    seconds(&board, &clock, 120, |second| {
        board.source_polled(SourceLsn::new(u64::from(second) * 1000), None);
        board.set_slot(slot(u64::from(second) * 500, 1_000_000 - u64::from(second) * 500));
        board.opened(SourceLsn::new(u64::from(second) * 1000), None);
    });
    let before = board.history();
    let left = before.slot_budget.remaining_seconds.unwrap();
    assert!((left - f64::from(1_000_000 - 115 * 500) / 500.0).abs() < 1.0, "{left}");
    assert!((before.slot_budget.wal_bytes_per_second.unwrap() - 1000.0).abs() < 1.0);
    assert_eq!(before.samples.last().unwrap().lag_seconds, Some(0.0));

    // Only the target answers from here on. The board keeps what the source said last; the history does not repeat it.
    seconds(&board, &clock, 60, |_| board.contact(Side::Target));
    let after = board.history();
    let last: &Sample = after.samples.last().unwrap();
    assert_eq!((last.retained_bytes, last.safe_bytes, last.lag_bytes), (None, None, None));
    assert_eq!(last.wal_bytes_per_second, None);
    assert!(last.lag_seconds.unwrap() > 50.0, "{last:?}");
    assert_eq!(after.slot_budget.remaining_seconds, None);
    assert_eq!(after.slot_budget.wal_bytes_per_second, None);
    assert!(board.snapshot().slot.is_some());
}

#[test]
fn a_primary_is_behind_nobody_and_the_past_of_the_standby_stays() {
    let (board, clock) = board();
    seconds(&board, &clock, 11, |_| {});
    board.set_role(Role::Primary, 2);
    seconds(&board, &clock, 10, |_| {});
    let samples = board.history().samples;
    let roles: Vec<_> = samples.iter().map(|sample| (sample.role, sample.epoch)).collect();
    let (standby, primary) = ((Role::Standby, 1), (Role::Primary, 2));
    assert_eq!(roles, [standby, standby, standby, primary, primary]);
    assert_eq!(samples[2].lag_seconds, Some(10.0));
    assert_eq!((samples[3].lag_seconds, samples[3].lag_bytes), (None, None));
}

#[test]
fn the_silence_of_a_node_grows_when_nobody_tells_of_it_any_more() {
    let (board, clock) = board();
    let sight = |name: &str, heard| NodeSight {
        name: name.to_owned(),
        place: format!("{name}:5432/shop"),
        role: None,
        epoch: None,
        here: false,
        source: None,
        heard,
        reader: None,
    };
    board.set_nodes(vec![
        sight("a", Heard::Ago(Duration::from_secs(3))),
        sight("b", Heard::Never),
        sight("c", Heard::Side(Side::Target)),
    ]);
    board.contact(Side::Target);
    clock.fetch_add(7_000_000, Ordering::SeqCst);
    let silent = |nodes: &[NodeStatus]| nodes.iter().map(|node| node.silent_seconds).collect::<Vec<_>>();
    assert_eq!(silent(&board.snapshot().nodes), [Some(10.0), None, Some(7.0)]);
    board.contact(Side::Target);
    assert_eq!(silent(&board.snapshot().nodes), [Some(10.0), None, Some(0.0)]);
}

#[tokio::test]
async fn the_history_is_kept_until_the_end() {
    let (board, clock) = board();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let keeper = tokio::spawn(Arc::clone(&board).keep_history(async {
        let _ = stopped.await;
    }));
    // It looks at once, and once a second; the clock of the board is another one.
    while board.history().samples.is_empty() {
        tokio::task::yield_now().await;
    }
    clock.fetch_add(5_000_000, Ordering::SeqCst);
    while board.history().samples.len() < 2 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    stop.send(()).unwrap();
    keeper.await.unwrap();
}
