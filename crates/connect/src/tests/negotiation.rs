//! Whether TLS is spoken, and with whom.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use openssl::hash::MessageDigest;
use relevo_model::{Fault, FaultClass, Side};

use super::fake::{Answer, Identity, Server};
use crate::{ConnectError, dial};

async fn refused(answer: Answer, parameters: &str) -> ConnectError {
    let server = Server::start(answer).await;
    dial(&server.info(parameters), Side::Target).await.err().unwrap()
}

#[tokio::test]
async fn a_server_without_tls_is_taken_or_refused_as_sslmode_says() {
    let server = Server::start(Answer::Bytes(b"N")).await;
    let dialed = dial(&server.info("sslmode=prefer"), Side::Source).await.unwrap();
    assert!(!dialed.stream.is_encrypted() && dialed.channel_binding.is_none());
    assert_eq!(dialed.at.to_string(), format!("source localhost:{}", server.port));
    assert_eq!(dialed.at.host.address, Some("127.0.0.1".parse().unwrap()));
    for mode in ["require", "verify-ca", "verify-full"] {
        let error = dial(&server.info(&format!("sslmode={mode}")), Side::Source).await.err().unwrap();
        assert_eq!(
            (error.kind(), error.class(), error.side()),
            ("tls_refused", FaultClass::Blocked, Side::Source)
        );
        assert!(error.to_string().contains(&format!("sslmode={mode}")), "{error}");
    }
}

#[tokio::test]
async fn a_self_signed_certificate_is_its_own_root() {
    let identity = Arc::new(Identity::new("localhost"));
    let server = Server::start(Answer::Tls(identity.clone())).await;
    let root = identity.root_file();
    let info = server.info(&format!("sslmode=verify-full sslrootcert={}", root.path().display()));
    let dialed = dial(&info, Side::Target).await.unwrap();
    assert!(dialed.stream.is_encrypted());
    // Signed with SHA-384, so bound with SHA-384.
    let expected = identity.certificate.digest(MessageDigest::sha384()).unwrap().to_vec();
    assert_eq!(dialed.channel_binding, Some(expected));
}

#[tokio::test]
async fn a_certificate_of_another_host_or_authority_is_refused() {
    let identity = Arc::new(Identity::new("elsewhere"));
    let (own, other) = (identity.root_file(), Identity::new("elsewhere").root_file());
    let server = Server::start(Answer::Tls(identity)).await;
    let with = |mode: &str, root: &tempfile::NamedTempFile| {
        server.info(&format!("sslmode={mode} sslrootcert={}", root.path().display()))
    };
    let error = dial(&with("verify-full", &own), Side::Target).await.err().unwrap();
    assert_eq!(error.kind(), "certificate_host_mismatch");
    assert!(error.to_string().contains("is for elsewhere, not for \"localhost\""), "{error}");
    assert!(dial(&with("verify-ca", &own), Side::Target).await.is_ok());
    // libpq's rule: require checks the authority where a root file exists.
    for mode in ["verify-ca", "require"] {
        let error = dial(&with(mode, &other), Side::Target).await.err().unwrap();
        assert_eq!((error.kind(), error.class()), ("certificate_not_trusted", FaultClass::Blocked));
        assert!(error.to_string().contains(other.path().to_str().unwrap()), "{error}");
    }
    assert!(dial(&server.info("sslmode=require"), Side::Target).await.is_ok());
    let error = dial(&server.info("sslmode=verify-ca"), Side::Target).await.err().unwrap();
    assert!(error.to_string().contains("sslrootcert file /nonexistent: it does not exist"), "{error}");
}

#[tokio::test]
async fn bytes_slipped_in_before_the_handshake_are_found_out() {
    let error = refused(Answer::Bytes(b"SR\0\0\0\x08\0\0\0\0"), "sslmode=require").await;
    assert!(matches!(error, ConnectError::Protocol { .. }), "{error}");
    assert!(error.to_string().contains("unencrypted bytes"), "{error}");
}

#[tokio::test]
async fn what_is_no_postgresql_server_is_said_to_be_none() {
    let error = refused(Answer::Bytes(b"HTTP/1.1 400 Bad Request\r\n"), "").await;
    assert_eq!((error.kind(), error.class()), ("not_postgresql", FaultClass::Blocked));
}

#[tokio::test]
async fn a_server_that_hangs_up_or_says_nothing_is_tried_again_later() {
    let error = refused(Answer::Close, "").await;
    assert_eq!((error.kind(), error.class()), ("connection_lost", FaultClass::Transient));
    let error = refused(Answer::Silence, "connect_timeout=1").await;
    assert_eq!((error.kind(), error.class()), ("connect_timeout", FaultClass::Transient));
    assert!(error.to_string().contains("within 1 s"), "{error}");
}

#[tokio::test]
async fn direct_negotiation_needs_alpn() {
    let identity = Arc::new(Identity::new("localhost"));
    let parameters = "sslmode=require sslnegotiation=direct";
    let server = Server::start(Answer::Direct(identity.clone(), true)).await;
    assert!(dial(&server.info(parameters), Side::Source).await.unwrap().stream.is_encrypted());
    let error = refused(Answer::Direct(identity, false), parameters).await;
    assert!(error.to_string().contains("PostgreSQL 17"), "{error}");
}

#[tokio::test]
async fn the_clients_key_is_protected_and_belongs_to_its_certificate() {
    let identity = Arc::new(Identity::new("localhost"));
    let server = Server::start(Answer::Tls(identity.clone())).await;
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let write = |name: &str, bytes: Vec<u8>, mode: u32| {
        std::fs::write(path(name), bytes).unwrap();
        std::fs::set_permissions(path(name), PermissionsExt::from_mode(mode)).unwrap();
    };
    let cipher = openssl::symm::Cipher::aes_128_cbc();
    write("crt", identity.certificate.to_pem().unwrap(), 0o644);
    write("key", identity.key.private_key_to_pem_pkcs8().unwrap(), 0o600);
    write("der", identity.key.private_key_to_der().unwrap(), 0o600);
    write("enc", identity.key.private_key_to_pem_pkcs8_passphrase(cipher, b"hunter2").unwrap(), 0o600);
    write("open", identity.key.private_key_to_pem_pkcs8().unwrap(), 0o644);
    write("other", Identity::new("x").key.private_key_to_pem_pkcs8().unwrap(), 0o600);
    let try_key = async |key: &str, more: &str| {
        let (crt, key) = (path("crt"), path(key));
        let info = server.info(&format!("sslmode=require sslcert={crt} sslkey={key} {more}"));
        dial(&info, Side::Target).await.map(|_| ()).map_err(|error| error.to_string())
    };
    assert_eq!(try_key("key", "").await, Ok(()));
    assert_eq!(try_key("der", "").await, Ok(()));
    assert_eq!(try_key("enc", "sslpassword=hunter2").await, Ok(()));
    assert!(try_key("enc", "").await.unwrap_err().contains("check sslpassword"));
    assert!(try_key("enc", "sslpassword=wrong").await.unwrap_err().contains("check sslpassword"));
    assert!(try_key("open", "").await.unwrap_err().contains("0600"));
    assert!(try_key("other", "").await.unwrap_err().contains("not the key of the certificate"));
    assert!(try_key("absent", "").await.unwrap_err().contains("cannot be read"));
    assert_eq!(try_key("open", "sslcertmode=disable").await, Ok(()));
}
