//! The role of the primary moves: planned, after a loss, and back.

mod ledger;
mod switchover;

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
