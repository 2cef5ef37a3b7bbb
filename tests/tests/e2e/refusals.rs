//! Where going on would lose or repeat changes: exit code 3 with the reason and the remedy, nothing skipped, and the
//! remedy works.
//!
//! What may not enter: what can be mended without a new copy (see `errors`).

use std::time::Duration;

use relevo_tests::relevo::PATIENCE;
use relevo_tests::{Cluster, Pair, Relevo, RelevoBuilder, Version, wait_until_some};

const SCHEMA: &str = "CREATE TABLE t (id int PRIMARY KEY, note text); CREATE TABLE bare (n int);
    INSERT INTO t SELECT n, 'first' FROM generate_series(1, 100) n; INSERT INTO bare VALUES (1)";
const LATER: &str = "UPDATE t SET note = 'later' WHERE id % 3 = 0; DELETE FROM t WHERE id % 7 = 0;
    INSERT INTO t SELECT n, 'new' FROM generate_series(1000, 1010) n; INSERT INTO bare VALUES (2)";

/// A pair whose flow has been copied, has followed, and is stopped now.
async fn stopped(pair: &Pair) -> Relevo {
    pair.source.sql(SCHEMA).await;
    let mut relevo = pair.relevo().start();
    relevo.wait_until_streaming().await;
    pair.source.sql(LATER).await;
    pair.settle().await;
    relevo.terminate();
    relevo
}

/// What the target holds: all rows, and how far it is.
async fn target_state(pair: &Pair) -> Vec<String> {
    pair.target
        .column(
            "SELECT t::text FROM t UNION ALL SELECT b::text FROM bare b
             UNION ALL SELECT applied_lsn::text FROM relevo.progress ORDER BY 1",
        )
        .await
}

/// `relevo run` ends with exit code 3, says all this, and has changed nothing on the target.
async fn is_refused(pair: &Pair, says: &[&str]) {
    let before = target_state(pair).await;
    refuses(&pair.relevo(), says);
    assert_eq!(target_state(pair).await, before, "nothing was skipped or changed");
    let stored = pair.target.column("SELECT state || ': ' || detail FROM relevo.flow").await.join("\n");
    assert!(stored.starts_with("failed: "), "{stored}");
}

#[track_caller]
fn refuses(relevo: &RelevoBuilder, says: &[&str]) {
    let ended = relevo.clone().finish_within(Duration::from_secs(30)).expect_code(3);
    for part in says {
        // In a JSON line quotes are escaped.
        let said = ended.stderr.contains(&part.replace('"', "\\\""));
        assert!(said, "nothing of {part:?} in:\n{}", ended.stderr);
    }
    assert_eq!(ended.stdout, "");
}

/// `relevo reset`, then `relevo run`: equal again, and it follows.
async fn reset_brings_it_back(pair: &Pair) {
    pair.command("reset").finish().expect_code(0);
    let mut relevo = pair.relevo().start();
    relevo.wait_until_streaming().await;
    pair.settle().await;
    pair.source.sql("INSERT INTO t VALUES (5000, 'after the reset')").await;
    pair.settle().await;
    relevo.terminate();
}

const LOST: &str = "SELECT wal_status FROM pg_replication_slots WHERE slot_name = 'relevo_e2e'";

