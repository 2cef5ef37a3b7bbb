//! Tables, columns and types of the target that do not fit those of the source.

use relevo_tests::{Pair, Version};

use super::{assert_says, fails, has_failed, streaming, traces};

#[tokio::test]
async fn existing_tables_that_do_not_fit_are_listed_at_the_first_start_and_nothing_is_changed() {
    let pair = Pair::start(Version::V15, Version::V16).await;
    pair.source
        .sql(
            "CREATE TABLE absent (id int PRIMARY KEY); CREATE TABLE narrow (id int PRIMARY KEY, note text, more text);
             CREATE TABLE other (id int PRIMARY KEY, amount text); INSERT INTO absent VALUES (1)",
        )
        .await;
    pair.target
        .sql("CREATE TABLE narrow (id int PRIMARY KEY); CREATE TABLE other (id int PRIMARY KEY, amount int)")
        .await;
    let finished = fails(pair.relevo(), &["public.absent", "public.narrow", "note", "more"]);
    assert_says(&finished.stderr, &["relevo check"]);
    assert_eq!(traces(&pair).await, [""; 0], "nothing was made on either side");
    let check = pair.command("check").arg("--json").finish().expect_code(1).json();
    let other: Vec<_> = check["findings"]
        .as_array()
        .expect("findings")
        .iter()
        .filter(|finding| finding["subject"].as_str().is_some_and(|subject| subject.contains("other")))
        .collect();
    assert!(
        other.iter().any(|finding| finding.to_string().contains("integer")),
        "the column of another type is a finding: {other:?}"
    );

    pair.target.sql("CREATE TABLE absent (id int PRIMARY KEY)").await;
    pair.target.sql("ALTER TABLE narrow ADD note text, ADD more text; DROP TABLE other").await;
    pair.target.sql("CREATE TABLE other (id int PRIMARY KEY, amount text)").await;
    let mut relevo = pair.relevo().start();
    relevo.wait_until_streaming().await;
    pair.settle().await;
    relevo.terminate();
}

#[tokio::test]
async fn a_table_or_column_that_is_missing_later_stops_the_flow_until_it_is_there() {
    let pair = Pair::start(Version::V14, Version::V15).await;
    let mut relevo = streaming(
        &pair,
        "CREATE TABLE t (id int PRIMARY KEY, note text); CREATE TABLE u (id int PRIMARY KEY)",
    )
    .await;

    pair.target.sql("ALTER TABLE t RENAME TO elsewhere").await;
    pair.source.sql("INSERT INTO t VALUES (1, 'a'); INSERT INTO u VALUES (1)").await;
    has_failed(&mut relevo, &["target", "table public.t"]).await;
    pair.source.sql("INSERT INTO t VALUES (2, 'b')").await;
    pair.target.sql("ALTER TABLE elsewhere RENAME TO t").await;
    relevo.wait_until_streaming().await;
    pair.settle().await;

    pair.source.sql("ALTER TABLE t ADD price numeric, ADD \"Mixed Case\" int").await;
    pair.source.sql("INSERT INTO t VALUES (3, 'c', 1.5, 7); UPDATE t SET price = 2 WHERE id = 1").await;
    has_failed(&mut relevo, &["target", "table public.t lacks columns price, Mixed Case", "add them"]).await;
    pair.target.sql("ALTER TABLE t ADD price numeric, ADD \"Mixed Case\" int").await;
    relevo.wait_until_streaming().await;
    pair.settle().await;

    // Under a statement that is prepared already.
    pair.source.sql("UPDATE t SET note = 'x' WHERE id = 1").await;
    pair.caught_up().await;
    pair.target.sql("ALTER TABLE t RENAME note TO remark").await;
    pair.source.sql("UPDATE t SET note = 'y' WHERE id = 1").await;
    has_failed(&mut relevo, &["target", "public.t", "note"]).await;
    pair.target.sql("ALTER TABLE t RENAME remark TO note").await;
    relevo.wait_until_streaming().await;
    pair.settle().await;

    pair.target.sql("DROP TABLE u").await;
    pair.source.sql("UPDATE u SET id = 2").await;
    has_failed(&mut relevo, &["target", "table public.u"]).await;
    pair.target.sql("CREATE TABLE u (id int PRIMARY KEY); INSERT INTO u VALUES (1)").await;
    relevo.wait_until_streaming().await;
    pair.settle().await;
    relevo.terminate();
}

