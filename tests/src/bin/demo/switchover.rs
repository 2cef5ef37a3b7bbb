//! The end of the demonstration: the role moves while clients write.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use relevo_tests::{Nodes, Relevo};

use crate::load::Clients;
use crate::screen::Screen;
use crate::{AFTER, BEFORE, LOAD_RATE, SCALE, watch_for};

/// How many clients there are.
const CLIENTS: u32 = 4;
/// How long they write before the switchover, and after it.
const BEFORE_IT: Duration = Duration::from_secs(3);
const AFTER_IT: Duration = Duration::from_secs(4);
const HISTORY: &str = "SELECT count(*) FROM pgbench_history";

/// Moves the role from a to b under load. Returns whether every acknowledged transaction is on b, and no other one that
/// was refused.
pub async fn under_load(screen: &Screen, nodes: &Nodes, relevos: &BTreeMap<&str, Relevo>) -> bool {
    let rate = u32::try_from(LOAD_RATE).expect("a small number");
    screen.section(&format!("relevo switchover --to b, under {rate} transactions a second"));
    screen.say("The clients know both nodes and no more: target_session_attrs=read-write.");
    let before: i64 = nodes.node("a").value(HISTORY).await;
    let clients = Clients::start(&nodes.application(), CLIENTS, rate, SCALE);
    watch_for(screen, nodes, BEFORE, &relevos["b"], BEFORE_IT).await;

    let done = nodes.run(&["switchover", "--to", "b"], 0).await;
    for line in done.stdout.lines() {
        screen.say(&format!("  {line}"));
    }
    let acknowledged = clients.told().acknowledged.load(Ordering::Relaxed);
    watch_for(screen, nodes, AFTER, &relevos["a"], AFTER_IT).await;
    let told = clients.finish().await;
    nodes.caught_up("b", "a").await;

    let on_b: i64 = nodes.node("b").value(HISTORY).await;
    let there = u64::try_from(on_b - before).expect("more than before");
    let number = |count: &std::sync::atomic::AtomicU64| count.load(Ordering::Relaxed);
    let (all, refused, unknown) = (number(&told.acknowledged), number(&told.refused), number(&told.unknown));
    screen.say(&format!(
        "Acknowledged: {acknowledged} until then, {} on b since; {refused} were refused. On b are {there}.",
        all - acknowledged
    ));
    // Nobody knows of those whose connection was lost before the answer.
    all <= there && there <= all + unknown && all > acknowledged
}
