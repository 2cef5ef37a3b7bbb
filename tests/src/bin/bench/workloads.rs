//! The workloads. Nothing in them is random, so that each round applies the same changes.
//!
//! A DO block with a COMMIT in its loop makes many small transactions quickly. Factors such as 7919 scatter the rows.

use crate::ways::Way;
use crate::workload::{Load, Unit, Workload};

/// The usual ways.
const WAYS: &[Way] = &[Way::Native, Way::Relevo, Way::Drain];

/// A table for changes in one transaction.
const BULK: &str =
    "CREATE TABLE bulk (id bigint PRIMARY KEY, number int NOT NULL, at timestamptz NOT NULL, note text)";
const FILL_BULK: &str = "
INSERT INTO bulk SELECT i, i % 1000, timestamptz '2020-01-01 00:00Z' + i * interval '1 minute', md5(i::text)
  FROM generate_series(1, @500000@) AS i";

const SINGLES: &str = "CREATE TABLE singles (id bigint PRIMARY KEY, number int NOT NULL, note text NOT NULL)";
const LOAD_SINGLES: &str = "DO $$ BEGIN
FOR i IN 1..@100000@ LOOP
    INSERT INTO singles VALUES (i, i % 1000, md5(i::text));
    COMMIT;
END LOOP; END $$";

const HOT: &[&str] = &[
    "CREATE TABLE hot (id int PRIMARY KEY, count bigint NOT NULL, note text NOT NULL)",
    "INSERT INTO hot SELECT i, 0, md5(i::text) FROM generate_series(1, 100) AS i",
];
const LOAD_HOT: &str = "DO $$ BEGIN
FOR i IN 1..@100000@ LOOP
    UPDATE hot SET count = count + 1, note = md5(i::text) WHERE id = 1 + i::bigint * 7919 % 100;
    COMMIT;
END LOOP; END $$";

const MIXED: &[&str] = &[
    "CREATE TABLE customers (id int PRIMARY KEY, name text NOT NULL, balance numeric(12,2) NOT NULL, orders int NOT NULL,
                             seen timestamptz NOT NULL)",
    "CREATE TABLE orders (id bigint PRIMARY KEY, customer int NOT NULL, state text NOT NULL, total numeric(12,2) NOT NULL,
                          at timestamptz NOT NULL)",
    "CREATE INDEX orders_customer ON orders (customer)",
    "CREATE TABLE items (order_id bigint, line int, product int NOT NULL, quantity int NOT NULL,
                         price numeric(10,2) NOT NULL, PRIMARY KEY (order_id, line))",
    "INSERT INTO customers SELECT i, md5(i::text), 0, 0, '2020-01-01 00:00Z' FROM generate_series(1, @50000@) AS i",
    "INSERT INTO orders SELECT i, 1 + i::bigint * 7919 % @50000@, 'new', i % 10000 / 100.0,
                               timestamptz '2020-01-01 00:00Z' + i * interval '1 minute'
       FROM generate_series(1, @100000@) AS i",
    "INSERT INTO items SELECT i, line, i % 5000, line, 9.99
       FROM generate_series(1, @100000@) AS i, generate_series(1, 2) AS line",
];
/// An order with one or two items, its customer, and sometimes an older order: three to six changes.
const LOAD_MIXED: &str = "DO $$ BEGIN
FOR i IN 1..@20000@ LOOP
    INSERT INTO orders VALUES (@100000@ + i, 1 + i::bigint * 31337 % @50000@, 'new', i % 10000 / 100.0, clock_timestamp());
    INSERT INTO items SELECT @100000@ + i, line, i % 5000, line, 9.99 FROM generate_series(1, 1 + i % 2) AS line;
    UPDATE customers SET balance = balance + 9.99, orders = orders + 1, seen = clock_timestamp()
     WHERE id = 1 + i::bigint * 31337 % @50000@;
    IF i % 3 = 0 THEN
        UPDATE orders SET state = 'paid' WHERE id = 1 + i::bigint * 7919 % @100000@;
    END IF;
    IF i % 4 = 0 THEN
        DELETE FROM items WHERE order_id = i AND line = 2;
    END IF;
    COMMIT;
END LOOP; END $$";

