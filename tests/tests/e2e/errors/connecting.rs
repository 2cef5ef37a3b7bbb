//! A server that cannot be reached or will not let Relevo in: at the first start, and later.

use relevo_tests::{Cluster, Pair, RelevoBuilder, Version};

use super::{assert_says, fails, has_failed, in_state, streaming, traces};

/// The first line that fits counts.
const HBA: &str = "
local all all trust
local replication all trust
host all banished 127.0.0.1/32 reject
host all all 127.0.0.1/32 scram-sha-256
host replication all 127.0.0.1/32 scram-sha-256
";

fn run(source: &str, target: &str) -> RelevoBuilder {
    RelevoBuilder::run(source, target).name("e2e")
}

#[tokio::test]
async fn a_first_start_that_cannot_log_in_ends_with_exit_code_1_and_says_what_to_mend() {
    let pair = Pair::builder(Version::V15, Version::V14).source(|source| source.hba(HBA).tls()).start().await;
    pair.source.sql("CREATE ROLE banished LOGIN PASSWORD 'x'; CREATE ROLE idler NOLOGIN PASSWORD 'x'").await;
    let (source, target) = (pair.source_url(), pair.target_url());
    let wrong = |node: &Cluster| node.url_as("postgres", "wrong", "shop");

    fails(
        run(&wrong(&pair.source), &target),
        &["source", "password", "\"postgres\"", "correct the password"],
    );
    fails(
        run(&source, &wrong(&pair.target)),
        &["target", "password", "\"postgres\"", "correct the password"],
    );
    let none = format!("postgres://postgres@127.0.0.1:{}/shop", pair.source.port());
    fails(run(&none, &target), &["source", "asks for the password", "PGPASSWORD", "password_file"]);
    let nowhere = "postgres://postgres@no-such-host.invalid/shop";
    fails(run(nowhere, &target), &["source", "no-such-host.invalid"]);
    fails(run(&source, nowhere), &["target", "no-such-host.invalid"]);
    fails(
        run(&pair.source.url("shpo"), &target),
        &["source", "no database \"shpo\"", "create it or correct"],
    );
    fails(run(&source, &pair.target.url("shpo")), &["target", "no database \"shpo\""]);
    let banished = pair.source.url_as("banished", "x", "shop");
    fails(run(&banished, &target), &["source", "pg_hba.conf", "\"banished\"", "add an entry"]);
    let nobody = pair.source.url_as("nobody_of_that_name", "x", "shop");
    fails(run(&nobody, &target), &["source", "\"nobody_of_that_name\""]);
    let idler = pair.source.url_as("idler", "x", "shop");
    fails(run(&idler, &target), &["source", "\"idler\"", "LOGIN"]);
    let stranger = pair.source.certificates().stranger();
    let untrusted = format!("{source}?sslmode=verify-full&sslrootcert={}", stranger.display());
    fails(run(&untrusted, &target), &["source", "certificate is not trusted", "sslrootcert", "stranger.crt"]);
    let misnamed = source.replace("127.0.0.1", "127.0.0.2");
    let misnamed =
        format!("{misnamed}?sslmode=verify-full&sslrootcert={}", pair.source.certificates().root().display());
    // Nobody listens on 127.0.0.2, which shows that a refused port is tried again instead.
    let mut waiting = run(&misnamed, &target).start();
    in_state(&mut waiting, "preparing", &["source", "127.0.0.2"]).await;
    waiting.terminate();
    fails(run(&source, &source), &["same database", "another database"]);

    assert_eq!(traces(&pair).await, [""; 0], "nothing was made on either side");
    let trusted =
        format!("{source}?sslmode=verify-full&sslrootcert={}", pair.source.certificates().root().display());
    // pg_dump need not know TLS.
    pair.sql_on_both("CREATE TABLE t (id int PRIMARY KEY)").await;
    pair.source.sql("INSERT INTO t VALUES (1)").await;
    let mut relevo = run(&trusted, &target).args(["--schema", "existing"]).start();
    relevo.wait_until_streaming().await;
    pair.settle().await;
}

