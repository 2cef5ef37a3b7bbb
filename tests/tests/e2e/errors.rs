//! What can go wrong, one by one: what Relevo says of it, that nothing is lost, and that what it says mends it.
//!
//! What may not enter: what makes going on unsafe (see `refusals`), and faults of links and machines.

mod connecting;
mod fitting;
mod objects;
mod pg_dump;
mod rights;
mod room;
mod rows;
mod sessions;
mod timeouts;

use std::time::Duration;

use relevo_tests::pair::Node;
use relevo_tests::relevo::{Finished, PATIENCE};
use relevo_tests::{Pair, Relevo, RelevoBuilder, wait_until_some};
use serde_json::Value;

/// How long a start that is bound to fail may take.
const START_LIMIT: Duration = Duration::from_secs(30);

/// Panics unless the text contains each of the parts.
#[track_caller]
fn assert_says(text: &str, parts: &[&str]) {
    for part in parts {
        // In a JSON line quotes are escaped.
        let said = text.contains(part) || text.contains(&part.replace('"', "\\\""));
        assert!(said, "nothing of {part:?} in:\n{text}");
    }
}

/// Runs a command that must end with exit code 1 and say all this on standard error, and nothing on standard output.
#[track_caller]
fn fails(relevo: RelevoBuilder, says: &[&str]) -> Finished {
    ends(relevo, 1, says)
}

/// Runs a command that must end with this exit code and say all this on standard error.
#[track_caller]
fn ends(relevo: RelevoBuilder, code: i32, says: &[&str]) -> Finished {
    let finished = relevo.finish_within(START_LIMIT).expect_code(code);
    assert_says(&finished.stderr, says);
    assert_eq!(finished.stdout, "", "standard output is for what was asked for");
    finished
}

/// Waits until the flow has failed for a reason that contains each of the parts; the process must live on.
async fn has_failed(relevo: &mut Relevo, says: &[&str]) -> Value {
    in_state(relevo, "failed", says).await
}

/// Waits until the flow is in the state for a reason that contains each of the parts.
async fn in_state(relevo: &mut Relevo, state: &str, says: &[&str]) -> Value {
    let status = relevo
        .wait_for_status(&format!("state {state} because of {says:?}"), PATIENCE, |status| {
            let detail = status["state_detail"].as_str().unwrap_or_default();
            status["state"] == state && says.iter().all(|part| detail.contains(part))
        })
        .await;
    assert_eq!(relevo.get("/readyz").await.map(|ready| ready.code), Some(503), "a failed flow is not ready");
    assert_eq!(relevo.get("/healthz").await.map(|health| health.code), Some(200), "the process lives");
    status
}

/// A pair with these tables on the source, copied and streaming.
async fn streaming(pair: &Pair, schema: &str) -> Relevo {
    pair.source.sql(schema).await;
    let mut relevo = pair.relevo().start();
    relevo.wait_until_streaming().await;
    relevo
}

/// Waits until a query of one text value yields what is wanted.
async fn wait_for_value(node: &Node, query: &str, wanted: &str) {
    wait_until_some(&format!("{query} = {wanted}"), PATIENCE, async || {
        let found = node.column(query).await;
        if found == [wanted] { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;
}

/// What Relevo might have left on the two sides: slots, publications, schema `relevo`.
async fn traces(pair: &Pair) -> Vec<String> {
    let mut found = pair.source.column("SELECT 'slot ' || slot_name FROM pg_replication_slots").await;
    found.extend(pair.source.column("SELECT 'publication ' || pubname FROM pg_publication").await);
    for (side, node) in [("source", &pair.source), ("target", &pair.target)] {
        let schemas = node.column("SELECT nspname FROM pg_namespace WHERE nspname = 'relevo'").await;
        found.extend(schemas.into_iter().map(|schema| format!("schema {schema} on the {side}")));
    }
    found
}
