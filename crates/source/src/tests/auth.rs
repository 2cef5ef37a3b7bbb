//! Every way of logging in, and what must not count as one.

use openssl::base64::{decode_block, encode_block};
use openssl::hash::MessageDigest;
use openssl::pkcs5::pbkdf2_hmac;
use openssl::pkey::PKey;
use openssl::sha::sha256;
use openssl::sign::Signer;
use relevo_connect::{ChannelBinding, ConnectError};
use relevo_model::Fault;

use super::server::{Server, error, login, message};
use crate::{Login, ReplicationConnection};

type Outcome = Result<ReplicationConnection<tokio::io::DuplexStream>, ConnectError>;

async fn log_in(login: Login, script: impl AsyncFnOnce(&mut Server)) -> Outcome {
    let (mut server, client) = Server::pair();
    let served = async {
        script(&mut server).await;
        server
    };
    // The server's end stays open until the client has had its say.
    let (outcome, _server) = tokio::join!(ReplicationConnection::log_in(client, &login), served);
    outcome.map(|authenticated| authenticated.session)
}

fn ask(method: u32, rest: &[u8]) -> Vec<u8> {
    message(b'R', &[&method.to_be_bytes()[..], rest].concat())
}

#[tokio::test]
async fn trust() {
    let connection = log_in(login(ChannelBinding::Prefer), async |server| {
        let parameters = server.startup().await;
        let has = |name: &str, value: &str| parameters.iter().any(|(n, v)| n == name && v == value);
        assert!(has("replication", "database") && has("user", "md5_user") && has("database", "shop"));
        assert!(has("application_name", "relevo_shop"), "{parameters:?}");
        server.send(ask(0, &[])).await;
        server.ready().await;
    })
    .await
    .unwrap();
    assert_eq!((connection.backend_pid(), connection.server_major()), (42, 15));
}

#[tokio::test]
async fn clear_text_password() {
    let outcome = log_in(login(ChannelBinding::Prefer), async |server| {
        server.startup().await;
        server.send(ask(3, &[])).await;
        assert_eq!(server.message().await.unwrap(), ('p', b"password\0".to_vec()));
        server.send(ask(0, &[])).await;
        server.ready().await;
    });
    outcome.await.unwrap();
}

#[tokio::test]
async fn md5_password() {
    let outcome = log_in(login(ChannelBinding::Prefer), async |server| {
        server.startup().await;
        server.send(ask(5, &[0x2a, 0x3d, 0x8f, 0xe0])).await;
        let expected = b"md562af4dd09bbb41884907a838a3233294\0".to_vec();
        assert_eq!(server.message().await.unwrap(), ('p', expected));
        server.send(ask(0, &[])).await;
        server.ready().await;
    });
    outcome.await.unwrap();
}

fn hmac(key: &[u8], text: &[u8]) -> Vec<u8> {
    let key = PKey::hmac(key).unwrap();
    let mut signer = Signer::new(MessageDigest::sha256(), &key).unwrap();
    signer.update(text).unwrap();
    signer.sign_to_vec().unwrap()
}

/// The server's side of SCRAM-SHA-256 (RFC 5802), which checks the client's proof. With `honest` false it claims
/// to know the password without knowing it.
async fn scram(
    server: &mut Server,
    mechanisms: &[u8],
    expected_mechanism: &str,
    binding: &[u8],
    honest: bool,
) {
    server.startup().await;
    server.send(ask(10, mechanisms)).await;
    let (_, body) = server.message().await.unwrap();
    let (mechanism, rest) = body.split_at(expected_mechanism.len());
    assert_eq!(mechanism, expected_mechanism.as_bytes());
    let first = String::from_utf8(rest[5..].to_vec()).unwrap();
    let bare = &first[first.find("n=,").unwrap()..];
    let nonce = format!("{}server", bare.split_once("r=").unwrap().1);
    let salt = b"0123456789abcdef";
    let server_first = format!("r={nonce},s={},i=4096", encode_block(salt));
    server.send(ask(11, server_first.as_bytes())).await;

    let (_, body) = server.message().await.unwrap();
    let last = String::from_utf8(body).unwrap();
    let (without_proof, proof) = last.split_once(",p=").unwrap();
    assert_eq!(without_proof, format!("c={},r={nonce}", encode_block(binding)));
    let mut salted = [0; 32];
    pbkdf2_hmac(b"password", salt, 4096, MessageDigest::sha256(), &mut salted).unwrap();
    let text = format!("{bare},{server_first},{without_proof}");
    let client_key = hmac(&salted, b"Client Key");
    let signature = hmac(&sha256(&client_key), text.as_bytes());
    let expected: Vec<u8> = client_key.iter().zip(&signature).map(|(a, b)| a ^ b).collect();
    assert_eq!(decode_block(proof).unwrap(), expected, "the client's proof");

    let key = if honest { hmac(&salted, b"Server Key") } else { vec![0; 32] };
    let server_signature = encode_block(&hmac(&key, text.as_bytes()));
    server.send(ask(12, format!("v={server_signature}").as_bytes())).await;
    server.send(ask(0, &[])).await;
    server.ready().await;
}

