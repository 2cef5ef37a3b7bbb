//! The program that the schema is copied with.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use relevo_tests::{Pair, Version};
use tempfile::TempDir;

use super::{fails, traces};

fn script(folder: &TempDir, name: &str, body: &str) -> PathBuf {
    let path = folder.path().join(name);
    fs::write(&path, format!("#!/bin/sh\n{body}\n")).expect("a script");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a script that runs");
    path
}

#[tokio::test]
async fn without_a_fitting_pg_dump_the_first_start_ends_with_exit_code_1_and_leaves_nothing_half_done() {
    let pair = Pair::start(Version::V16, Version::V15).await;
    pair.source.sql("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)").await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let with = |path: &str| pair.relevo().args(["--pg-dump", path]);

    fails(with("/nowhere/pg_dump"), &["/nowhere/pg_dump", "version 16 or later", "--pg-dump"]);
    let old = script(&folder, "old", "echo 'pg_dump (PostgreSQL) 15.1'");
    fails(with(&old.to_string_lossy()), &["old is of version", "15", "PostgreSQL 16", "--pg-dump"]);
    assert_eq!(traces(&pair).await, [""; 0], "nothing was made on either side");

    let broken = script(
        &folder,
        "broken",
        "[ \"$1\" = --version ] && { echo 'pg_dump (PostgreSQL) 18.1'; exit; }\necho 'pg_dump: error: out of luck' >&2\nexit 7",
    );
    fails(with(&broken.to_string_lossy()), &["pg_dump of the source failed", "7", "out of luck"]);
    let slots = pair.source.column("SELECT slot_name FROM pg_replication_slots").await;
    assert_eq!(slots, [""; 0], "a slot that nobody reads fills the disk");

    let mut relevo = pair.relevo().start();
    relevo.wait_until_streaming().await;
    pair.settle().await;
    relevo.terminate();
}
