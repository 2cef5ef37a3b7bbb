//! Names of logs as names of files, and back. Any text is a name; no name leaves the directory or hides in it.

/// What the files of logs with escaped names begin with.
const SHORT: &str = "log.";
/// What the files of logs with hashed names begin with; the name itself stands in the file.
const LONG: &str = "long.";
/// File systems take 255 bytes.
const MAX_FILE_NAME_BYTES: usize = 200;
/// Longer names are refused.
pub(crate) const MAX_NAME_BYTES: usize = 4096;

/// What a file's name says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum FileKind {
    /// A log of this name.
    Named(String),
    /// A log whose name stands in its header.
    Hashed,
    /// No log.
    Foreign,
}

/// The file for a name.
pub(crate) fn file_name(name: &str) -> String {
    let mut escaped = String::from(SHORT);
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-' | b'.' => escaped.push(char::from(byte)),
            _ => escaped.push_str(&format!("%{byte:02x}")),
        }
    }
    if escaped.len() <= MAX_FILE_NAME_BYTES { escaped } else { format!("{LONG}{:032x}", hash(name)) }
}

/// What stands behind a file's name. Only names that [`file_name`] makes are logs.
pub(crate) fn file_kind(file: &str) -> FileKind {
    if file.starts_with(LONG) {
        return FileKind::Hashed;
    }
    match file.strip_prefix(SHORT).and_then(unescape) {
        Some(name) if file_name(&name) == file => FileKind::Named(name),
        _ => FileKind::Foreign,
    }
}

fn unescape(escaped: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(escaped.len());
    let mut rest = escaped.as_bytes();
    while let [byte, tail @ ..] = rest {
        rest = tail;
        if *byte == b'%' {
            let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &rest[2..];
        } else {
            bytes.push(*byte);
        }
    }
    String::from_utf8(bytes).ok()
}

/// FNV-1a of 128 bits: the same in every release, and nobody gains by making two names collide (the file says its
/// name, so that would be an error and no mix-up).
fn hash(name: &str) -> u128 {
    name.bytes().fold(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d, |hash: u128, byte| {
        (hash ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_name_is_a_safe_file_and_comes_back(name in any::<String>()) {
            let file = file_name(&name);
            prop_assert!(file.len() <= MAX_FILE_NAME_BYTES && !file.contains(['/', '\0']));
            match file_kind(&file) {
                FileKind::Named(back) => prop_assert_eq!(back, name),
                FileKind::Hashed => prop_assert!(name.len() * 3 + SHORT.len() > MAX_FILE_NAME_BYTES),
                FileKind::Foreign => prop_assert!(false, "{}", file),
            }
        }

        #[test]
        fn no_file_name_is_taken_for_a_log_that_it_is_not(file in "(log\\.)?[a-zA-Z0-9%.é]{0,12}") {
            if let FileKind::Named(name) = file_kind(&file) {
                prop_assert_eq!(file_name(&name), file);
            }
        }
    }

    #[test]
    fn long_names_that_differ_only_at_the_end_get_two_files() {
        let (one, other) = ("x".repeat(300) + "1", "x".repeat(300) + "2");
        assert_ne!(file_name(&one), file_name(&other));
        assert_eq!(file_name("public.orders"), "log.public.orders");
        assert_eq!(file_name("../a b"), "log...%2fa%20b");
        assert_eq!(file_kind("lock"), FileKind::Foreign);
    }
}
