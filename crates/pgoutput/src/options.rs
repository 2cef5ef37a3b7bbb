//! What the server is asked for: the option list of `START_REPLICATION SLOT … LOGICAL … (…)`.
//!
//! Manual: *Logical Streaming Replication Parameters* and, for the command, *Streaming Replication Protocol*.
//! Source: `parse_output_parameters` in `src/backend/replication/pgoutput/pgoutput.c`.

use crate::format::{Format, Protocol, Streaming};

/// Which changes are wanted by where they began (the option `origin`, PostgreSQL 16 and later).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OriginFilter {
    /// All of them.
    Any,
    /// Only those that began on the source itself.
    None,
}

/// The options for `pgoutput`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The server's `server_version_num`, such as 150018: it decides which options exist.
    pub server_version_num: u32,
    /// The protocol version.
    pub protocol: Protocol,
    /// The publications whose changes are wanted; at least one.
    pub publications: Vec<String>,
    /// Whether large transactions may come before they end.
    pub streaming: Streaming,
    /// Whether messages of `pg_logical_emit_message` are wanted.
    pub messages: bool,
    /// Whether values come in binary format where their type has one.
    pub binary: bool,
    /// Whether transactions come when they are prepared.
    pub two_phase: bool,
    /// Which origins are wanted; `None` leaves it to the server, which sends all.
    pub origin: Option<OriginFilter>,
}

/// The options cannot be given to this server.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptionsError {
    /// No publication is named.
    #[error("no publication is named: expected at least one")]
    NoPublication,
    /// The server could not be told this name.
    #[error("{name:?} cannot name a publication: expected 1 to 63 bytes without a NUL character")]
    PublicationName {
        /// The name.
        name: String,
    },
    /// The server or protocol is too old for an option.
    #[error("pgoutput's option {option} needs {needs}, found {found}: leave it out")]
    TooOld {
        /// The option.
        option: &'static str,
        /// What it needs.
        needs: &'static str,
        /// What there is.
        found: String,
    },
}

impl Options {
    /// What Relevo asks a server for: the highest protocol, logical messages, text values, and large
    /// transactions while they run.
    #[must_use]
    pub fn new(server_version_num: u32, publications: Vec<String>) -> Self {
        Self {
            server_version_num,
            protocol: Protocol::highest(server_version_num),
            publications,
            streaming: if server_version_num >= 140_000 { Streaming::On } else { Streaming::Off },
            messages: server_version_num >= 140_000,
            binary: false,
            two_phase: false,
            origin: None,
        }
    }

    /// How the messages will have to be read.
    #[must_use]
    pub const fn format(&self) -> Format {
        Format { protocol: self.protocol, streaming: self.streaming }
    }

    /// The list as it stands in the command, with its parentheses.
    ///
    /// # Errors
    /// The server would refuse it, or would understand another name than was meant.
    pub fn render(&self) -> Result<String, OptionsError> {
        let mut options = vec![
            format!("proto_version '{}'", self.protocol),
            format!("publication_names {}", literal(&self.publication_names()?)),
        ];
        if self.protocol > Protocol::highest(self.server_version_num) {
            return Err(self.server_too_old("proto_version", "a server that speaks it"));
        }
        if self.messages {
            self.need_server(140_000, "messages", "PostgreSQL 14")?;
            options.push("messages 'true'".to_owned());
        }
        if self.binary {
            self.need_server(140_000, "binary", "PostgreSQL 14")?;
            options.push("binary 'true'".to_owned());
        }
        match self.streaming {
            Streaming::Off => {}
            Streaming::On => {
                self.need_protocol(Protocol::V2, "streaming", "protocol 2")?;
                options.push("streaming 'on'".to_owned());
            }
            Streaming::Parallel => {
                self.need_protocol(Protocol::V4, "streaming 'parallel'", "protocol 4")?;
                options.push("streaming 'parallel'".to_owned());
            }
        }
        if self.two_phase {
            self.need_protocol(Protocol::V3, "two_phase", "protocol 3")?;
            options.push("two_phase 'true'".to_owned());
        }
        if let Some(origin) = self.origin {
            self.need_server(160_000, "origin", "PostgreSQL 16")?;
            let wanted = match origin {
                OriginFilter::Any => "any",
                OriginFilter::None => "none",
            };
            options.push(format!("origin '{wanted}'"));
        }
        Ok(format!("({})", options.join(", ")))
    }