async fn a_slot_that_lost_its_wal_is_refused(source: Version) {
    let pair = Pair::builder(source, Version::V15)
        .source(|source| source.set("max_slot_wal_keep_size", "1MB").set("min_wal_size", "32MB"))
        .start()
        .await;
    stopped(&pair).await;
    pair.source.sql("INSERT INTO t VALUES (2000, 'nobody listens')").await;
    wait_until_some("a lost slot", PATIENCE, async || {
        pair.source
            .sql("SELECT pg_switch_wal(); SELECT pg_logical_emit_message(false, '', 'x'); CHECKPOINT")
            .await;
        let found = pair.source.column(LOST).await;
        if found == ["lost"] { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;
    is_refused(&pair, &["slot \"relevo_e2e\" is lost", "max_slot_wal_keep_size", "relevo reset"]).await;
    let check = pair.command("check").finish().expect_code(1);
    assert!(check.stdout.contains("the slot is lost"), "{}", check.stdout);
    reset_brings_it_back(&pair).await;
}

#[tokio::test]
async fn on_14_a_slot_that_lost_its_wal_is_refused() {
    a_slot_that_lost_its_wal_is_refused(Version::V14).await;
}

#[tokio::test]
async fn on_18_a_slot_that_lost_its_wal_is_refused() {
    a_slot_that_lost_its_wal_is_refused(Version::V18).await;
}

#[tokio::test]
async fn a_slot_that_is_gone_or_somebody_elses_is_refused_and_left_alone() {
    let pair = Pair::start(Version::V15, Version::V15).await;
    stopped(&pair).await;
    pair.source.sql("SELECT pg_drop_replication_slot('relevo_e2e')").await;
    pair.source.sql("INSERT INTO t VALUES (2000, 'nobody listens')").await;
    is_refused(&pair, &["slot \"relevo_e2e\" does not exist", "relevo reset"]).await;

    pair.source.create_database("elsewhere").await;
    let elsewhere = pair.source.connect("elsewhere").await;
    let cases = [
        ("SELECT pg_create_physical_replication_slot('relevo_e2e')", "a physical replication slot"),
        (
            "SELECT pg_create_logical_replication_slot('relevo_e2e', 'pgoutput')",
            "is in database \"elsewhere\"",
        ),
    ];
    for (create, says) in cases {
        elsewhere.sql(create).await;
        is_refused(&pair, &["slot \"relevo_e2e\"", says, "another name"]).await;
        // It is not the flow's: reset forgets the progress and does not touch it.
        let dry = pair.command("reset").arg("--dry-run").finish().expect_code(0);
        assert!(dry.stdout.contains(says), "{}", dry.stdout);
        elsewhere.sql("SELECT pg_drop_replication_slot('relevo_e2e')").await;
    }
    elsewhere.sql("SELECT pg_create_physical_replication_slot('relevo_e2e')").await;
    let reset = pair.command("reset").finish().expect_code(0);
    assert!(reset.stdout.contains("left alone"), "{}", reset.stdout);
    let slots = pair.source.column("SELECT slot_type FROM pg_replication_slots").await;
    assert_eq!(slots, ["physical"]);
    // A first start does not take it either.
    let ended = pair.relevo().finish_within(Duration::from_secs(30));
    assert!(matches!(ended.code, Some(1 | 3)), "{ended:?}");
    assert!(ended.stderr.contains("physical"), "{}", ended.stderr);
    assert_eq!(pair.source.column("SELECT slot_type FROM pg_replication_slots").await, ["physical"]);
    elsewhere.sql("SELECT pg_drop_replication_slot('relevo_e2e')").await;
    let mut relevo = pair.relevo().start();
    relevo.wait_until_streaming().await;
    pair.settle().await;
    relevo.terminate();
}

/// A plugin that every server has: the decoder of physical replication is not one, so this needs contrib.
#[tokio::test]
async fn a_slot_of_another_output_plugin_is_refused_and_left_alone() {
    let version = [Version::V15, Version::V14, Version::V16, Version::V17, Version::V18]
        .into_iter()
        .find(|version| has_test_decoding(*version))
        .expect("a server with contrib's test_decoding: Debian's PostgreSQL 15 has it");
    let pair = Pair::start(version, Version::V15).await;
    stopped(&pair).await;
    pair.source.sql("SELECT pg_drop_replication_slot('relevo_e2e')").await;
    pair.source.sql("SELECT pg_create_logical_replication_slot('relevo_e2e', 'test_decoding')").await;
    is_refused(&pair, &["slot \"relevo_e2e\"", "test_decoding", "pgoutput", "another name"]).await;
    let reset = pair.command("reset").finish().expect_code(0);
    assert!(
        reset.stdout.contains("left alone") && reset.stdout.contains("test_decoding"),
        "{}",
        reset.stdout
    );
    assert_eq!(pair.source.column("SELECT plugin FROM pg_replication_slots").await, ["test_decoding"]);
    pair.source.sql("SELECT pg_drop_replication_slot('relevo_e2e')").await;
    let mut relevo = pair.relevo().start();
    relevo.wait_until_streaming().await;
    pair.settle().await;
    relevo.terminate();
}

fn has_test_decoding(version: Version) -> bool {
    let bin = version.server_bin();
    let top = bin.parent().expect("bin lies in a folder");
    ["lib/test_decoding.so", "lib/postgresql/test_decoding.so"].iter().any(|path| top.join(path).exists())
}

#[tokio::test]
async fn another_server_behind_the_sources_url_is_refused() {
    let pair = Pair::start(Version::V15, Version::V14).await;
    stopped(&pair).await;
    let stranger = Cluster::create(Version::V15).await;
    stranger.create_database("shop").await;
    stranger.connect("shop").await.sql(SCHEMA).await;
    let run = || RelevoBuilder::run(&stranger.url("shop"), &pair.target_url()).name("e2e");
    let before = target_state(&pair).await;
    refuses(&run(), &["another server", "system identifier", "point the source URL", "relevo reset"]);
    assert_eq!(target_state(&pair).await, before);
    // The right one is still right.
    let mut relevo = pair.relevo().start();
    pair.source.sql("INSERT INTO t VALUES (2000, 'still here')").await;
    pair.settle().await;
    relevo.terminate();

    let reset = RelevoBuilder::command(&["reset", "--source", &stranger.url("shop")])
        .args(["--target", &pair.target_url()])
        .name("e2e");
    reset.finish().expect_code(0);
    let slots = pair.source.column("SELECT slot_name FROM pg_replication_slots").await;
    assert_eq!(slots, ["relevo_e2e"], "the first source was not asked");
    let mut relevo = run().start();
    relevo.wait_until_streaming().await;
    let rows = "SELECT md5(string_agg(t::text, ',' ORDER BY id)) FROM t";
    let wanted: String = stranger.connect("shop").await.value(rows).await;
    assert_eq!(pair.target.value::<String>(rows).await, wanted);
    relevo.terminate();
}

#[tokio::test]
async fn a_source_on_another_timeline_is_refused() {
    let pair = Pair::start(Version::V16, Version::V15).await;
    stopped(&pair).await;
    pair.source.stop();
    let standby = pair.source.twin();
    standby.write_file("standby.signal", "");
    pair.source.start().await;
    pair.source.sql("INSERT INTO t VALUES (2000, 'on the first timeline only')").await;
    let mut relevo = pair.relevo().start();
    pair.settle().await;
    relevo.terminate();

    standby.start().await;
    let promoted = standby.connect("shop").await;
    promoted.sql("SELECT pg_promote()").await;
    // So that its WAL ends behind what the target has: the timeline alone must tell.
    promoted.sql("INSERT INTO t SELECT n, 'parted' FROM generate_series(3000, 9000) n").await;
    let url = standby.url("shop");
    let run = || RelevoBuilder::run(&url, &pair.target_url()).name("e2e");
    let before = target_state(&pair).await;
    refuses(&run(), &["timeline 2", "timeline 1", "relevo reset"]);
    assert_eq!(target_state(&pair).await, before);

    RelevoBuilder::command(&["reset", "--source", &url, "--target", &pair.target_url()])
        .name("e2e")
        .finish()
        .expect_code(0);
    let mut relevo = run().start();
    relevo.wait_until_streaming().await;
    assert_eq!(pair.target.column("SELECT note FROM t WHERE id IN (2000, 3000)").await, ["parted"]);
    relevo.terminate();
}

#[tokio::test]
async fn a_source_that_was_restored_to_an_older_state_is_refused() {
    let pair = Pair::start(Version::V14, Version::V16).await;
    let mut relevo = stopped(&pair).await;
    pair.source.stop();
    let saved = pair.source.save();
    pair.source.start().await;
    relevo.restart();
    pair.source.sql("INSERT INTO t VALUES (2000, 'forgotten by the source')").await;
    pair.settle().await;
    relevo.terminate();
    pair.source.stop();
    pair.source.restore(&saved);
    pair.source.start().await;
    is_refused(&pair, &["source's WAL ends at", "restored to an older state", "relevo reset"]).await;
    reset_brings_it_back(&pair).await;
    assert_eq!(pair.target.column("SELECT note FROM t WHERE id = 2000").await, [""; 0]);
}

/// The same, seen by a Relevo that runs: the server is away for a moment and comes back as an older one.
#[tokio::test]
async fn a_target_that_was_restored_to_an_older_state_is_refused() {
    let pair = Pair::start(Version::V15, Version::V17).await;
    let mut relevo = stopped(&pair).await;
    pair.target.stop();
    let saved = pair.target.save();
    pair.target.start().await;
    relevo.restart();
    pair.source.sql("INSERT INTO t VALUES (2000, 'forgotten by the target')").await;
    pair.settle().await;
    let applied = pair.target.column("SELECT applied_lsn FROM relevo.progress").await;
    let confirmed =
        format!("SELECT (confirmed_flush_lsn >= '{}')::text FROM pg_replication_slots", applied[0]);
    wait_until_some("a confirmed position", PATIENCE, async || {
        let found = pair.source.column(&confirmed).await;
        if found == ["true"] { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;
    pair.target.stop();
    pair.target.restore(&saved);
    pair.target.start().await;
    let status = relevo.wait_for_exit(PATIENCE);
    assert_eq!(status.code(), Some(3), "{}", relevo.stderr());
    is_refused(&pair, &["slot \"relevo_e2e\" was told", "restored to an older state", "relevo reset"]).await;
    reset_brings_it_back(&pair).await;
}

#[tokio::test]
async fn reset_changes_nothing_while_a_relevo_runs_or_on_trial() {
    let pair = Pair::start(Version::V15, Version::V15).await;
    let nothing = pair.command("reset").finish().expect_code(1);
    assert!(nothing.stderr.contains("nothing to reset"), "{}", nothing.stderr);
    let mut relevo = stopped(&pair).await;
    relevo.restart();
    relevo.wait_until_streaming().await;
    let before = target_state(&pair).await;
    for arguments in [&[][..], &["--dry-run"][..]] {
        let refused = pair.command("reset").args(arguments).finish().expect_code(3);
        assert!(refused.stderr.contains("stop it first"), "{}", refused.stderr);
        assert_eq!(refused.stdout, "");
    }
    pair.source.sql("INSERT INTO t VALUES (2000, 'goes on')").await;
    pair.settle().await;
    relevo.terminate();

    let dry = pair.command("reset").arg("--dry-run").finish().expect_code(0);
    for part in ["slot relevo_e2e would be dropped", "progress of flow e2e would be forgotten", "2 tables"] {
        assert!(dry.stdout.contains(part), "nothing of {part:?} in: {}", dry.stdout);
    }
    assert_eq!(pair.source.column("SELECT slot_name FROM pg_replication_slots").await, ["relevo_e2e"]);
    assert_eq!(target_state(&pair).await.len(), before.len() + 1);
    relevo.restart();
    pair.source.sql("INSERT INTO t VALUES (2001, 'after the trial')").await;
    pair.settle().await;
    relevo.terminate();

    pair.command("reset").finish().expect_code(0);
    assert_eq!(pair.source.column("SELECT slot_name FROM pg_replication_slots").await, [""; 0]);
    assert_eq!(pair.target.column("SELECT flow FROM relevo.progress").await, [""; 0]);
    assert_eq!(pair.target.column("SELECT note FROM t WHERE id = 2001").await, ["after the trial"]);
    reset_brings_it_back(&pair).await;
}
