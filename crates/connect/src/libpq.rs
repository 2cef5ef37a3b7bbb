//! How a libpq program (`pg_dump`) is led to the same server in the same way: by its environment, and never by its
//! command line, which everybody can read.

use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use relevo_model::Side;
use tempfile::NamedTempFile;

use crate::options::Roots;
use crate::settings::variables;
use crate::{ConnInfo, ConnectError, Host, HostName, Secret, SslCertMode, SslNegotiation, password};

/// The only service that the file of a [`LibpqFiles`] knows.
const SERVICE: &str = "relevo";

/// What a libpq program reads while it connects; it vanishes with this value.
#[derive(Debug)]
#[must_use = "the program's files vanish with this value"]
pub struct LibpqFiles {
    _service: Option<NamedTempFile>,
}

impl ConnInfo {
    /// Sets the environment of a libpq program so that it connects as this connection string says, and takes nothing
    /// from Relevo's own `PG…` variables. Pass [`pinned`](Self::pinned) information to have it reach the same server,
    /// and keep what is returned until the program has ended.
    ///
    /// Do not print the command with `{:?}` afterwards: it holds the password.
    ///
    /// # Errors
    /// [`ConnectError::PasswordFile`]; [`ConnectError::TemporaryFile`].
    pub fn libpq_env(&self, side: Side, command: &mut Command) -> Result<LibpqFiles, ConnectError> {
        for name in variables() {
            command.env_remove(name);
        }
        for (name, value) in self.libpq_variables() {
            command.env(name, value);
        }
        if let [host] = self.hosts.as_slice() {
            if let Some(password) = password::find(self, side, host)? {
                command.env("PGPASSWORD", password.expose());
            }
        } else if let Some(password) = password::given(self, side)? {
            command.env("PGPASSWORD", password.expose());
        }
        // The one parameter that has no variable; a service file can hold it (manual, *The Connection Service File*).
        let service = self.tls.key_password.as_ref().map(service_file).transpose();
        let service = service.map_err(|source| ConnectError::TemporaryFile { side, source })?;
        if let Some(file) = &service {
            command.env("PGSERVICE", SERVICE).env("PGSERVICEFILE", file.path());
        }
        Ok(LibpqFiles { _service: service })
    }

    fn libpq_variables(&self) -> Vec<(&'static str, String)> {
        let Self { tls, .. } = self;
        let join = |f: fn(&Host) -> String| self.hosts.iter().map(f).collect::<Vec<_>>().join(",");
        let name = |host: &Host| match &host.name {
            HostName::Tcp(name) | HostName::Unix(name) => name.clone(),
        };
        let path = |path: &Path| path.to_string_lossy().into_owned();
        let mut all = vec![
            ("PGHOST", join(name)),
            ("PGPORT", join(|host| host.port.to_string())),
            ("PGUSER", self.user.clone()),
            ("PGDATABASE", self.database.clone()),
            ("PGSSLMODE", tls.mode.to_string()),
            ("PGSSLMINPROTOCOLVERSION", tls.min_version.to_string()),
            ("PGCHANNELBINDING", self.channel_binding.to_string()),
            ("PGTARGETSESSIONATTRS", self.session_attrs.to_string()),
            ("PGLOADBALANCEHOSTS", self.load_balance.to_string()),
            ("PGCONNECT_TIMEOUT", self.connect_timeout.map_or(0, |limit| limit.as_secs()).to_string()),
        ];
        if self.hosts.iter().any(|host| host.address.is_some()) {
            all.push(("PGHOSTADDR", join(|host| host.address.map_or_else(String::new, |a| a.to_string()))));
        }
        let optional = [
            ("PGPASSFILE", self.passfile.as_deref().map(path)),
            ("PGSSLROOTCERT", tls.roots.as_ref().map(Roots::to_string)),
            ("PGSSLCERT", tls.certificate.as_deref().map(path)),
            ("PGSSLKEY", tls.key.as_deref().map(path)),
            ("PGSSLCRL", tls.crl.as_deref().map(path)),
            ("PGSSLMAXPROTOCOLVERSION", tls.max_version.map(|version| version.to_string())),
            ("PGSSLSNI", (!tls.send_server_name).then(|| "0".to_owned())),
            (
                "PGSSLNEGOTIATION",
                (tls.negotiation == SslNegotiation::Direct).then(|| tls.negotiation.to_string()),
            ),
            (
                "PGSSLCERTMODE",
                (tls.certificate_mode != SslCertMode::Allow).then(|| tls.certificate_mode.to_string()),
            ),
            ("PGOPTIONS", self.options.clone()),
        ];
        all.extend(optional.into_iter().filter_map(|(name, value)| Some((name, value?))));
        all
    }
}

/// A file that only this user can read.
fn service_file(key_password: &Secret) -> std::io::Result<NamedTempFile> {
    let mut file = tempfile::Builder::new().prefix("relevo-").tempfile()?;
    writeln!(file, "[{SERVICE}]\nsslpassword={}", key_password.expose())?;
    file.flush()?;
    Ok(file)
}