/// What the target is made like, a change that it then refuses, what is said, and what mends it.
struct Misfit {
    made: &'static str,
    change: &'static [&'static str],
    says: &'static [&'static str],
    mended: &'static str,
}

const SCHEMA: &str = "
CREATE TYPE colour AS ENUM ('red', 'green');
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE TABLE t (id int PRIMARY KEY, a text, n numeric, v varchar(20), c colour, p positive, m int);
INSERT INTO t VALUES (1, '1', 1, 'short', 'red', 1, 1);
";

const MISFITS: &[Misfit] = &[
    Misfit {
        made: "ALTER TABLE t ALTER a TYPE integer USING a::integer",
        change: &["UPDATE t SET a = 'two' WHERE id = 1"],
        says: &["update on public.t", "column a", "row id=1", "integer", "give the target's column the type"],
        mended: "ALTER TABLE t ALTER a TYPE text",
    },
    Misfit {
        made: "ALTER TABLE t ALTER n TYPE numeric(3,0)",
        change: &["INSERT INTO t (id, n) VALUES (2, 12345)"],
        says: &[
            "insert on public.t",
            "column n",
            "row id=2",
            "overflow",
            "give the target's column the type",
        ],
        mended: "ALTER TABLE t ALTER n TYPE numeric",
    },
    Misfit {
        made: "ALTER TABLE t ALTER v TYPE varchar(5)",
        // Enough of them to go by COPY.
        change: &["INSERT INTO t (id, v) SELECT n, CASE n WHEN 140 THEN 'far too long' ELSE 'ok' END
                   FROM generate_series(100, 150) n"],
        says: &["insert on public.t", "column v", "row id=140", "character varying(5)"],
        mended: "ALTER TABLE t ALTER v TYPE varchar(20)",
    },
    Misfit {
        made: "SELECT",
        change: &["ALTER TYPE colour ADD VALUE 'blue'", "UPDATE t SET c = 'blue' WHERE id = 2"],
        says: &["update on public.t", "column c", "row id=2", "enum public.colour", "blue"],
        mended: "ALTER TYPE colour ADD VALUE 'blue'",
    },
    Misfit {
        made: "ALTER DOMAIN positive ADD CONSTRAINT small CHECK (VALUE < 100)",
        change: &["UPDATE t SET p = 1000 WHERE id = 2"],
        says: &["update on public.t", "row id=2", "small", "nothing was lost"],
        mended: "ALTER DOMAIN positive DROP CONSTRAINT small",
    },
    Misfit {
        made: "ALTER TABLE t ADD CONSTRAINT m_is_small CHECK (m < 10)",
        change: &["UPDATE t SET m = 11 WHERE id = 1"],
        says: &[
            "update on public.t",
            "row id=1",
            "m_is_small",
            "change the constraint or the data",
            "nothing was lost",
        ],
        mended: "ALTER TABLE t DROP CONSTRAINT m_is_small",
    },
    Misfit {
        made: "UPDATE t SET m = 0 WHERE m IS NULL; ALTER TABLE t ALTER m SET NOT NULL",
        change: &["INSERT INTO t (id) VALUES (3)"],
        says: &["insert on public.t", "column m", "row id=3", "not-null", "nothing was lost"],
        mended: "ALTER TABLE t ALTER m DROP NOT NULL; UPDATE t SET m = NULL WHERE m = 0",
    },
];

#[tokio::test]
async fn a_value_that_does_not_fit_stops_the_flow_with_row_and_column_until_the_target_takes_it() {
    let pair = Pair::start(Version::V15, Version::V17).await;
    let mut relevo = streaming(&pair, SCHEMA).await;
    for Misfit { made, change, says, mended } in MISFITS {
        pair.target.sql(made).await;
        for statements in *change {
            pair.source.sql(statements).await;
        }
        has_failed(&mut relevo, says).await;
        pair.target.sql(mended).await;
        relevo.wait_until_streaming().await;
        pair.settle().await;
    }
    relevo.terminate();
}
