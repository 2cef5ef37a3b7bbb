//! The system's user and the files in their home directory, where libpq's defaults are.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

/// The name of the user that this process runs as; libpq's default for `user`.
pub(crate) fn user_name() -> Option<String> {
    let uid = effective_uid()?;
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let of_uid = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == uid.to_string()).then(|| name.to_owned())
    });
    // Users of a directory service are not in the file.
    of_uid.or_else(|| std::env::var("USER").ok()).filter(|name| !name.is_empty())
}

/// The effective user id: the owner of this process's directory in `/proc`.
fn effective_uid() -> Option<u32> {
    std::fs::metadata("/proc/self").ok().map(|metadata| metadata.uid())
}

/// A file in the home directory, whether it exists or not.
pub(crate) fn file(name: &str) -> Option<PathBuf> {
    std::env::home_dir().filter(|home| !home.as_os_str().is_empty()).map(|home| home.join(name))
}
