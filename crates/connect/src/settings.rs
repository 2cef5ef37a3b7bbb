//! The parameters of a connection string by name: which there are, which Relevo honours, and their values as
//! text. What the values mean is decided in `info`.

use std::collections::BTreeMap;

use crate::InvalidConnInfo;

/// What Relevo does with a parameter of libpq.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    /// Honoured.
    Kept,
    /// Accepted and of no effect here, so that a connection string that works elsewhere works here.
    Ignored,
    /// Not supported, and to ignore it would be wrong.
    Refused(&'static str),
}

/// Name, environment variable, use (manual, *Parameter Key Words* and *Environment Variables*).
const PARAMETERS: &[(&str, &str, Use)] = &[
    ("application_name", "PGAPPNAME", Use::Kept),
    ("channel_binding", "PGCHANNELBINDING", Use::Kept),
    ("client_encoding", "PGCLIENTENCODING", Use::Ignored),
    ("connect_timeout", "PGCONNECT_TIMEOUT", Use::Kept),
    ("dbname", "PGDATABASE", Use::Kept),
    ("fallback_application_name", "", Use::Ignored),
    ("gssdelegation", "PGGSSDELEGATION", Use::Ignored),
    ("gssencmode", "PGGSSENCMODE", Use::Kept),
    ("gsslib", "PGGSSLIB", Use::Ignored),
    ("host", "PGHOST", Use::Kept),
    ("hostaddr", "PGHOSTADDR", Use::Kept),
    ("keepalives", "", Use::Kept),
    ("keepalives_count", "", Use::Kept),
    ("keepalives_idle", "", Use::Kept),
    ("keepalives_interval", "", Use::Kept),
    ("krbsrvname", "PGKRBSRVNAME", Use::Ignored),
    ("load_balance_hosts", "PGLOADBALANCEHOSTS", Use::Kept),
    ("options", "PGOPTIONS", Use::Kept),
    ("passfile", "PGPASSFILE", Use::Kept),
    ("password", "PGPASSWORD", Use::Kept),
    ("port", "PGPORT", Use::Kept),
    ("replication", "", Use::Refused("Relevo chooses itself which connections replicate; leave it out")),
    (
        "require_auth",
        "PGREQUIREAUTH",
        Use::Refused("it is not supported; channel_binding=require also keeps a false server out"),
    ),
    (
        "requirepeer",
        "PGREQUIREPEER",
        Use::Refused("it is not supported; keep the socket's directory safe instead"),
    ),
    ("service", "PGSERVICE", Use::Refused("service files are not read; write its parameters out")),
    ("ssl_max_protocol_version", "PGSSLMAXPROTOCOLVERSION", Use::Kept),
    ("ssl_min_protocol_version", "PGSSLMINPROTOCOLVERSION", Use::Kept),
    ("sslcert", "PGSSLCERT", Use::Kept),
    ("sslcertmode", "PGSSLCERTMODE", Use::Kept),
    ("sslcompression", "PGSSLCOMPRESSION", Use::Ignored),
    ("sslcrl", "PGSSLCRL", Use::Kept),
    (
        "sslcrldir",
        "PGSSLCRLDIR",
        Use::Refused("it is not supported; put the lists into one file and name it sslcrl"),
    ),
    ("sslkey", "PGSSLKEY", Use::Kept),
    ("sslmode", "PGSSLMODE", Use::Kept),
    ("sslnegotiation", "PGSSLNEGOTIATION", Use::Kept),
    ("sslpassword", "", Use::Kept),
    ("sslrootcert", "PGSSLROOTCERT", Use::Kept),
    ("sslsni", "PGSSLSNI", Use::Kept),
    ("target_session_attrs", "PGTARGETSESSIONATTRS", Use::Kept),
    ("tcp_user_timeout", "", Use::Kept),
    ("user", "PGUSER", Use::Kept),
];

/// Environment variables that libpq also obeys and Relevo does not, or that could lead a child elsewhere.
const OTHER_VARIABLES: &[&str] = &["PGSERVICEFILE", "PGREQUIRESSL"];

/// Parameters whose values are secrets.
const SECRETS: [&str; 2] = ["password", "sslpassword"];

