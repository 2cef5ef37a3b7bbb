//! What a benchmark leaves behind: files in the folder `bench`, in the folder that cargo builds in.

use std::fs;
use std::path::PathBuf;

/// The folder.
#[must_use]
pub fn folder() -> PathBuf {
    let here = std::env::current_exe().expect("the path of the benchmark");
    let target = here.parent().and_then(std::path::Path::parent).expect("cargo's target folder");
    let folder = target.join("bench");
    fs::create_dir_all(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    folder
}

/// Writes a file into it.
pub fn write(name: &str, text: &str) {
    let path = folder().join(name);
    fs::write(&path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}
