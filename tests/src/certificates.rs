//! A certificate authority, a server and a client certificate, and an authority that nobody trusts.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::process::give_to_server_user;

/// Files in PEM form, removed when this is dropped.
#[derive(Debug)]
pub struct Certificates {
    folder: TempDir,
}

impl Certificates {
    /// Makes them with the `openssl` program.
    #[must_use]
    pub fn create() -> Self {
        let certificates = Self { folder: tempfile::tempdir().expect("a temporary folder") };
        certificates.authority("root", "relevo test authority");
        certificates.authority("stranger", "an authority that nobody trusts");
        certificates.signed("server", "localhost", "subjectAltName=DNS:localhost,IP:127.0.0.1");
        certificates.signed("client", "postgres", "extendedKeyUsage=clientAuth");
        certificates
    }

    /// The authority's certificate: for `sslrootcert`.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        self.path("root.crt")
    }

    /// An authority that signed nothing here.
    #[must_use]
    pub fn stranger(&self) -> PathBuf {
        self.path("stranger.crt")
    }

    /// A client certificate for the role `postgres`: for `sslcert`.
    #[must_use]
    pub fn client(&self) -> PathBuf {
        self.path("client.crt")
    }

    /// Its key: for `sslkey`.
    #[must_use]
    pub fn client_key(&self) -> PathBuf {
        self.path("client.key")
    }

    /// The same key, encrypted.
    #[must_use]
    pub fn encrypted_client_key(&self, passphrase: &str) -> PathBuf {
        let place = self.path("client-encrypted.key");
        self.openssl(
            "pkey -aes256 -in client.key -out client-encrypted.key",
            &["-passout", &format!("pass:{passphrase}")],
        );
        fs::set_permissions(&place, fs::Permissions::from_mode(0o600)).expect("permissions of a key");
        place
    }

    /// Makes another server certificate, for a common name and alternative names (`DNS:…,IP:…`; none when empty).
    pub fn issue_server(&self, name: &str, common_name: &str, alternatives: &str) {
        let extension = match alternatives {
            "" => "basicConstraints=CA:FALSE".to_owned(),
            names => format!("subjectAltName={names}"),
        };
        self.signed(name, common_name, &extension);
    }

    /// Makes a client certificate for another role; yields it and its key.
    #[must_use]
    pub fn issue_client(&self, name: &str, role: &str) -> (PathBuf, PathBuf) {
        self.signed(name, role, "extendedKeyUsage=clientAuth");
        (self.path(&format!("{name}.crt")), self.path(&format!("{name}.key")))
    }

    /// Copies what the server needs into its data directory; `name` is the usual `server` or another issued one.
    pub fn install_server(&self, name: &str, data: &Path) {
        let files = [(format!("{name}.crt"), "server.crt"), (format!("{name}.key"), "server.key")];
        for (file, name) in
            files.iter().map(|(file, name)| (file.as_str(), *name)).chain([("root.crt", "root.crt")])
        {
            let place = data.join(name);
            fs::copy(self.path(file), &place).expect("a copy of a certificate");
            fs::set_permissions(&place, fs::Permissions::from_mode(0o600)).expect("permissions of a key");
            give_to_server_user(&place);
        }
    }

    /// Copies an issued certificate and its key to where a program that runs as this user reads them.
    pub fn install_pair(&self, name: &str, certificate: &Path, key: &Path) {
        for (file, place) in [(format!("{name}.crt"), certificate), (format!("{name}.key"), key)] {
            fs::copy(self.path(&file), place).expect("a copy of a certificate");
            fs::set_permissions(place, fs::Permissions::from_mode(0o600)).expect("permissions of a key");
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn authority(&self, name: &str, subject: &str) {
        self.openssl(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 3650",
            &[
                "-subj",
                &format!("/CN={subject}"),
                "-keyout",
                &format!("{name}.key"),
                "-out",
                &format!("{name}.crt"),
            ],
        );
    }

    fn signed(&self, name: &str, subject: &str, extension: &str) {
        let [key, request, certificate, extensions] =
            ["key", "csr", "crt", "ext"].map(|ending| format!("{name}.{ending}"));
        fs::write(self.path(&extensions), extension).expect("a file of extensions");
        self.openssl(
            "req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes",
            &["-subj", &format!("/CN={subject}"), "-keyout", &key, "-out", &request],
        );
        fs::set_permissions(self.path(&key), fs::Permissions::from_mode(0o600))
            .expect("permissions of a key");
        self.openssl(
            "x509 -req -days 3650 -CA root.crt -CAkey root.key -CAcreateserial",
            &["-in", &request, "-out", &certificate, "-extfile", &extensions],
        );
    }

    fn openssl(&self, command: &str, arguments: &[&str]) {
        let output = Command::new("openssl")
            .args(command.split(' '))
            .args(arguments)
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .output()
            .expect("the openssl program");
        assert!(
            output.status.success(),
            "openssl {command} {arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}