    /// The names as `SplitIdentifierString` reads them. All are quoted: it folds bare names to lower case.
    fn publication_names(&self) -> Result<String, OptionsError> {
        /// `NAMEDATALEN - 1`; the server would cut a longer name and look for another publication.
        const LIMIT_BYTES: usize = 63;
        if self.publications.is_empty() {
            return Err(OptionsError::NoPublication);
        }
        let mut names = Vec::with_capacity(self.publications.len());
        for name in &self.publications {
            if !(1..=LIMIT_BYTES).contains(&name.len()) || name.contains('\0') {
                return Err(OptionsError::PublicationName { name: name.clone() });
            }
            names.push(format!("\"{}\"", name.replace('"', "\"\"")));
        }
        Ok(names.join(","))
    }

    fn need_server(
        &self,
        version_num: u32,
        option: &'static str,
        needs: &'static str,
    ) -> Result<(), OptionsError> {
        if self.server_version_num >= version_num {
            return Ok(());
        }
        Err(self.server_too_old(option, needs))
    }

    fn server_too_old(&self, option: &'static str, needs: &'static str) -> OptionsError {
        let found = format!("server version {}", self.server_version_num);
        OptionsError::TooOld { option, needs, found }
    }

    fn need_protocol(
        &self,
        protocol: Protocol,
        option: &'static str,
        needs: &'static str,
    ) -> Result<(), OptionsError> {
        if self.protocol >= protocol {
            return Ok(());
        }
        Err(OptionsError::TooOld { option, needs, found: format!("protocol {}", self.protocol) })
    }
}

/// A string of the replication grammar (`repl_scanner.l`): a quote is doubled, a backslash is itself.
fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(version: u32, names: &[&str]) -> Options {
        Options::new(version, names.iter().map(|name| (*name).to_owned()).collect())
    }

    #[test]
    fn the_usual_list() {
        let cases = [(140_000, 2), (150_000, 3), (160_000, 4), (180_004, 4)];
        for (version, protocol) in cases {
            assert_eq!(
                options(version, &["relevo_shop", "relevo_shop_inserts"]).render().unwrap(),
                format!(
                    "(proto_version '{protocol}', publication_names '\"relevo_shop\",\"relevo_shop_inserts\"', \
                     messages 'true', streaming 'on')"
                )
            );
        }
    }

    #[test]
    fn every_option_is_rendered() {
        let mut all = options(160_000, &["p"]);
        all.streaming = Streaming::Parallel;
        all.binary = true;
        all.two_phase = true;
        all.origin = Some(OriginFilter::None);
        assert_eq!(
            all.render().unwrap(),
            "(proto_version '4', publication_names '\"p\"', messages 'true', binary 'true', \
             streaming 'parallel', two_phase 'true', origin 'none')"
        );
        all.streaming = Streaming::On;
        all.origin = Some(OriginFilter::Any);
        assert!(all.render().unwrap().contains("streaming 'on', two_phase 'true', origin 'any'"));
    }

    #[test]
    fn names_are_quoted_for_both_parsers() {
        let rendered = options(150_000, &["it's", "say \"hi\"", "Größe, back\\slash"]).render().unwrap();
        assert_eq!(
            rendered,
            "(proto_version '3', publication_names \
             '\"it''s\",\"say \"\"hi\"\"\",\"Größe, back\\slash\"', messages 'true', streaming 'on')"
        );
    }

    #[test]
    fn what_the_server_would_misunderstand_is_refused() {
        let long = "x".repeat(64);
        for name in ["", "a\0b", long.as_str()] {
            let error = options(150_000, &[name]).render().unwrap_err();
            assert_eq!(error, OptionsError::PublicationName { name: name.to_owned() });
        }
        assert!(options(150_000, &[&long[..63]]).render().is_ok());
        assert_eq!(options(150_000, &[]).render(), Err(OptionsError::NoPublication));
    }

    #[test]
    fn what_the_server_does_not_know_is_refused() {
        let refused = |version: u32, change: fn(&mut Options)| {
            let mut options = options(version, &["p"]);
            change(&mut options);
            matches!(options.render(), Err(OptionsError::TooOld { .. }))
        };
        assert!(refused(130_000, |o| o.messages = true));
        assert!(refused(130_000, |o| o.binary = true));
        assert!(refused(130_000, |o| o.streaming = Streaming::On));
        assert!(refused(150_000, |o| o.streaming = Streaming::Parallel));
        assert!(refused(140_000, |o| o.two_phase = true));
        assert!(refused(150_000, |o| o.origin = Some(OriginFilter::Any)));
        assert!(refused(150_000, |o| o.protocol = Protocol::V4));
        assert!(options(130_000, &["p"]).render().is_ok());
    }
}
