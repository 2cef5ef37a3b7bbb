//! What is tried next after a failure.

use std::cell::RefCell;
use std::sync::Arc;

use relevo_model::{Fault, FaultClass, Side};

use super::fake::{Answer, Identity, Server, info};
use crate::{Authenticated, ConnInfo, ConnectError, Dialed, ServerMessage, ServerState, dial_each};

const PRIMARY: ServerState = ServerState { in_hot_standby: false, default_transaction_read_only: false };
const STANDBY: ServerState = ServerState { in_hot_standby: true, default_transaction_read_only: true };

fn server_error(dialed: &Dialed, sqlstate: &str) -> ConnectError {
    let message = ServerMessage { sqlstate: sqlstate.to_owned(), ..ServerMessage::default() };
    ConnectError::from_server(dialed.at.clone(), &dialed.user, &dialed.database, message)
}

/// Dials with a login whose outcome `judge` decides, and notes the attempts as `port/tls` or `port/plain`.
async fn each(
    info: &ConnInfo,
    judge: impl Fn(&Dialed) -> Result<ServerState, &'static str>,
) -> (Result<u16, ConnectError>, Vec<String>) {
    let seen = RefCell::new(Vec::new());
    let result = dial_each(info, Side::Target, |dialed| {
        let (seen, judge) = (&seen, &judge);
        async move {
            let encryption = if dialed.stream.is_encrypted() { "tls" } else { "plain" };
            seen.borrow_mut().push(format!("{}/{encryption}", dialed.at.host.port));
            match judge(&dialed) {
                Ok(state) => Ok(Authenticated { session: dialed.at.host.port, state }),
                Err(sqlstate) => Err(server_error(&dialed, sqlstate)),
            }
        }
    });
    let result = result.await;
    (result, seen.into_inner())
}

async fn tls_server() -> Server {
    Server::start(Answer::Tls(Arc::new(Identity::new("localhost")))).await
}

#[tokio::test]
async fn prefer_tries_without_tls_when_turned_away_with_it() {
    let server = tls_server().await;
    let port = server.port;
    let plain_only = |dialed: &Dialed| if dialed.stream.is_encrypted() { Err("28000") } else { Ok(PRIMARY) };
    let (result, seen) = each(&server.info("sslmode=prefer"), plain_only).await;
    assert_eq!((result.unwrap(), seen), (port, vec![format!("{port}/tls"), format!("{port}/plain")]));
    // A wrong password is not sent again, and not in the clear.
    let (result, seen) = each(&server.info("sslmode=prefer"), |_| Err("28P01")).await;
    assert_eq!((result.unwrap_err().kind(), seen), ("wrong_password", vec![format!("{port}/tls")]));
    let (result, seen) = each(&server.info("sslmode=require"), plain_only).await;
    assert_eq!((result.unwrap_err().kind(), seen), ("not_admitted", vec![format!("{port}/tls")]));
}

#[tokio::test]
async fn allow_tries_with_tls_when_turned_away_without() {
    let server = tls_server().await;
    let port = server.port;
    let tls_only = |dialed: &Dialed| if dialed.stream.is_encrypted() { Ok(PRIMARY) } else { Err("28000") };
    let (result, seen) = each(&server.info("sslmode=allow"), tls_only).await;
    assert_eq!((result.unwrap(), seen), (port, vec![format!("{port}/plain"), format!("{port}/tls")]));
    let (result, seen) = each(&server.info("sslmode=disable"), tls_only).await;
    assert_eq!((result.unwrap_err().kind(), seen), ("not_admitted", vec![format!("{port}/plain")]));
    // The server has no TLS to offer: its first refusal is the one that counts.
    let server = Server::start(Answer::Bytes(b"N")).await;
    let (result, _) = each(&server.info("sslmode=allow"), tls_only).await;
    assert_eq!((result.unwrap_err().kind(), server.count()), ("not_admitted", 2));
}

