//! Who gets to the HTTP endpoint, and how: TLS, client certificates, a token, a Unix socket. No database is needed: the
//! endpoint answers while Relevo looks for them.

use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use openssl::ssl::{SslConnector, SslFiletype, SslMethod};
use relevo_tests::relevo::PATIENCE;
use relevo_tests::{Certificates, Relevo, RelevoBuilder, wait_until, wait_until_some};
use serde_json::Value;
use tempfile::TempDir;

const TOKEN: &str = "3f1c-a-token-that-nobody-may-print";

/// `relevo run` between databases that are not there.
fn relevo(options: &[&str]) -> RelevoBuilder {
    let nowhere = "postgres://a@127.0.0.1:1/shop";
    RelevoBuilder::run(nowhere, nowhere).args(options)
}

/// The same without a place to listen at.
fn placeless(options: &[&str]) -> RelevoBuilder {
    let nowhere = "postgres://a@127.0.0.1:1/shop";
    RelevoBuilder::command(&["run", "--log-format", "json", "--source", nowhere, "--target", nowhere])
        .args(options)
}

fn secret(folder: &TempDir, text: &str) -> PathBuf {
    let path = folder.path().join("token");
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path
}

/// Says its part of a conversation and hears the other.
fn talk(
    mut stream: impl std::io::Read + std::io::Write,
    path: &str,
    header: &str,
) -> std::io::Result<(u16, String)> {
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{header}\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let code = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
    code.map(|code| (code, answer)).ok_or_else(|| std::io::Error::other("no HTTP"))
}

/// A client of the endpoint over TLS that trusts an authority and may have a certificate of its own.
fn over_tls(
    port: u16,
    trusted: &Path,
    own: Option<(&Path, &Path)>,
    path: &str,
) -> Result<(u16, String), String> {
    let mut builder = SslConnector::builder(SslMethod::tls_client()).unwrap();
    builder.set_ca_file(trusted).unwrap();
    if let Some((certificate, key)) = own {
        builder.set_certificate_file(certificate, SslFiletype::PEM).unwrap();
        builder.set_private_key_file(key, SslFiletype::PEM).unwrap();
    }
    let stream = TcpStream::connect(("127.0.0.1", port)).map_err(|error| error.to_string())?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let stream = builder.build().connect("localhost", stream).map_err(|error| error.to_string())?;
    talk(stream, path, "").map_err(|error| error.to_string())
}

