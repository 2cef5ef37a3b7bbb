//! Two `relevo run` of the same flow at once: one works, the other waits and says for whom.

use relevo_tests::pair::DATABASE;
use relevo_tests::relevo::PATIENCE;
use relevo_tests::workload::{Checker, GaplessWriter};
use relevo_tests::{Pair, Relevo, Version, wait_until};
use std::time::Duration;

const HISTORY: &str = "
CREATE TABLE history (n int, note text);
INSERT INTO history SELECT n, 'before' FROM generate_series(1, 5000) n";

async fn is_streaming(relevo: &Relevo) -> bool {
    relevo.status().await.is_some_and(|status| status["state"] == "streaming")
}

async fn is_ready(relevo: &Relevo) -> bool {
    relevo.get("/readyz").await.is_some_and(|answer| answer.code == 200)
}

/// Writes while both run, then takes the working one away: the other goes on.
async fn one_works_and_the_other_takes_over(pair: &Pair, working: &mut Relevo, waiting: &mut Relevo) {
    let writer = GaplessWriter::start(pair.source.config(DATABASE), Duration::from_millis(2));
    let numbers = Checker::gapless(pair.target.config(DATABASE));
    for n in 1..=20 {
        pair.source.sql(&format!("INSERT INTO history VALUES ({n}, 'while two run')")).await;
        assert!(!is_streaming(waiting).await, "two stream at once");
    }
    pair.caught_up().await;
    assert!(!is_ready(waiting).await, "the one that waits is not ready");
    working.kill();
    waiting.wait_until_streaming().await;
    pair.source.sql("INSERT INTO history VALUES (0, 'after the change of hands')").await;
    pair.caught_up().await;
    let last = writer.finish().await;
    assert!(last > 20, "{last} numbers");
    pair.settle().await;
    numbers.finish().await;
    waiting.terminate();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_relevo_of_a_flow_waits_explains_and_takes_over() {
    let pair = Pair::start(Version::V14, Version::V15).await;
    pair.source.sql(HISTORY).await;
    GaplessWriter::create_table(&pair.source.session().await.unwrap()).await;
    let mut first = pair.relevo().start();
    first.wait_until_streaming().await;
    let mut second = pair.relevo().start();
    second.wait_for_log("another session applies this flow; waiting until it ends").await;
    one_works_and_the_other_takes_over(&pair, &mut first, &mut second).await;
}

/// Notes every change of what the flow says of itself, whoever makes it.
const LISTEN: &str = "
CREATE TABLE said (state text, detail text);
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN INSERT INTO public.said VALUES (NEW.state, NEW.detail); RETURN NEW; END $$;
CREATE TRIGGER note AFTER UPDATE ON relevo.flow FOR EACH ROW EXECUTE FUNCTION note();
ALTER TABLE relevo.flow ENABLE ALWAYS TRIGGER note";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relevo_that_waits_does_not_hide_what_the_working_one_says() {
    let pair = Pair::start(Version::V16, Version::V17).await;
    pair.source.sql(HISTORY).await;
    let state = "SELECT concat_ws(': ', state, detail) FROM relevo.flow";
    let is_stored = async |wanted: &str| {
        wait_until(&format!("the stored state is {wanted}"), PATIENCE, async || {
            pair.target.value::<String>(state).await == wanted
        })
        .await;
    };
    let mut first = pair.relevo().start();
    first.wait_until_streaming().await;
    is_stored("streaming").await;
    pair.target.sql(LISTEN).await;
    let mut second = pair.relevo().start();
    second.wait_for_log("another session applies this flow; waiting until it ends").await;
    // Its last word comes after all its others.
    second.terminate();
    assert_eq!(pair.target.column("SELECT concat_ws(': ', state, detail) FROM said").await, [""; 0]);
    is_stored("streaming").await;
    // Whoever works says so, to the last word.
    let mut third = pair.relevo().start();
    third.wait_for_log("another session applies this flow; waiting until it ends").await;
    first.terminate();
    third.wait_until_streaming().await;
    is_stored("streaming").await;
    third.terminate();
    is_stored("stopped").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_that_begin_at_once_on_an_empty_target_make_one_copy() {
    let pair = Pair::start(Version::V18, Version::V18).await;
    pair.source.sql(HISTORY).await;
    GaplessWriter::create_table(&pair.source.session().await.unwrap()).await;
    let (mut one, mut other) = (pair.relevo().start(), pair.relevo().start());
    wait_until("one of both streams", PATIENCE, async || {
        is_streaming(&one).await || is_streaming(&other).await
    })
    .await;
    for relevo in [&mut one, &mut other] {
        assert!(relevo.try_exit().is_none(), "one of both has ended");
    }
    let (working, waiting) =
        if is_streaming(&one).await { (&mut one, &mut other) } else { (&mut other, &mut one) };
    waiting.wait_for_log("another session applies this flow; waiting until it ends").await;
    one_works_and_the_other_takes_over(&pair, working, waiting).await;
    assert_eq!(pair.target.value::<i32>("SELECT copy_attempt FROM relevo.flow").await, 1);
}