/// A table of 40 columns: a key, JSON, a text that is stored out of line in each tenth row, and 37 more.
const WIDE: &[&str] = &[
    "DO $$ BEGIN EXECUTE 'CREATE TABLE wide (id bigint PRIMARY KEY, doc jsonb NOT NULL, big text, ' || (
        SELECT string_agg(format('c%s %s', n, (ARRAY['int', 'text', 'numeric(12,2)', 'timestamptz', 'boolean'])[1 + n % 5]), ', ')
          FROM generate_series(1, 37) AS n) || ')'; END $$",
    "DO $$ BEGIN EXECUTE 'INSERT INTO wide SELECT i,
            jsonb_build_object(''id'', i, ''name'', md5(i::text), ''tags'', jsonb_build_array(''new'', ''red'', i % 7),
                               ''address'', jsonb_build_object(''street'', md5((i + 1)::text), ''zip'', i % 99999)),
            CASE WHEN i % 10 = 0 THEN (SELECT string_agg(md5((i + k)::text), '''') FROM generate_series(1, 100) AS k) END, ' || (
        SELECT string_agg(replace((ARRAY['i + N', 'md5((i + N)::text)', '(i * N) % 100000 / 100.0',
                                         'timestamptz ''2020-01-01 00:00Z'' + i * interval ''N seconds''', '(i + N) % 2 = 0'])[1 + n % 5],
                                  'N', n::text), ', ')
          FROM generate_series(1, 37) AS n) || ' FROM generate_series(1, @20000@) AS i'; END $$",
];
/// An insert and an update in each transaction; the update leaves the large text as it is.
const LOAD_WIDE: &[&str] = &[
    "CREATE TEMPORARY TABLE samples AS SELECT * FROM wide WHERE id <= 100",
    "DO $$ DECLARE sample wide%ROWTYPE; BEGIN
FOR i IN 1..@20000@ LOOP
    SELECT * INTO sample FROM samples OFFSET i % (SELECT count(*) FROM samples) LIMIT 1;
    sample.id := @20000@ + i;
    INSERT INTO wide VALUES (sample.*);
    UPDATE wide SET c5 = c5 + 1, c6 = md5(i::text), doc = doc || jsonb_build_object('seen', i)
     WHERE id = 1 + i::bigint * 7919 % @20000@;
    COMMIT;
END LOOP; END $$",
];

const INDEXED: &[&str] = &[
    "CREATE TABLE indexed (id bigint PRIMARY KEY, customer int NOT NULL, kind text NOT NULL, amount numeric(12,2) NOT NULL,
                           at timestamptz NOT NULL, note text NOT NULL)",
    "INSERT INTO indexed SELECT i, i::bigint * 7919 % 65536, (ARRAY['order', 'payment', 'refund', 'delivery'])[1 + i % 4],
                                i::bigint * 31337 % 1000000 / 100.0, timestamptz '2020-01-01 00:00Z' + i * interval '7 seconds',
                                md5(i::text)
       FROM generate_series(1, @200000@) AS i",
    "CREATE INDEX indexed_customer ON indexed (customer, at)",
    "CREATE INDEX indexed_amount ON indexed (kind, amount)",
    "CREATE INDEX indexed_at ON indexed (at)",
];
const LOAD_INDEXED: &str = "DO $$ BEGIN
FOR i IN 1..@20000@ LOOP
    INSERT INTO indexed VALUES (@200000@ + i, i::bigint * 7919 % 65536, 'order', i % 10000 / 100.0, clock_timestamp(), md5(i::text));
    UPDATE indexed SET amount = amount + 1 WHERE id = 1 + i::bigint * 7919 % @200000@;
    UPDATE indexed SET customer = i % 65536, at = clock_timestamp() WHERE id = 1 + i::bigint * 31337 % @200000@;
    COMMIT;
END LOOP; END $$";

