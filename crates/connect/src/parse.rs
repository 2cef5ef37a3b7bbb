//! The two forms of a libpq connection string (manual, *Connection Strings*): text in, settings out. No meaning
//! is given to values here, and no error shows a piece of the text that could belong to a password.

use crate::InvalidConnInfo;
use crate::settings::{Settings, shown};

type Result<T> = std::result::Result<T, InvalidConnInfo>;

fn invalid<T>(message: impl Into<String>) -> Result<T> {
    Err(InvalidConnInfo::new(message))
}

/// Reads a URL or a list of `name=value`.
pub(crate) fn parse(text: &str) -> Result<Settings> {
    let text = text.trim();
    let url = ["postgres://", "postgresql://"].into_iter().find_map(|scheme| text.strip_prefix(scheme));
    match url {
        Some(rest) => parse_url(rest),
        None if text.contains("://") && !text.split("://").next().is_some_and(|s| s.contains(['=', ' '])) => {
            invalid("the URL of a connection begins with postgres:// or postgresql://")
        }
        None => parse_pairs(text),
    }
}

// ------------------------------------------------------------------------------------------------ URL

fn parse_url(rest: &str) -> Result<Settings> {
    let mut settings = Settings::default();
    // As libpq does: user and password end at the first '@' before any '/'.
    let rest = match rest.find(['@', '/']) {
        Some(at) if rest[at..].starts_with('@') => {
            let (user, password) = match rest[..at].split_once(':') {
                Some((user, password)) => (user, Some(password)),
                None => (&rest[..at], None),
            };
            set_decoded(&mut settings, "user", user)?;
            if let Some(password) = password {
                set_decoded(&mut settings, "password", password)?;
            }
            &rest[at + 1..]
        }
        _ => rest,
    };
    let (before_query, query) = match rest.split_once('?') {
        Some((before, query)) => (before, Some(query)),
        None => (rest, None),
    };
    let (authority, path) = before_query.split_once('/').unwrap_or((before_query, ""));
    if before_query.contains('@') {
        // Half a password would be taken for a host or a database, and shown in messages.
        return invalid(
            "percent-encode '@' (%40), '/' (%2F) and ':' (%3A) in the user and password of the URL",
        );
    }
    parse_hosts(&mut settings, authority)?;
    if !path.is_empty() {
        set_decoded(&mut settings, "dbname", path)?;
    }
    if let Some(query) = query {
        parse_query(&mut settings, query)?;
    }
    Ok(settings)
}

/// `h1:p1,h2,[::1]:p3`.
fn parse_hosts(settings: &mut Settings, authority: &str) -> Result<()> {
    let (mut hosts, mut ports) = (Vec::new(), Vec::new());
    for (index, entry) in authority.split(',').enumerate() {
        let (host, port) = match entry.strip_prefix('[') {
            Some(bracketed) => {
                let Some((address, after)) = bracketed.split_once(']') else {
                    return invalid(format!(
                        "host {} of the URL lacks the ']' of its IPv6 address",
                        index + 1
                    ));
                };
                let port = match after.strip_prefix(':') {
                    Some(port) => port,
                    None if after.is_empty() => "",
                    None => return invalid(format!("host {} of the URL: expected ':' after ']'", index + 1)),
                };
                if address.is_empty() {
                    return invalid(format!("host {} of the URL is an empty IPv6 address", index + 1));
                }
                (address, port)
            }
            None => entry.split_once(':').unwrap_or((entry, "")),
        };
        if !port.bytes().all(|b| b.is_ascii_digit()) {
            // Not shown: a password with an unencoded '/' ends up here.
            return invalid(format!(
                "host {} of the URL has a port that is no number; if this is the password, percent-encode its special \
                 characters, and write IPv6 addresses in []",
                index + 1
            ));
        }
        hosts.push(decode("host", host)?);
        ports.push(port.to_owned());
    }
    if hosts.iter().any(|host| !host.is_empty()) {
        settings.set("host", hosts.join(","), None)?;
    }
    if ports.iter().any(|port| !port.is_empty()) {
        settings.set("port", ports.join(","), None)?;
    }
    Ok(())
}

fn parse_query(settings: &mut Settings, query: &str) -> Result<()> {
    let mut after: Option<String> = None;
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let name = decode("parameter", name)?;
        let value = decode(&name, value)?;
        // JDBC's spelling, which libpq takes as well.
        let (name, value) = match (name.as_str(), value.as_str()) {
            ("ssl", "true") => ("sslmode".to_owned(), "require".to_owned()),
            _ => (name, value),
        };
        settings.set(&name, value, after.as_deref())?;
        after = Some(name);
    }
    Ok(())
}

