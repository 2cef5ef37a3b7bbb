//! Sequences follow the source while the flow streams: whoever writes to the target afterwards meets no duplicate key.

use relevo_tests::relevo::PATIENCE;
use relevo_tests::{Pair, Relevo, Version, wait_until_some};

const SCHEMA: &str = r#"
CREATE TABLE ticket (id serial PRIMARY KEY, note text);
CREATE TABLE bill (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, note text);
CREATE TABLE renamed (id serial PRIMARY KEY);
CREATE SEQUENCE down INCREMENT -3 MINVALUE -1000 MAXVALUE -1;
CREATE SEQUENCE round MINVALUE 1 MAXVALUE 5 CYCLE;
CREATE SEQUENCE "Own ""Name" AS smallint START 7;
CREATE SEQUENCE gone;
DO $$ BEGIN FOR n IN 1..600 LOOP EXECUTE format('CREATE SEQUENCE many_%s', n); END LOOP; END $$"#;

/// Where every sequence of schema public stands, one a line.
async fn stand(node: &relevo_tests::pair::Node, without: &[&str]) -> Vec<String> {
    let names = node
        .column("SELECT format('%I', relname) FROM pg_class WHERE relkind = 'S' AND relnamespace = 'public'::regnamespace \
                 ORDER BY relname COLLATE \"C\"")
        .await;
    let one = |name: &String| {
        // One that has another name on the target is shown by its name on the source.
        let shown = name.replace("another_name", "renamed_id_seq").replace('\'', "''");
        format!("SELECT '{shown} ' || last_value || ' ' || is_called FROM public.{name}")
    };
    let query: Vec<String> = names.iter().filter(|name| !without.contains(&name.as_str())).map(one).collect();
    let mut lines = node.column(&query.join(" UNION ALL ")).await;
    lines.sort();
    lines
}

async fn equal(pair: &Pair, what: &str, without: &[&str]) {
    wait_until_some(&format!("{what}: every sequence stands as on the source"), PATIENCE, async || {
        let (source, target) = (stand(&pair.source, without).await, stand(&pair.target, without).await);
        assert_eq!(source.len(), target.len());
        match source.iter().zip(&target).find(|(one, other)| one != other) {
            None => Ok(()),
            Some(difference) => Err(format!("{difference:?}")),
        }
    })
    .await;
}

fn times(relevo: &Relevo, text: &str) -> usize {
    relevo.stderr().lines().filter(|line| line.contains(text)).count()
}

#[tokio::test]
async fn sequences_follow_while_streaming_wherever_they_go() {
    let pair = Pair::start(Version::V14, Version::V18).await;
    pair.source.sql(SCHEMA).await;
    let mut relevo = pair.relevo().args(["--heartbeat-interval", "1s"]).start();
    relevo.wait_until_streaming().await;
    pair.target.sql("ALTER SEQUENCE renamed_id_seq RENAME TO another_name; DROP SEQUENCE gone").await;
    let without = ["gone"];
    pair.source
        .sql(
            r#"INSERT INTO ticket (note) SELECT 'n' FROM generate_series(1, 40);
            INSERT INTO bill (note) SELECT 'n' FROM generate_series(1, 30);
            INSERT INTO renamed SELECT FROM generate_series(1, 20);
            SELECT nextval('down') FROM generate_series(1, 3);
            SELECT nextval('round') FROM generate_series(1, 4);
            SELECT nextval('"Own ""Name"');
            SELECT setval('gone', 9);
            DO $$ BEGIN FOR n IN 1..600 LOOP PERFORM setval('many_' || n, n, n % 2 = 0); END LOOP; END $$"#,
        )
        .await;
    equal(&pair, "ahead", &without).await;
    // Back, wherever the source goes back: a cycle, RESTART, setval, TRUNCATE with RESTART IDENTITY.
    pair.source.sql("SELECT nextval('round') FROM generate_series(1, 3); ALTER SEQUENCE down RESTART").await;
    pair.source.sql("SELECT setval('many_500', 3, false); TRUNCATE ticket RESTART IDENTITY").await;
    pair.source.sql("INSERT INTO ticket (note) VALUES ('after')").await;
    equal(&pair, "back", &without).await;
    pair.settle().await;
    equal(&pair, "after the truncate has arrived", &without).await;
    assert_eq!(times(&relevo, "gone keeps its value"), 1, "said once");
    assert!(relevo.metrics().await.value("relevo_sequences_set_total") > 600.0);
    relevo.terminate();
    // The hand-over.
    for table in ["ticket", "bill", "renamed"] {
        pair.target.sql(&format!("INSERT INTO {table} DEFAULT VALUES")).await;
    }
}

#[tokio::test]
async fn a_sequence_that_was_drawn_from_on_the_target_is_named_and_left_until_the_source_has_passed_it() {
    let pair = Pair::start(Version::V17, Version::V15).await;
    pair.source.sql("CREATE SEQUENCE s; CREATE SEQUENCE beat; SELECT setval('s', 10)").await;
    pair.source.sql("CREATE TABLE t (id int PRIMARY KEY)").await;
    let mut relevo = pair.relevo().args(["--heartbeat-interval", "1s"]).start();
    relevo.wait_until_streaming().await;
    pair.target.sql("SELECT setval('s', 100)").await;
    relevo.wait_for_log("sequence public.s keeps its value on the target: it is ahead").await;
    // More looks, so that a second word or a step back would have come.
    for _ in 0..3 {
        pair.source.sql("SELECT nextval('s'), nextval('beat')").await;
        equal(&pair, "the other one follows", &["s"]).await;
    }
    assert_eq!(pair.target.value::<i64>("SELECT last_value FROM s").await, 100);
    assert_eq!(times(&relevo, "keeps its value on the target: it is ahead"), 1);
    pair.source.sql("SELECT setval('s', 101)").await;
    equal(&pair, "passed", &[]).await;
    relevo.terminate();
}