#[tokio::test]
async fn a_first_start_waits_for_a_server_that_is_not_there_yet() {
    let pair = Pair::start(Version::V15, Version::V15).await;
    pair.source.sql("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)").await;
    pair.target.stop();
    let mut relevo = pair.relevo().start();
    let port = pair.target.port().to_string();
    in_state(&mut relevo, "preparing", &["target", &port, "check that PostgreSQL runs"]).await;
    pair.source.stop();
    pair.target.start().await;
    let port = pair.source.port().to_string();
    in_state(&mut relevo, "preparing", &["source", &port]).await;
    pair.source.start().await;
    relevo.wait_until_streaming().await;
    pair.settle().await;
    relevo.terminate();
}

/// Makes the servers forget who is logged in; only the harness comes in without a password.
const THROW_OUT: &str = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
     WHERE pid <> pg_backend_pid() AND application_name LIKE 'relevo_%'";

#[tokio::test]
async fn a_password_that_is_changed_while_it_runs_stops_the_flow_until_it_is_right_again() {
    let pair = Pair::start(Version::V16, Version::V15).await;
    let mut relevo = streaming(&pair, "CREATE TABLE t (id int PRIMARY KEY)").await;
    for (id, side, node) in [(1, "source", &pair.source), (2, "target", &pair.target)] {
        node.sql("ALTER ROLE postgres PASSWORD 'another'").await;
        node.sql(THROW_OUT).await;
        pair.source.sql(&format!("INSERT INTO t VALUES ({id})")).await;
        has_failed(&mut relevo, &[side, "password of user \"postgres\" is not accepted"]).await;
        let password = relevo_tests::PASSWORD;
        node.sql(&format!("ALTER ROLE postgres PASSWORD '{password}'")).await;
        relevo.wait_until_streaming().await;
        pair.settle().await;
    }
    let errors = relevo.metrics().await;
    assert!(errors.sum("relevo_errors_total", &[("kind", "wrong_password")]).unwrap_or(0.0) >= 2.0);
    relevo.terminate();
}

#[tokio::test]
async fn a_pg_hba_line_that_is_taken_away_stops_the_flow_until_it_is_back() {
    let pair = Pair::builder(Version::V15, Version::V16).source(|source| source.hba(HBA)).start().await;
    let mut relevo = streaming(&pair, "CREATE TABLE t (id int PRIMARY KEY)").await;
    pair.source.replace_hba("local all all trust\n").await;
    pair.source.sql(THROW_OUT).await;
    pair.source.sql("INSERT INTO t VALUES (1)").await;
    let status = has_failed(&mut relevo, &["source", "pg_hba.conf", "\"postgres\"", "add an entry"]).await;
    assert!(status["lag_seconds"].is_number(), "{status}");
    pair.source.replace_hba(HBA).await;
    relevo.wait_until_streaming().await;
    pair.settle().await;
    relevo.terminate();
}

#[tokio::test]
async fn a_server_without_a_free_connection_is_waited_for() {
    let pair = Pair::builder(Version::V15, Version::V15)
        .target(|target| target.set("max_connections", "12").set("superuser_reserved_connections", "0"))
        .start()
        .await;
    pair.source.sql("CREATE TABLE t (id int PRIMARY KEY)").await;
    let mut crowd = Vec::new();
    while let Ok(session) = pair.target.try_connect("postgres").await {
        crowd.push(session);
    }
    let mut relevo = pair.relevo().start();
    in_state(&mut relevo, "preparing", &["target", "no connection is left", "max_connections"]).await;
    drop(crowd);
    relevo.wait_until_streaming().await;
    pair.source.sql("INSERT INTO t VALUES (1)").await;
    pair.settle().await;
    assert_says(&relevo.stderr(), &["too_many_connections"]);
    relevo.terminate();
}
