//! Without `--spool` what tables miss is kept among everybody's temporary files, and nobody else can have prepared the place.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::PathBuf;

use relevo_tests::relevo::PATIENCE;
use relevo_tests::{Pair, Version, wait_until_some};
use tempfile::TempDir;

use super::{GIANT, PARTS, SLOW_BYTES_PER_SECOND};

/// The spool's directory in the folder for temporary files, once it is there.
async fn spool_in(folder: &TempDir) -> PathBuf {
    wait_until_some("a spool among the temporary files", PATIENCE, async || {
        let found = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
        let mut found =
            found.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("relevo-e2e-"));
        found.next().ok_or_else(|| "none".to_owned())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_spool_among_temporary_files_is_ours_alone_or_not_used() {
    let pair = Pair::builder(Version::V15, Version::V17).proxied().start().await;
    pair.source.sql(GIANT).await;
    pair.target_proxy().throttle(Some(SLOW_BYTES_PER_SECOND));
    let folder = tempfile::tempdir().unwrap();
    let mut relevo = pair.relevo().among_temporary_files(folder.path()).args(PARTS).start();
    let spool = spool_in(&folder).await;
    assert_eq!(fs::metadata(&spool).unwrap().permissions().mode() & 0o777, 0o700);
    relevo.kill();

    let elsewhere = folder.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    fs::remove_dir_all(&spool).unwrap();
    symlink(&elsewhere, &spool).unwrap();
    relevo.restart();
    relevo.wait_for_log("is a symbolic link").await;
    assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);
    fs::remove_file(&spool).unwrap();
    pair.target_proxy().throttle(None);
    relevo.wait_until_streaming().await;
    pair.settle().await;
    relevo.terminate();
}