#[tokio::test]
async fn prefer_goes_on_without_tls_when_the_certificate_will_not_do() {
    let (server, other) = (tls_server().await, Identity::new("localhost").root_file());
    let info = server.info(&format!("sslmode=prefer sslrootcert={}", other.path().display()));
    let (result, seen) = each(&info, |_| Ok(PRIMARY)).await;
    assert_eq!((result.unwrap(), seen), (server.port, vec![format!("{}/plain", server.port)]));
    let (result, _) = each(&info, |_| Err("28000")).await;
    assert_eq!(result.unwrap_err().kind(), "certificate_not_trusted");
}

fn several(servers: &[&Server], parameters: &str) -> ConnInfo {
    let ports: Vec<_> = servers.iter().map(|server| server.port.to_string()).collect();
    let hosts = vec!["127.0.0.1"; servers.len()].join(",");
    info(&format!("host={hosts} port={} sslmode=disable {parameters}", ports.join(",")))
}

#[tokio::test]
async fn the_next_host_is_tried_only_where_it_may_do_better() {
    let (first, second) = (Server::start(Answer::Silence).await, Server::start(Answer::Silence).await);
    let info = several(&[&first, &second], "");
    let port = first.port;
    let first_says = |sqlstate| {
        move |dialed: &Dialed| if dialed.at.host.port == port { Err(sqlstate) } else { Ok(PRIMARY) }
    };
    let (result, _) = each(&info, first_says("57P03")).await;
    assert_eq!(result.unwrap(), second.port);
    for sqlstate in ["28P01", "28000", "3D000", "53300", "42501"] {
        let (result, seen) = each(&info, first_says(sqlstate)).await;
        assert!(result.is_err());
        assert_eq!(seen, [format!("{port}/plain")], "{sqlstate}");
    }
}

#[tokio::test]
async fn every_host_that_failed_is_listed() {
    let server = Server::start(Answer::Silence).await;
    let gone = Server::start(Answer::Silence).await.port;
    let info = info(&format!("host=nosuch.invalid,127.0.0.1 port={gone},{} sslmode=disable", server.port));
    let (result, seen) = each(&info, |_| Err("57P03")).await;
    let error = result.unwrap_err();
    assert_eq!(
        (error.kind(), error.class(), error.side()),
        ("no_suitable_host", FaultClass::Transient, Side::Target)
    );
    let text = error.to_string();
    assert!(
        text.contains("nosuch.invalid") && text.contains(&format!("127.0.0.1:{}", server.port)),
        "{text}"
    );
    assert_eq!(seen.len(), 1);
}

#[tokio::test]
async fn target_session_attrs_choose_the_server() {
    let (primary, standby) = (Server::start(Answer::Silence).await, Server::start(Answer::Silence).await);
    let standby_port = standby.port;
    let judge = |dialed: &Dialed| Ok(if dialed.at.host.port == standby_port { STANDBY } else { PRIMARY });
    let both = [&standby, &primary];
    for (wanted, expected) in [
        ("any", standby.port),
        ("read-write", primary.port),
        ("primary", primary.port),
        ("standby", standby.port),
        ("read-only", standby.port),
        ("prefer-standby", standby.port),
    ] {
        let (result, _) = each(&several(&both, &format!("target_session_attrs={wanted}")), judge).await;
        assert_eq!(result.unwrap(), expected, "{wanted}");
    }
    let (result, seen) = each(&several(&[&primary], "target_session_attrs=prefer-standby"), judge).await;
    assert_eq!((result.unwrap(), seen.len()), (primary.port, 2));
    let (result, _) = each(&several(&[&standby], "target_session_attrs=primary"), judge).await;
    let error = result.unwrap_err();
    assert_eq!((error.kind(), error.class()), ("unwanted_server", FaultClass::Transient));
    assert!(
        error.to_string().contains("the server is a standby, but target_session_attrs=primary"),
        "{error}"
    );
    let fenced = ServerState { default_transaction_read_only: true, ..PRIMARY };
    let (result, _) = each(&several(&[&primary], "target_session_attrs=read-write"), |_| Ok(fenced)).await;
    assert!(result.unwrap_err().to_string().contains("sessions on this server are read-only"));
}