const FULL: &[&str] = &[
    "CREATE TABLE keyed (id int PRIMARY KEY, number int NOT NULL, note text)",
    "INSERT INTO keyed SELECT i, i, md5(i::text) FROM generate_series(1, @50000@) AS i",
    "ALTER TABLE keyed REPLICA IDENTITY FULL",
    "CREATE TABLE keyless (code int NOT NULL, number int NOT NULL, note text)",
    "INSERT INTO keyless SELECT i % 150, 0, 'as ever' FROM generate_series(1, 200) AS i",
    "ALTER TABLE keyless REPLICA IDENTITY FULL",
];
const LOAD_FULL: &str = "DO $$ BEGIN
FOR i IN 1..@20000@ LOOP
    UPDATE keyed SET number = number + 1 WHERE id = 1 + i::bigint * 7919 % @50000@;
    IF i % 4 = 0 THEN
        DELETE FROM keyed WHERE id = 1 + i::bigint * 31337 % @50000@;
    END IF;
    IF i % 2 = 0 THEN
        UPDATE keyless SET number = number + 1 WHERE code = i % 150;
    END IF;
    IF i % 10 = 0 THEN
        DELETE FROM keyless WHERE code = i % 150;
        INSERT INTO keyless VALUES (i % 150, i, 'again');
    END IF;
    COMMIT;
END LOOP; END $$";

/// All of them.
pub const ALL: &[Workload] = &[
    Workload {
        name: "tpcb",
        unit: Unit::Transactions,
        count: 20_000,
        setup: &[],
        load: Load::Pgbench { init: "-i -q -s @10@", run: "-n -c 4 -j 2 -t @5000@ --random-seed=1" },
        ways: WAYS,
        bars: (2.0, 2.0),
    },
    Workload {
        name: "mixed",
        unit: Unit::Transactions,
        count: 20_000,
        setup: MIXED,
        load: Load::Statements(&[LOAD_MIXED]),
        ways: WAYS,
        bars: (2.0, 2.0),
    },
    Workload {
        name: "inserts",
        unit: Unit::Transactions,
        count: 100_000,
        setup: &[SINGLES],
        load: Load::Statements(&[LOAD_SINGLES]),
        ways: WAYS,
        bars: (1.0, 1.0),
    },
    Workload {
        name: "hot",
        unit: Unit::Transactions,
        count: 100_000,
        setup: HOT,
        load: Load::Statements(&[LOAD_HOT]),
        ways: WAYS,
        bars: (4.0, 2.0),
    },
    Workload {
        name: "bulk_insert",
        unit: Unit::Rows,
        count: 500_000,
        setup: &[BULK],
        load: Load::Statements(&[FILL_BULK]),
        ways: WAYS,
        bars: (1.2, 1.2),
    },
    Workload {
        name: "bulk_update",
        unit: Unit::Rows,
        count: 500_000,
        setup: &[BULK, FILL_BULK],
        load: Load::Statements(&["UPDATE bulk SET number = number + 1, note = reverse(note)"]),
        ways: WAYS,
        bars: (1.5, 1.5),
    },
    Workload {
        name: "bulk_delete",
        unit: Unit::Rows,
        count: 500_000,
        setup: &[BULK, FILL_BULK],
        load: Load::Statements(&["DELETE FROM bulk"]),
        ways: WAYS,
        bars: (1.5, 1.5),
    },
    Workload {
        name: "wide",
        unit: Unit::Transactions,
        count: 20_000,
        setup: WIDE,
        load: Load::Statements(LOAD_WIDE),
        ways: WAYS,
        bars: (1.0, 1.0),
    },
    Workload {
        name: "indexes",
        unit: Unit::Transactions,
        count: 20_000,
        setup: INDEXED,
        load: Load::Statements(&[LOAD_INDEXED]),
        ways: WAYS,
        bars: (1.0, 1.0),
    },
    Workload {
        name: "full",
        unit: Unit::Transactions,
        count: 20_000,
        setup: FULL,
        load: Load::Statements(&[LOAD_FULL]),
        ways: WAYS,
        bars: (1.0, 1.0),
    },
    // For its memory alone: nothing else is waited for.
    Workload {
        name: "huge",
        unit: Unit::Rows,
        count: 5_000_000,
        setup: &[BULK],
        load: Load::Statements(&["
INSERT INTO bulk SELECT i, i % 1000, timestamptz '2020-01-01 00:00Z' + i * interval '1 minute', md5(i::text)
  FROM generate_series(1, @5000000@) AS i"]),
        ways: &[Way::Relevo],
        bars: (0.0, 0.0),
    },
];
