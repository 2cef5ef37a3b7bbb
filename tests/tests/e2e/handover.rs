//! The role of the primary moves: planned, after a loss, and back.

pub mod armed;
mod failover;
mod hooks;
mod ledger;
mod links;
mod locks;
mod losses;
mod nodes;
mod partitions;
mod switchover;

use relevo_tests::{Database, Nodes};

/// Tables of several kinds: an identity, a key that is no number, a partitioned one, one without any key.
pub const SCHEMA: &str = "
CREATE TABLE purchase (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, who text, amount numeric(12,2));
CREATE TABLE setting (name text PRIMARY KEY, value text);
CREATE TABLE measure (at date NOT NULL, n int NOT NULL, value float8, PRIMARY KEY (at, n)) PARTITION BY RANGE (at);
CREATE TABLE measure_2025 PARTITION OF measure FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
CREATE TABLE measure_2026 PARTITION OF measure FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
CREATE TABLE logbook (at timestamptz DEFAULT now(), message text);
CREATE SEQUENCE ticket;
INSERT INTO purchase (who, amount) SELECT 'customer ' || n, n FROM generate_series(1, 100) n;
INSERT INTO setting SELECT 'setting ' || n, repeat('v', n) FROM generate_series(1, 50) n;
INSERT INTO measure SELECT date '2025-06-01' + n, n, n / 3.0 FROM generate_series(1, 400) n;
INSERT INTO logbook (message) SELECT 'line ' || n FROM generate_series(1, 20) n;
SELECT nextval('ticket') FROM generate_series(1, 7);
";

/// Standbys keep no slots for each other.
pub const UNARMED: &str = "[handover]\narmed_wal = \"0B\"\n";

/// What an ordinary session may try on a node that is not the primary.
const WRITES: [&str; 7] = [
    "INSERT INTO setting VALUES ('forbidden', '')",
    "BEGIN READ WRITE; UPDATE purchase SET who = 'forbidden'; COMMIT",
    "DELETE FROM measure_2025",
    "INSERT INTO measure VALUES ('2026-02-02', 1, 1)",
    "TRUNCATE logbook",
    "COPY logbook (message) FROM PROGRAM 'echo forbidden'",
    "CREATE TABLE forbidden AS SELECT 1 AS n",
];

/// A session that does not mind that sessions are read-only by default.
pub async fn stubborn(nodes: &Nodes, node: &str) -> Database {
    let session = nodes.node(node).connect("shop").await;
    session.sql("SET default_transaction_read_only = off").await;
    session
}

/// No ordinary session can write to the node.
pub async fn refuses_writes(nodes: &Nodes, node: &str, primary: &str) {
    for write in WRITES {
        let session = stubborn(nodes, node).await;
        let error = session.try_sql(write).await.expect_err(write);
        let error = error.as_db_error().expect("the server's own error");
        assert_eq!(error.code().code(), "25006", "{write}: {error}");
        assert!(error.message().contains(&format!("node {primary} is")), "{write}: {error}");
    }
    let polite = nodes.node(node).connect("shop").await;
    let error = polite.try_sql(WRITES[0]).await.expect_err("sessions are read-only by default");
    assert_eq!(error.code().map(|code| code.code()), Some("25006"));
}

/// Whether an ordinary session can write to the node.
pub async fn writable(nodes: &Nodes, node: &str) -> bool {
    stubborn(nodes, node).await.try_sql("DELETE FROM setting WHERE name = 'no such'").await.is_ok()
}
