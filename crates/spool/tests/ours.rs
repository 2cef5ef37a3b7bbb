//! A spool among everybody's temporary files: nobody else can have prepared it, read it or write to it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use relevo_spool::{SharedSpool, Spool, SpoolError};

const AMPLE: u64 = 1 << 30;

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o777
}

/// What is said of a directory that is not ours; nothing is made there.
fn refused(dir: &Path) -> String {
    let error = Spool::open_among_others(dir, AMPLE).err().unwrap();
    assert!(matches!(error, SpoolError::NotOurs { .. }), "{error:?}");
    let text = error.to_string();
    for part in [dir.to_str().unwrap(), "--spool", "RELEVO_SPOOL", "remove it"] {
        assert!(text.contains(part), "{part:?} in {text}");
    }
    text
}

fn place() -> (tempfile::TempDir, PathBuf) {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("relevo-shop");
    (parent, dir)
}

#[test]
fn what_it_makes_is_closed_to_others_and_used_again() {
    let (_parent, dir) = place();
    for _ in 0..2 {
        let spool = Spool::open_among_others(&dir, AMPLE).unwrap();
        spool.log("t").unwrap().sync().unwrap();
        assert_eq!(mode(&dir), 0o700);
        for entry in fs::read_dir(&dir).unwrap() {
            assert_eq!(mode(&entry.unwrap().path()), 0o600);
        }
    }
}

#[test]
fn a_symbolic_link_is_refused_wherever_it_leads() {
    let (parent, dir) = place();
    let elsewhere = parent.path().join("elsewhere");
    symlink(&elsewhere, &dir).unwrap();
    // To nowhere, so that following it would make a directory there; then to one of our own.
    for _ in 0..2 {
        assert!(refused(&dir).contains("symbolic link"));
        let nothing = fs::read_dir(&elsewhere).map_or(0, Iterator::count);
        assert_eq!(nothing, 0);
        let _ = fs::create_dir(&elsewhere);
    }
}

#[test]
fn a_directory_that_others_may_write_is_refused() {
    let (_parent, dir) = place();
    fs::create_dir(&dir).unwrap();
    for (others, text) in [(0o777, "0777"), (0o770, "0770"), (0o702, "0702"), (0o1777, "1777")] {
        fs::set_permissions(&dir, fs::Permissions::from_mode(others)).unwrap();
        assert!(refused(&dir).contains(&format!("permissions {text}")));
    }
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
    Spool::open_among_others(&dir, AMPLE).unwrap();
}

#[test]
fn a_file_in_its_place_is_refused() {
    let (_parent, dir) = place();
    fs::write(&dir, "x").unwrap();
    assert!(refused(&dir).contains("no directory"));
}

#[test]
fn a_directory_of_somebody_else_is_refused() {
    let (_parent, dir) = place();
    fs::create_dir(&dir).unwrap();
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).unwrap();
    let ours = fs::metadata(&dir).unwrap().uid();
    // Only root can give a directory away; whoever else runs this finds one that belongs to root.
    match chown(&dir, Some(ours + 1), None) {
        Ok(()) => assert!(refused(&dir).contains(&format!("belongs to user {}", ours + 1))),
        Err(_) => assert!(refused(Path::new("/usr")).contains("belongs to user 0")),
    }
}

#[test]
fn sharing_it_makes_the_same_demands_and_leaves_what_is_not_ours() {
    let (parent, dir) = place();
    let elsewhere = parent.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    symlink(&elsewhere, &dir).unwrap();
    let shared = SharedSpool::among_others(dir.clone(), AMPLE);
    assert!(matches!(shared.sweep(), Err(SpoolError::NotOurs { .. })));
    assert!(matches!(shared.scratch().err(), Some(SpoolError::NotOurs { .. })));
    assert!(dir.is_symlink() && elsewhere.exists());
    fs::remove_file(&dir).unwrap();
    drop(shared.scratch().unwrap());
    assert!(!dir.exists(), "it goes with the last who needs it");
    // Whoever names a directory may have made a link of it.
    symlink(&elsewhere, &dir).unwrap();
    drop(SharedSpool::new(dir, AMPLE).scratch().unwrap());
}
