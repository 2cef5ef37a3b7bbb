//! A target that cannot be written to: no room, read-only, in recovery.

use std::path::Path;
use std::process::Command;

use relevo_tests::process::{give_to_server_user, server_user};
use relevo_tests::relevo::PATIENCE;
use relevo_tests::{Pair, Version, wait_until_some};
use tempfile::TempDir;

use super::{fails, has_failed, in_state, streaming};

/// Raises what a server raises that finds no room, also for Relevo's session.
const NO_ROOM: &str = "
CREATE FUNCTION no_room() RETURNS trigger LANGUAGE plpgsql AS
  $$BEGIN RAISE EXCEPTION USING ERRCODE = '53100', MESSAGE = 'could not extend file: No space left on device'; END$$;
CREATE TRIGGER no_room BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION no_room();
ALTER TABLE t ENABLE ALWAYS TRIGGER no_room;
";

#[tokio::test]
async fn a_full_disk_is_waited_for_and_nothing_is_lost_or_repeated() {
    let pair = Pair::start(Version::V17, Version::V15).await;
    let mut relevo = streaming(&pair, "CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE u (id int)").await;
    pair.target.sql(NO_ROOM).await;
    pair.source
        .sql("BEGIN; INSERT INTO u VALUES (1); INSERT INTO t VALUES (1); COMMIT; INSERT INTO u VALUES (2)")
        .await;
    in_state(
        &mut relevo,
        "preparing",
        &["target", "No space left on device", "make room on the target's disk"],
    )
    .await;
    pair.target.sql("DROP TRIGGER no_room ON t; DROP FUNCTION no_room").await;
    relevo.wait_until_streaming().await;
    pair.settle().await;
    relevo.terminate();
}

/// A file system of a few megabytes, when this user may mount one.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn mount() -> Option<Self> {
        server_user()?;
        let folder = tempfile::Builder::new().prefix("relevo-disk-").tempdir().expect("a temporary folder");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=4M", "tmpfs"])
            .arg(folder.path())
            .status()
            .is_ok_and(|status| status.success());
        mounted.then(|| {
            give_to_server_user(folder.path());
            Self(folder)
        })
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn enlarge(&self) {
        let done = Command::new("mount").args(["-o", "remount,size=64M"]).arg(self.path()).status();
        assert!(done.expect("mount runs").success(), "the small disk could not be enlarged");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a server may still hold files there.
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

#[tokio::test]
async fn a_table_that_outgrows_its_disk_goes_on_once_the_disk_is_larger() {
    // An ordinary user cannot mount a small disk; there the trigger above has to do.
    let disk = SmallDisk::mount();
    let pair = Pair::start(Version::V15, Version::V15).await;
    let mut relevo = streaming(&pair, "CREATE TABLE t (id int PRIMARY KEY, filler text)").await;
    match &disk {
        Some(disk) => {
            pair.target.sql(&format!("CREATE TABLESPACE small LOCATION '{}'", disk.path().display())).await;
            pair.target.sql("ALTER TABLE t SET TABLESPACE small").await;
        }
        None => pair.target.sql(NO_ROOM).await,
    }
    pair.source.sql("INSERT INTO t SELECT n, repeat(md5(n::text), 30) FROM generate_series(1, 8000) n").await;
    in_state(&mut relevo, "preparing", &["target", "No space left on device", "make room"]).await;
    match &disk {
        Some(disk) => disk.enlarge(),
        None => pair.target.sql("DROP TRIGGER no_room ON t").await,
    }
    relevo.wait_until_streaming().await;
    pair.settle().await;
    relevo.terminate();
    drop(relevo);
    drop(pair);
}

/// What a fence or a DBA sets keeps applications out. Relevo is no application: as native replication does, it goes
/// on, or a standby could not be guarded against writers.
#[tokio::test]
async fn a_target_that_is_read_only_by_default_is_closed_to_applications_and_open_to_relevo() {
    let pair = Pair::start(Version::V15, Version::V16).await;
    pair.source.sql("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)").await;
    pair.target.sql("ALTER DATABASE shop SET default_transaction_read_only = on").await;
    pair.command("check").finish().expect_code(0);
    let mut relevo = pair.relevo().start();
    relevo.wait_until_streaming().await;
    pair.source.sql("INSERT INTO t VALUES (2)").await;
    pair.caught_up().await;
    relevo.terminate();
    let stored = pair.command("status").arg("--json").finish().expect_code(0).json();
    assert_eq!(stored["state"], "stopped", "also what the flow says of itself is stored");

    pair.target.sql("ALTER DATABASE shop RESET default_transaction_read_only").await;
    pair.target.reconfigure("default_transaction_read_only", "on").await;
    let application = pair.target.connect("shop").await;
    wait_until_some("read-only sessions", PATIENCE, async || {
        let setting = application.column("SHOW default_transaction_read_only").await;
        if setting == ["on"] { Ok(()) } else { Err(format!("{setting:?}")) }
    })
    .await;
    assert!(application.try_sql("INSERT INTO t VALUES (3)").await.is_err(), "an application may not write");
    relevo.restart();
    relevo.wait_until_streaming().await;
    pair.source.sql("INSERT INTO t VALUES (4); DELETE FROM t WHERE id = 1").await;
    pair.settle().await;
    relevo.terminate();
    pair.command("reset").finish().expect_code(0);
    relevo.restart();
    relevo.wait_until_streaming().await;
    pair.settle().await;
    relevo.terminate();
}

#[tokio::test]
async fn a_target_in_recovery_is_refused_clearly_and_goes_on_once_it_is_promoted() {
    let pair = Pair::start(Version::V15, Version::V15).await;
    pair.source.sql("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)").await;
    pair.target.stop();
    pair.target.write_file("standby.signal", "");
    pair.target.start().await;
    fails(pair.relevo(), &["target", "in recovery", "pg_promote"]);
    let promote = "SELECT pg_promote()";
    pair.target.sql(promote).await;
    let mut relevo = pair.relevo().start();
    relevo.wait_until_streaming().await;

    pair.target.stop();
    pair.target.write_file("standby.signal", "");
    pair.target.start().await;
    pair.source.sql("INSERT INTO t VALUES (2)").await;
    has_failed(&mut relevo, &["target", "physical standby"]).await;
    pair.target.sql(promote).await;
    relevo.wait_until_streaming().await;
    pair.settle().await;
    relevo.terminate();
}

#[tokio::test]
async fn a_source_in_recovery_is_refused_clearly() {
    let pair = Pair::start(Version::V14, Version::V15).await;
    pair.source.sql("CREATE TABLE t (id int PRIMARY KEY)").await;
    pair.source.stop();
    pair.source.write_file("standby.signal", "");
    pair.source.start().await;
    fails(pair.relevo(), &["source", "in recovery", "URL of the primary"]);
}
