//! Where a password comes from: the configuration's file, the connection string, libpq's password file. Files are
//! read at each connection, so that a mended one takes effect by itself.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use relevo_model::Side;

use crate::{ConnInfo, ConnectError, Host, Secret};

/// The password for a host, if there is one.
pub(crate) fn find(info: &ConnInfo, side: Side, host: &Host) -> Result<Option<Secret>, ConnectError> {
    if let Some(password) = given(info, side)? {
        return Ok(Some(password));
    }
    let Some(path) = &info.passfile else { return Ok(None) };
    match read_passfile(path) {
        Ok(Some(text)) => Ok(passfile_entry(&text, host, &info.database, &info.user).map(Secret::new)),
        Ok(None) => Ok(None),
        Err(error) => {
            // As libpq: a password file that is no use is left aside; the server will ask if it needs one.
            tracing::warn!(%side, path = %path.display(), %error, "the password file is not used");
            Ok(None)
        }
    }
}

/// The password that holds for every host: of `password_file`, or of the connection string or `PGPASSWORD`.
pub(crate) fn given(info: &ConnInfo, side: Side) -> Result<Option<Secret>, ConnectError> {
    let Some(path) = &info.password_file else { return Ok(info.password.clone()) };
    let text = std::fs::read_to_string(path);
    let text =
        text.map_err(|source| ConnectError::PasswordFile { side, path: path.as_path().into(), source })?;
    Ok(Some(Secret::new(text.lines().next().unwrap_or_default())))
}

/// The content of a password file that exists and that nobody else may read.
fn read_passfile(path: &Path) -> io::Result<Option<String>> {
    let metadata = match std::fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    if !metadata.is_file() {
        return Err(io::Error::other("it is not a plain file"));
    }
    if metadata.mode() & 0o077 != 0 {
        return Err(io::Error::other(
            "group or others have access to it; its permissions should be u=rw (0600) or less",
        ));
    }
    std::fs::read_to_string(path).map(Some)
}

/// The first line `host:port:database:user:password` that matches (manual, *The Password File*).
fn passfile_entry(text: &str, host: &Host, database: &str, user: &str) -> Option<String> {
    let wanted = [host.passfile_name(), host.port.to_string(), database.to_owned(), user.to_owned()];
    text.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let mut rest = line;
        for wanted in &wanted {
            rest = match_field(rest, wanted)?;
        }
        let password = field(rest).0;
        (!password.is_empty()).then_some(password)
    })
}

/// What follows the first field of `line`, if that field is `*` or equals `wanted`.
fn match_field<'a>(line: &'a str, wanted: &str) -> Option<&'a str> {
    let (text, rest) = field(line);
    // An escaped star is a star, not the wildcard.
    let wildcard = line.starts_with("*:");
    (wildcard || text == wanted).then_some(rest?)
}

/// The first field, with its escapes undone, and what follows its colon.
fn field(line: &str) -> (String, Option<&str>) {
    let mut text = String::new();
    let mut chars = line.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            ':' => return (text, line.get(at + 1..)),
            '\\' => text.extend(chars.next().map(|(_, c)| c)),
            c => text.push(c),
        }
    }
    (text, None)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use proptest::prelude::*;

    use super::*;

    fn entry(text: &str, host: &str) -> Option<String> {
        passfile_entry(text, &Host::named(host, None, 5432), "db", "user")
    }

    #[test]
    fn the_first_line_that_matches_counts() {
        let text =
            "# h:*:*:*:comment\nh:1:*:*:port\nh:5432:other:*:db\n\nh:*:db:us\\er:first\n*:*:*:*:second\n";
        assert_eq!(entry(text, "h").as_deref(), Some("first"));
        assert_eq!(entry(text, "x").as_deref(), Some("second"));
        assert_eq!(entry("localhost:*:*:*:p", "/tmp").as_deref(), Some("p"));
        assert_eq!(entry("h:*:*:*:p", "x"), None);
        assert_eq!(entry("h:*:*:*", "h"), None);
        assert_eq!(entry("h:*:*:*:", "h"), None);
    }

    #[test]
    fn escapes_and_wildcards() {
        assert_eq!(entry(r"h:*:*:*:a\:b\\c", "h").as_deref(), Some(r"a:b\c"));
        assert_eq!(entry(r"fe80\:\:1:*:*:*:p", "fe80::1").as_deref(), Some("p"));
        assert_eq!(entry(r"\*:*:*:*:p", "h"), None);
        assert_eq!(entry(r"\*:*:*:*:p", "*").as_deref(), Some("p"));
        assert_eq!(entry("h:*:*:*:what:follows:is:ignored", "h").as_deref(), Some("what"));
    }

    #[test]
    fn a_file_that_others_can_read_is_left_aside() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "x").unwrap();
        let mode = |mode| std::fs::set_permissions(file.path(), PermissionsExt::from_mode(mode)).unwrap();
        mode(0o600);
        assert_eq!(read_passfile(file.path()).unwrap().as_deref(), Some("x"));
        mode(0o640);
        assert!(read_passfile(file.path()).unwrap_err().to_string().contains("0600"));
        assert!(read_passfile(Path::new("/nonexistent/x")).unwrap().is_none());
        assert!(read_passfile(Path::new("/dev/null")).is_err());
    }

    proptest! {
        #[test]
        fn arbitrary_files_never_panic(text in ".*", host in ".*") {
            let _ = entry(&text, &host);
        }

        #[test]
        fn an_escaped_line_reads_back(host in "[^\n\0/@][^\n\0]{0,9}", password in "[^\n\0]{1,10}") {
            let escape = |text: &str| text.replace('\\', r"\\").replace(':', r"\:");
            let line = format!("\n {}:*:*:*:x\n", escape(&host)) + &format!("{}:*:*:*:{}", escape(&host), escape(&password));
            // A carriage return at the end belongs to the line's end.
            prop_assume!(!host.starts_with('#') && !password.ends_with('\r'));
            prop_assert_eq!(entry(&line, &host), Some(password));
        }
    }
}
