//! Time limits that a role or a database sets for its users must not break a flow.

use relevo_tests::{Pair, Version};

use super::streaming;

const LIMITS: [(&str, &str); 4] = [
    ("statement_timeout", "150ms"),
    ("lock_timeout", "100ms"),
    ("idle_in_transaction_session_timeout", "100ms"),
    ("idle_session_timeout", "500ms"),
];

async fn time_limits_of_the_role_and_the_database_do_not_break_the_flow(source: Version, target: Version) {
    let pair = Pair::start(source, target).await;
    for (node, version) in [(&pair.source, source), (&pair.target, target)] {
        for (name, value) in LIMITS {
            node.sql(&format!("ALTER DATABASE shop SET {name} = '{value}'")).await;
            node.sql(&format!("ALTER ROLE postgres SET {name} = '{value}'")).await;
        }
        if version >= Version::V17 {
            node.sql("ALTER DATABASE shop SET transaction_timeout = '150ms'").await;
        }
    }
    // The harness' own sessions are from before. Long enough that each step of the copy passes the limits.
    let schema = "
        CREATE TABLE big (id int PRIMARY KEY, filler text);
        INSERT INTO big SELECT n, repeat(md5(n::text), 10) FROM generate_series(1, 100000) n;
        CREATE TABLE slow (id int PRIMARY KEY);";
    let mut relevo = streaming(&pair, schema).await;
    pair.target
        .sql(
            "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS
               $$BEGIN PERFORM pg_sleep(0.4); RETURN NEW; END$$;
             CREATE TRIGGER slow BEFORE INSERT ON slow FOR EACH ROW EXECUTE FUNCTION slow();
             ALTER TABLE slow ENABLE ALWAYS TRIGGER slow",
        )
        .await;
    pair.source.sql("INSERT INTO slow VALUES (1), (2)").await;
    pair.caught_up().await;
    assert_eq!(pair.target.column("SELECT count(*) FROM slow").await, ["2"]);
    assert_eq!(pair.target.column("SELECT count(*) FROM big").await, ["100000"]);
    // Not even once, to be mended by a new attempt.
    for text in ["timeout", "terminating", "begins again"] {
        assert!(!relevo.stderr().contains(text), "{text}: {}", relevo.stderr());
    }
    relevo.terminate();
}

#[tokio::test]
async fn from_14_to_15_time_limits_of_the_role_and_the_database_do_not_break_the_flow() {
    time_limits_of_the_role_and_the_database_do_not_break_the_flow(Version::V14, Version::V15).await;
}

#[tokio::test]
async fn from_18_to_17_time_limits_of_the_role_and_the_database_do_not_break_the_flow() {
    time_limits_of_the_role_and_the_database_do_not_break_the_flow(Version::V18, Version::V17).await;
}