fn set_decoded(settings: &mut Settings, name: &str, text: &str) -> Result<()> {
    if text.is_empty() {
        return Ok(());
    }
    settings.set(name, decode(name, text)?, None)
}

/// Undoes percent-encoding. `what` names the text in an error; the text itself is not shown.
fn decode(what: &str, text: &str) -> Result<String> {
    if !text.contains('%') {
        return Ok(text.to_owned());
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|b| char::from(b).to_digit(16));
        match (digit(), digit()) {
            (Some(high), Some(low)) if high + low > 0 => bytes.push((high * 16 + low) as u8),
            (Some(_), Some(_)) => return invalid(format!("{} in the URL contains %00", shown(what))),
            _ => {
                return invalid(format!(
                    "{} in the URL: '%' must be followed by two hexadecimal digits; write a literal '%' as %25",
                    shown(what)
                ));
            }
        }
    }
    String::from_utf8(bytes)
        .or_else(|_| invalid(format!("{} in the URL is not UTF-8 once decoded", shown(what))))
}

// ------------------------------------------------------------------------------------------ name=value

fn parse_pairs(text: &str) -> Result<Settings> {
    let mut settings = Settings::default();
    let mut after: Option<String> = None;
    let mut rest = text.char_indices().peekable();
    loop {
        while rest.next_if(|(_, c)| c.is_whitespace()).is_some() {}
        let Some((start, _)) = rest.peek().copied() else { return Ok(settings) };
        let mut name = String::new();
        while let Some((_, c)) = rest.next_if(|(_, c)| *c != '=' && !c.is_whitespace()) {
            name.push(c);
        }
        while rest.next_if(|(_, c)| c.is_whitespace()).is_some() {}
        if rest.next_if(|(_, c)| *c == '=').is_none() {
            // The word is not shown: it may be the second half of a password with a space.
            return invalid(format!(
                "expected name=value at character {} of the connection string, or a URL postgres://user@host:port/database; \
                 quote values that contain spaces with '…'",
                text[..start].chars().count() + 1
            ));
        }
        while rest.next_if(|(_, c)| c.is_whitespace()).is_some() {}
        let value = parse_value(&mut rest, &name)?;
        settings.set(&name, value, after.as_deref())?;
        after = Some(name);
    }
}

