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