#[tokio::test]
async fn scram_without_tls() {
    let outcome = log_in(login(ChannelBinding::Prefer), async |server| {
        scram(server, b"SCRAM-SHA-256\0\0", "SCRAM-SHA-256\0", b"n,,", true).await;
    });
    outcome.await.unwrap();
}

#[tokio::test]
async fn scram_bound_to_the_channel() {
    let login = Login { end_point: Some(b"hash".to_vec()), ..login(ChannelBinding::Require) };
    let outcome = log_in(login, async |server| {
        let both = b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0";
        scram(server, both, "SCRAM-SHA-256-PLUS\0", b"p=tls-server-end-point,,hash", true).await;
    });
    outcome.await.unwrap();
}

#[tokio::test]
async fn scram_that_could_be_bound_says_so() {
    let login = Login { end_point: Some(b"hash".to_vec()), ..login(ChannelBinding::Prefer) };
    let outcome = log_in(login, async |server| {
        scram(server, b"SCRAM-SHA-256\0\0", "SCRAM-SHA-256\0", b"y,,", true).await;
    });
    outcome.await.unwrap();
}

#[tokio::test]
async fn a_server_that_does_not_know_the_password_is_found_out() {
    let outcome = log_in(login(ChannelBinding::Prefer), async |server| {
        scram(server, b"SCRAM-SHA-256\0\0", "SCRAM-SHA-256\0", b"n,,", false).await;
    });
    let error = outcome.await.unwrap_err();
    assert!(matches!(error, ConnectError::Authentication { .. }), "{error}");
    assert!(error.to_string().contains("did not prove"), "{error}");
}

#[tokio::test]
async fn a_server_that_skips_its_proof_is_found_out() {
    let outcome = log_in(login(ChannelBinding::Prefer), async |server| {
        server.startup().await;
        server.send(ask(10, b"SCRAM-SHA-256\0\0")).await;
        server.message().await.unwrap();
        server.send(ask(0, &[])).await;
        server.ready().await;
    });
    let error = outcome.await.unwrap_err();
    assert!(matches!(error, ConnectError::Protocol { .. }), "{error}");
}

#[tokio::test]
async fn required_channel_binding_refuses_every_other_way_in() {
    for (method, rest) in [(0, &[][..]), (3, &[]), (5, &[1, 2, 3, 4]), (10, b"SCRAM-SHA-256\0\0")] {
        let outcome = log_in(login(ChannelBinding::Require), async |server| {
            server.startup().await;
            server.send(ask(method, rest)).await;
        });
        let error = outcome.await.unwrap_err();
        assert!(error.to_string().contains("channel_binding=require"), "{method}: {error}");
    }
}

#[tokio::test]
async fn no_secret_and_no_password_are_said_plainly() {
    let without = Login { password: None, ..login(ChannelBinding::Prefer) };
    for (method, rest) in [(3, &[][..]), (5, &[1, 2, 3, 4]), (10, b"SCRAM-SHA-256\0\0")] {
        let outcome = log_in(without.clone(), async |server| {
            server.startup().await;
            server.send(ask(method, rest)).await;
        });
        assert!(matches!(outcome.await.unwrap_err(), ConnectError::NoPassword { .. }));
    }
    assert!(!format!("{:?}", login(ChannelBinding::Prefer)).contains("\"password\""));
}

#[tokio::test]
async fn other_methods_are_named() {
    for (method, name) in [(7, "GSSAPI"), (9, "SSPI"), (2, "Kerberos")] {
        let outcome = log_in(login(ChannelBinding::Prefer), async |server| {
            server.startup().await;
            server.send(ask(method, &[])).await;
        });
        let error = outcome.await.unwrap_err().to_string();
        assert!(error.contains(name) && error.contains("pg_hba.conf"), "{error}");
    }
}

#[tokio::test]
async fn refusals_of_the_server_keep_their_kind() {
    for (code, kind) in
        [("28P01", "wrong_password"), ("3D000", "no_such_database"), ("53300", "too_many_connections")]
    {
        let outcome = log_in(login(ChannelBinding::Prefer), async |server| {
            server.startup().await;
            server.send(error(code, "no")).await;
        });
        assert_eq!(outcome.await.unwrap_err().kind(), kind);
    }
}
