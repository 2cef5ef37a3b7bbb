//! A directory of our own where others may make files too: made for us alone, or found to be so. What may not enter: what
//! lies in it.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::Path;

use crate::error::SpoolError;

/// Whoever else may write to a directory may put links and files of his own into it.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// Makes the directory with rights for its owner only. One that is there already must belong to the user of this process,
/// be no symbolic link, and be closed to others' writes: under a name that can be guessed, somebody else may have made it
/// first. The directory around it must keep others from renaming what is ours, as those for temporary files do (sticky).
///
/// # Errors
/// [`SpoolError::NotOurs`], and [`SpoolError::Io`] when it cannot be made or looked at.
pub(crate) fn make_ours(dir: &Path) -> Result<(), SpoolError> {
    // Not recursive: of the last part nothing must be there before us.
    match DirBuilder::new().mode(0o700).create(dir) {
        Ok(()) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(SpoolError::io("making the directory", dir)(error)),
    }
    let found = fs::symlink_metadata(dir).map_err(SpoolError::io("looking at the directory", dir))?;
    let not_ours = |why: String| Err(SpoolError::NotOurs { dir: dir.to_owned(), why });
    let user = rustix::process::geteuid().as_raw();
    if found.is_symlink() {
        return not_ours("is a symbolic link".to_owned());
    }
    if !found.is_dir() {
        return not_ours("is no directory".to_owned());
    }
    if found.uid() != user {
        return not_ours(format!("belongs to user {}, and this process is of user {user}", found.uid()));
    }
    if found.mode() & WRITABLE_BY_OTHERS != 0 {
        return not_ours(format!("may be written by others (permissions {:04o})", found.mode() & 0o7777));
    }
    Ok(())
}
