//! Settings of the HTTP endpoint.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::PathBuf;

use relevo_telemetry::{Entrance, Listen, TlsFiles};
use serde::Deserialize;

use crate::args::HttpArgs;
use crate::error::CliError;

const DEFAULT_LISTEN: Listen = Listen::Tcp(SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 9187)));

/// `[http]`, as written.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct HttpSection {
    listen: Option<Listen>,
    tls_cert: Option<PathBuf>,
    tls_key: Option<PathBuf>,
    tls_client_ca: Option<PathBuf>,
    token_file: Option<PathBuf>,
}

impl HttpSection {
    /// How clients get in, from options and the file.
    ///
    /// # Errors
    /// [`CliError::Usage`]: some settings make no sense without others.
    pub(super) fn entrance(&self, args: &HttpArgs) -> Result<Entrance, CliError> {
        let choose = |given: &Option<PathBuf>, file: &Option<PathBuf>| given.clone().or_else(|| file.clone());
        let listen = args.listen.clone().or_else(|| self.listen.clone()).unwrap_or(DEFAULT_LISTEN);
        let client_ca = choose(&args.tls_client_ca, &self.tls_client_ca);
        let pair = (choose(&args.tls_cert, &self.tls_cert), choose(&args.tls_key, &self.tls_key));
        let tls = match (pair, client_ca) {
            ((Some(certificate), Some(key)), client_ca) => Some(TlsFiles { certificate, key, client_ca }),
            ((None, None), None) => None,
            ((None, None), Some(_)) => {
                return Err(CliError::usage(
                    "tls_client_ca under [http] (--http-tls-client-ca) asks clients for a certificate, which takes TLS: \
                     give tls_cert and tls_key too",
                ));
            }
            ((None, Some(_)) | (Some(_), None), _) => {
                return Err(CliError::usage(
                    "tls_cert and tls_key under [http] (--http-tls-cert, --http-tls-key) belong together: give both or \
                     none",
                ));
            }
        };
        if tls.is_some() && matches!(listen, Listen::Unix(_)) {
            return Err(CliError::usage(format!(
                "the HTTP endpoint listens on {listen}, where there is no TLS: give an ADDRESS:PORT, or no tls_cert"
            )));
        }
        Ok(Entrance { listen, tls, token_file: choose(&args.token_file, &self.token_file) })
    }
}

/// Whether a token would be sent so that others on the network can read it.
#[must_use]
pub fn shows_token(entrance: &Entrance) -> bool {
    let is_remote = matches!(entrance.listen, Listen::Tcp(address) if !address.ip().is_loopback());
    entrance.token_file.is_some() && entrance.tls.is_none() && is_remote
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(text: &str) -> Result<HttpSection, String> {
        toml::from_str(text).map_err(|error| error.message().to_owned())
    }

    fn entrance(text: &str, args: &HttpArgs) -> Result<Entrance, String> {
        section(text)?.entrance(args).map_err(|error| error.to_string())
    }

    #[test]
    fn an_option_wins_over_the_file_and_the_file_over_the_default() {
        let none = HttpArgs::default();
        let default = entrance("", &none).unwrap();
        assert_eq!(default.listen.to_string(), "127.0.0.1:9187");
        assert_eq!((default.tls, default.token_file), (None, None));
        let text = "listen = '0.0.0.0:1'\ntls_cert = 'c'\ntls_key = 'k'\ntoken_file = 't'";
        let file = entrance(text, &none).unwrap();
        assert_eq!(file.listen.to_string(), "0.0.0.0:1");
        assert_eq!(file.token_file, Some("t".into()));
        let args = HttpArgs {
            listen: Some("127.0.0.1:2".parse().unwrap()),
            tls_cert: Some("other".into()),
            tls_client_ca: Some("ca".into()),
            token_file: Some("u".into()),
            ..HttpArgs::default()
        };
        let given = entrance(text, &args).unwrap();
        assert_eq!((given.listen.to_string().as_str(), given.token_file), ("127.0.0.1:2", Some("u".into())));
        let files = TlsFiles { certificate: "other".into(), key: "k".into(), client_ca: Some("ca".into()) };
        assert_eq!(given.tls, Some(files));
        let unix = entrance("listen = 'unix:/run/r.sock'\ntoken_file = 't'", &none).unwrap();
        assert_eq!(unix.listen, Listen::Unix("/run/r.sock".into()));
    }

    #[test]
    fn settings_that_make_no_sense_are_refused_by_name() {
        for (text, part) in [
            ("tls_cert = 'c'", "tls_key"),
            ("tls_key = 'k'", "tls_cert"),
            ("tls_client_ca = 'a'", "tls_cert and tls_key"),
            ("listen = 'unix:/x'\ntls_cert = 'c'\ntls_key = 'k'", "no TLS"),
            ("listen = '9187'", "ADDRESS:PORT"),
            ("tls_certificate = 'c'", "tls_certificate"),
        ] {
            let error = entrance(text, &HttpArgs::default()).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn a_token_is_safe_on_this_machine_and_behind_tls() {
        let shown = |text: &str| shows_token(&entrance(text, &HttpArgs::default()).unwrap());
        let token = "token_file = 't'\n";
        assert!(shown(&format!("{token}listen = '0.0.0.0:1'")));
        assert!(!shown(token) && !shown("listen = '0.0.0.0:1'"));
        assert!(!shown(&format!("{token}listen = 'unix:/x'")));
        assert!(!shown(&format!("{token}listen = '0.0.0.0:1'\ntls_cert = 'c'\ntls_key = 'k'")));
    }
}
