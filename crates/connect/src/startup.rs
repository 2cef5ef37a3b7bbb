//! What a session asks of the server at its start: name and run-time parameters. Nothing is sent from here.

/// What every session that reads or writes replicated values sets, on either side, so that a value's text is the
/// same everywhere and read as the same value (with `array_nulls` off, `{NULL}` is read as a string), and names are
/// always qualified. Each is known to PostgreSQL 14 to 18 and may be set by any
/// user at the start of a session.
pub const VALUE_SETTINGS: &[(&str, &str)] = &[
    ("client_encoding", "UTF8"),
    ("DateStyle", "ISO"),
    ("IntervalStyle", "postgres"),
    ("extra_float_digits", "3"),
    ("lc_monetary", "C"),
    ("xmloption", "content"),
    ("TimeZone", "UTC"),
    ("search_path", ""),
    ("bytea_output", "hex"),
    ("array_nulls", "on"),
    ("quote_all_identifiers", "off"),
    ("statement_timeout", "0"),
    ("lock_timeout", "0"),
    ("idle_in_transaction_session_timeout", "0"),
    ("idle_session_timeout", "0"),
];

/// What a session asks of the server at its start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SessionSettings {
    /// The name in `pg_stat_activity`; empty: the one of the connection string.
    pub application_name: String,
    /// Run-time parameters, sent in the startup packet so that they are the session's defaults (`RESET` returns to
    /// them). They count before the connection string's `options`.
    pub parameters: Vec<(String, String)>,
}

impl SessionSettings {
    /// A session for replicated values: [`VALUE_SETTINGS`] under a name.
    #[must_use]
    pub fn for_values(application_name: impl Into<String>) -> Self {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Self {
            application_name: application_name.into(),
            parameters: VALUE_SETTINGS.iter().map(owned).collect(),
        }
    }

    /// The same with one more parameter; it replaces one of the same name.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.parameters.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
        self.parameters.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The client encoding asked for. It cannot travel in `options`: tokio-postgres always sends
    /// `client_encoding=UTF8` beside them, and that counts more.
    pub(crate) fn encoding(&self) -> Option<&str> {
        let encoding = self.parameters.iter().rfind(|(name, _)| name.eq_ignore_ascii_case("client_encoding"));
        encoding.map(|(_, value)| value.as_str())
    }

    /// The start-up parameter `options`: the user's own, then one `-c name=value` for each parameter.
    pub(crate) fn options(&self, own: Option<&str>) -> String {
        let mut options = own.unwrap_or_default().to_owned();
        for (name, value) in
            self.parameters.iter().filter(|(name, _)| !name.eq_ignore_ascii_case("client_encoding"))
        {
            if !options.is_empty() {
                options.push(' ');
            }
            options.push_str("-c ");
            escape(name, &mut options);
            options.push('=');
            escape(value, &mut options);
        }
        options
    }
}

/// Spaces separate options and a backslash keeps the next character (`pg_split_opts` in init/postinit.c).
fn escape(text: &str, options: &mut String) {
    for c in text.chars() {
        if c == '\\' || c.is_ascii_whitespace() || c == '\x0b' {
            options.push('\\');
        }
        options.push(c);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_escaped_and_follow_the_users_own() {
        let settings = SessionSettings::default()
            .with("search_path", "")
            .with("client_encoding", "SQL_ASCII")
            .with("DateStyle", "ISO, YMD")
            .with("x.y", "a\\b");
        assert_eq!(
            settings.options(Some("-c geqo=off")),
            "-c geqo=off -c search_path= -c DateStyle=ISO,\\ YMD -c x.y=a\\\\b"
        );
        assert_eq!(settings.encoding(), Some("SQL_ASCII"));
    }

    #[test]
    fn a_parameter_replaces_one_of_the_same_name() {
        let settings = SessionSettings::for_values("x").with("datestyle", "German");
        let styles: Vec<_> =
            settings.parameters.iter().filter(|(n, _)| n.eq_ignore_ascii_case("DateStyle")).collect();
        assert_eq!(styles, [&("datestyle".to_owned(), "German".to_owned())]);
    }
}