async fn answers(relevo: &mut Relevo) {
    relevo.wait_for_log("relevo begins").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_endpoint_speaks_tls_with_its_certificate_and_takes_a_new_one_by_itself() {
    let certificates = Certificates::create();
    let folder = tempfile::tempdir().unwrap();
    let [cert, key] = ["tls.crt", "tls.key"].map(|name| folder.path().join(name));
    certificates.install_pair("server", &cert, &key);
    let mut relevo =
        relevo(&["--http-tls-cert", cert.to_str().unwrap(), "--http-tls-key", key.to_str().unwrap()]).start();
    answers(&mut relevo).await;
    let port = relevo.http_port();
    let (code, answer) = over_tls(port, &certificates.root(), None, "/api/status").unwrap();
    assert_eq!(code, 200, "{answer}");
    let [cert_name, key_name] = [&cert, &key].map(|path| path.to_str().unwrap());
    let listen = format!("0.0.0.0:{port}");
    let tls =
        ["healthcheck", "--http-listen", &listen, "--http-tls-cert", cert_name, "--http-tls-key", key_name];
    assert_eq!(RelevoBuilder::command(&tls).finish().expect_code(0).stdout, "alive\n");
    let untrusted = over_tls(port, &certificates.stranger(), None, "/healthz").unwrap_err();
    assert!(untrusted.contains("verify failed"), "{untrusted}");
    assert!(relevo.get("/healthz").await.is_none(), "nothing without TLS");
    // A client that says nothing keeps nobody waiting.
    let silent = TcpStream::connect(("127.0.0.1", port)).unwrap();
    over_tls(port, &certificates.root(), None, "/healthz").unwrap();
    drop(silent);

    // Another certificate, by another authority, as a tool exchanges it: one file after the other.
    let others = Certificates::create();
    others.install_pair("server", &cert, &folder.path().join("aside"));
    over_tls(port, &certificates.root(), None, "/healthz")
        .expect("the old pair stays until the new one fits");
    relevo.wait_for_log("goes on with what was read before").await;
    fs::rename(folder.path().join("aside"), &key).unwrap();
    wait_until("the new certificate", PATIENCE, async || {
        over_tls(port, &others.root(), None, "/healthz").is_ok_and(|(code, _)| code == 200)
    })
    .await;
    relevo.wait_for_log("read anew").await;
    relevo.terminate();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_an_authority_for_clients_only_their_certificates_get_in() {
    let certificates = Certificates::create();
    let folder = tempfile::tempdir().unwrap();
    let [cert, key] = ["tls.crt", "tls.key"].map(|name| folder.path().join(name));
    certificates.install_pair("server", &cert, &key);
    let config = folder.path().join("relevo.toml");
    let root = certificates.root();
    let text = format!("[http]\ntls_cert = {cert:?}\ntls_key = {key:?}\ntls_client_ca = {root:?}\n");
    fs::write(&config, text).unwrap();
    let mut relevo = relevo(&["--config", config.to_str().unwrap()]).start();
    answers(&mut relevo).await;
    let port = relevo.http_port();
    let own = (certificates.client(), certificates.client_key());
    let (code, _) = over_tls(port, &root, Some((&own.0, &own.1)), "/metrics").unwrap();
    assert_eq!(code, 200);
    let nobody = over_tls(port, &root, None, "/metrics");
    assert!(nobody.is_err(), "{nobody:?}");
    let strangers = Certificates::create();
    let other = (strangers.client(), strangers.client_key());
    let stranger = over_tls(port, &root, Some((&other.0, &other.1)), "/metrics");
    assert!(stranger.is_err(), "{stranger:?}");
    relevo.terminate();

    // An authority that has not issued the server's own certificate, which the health check shows.
    let text =
        format!("[http]\ntls_cert = {cert:?}\ntls_key = {key:?}\ntls_client_ca = {:?}\n", strangers.root());
    fs::write(&config, text).unwrap();
    relevo.restart();
    let listen = format!("127.0.0.1:{}", relevo.http_port());
    let health = |config: &str| {
        RelevoBuilder::command(&["healthcheck", "--config", config, "--http-listen", &listen]).finish()
    };
    wait_until("the health check gets in", PATIENCE, async || {
        health(config.to_str().unwrap()).stdout == "alive\n"
    })
    .await;
    let port = relevo.http_port();
    assert!(over_tls(port, &root, None, "/healthz").is_err());
    let (code, _) = over_tls(port, &root, Some((&other.0, &other.1)), "/healthz").unwrap();
    assert_eq!(code, 200, "who has a certificate of the authority");
    assert!(over_tls(port, &root, Some((&own.0, &own.1)), "/healthz").is_err());
    relevo.terminate();
}

#[test]
fn files_that_are_no_good_are_named_before_anything_begins() {
    let certificates = Certificates::create();
    let folder = tempfile::tempdir().unwrap();
    let [cert, key] = ["tls.crt", "tls.key"].map(|name| folder.path().join(name));
    certificates.install_pair("server", &cert, &key);
    let [cert, key] = [&cert, &key].map(|path| path.to_str().unwrap().to_owned());
    let encrypted = certificates.encrypted_client_key("x").to_str().unwrap().to_owned();
    let (client_key, short) = (certificates.client_key(), secret(&folder, "short"));
    let client_key = client_key.to_str().unwrap();
    for (options, parts) in [
        (
            vec!["--http-tls-cert", "/nowhere.crt", "--http-tls-key", &key],
            vec!["http.tls_cert", "/nowhere.crt"],
        ),
        (vec!["--http-tls-cert", &key, "--http-tls-key", &key], vec!["http.tls_cert", &key]),
        (vec!["--http-tls-cert", &cert, "--http-tls-key", &cert], vec!["http.tls_key", &cert]),
        (vec!["--http-tls-cert", &cert, "--http-tls-key", client_key], vec!["http.tls_key", "not the key"]),
        (vec!["--http-tls-cert", &cert, "--http-tls-key", &encrypted], vec!["http.tls_key", "encrypted"]),
        (
            vec!["--http-tls-cert", &cert, "--http-tls-key", &key, "--http-tls-client-ca", &key],
            vec!["http.tls_client_ca", &key],
        ),
        (vec!["--http-token-file", short.to_str().unwrap()], vec!["http.token_file", "5 characters"]),
    ] {
        let said = relevo(&options).finish().expect_code(1).stderr;
        for part in parts {
            assert!(said.contains(part), "{options:?}: {part:?} in {said}");
        }
        assert!(!said.contains("PRIVATE"), "{said}");
    }
    for (variable, code, part) in [
        ("RELEVO_HTTP_TLS_CERT", 2, "--http-tls-key"),
        ("RELEVO_HTTP_TLS_KEY", 2, "--http-tls-cert"),
        ("RELEVO_HTTP_TLS_CLIENT_CA", 2, "tls_cert and tls_key"),
        ("RELEVO_HTTP_TOKEN_FILE", 1, "http.token_file"),
    ] {
        let said = placeless(&[]).env(variable, "/nowhere").finish().expect_code(code).stderr;
        assert!(said.contains(part), "{variable}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_token_only_who_has_it_reads() {
    let folder = tempfile::tempdir().unwrap();
    let file = secret(&folder, &format!("{TOKEN}\n"));
    let mut relevo = relevo(&["--http-token-file", file.to_str().unwrap(), "--log", "debug"]).start();
    answers(&mut relevo).await;
    let port = relevo.http_port();
    let ask = |path: &str, header: &str| {
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        talk(stream, path, header).unwrap()
    };
    let bearer = format!("Authorization: Bearer {TOKEN}\r\n");
    let basic = openssl::base64::encode_block(format!("anybody:{TOKEN}").as_bytes());
    let basic = format!("Authorization: Basic {basic}\r\n");
    for path in ["/", "/metrics", "/api/status", "/page.js"] {
        assert_eq!((ask(path, &bearer).0, ask(path, &basic).0), (200, 200), "{path}");
        for header in ["", "Authorization: Bearer 3f1c-another\r\n", "Authorization: Basic OmFiYw==\r\n"] {
            let (code, answer) = ask(path, header);
            assert_eq!(code, 401, "{path} {header}");
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            let head = head.to_lowercase();
            for part in ["www-authenticate: bearer", "www-authenticate: basic", "cache-control: no-store"] {
                assert!(head.contains(part), "{part}: {head}");
            }
            let body: Value = serde_json::from_str(body).unwrap();
            assert!(body["error"].as_str().unwrap().contains("Authorization: Bearer"), "{body}");
        }
    }
    // Whatever there is not is not told to strangers either.
    assert_eq!((ask("/nope", "").0, ask("/nope", &bearer).0), (401, 404));
    // Probes need no token, and learn no more than they need.
    assert_eq!(ask("/healthz", "").0, 200);
    let (code, answer) = ask("/readyz", "");
    assert_eq!(code, 503, "there are no databases");
    assert!(answer.ends_with("{\"ready\":false}"), "{answer}");
    assert!(ask("/readyz", &bearer).1.contains("reasons"));

    // Exchanged while it runs.
    fs::write(&file, "another-token-of-this-test").unwrap();
    let new = "Authorization: Bearer another-token-of-this-test\r\n";
    wait_until("the new token", PATIENCE, async || ask("/metrics", new).0 == 200).await;
    assert_eq!(ask("/metrics", &bearer).0, 401);
    fs::remove_file(&file).unwrap();
    assert_eq!(ask("/metrics", new).0, 200, "who loses the file does not lock everybody out, nor let all in");
    assert_eq!(ask("/metrics", "").0, 401);
    relevo.terminate();
    let said = format!("{}{}", relevo.stdout(), relevo.stderr());
    assert!(!said.contains(TOKEN) && !said.contains("another-token"), "{said}");
}

/// A Relevo that listens on a socket.
async fn on_socket(path: &Path) -> Relevo {
    let mut relevo = placeless(&["--http-listen", &format!("unix:{}", path.display())]).start();
    answers(&mut relevo).await;
    relevo
}

fn ask_socket(path: &Path) -> std::io::Result<u16> {
    talk(UnixStream::connect(path)?, "/healthz", "").map(|(code, _)| code)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_unix_socket_is_for_its_owner_and_what_a_killed_process_left_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("relevo.sock");
    let mut first = on_socket(&path).await;
    assert_eq!(ask_socket(&path).unwrap(), 200);
    let found = fs::metadata(&path).unwrap();
    assert!(found.file_type().is_socket());
    assert_eq!(found.permissions().mode() & 0o777, 0o600);
    let health = ["healthcheck", "--http-listen", &format!("unix:{}", path.display())];
    assert_eq!(RelevoBuilder::command(&health).finish().expect_code(0).stdout, "alive\n");

    let listen = format!("unix:{}", path.display());
    let said = placeless(&["--http-listen", &listen]).finish().expect_code(1).stderr;
    assert!(said.contains("a process answers there already") && said.contains(&listen), "{said}");
    assert_eq!(ask_socket(&path).unwrap(), 200, "the first one is undisturbed");

    first.kill();
    assert!(path.exists() && ask_socket(&path).is_err(), "what a killed process leaves");
    let mut second = on_socket(&path).await;
    assert_eq!(ask_socket(&path).unwrap(), 200);
    second.terminate();
    assert!(!path.exists(), "who ends in order takes it along");
}

#[test]
fn what_is_no_socket_is_never_removed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notes.txt");
    fs::write(&path, "mine").unwrap();
    let unix = |path: &Path| format!("unix:{}", path.display());
    let long = folder.path().join("x".repeat(200));
    for (listen, part) in [
        (unix(&path), "no socket"),
        (unix(&folder.path().join("missing/relevo.sock")), "does not exist"),
        (unix(&long), "too long"),
    ] {
        let said = placeless(&["--http-listen", &listen]).finish().expect_code(1).stderr;
        assert!(said.contains(part) && said.contains(&listen), "{part}: {said}");
    }
    assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
    // One that somebody listens at without answering is in use all the same.
    let held = folder.path().join("held.sock");
    let _listener = UnixListener::bind(&held).unwrap();
    let said = placeless(&["--http-listen", &unix(&held)]).finish().expect_code(1).stderr;
    assert!(said.contains("answers there already"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_the_network_can_read_is_warned_of() {
    let folder = tempfile::tempdir().unwrap();
    let file = secret(&folder, TOKEN);
    let [everywhere, here] = ["0.0.0.0:0", "127.0.0.1:0"];
    let said = async |listen: &str| {
        let options = ["--http-token-file", file.to_str().unwrap(), "--http-listen", listen];
        let mut relevo = placeless(&options).start();
        wait_until_some("its beginning", PATIENCE, async || {
            let said = relevo.stderr();
            if said.contains("cannot be reached") || said.contains("connections there") {
                Ok(())
            } else {
                Err(said)
            }
        })
        .await;
        relevo.terminate();
        relevo.stderr()
    };
    assert!(said(everywhere).await.contains("travels unencrypted"));
    assert!(!said(here).await.contains("travels unencrypted"));
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(said(here).await.contains("may be read by every user"));
}