/// Parameter values by name: what a connection string says, before it is given a meaning.
#[derive(Clone, PartialEq, Eq, Default)]
pub(crate) struct Settings(BTreeMap<&'static str, String>);

impl Settings {
    /// Sets a parameter as a connection string does: the last one wins.
    ///
    /// `after` is the parameter before it: a name that follows a password may be a piece of that password, and
    /// is not shown.
    pub(crate) fn set(
        &mut self,
        name: &str,
        value: String,
        after: Option<&str>,
    ) -> Result<(), InvalidConnInfo> {
        match PARAMETERS.iter().find(|(known, ..)| *known == name) {
            Some((known, _, Use::Kept)) => {
                self.0.insert(known, value);
                Ok(())
            }
            Some((_, _, Use::Ignored)) => Ok(()),
            Some((known, _, Use::Refused(why))) => {
                Err(InvalidConnInfo::new(format!("connection parameter {known}: {why}")))
            }
            None if after.is_some_and(|name| SECRETS.contains(&name)) => Err(InvalidConnInfo::new(format!(
                "what follows {} is not a connection parameter; quote or percent-encode the special characters of \
                 the password",
                after.unwrap_or_default()
            ))),
            None => Err(unknown(name)),
        }
    }

    /// Fills what is not set from libpq's environment variables. An empty variable counts as absent.
    pub(crate) fn fill_from(
        &mut self,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<(), InvalidConnInfo> {
        for (name, env, _) in PARAMETERS {
            if env.is_empty() || self.0.contains_key(name) {
                continue;
            }
            if let Some(value) = variable(env).filter(|value| !value.is_empty()) {
                self.set(name, value, None)
                    .map_err(|e| InvalidConnInfo::new(format!("environment variable {env}: {e}")))?;
            }
        }
        Ok(())
    }

    /// A value; an empty one counts as absent, as in libpq.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// The parameters in the form `name='value'`.
    #[cfg(test)]
    pub(crate) fn render(&self) -> String {
        let quote = |value: &str| value.replace('\\', "\\\\").replace('\'', "\\'");
        let pairs: Vec<_> = self.0.iter().map(|(name, value)| format!("{name}='{}'", quote(value))).collect();
        pairs.join(" ")
    }

    #[cfg(test)]
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.0.iter().map(|(name, value)| (*name, value.as_str()))
    }
}

/// Every environment variable that libpq takes connection parameters from.
pub(crate) fn variables() -> impl Iterator<Item = &'static str> {
    let of_parameters = PARAMETERS.iter().map(|(_, env, _)| *env).filter(|env| !env.is_empty());
    of_parameters.chain(OTHER_VARIABLES.iter().copied())
}

fn unknown(name: &str) -> InvalidConnInfo {
    let kept = || PARAMETERS.iter().filter(|(.., usage)| *usage == Use::Kept).map(|(name, ..)| *name);
    let lower = name.to_ascii_lowercase();
    let mut near: Vec<(usize, &str)> = kept()
        .map(|known| (distance(&lower, known), known))
        .filter(|(steps, known)| {
            *steps <= 3.min(known.len() / 2) || (lower.len() > 3 && known.contains(&lower))
        })
        .collect();
    near.sort_unstable();
    near.truncate(3);
    let hint = match near.as_slice() {
        [] => format!("the known ones are {}", kept().collect::<Vec<_>>().join(", ")),
        near => format!("near it: {}", near.iter().map(|(_, known)| *known).collect::<Vec<_>>().join(", ")),
    };
    InvalidConnInfo::new(format!("there is no connection parameter {}; {hint}", shown(name)))
}

/// A parameter's name for a message. What does not look like one may be a mangled URL with its password.
pub(crate) fn shown(name: &str) -> String {
    let plain = name.len() <= 32 && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if plain { format!("{name:?}") } else { "of that name (not shown: it has special characters)".to_owned() }
}

/// The Levenshtein distance, for names of at most 64 characters.
fn distance(a: &str, b: &str) -> usize {
    if a.len() > 64 {
        return usize::MAX;
    }
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replace = diagonal + usize::from(x != *y);
            diagonal = row.get(j + 1).copied().unwrap_or_default();
            let best = replace.min(left + 1).min(diagonal + 1);
            if let Some(cell) = row.get_mut(j) {
                *cell = left;
            }
            left = best;
        }
        if let Some(cell) = row.last_mut() {
            *cell = left;
        }
    }
    row.last().copied().unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_parameter_is_named_with_its_neighbours() {
        let error = |name: &str| Settings::default().set(name, String::new(), None).unwrap_err().to_string();
        assert_eq!(
            error("sslmod"),
            "there is no connection parameter \"sslmod\"; near it: sslmode, sslcrl, sslkey"
        );
        assert!(
            error("database").contains("the known ones are application_name, channel_binding"),
            "{}",
            error("database")
        );
        assert!(error("timeout").contains("connect_timeout"), "{}", error("timeout"));
        assert!(error("SSLMODE").contains("near it: sslmode"), "{}", error("SSLMODE"));
    }

    #[test]
    fn what_cannot_be_honoured_is_refused_with_a_reason() {
        for name in ["service", "require_auth", "replication", "sslcrldir", "requirepeer"] {
            let error = Settings::default().set(name, "x".into(), None).unwrap_err().to_string();
            assert!(error.starts_with(&format!("connection parameter {name}: ")), "{error}");
        }
    }

    #[test]
    fn the_environment_fills_gaps_only() {
        let mut settings = Settings::default();
        settings.set("user", "given".into(), None).unwrap();
        let variable = |name: &str| match name {
            "PGUSER" | "PGDATABASE" => Some("env".to_owned()),
            "PGHOST" => Some(String::new()),
            _ => None,
        };
        settings.fill_from(&variable).unwrap();
        assert_eq!(
            (settings.get("user"), settings.get("dbname"), settings.get("host")),
            (Some("given"), Some("env"), None)
        );
        let error =
            settings.fill_from(&|name| (name == "PGSERVICE").then(|| "x".into())).unwrap_err().to_string();
        assert!(error.starts_with("environment variable PGSERVICE: "), "{error}");
    }

    #[test]
    fn distances() {
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("same", "same"), 0);
        assert_eq!(distance("é", "e"), 1);
    }
}