fn parse_value(rest: &mut std::iter::Peekable<std::str::CharIndices<'_>>, name: &str) -> Result<String> {
    let quoted = rest.next_if(|(_, c)| *c == '\'').is_some();
    let mut value = String::new();
    loop {
        match rest.peek().map(|(_, c)| *c) {
            None if quoted => {
                return invalid(format!(
                    "the value of the parameter {} lacks its closing quote",
                    shown(name)
                ));
            }
            None => return Ok(value),
            Some(c) if !quoted && c.is_whitespace() => return Ok(value),
            Some('\'') if quoted => {
                rest.next();
                return Ok(value);
            }
            Some('\\') => {
                rest.next();
                value.extend(rest.next().map(|(_, c)| c));
            }
            Some(c) => {
                rest.next();
                value.push(c);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pairs(text: &str) -> Vec<(&'static str, String)> {
        parse(text).unwrap().iter().map(|(name, value)| (name, value.to_owned())).collect()
    }

    fn parsed(text: &str) -> String {
        parse(text).unwrap().render()
    }

    fn error(text: &str) -> String {
        parse(text).err().unwrap().to_string()
    }

    #[test]
    fn urls() {
        for (url, expected) in [
            ("postgres://", ""),
            ("postgresql://h", "host='h'"),
            ("postgres://h:1/db", "dbname='db' host='h' port='1'"),
            ("postgres://u@h", "host='h' user='u'"),
            ("postgres://u:p@/db", "dbname='db' password='p' user='u'"),
            ("postgres://u%40x:p%2F%3a%25@h/d%20b", "dbname='d b' host='h' password='p/:%' user='u@x'"),
            ("postgres://u:p?w#1@h/db", "dbname='db' host='h' password='p?w#1' user='u'"),
            ("postgres://h1:1,h2,h3:3/db", "dbname='db' host='h1,h2,h3' port='1,,3'"),
            ("postgres://[::1]:5433,[fe80::1]/db", "dbname='db' host='::1,fe80::1' port='5433,'"),
            ("postgres:///db?host=/run/pg&port=5433", "dbname='db' host='/run/pg' port='5433'"),
            ("postgres://%2Frun%2Fpg:5433/db", "dbname='db' host='/run/pg' port='5433'"),
            (
                "postgres://u@h?sslmode=require&options=-c%20a%3Db",
                "host='h' options='-c a=b' sslmode='require' user='u'",
            ),
            ("postgres://h/db?user=x&password=a+b&dbname=c", "dbname='c' host='h' password='a+b' user='x'"),
            ("postgres://h?ssl=true", "host='h' sslmode='require'"),
            ("postgres://:5433/db", "dbname='db' port='5433'"),
            ("  postgres://h/db\n", "dbname='db' host='h'"),
        ] {
            assert_eq!(parsed(url), expected, "{url}");
        }
    }

    #[test]
    fn names_and_values() {
        for (text, expected) in [
            ("", ""),
            ("host=h port=1", "host='h' port='1'"),
            ("host = h  port= 1", "host='h' port='1'"),
            (r"password='it\'s \\ here' user=a\ b", r"password='it\'s \\ here' user='a b'"),
            ("dbname='' host=h", "dbname='' host='h'"),
            ("host=a host=b", "host='b'"),
            ("user='é' dbname=ü", "dbname='ü' user='é'"),
        ] {
            assert_eq!(parsed(text), expected, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        for (text, expected) in [
            ("mysql://u:pw@h/db", "begins with postgres://"),
            ("just a word", "at character 1 "),
            ("host=h word", "at character 8 "),
            ("host='h", "\"host\" lacks its closing quote"),
            ("postgres://[::1/db", "host 1 of the URL lacks the ']'"),
            ("postgres://h,[]/db", "host 2 of the URL is an empty IPv6"),
            ("postgres://[::1]5432/db", "expected ':' after ']'"),
            ("postgres://h:54x2/db", "host 1 of the URL has a port that is no number"),
            ("postgres://h/d%b", "\"dbname\" in the URL: '%' must be followed"),
            ("postgres://h/d%00", "\"dbname\" in the URL contains %00"),
            ("postgres://h/d%ff", "\"dbname\" in the URL is not UTF-8"),
            ("postgres://h?sslmod=require", "no connection parameter \"sslmod\"; near it: sslmode"),
        ] {
            assert!(error(text).contains(expected), "{text}: {}", error(text));
        }
    }

    #[test]
    fn no_error_shows_a_piece_of_a_password() {
        for text in [
            "postgres://u:hunter2/x@h/db",
            "postgres://u:1/hunter2@h/db",
            "postgres://u:hunter2",
            "postgres://u:%hunter2@h/db",
            "postgres://u:x@hunter2@h:99/db",
            "postgres:/u:hunter2@h/db?sslmode=require",
            "postgre://u:hunter2@h/db",
            "u:hunter2@h/db",
            "password=a hunter2",
            "password=a hunter2=b",
            "password='hunter2",
            "postgres://h?password=a&hunter2=b",
            "postgres://h?password=%hunter2",
        ] {
            assert!(!error(text).contains("hunter2"), "{text}: {}", error(text));
        }
    }

    fn percent_encode(text: &str) -> String {
        text.bytes().map(|b| format!("%{b:02X}")).collect()
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in ".*") {
            let _ = parse(&text);
            let _ = parse(&format!("postgres://{text}"));
            let _ = parse(&format!("host='{text}"));
        }

        #[test]
        fn arbitrary_url_like_text_never_panics(text in "[a:@/?&=,%0-9\\[\\]é]{0,40}") {
            let _ = parse(&format!("postgres://{text}"));
        }

        #[test]
        fn the_rendered_form_reads_back(user in ".{1,20}", password in ".{1,20}", dbname in ".{1,20}") {
            let mut settings = Settings::default();
            for (name, value) in [("user", &user), ("password", &password), ("dbname", &dbname)] {
                settings.set(name, value.clone(), None).unwrap();
            }
            prop_assert!(parse(&settings.render()).unwrap() == settings);
        }

        #[test]
        fn percent_encoding_reads_back(user in "[^\0]{1,20}", password in "[^\0]{1,20}", dbname in "[^\0]{1,20}") {
            let [u, p, d] = [&user, &password, &dbname].map(|text| percent_encode(text));
            let expected = vec![("dbname", dbname), ("host", "h".to_owned()), ("password", password), ("user", user)];
            prop_assert_eq!(pairs(&format!("postgres://{u}:{p}@h/{d}")), expected);
        }
    }
}
