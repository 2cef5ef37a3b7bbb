//! How a stream begins: identity, slot, and a slot that is in use.

use std::time::Duration;

use relevo_connect::ChannelBinding;
use relevo_model::{Fault, FaultClass, Side, SourceLsn};
use tokio::time::Instant;

use super::server::{Server, done, error, login, message, options, row};
use crate::start::begin;
use crate::{
    CreatedSlot, Refusal, ReplicationConnection, SlotLifetime, SlotSnapshot, SourceError, StartOptions,
};

async fn begun(
    options: StartOptions,
    script: impl AsyncFnOnce(&mut Server),
) -> Result<Duration, SourceError> {
    let (mut server, client) = Server::pair();
    let started = async {
        let mut connection =
            ReplicationConnection::log_in(client, &login(ChannelBinding::Prefer)).await?.session;
        begin(&mut connection, &options).await.map(|(_, settings)| settings.status_interval)
    };
    let served = async {
        server.trust().await;
        script(&mut server).await;
    };
    tokio::join!(started, served).0
}

#[tokio::test(start_paused = true)]
async fn the_stream_begins_where_the_target_is() {
    let interval = begun(options(100), async |server| {
        server.identify("7").await;
        server.settings().await;
        server.slot(None).await;
        let command = server.copy_both().await;
        let expected =
            "START_REPLICATION SLOT \"relevo_shop\" LOGICAL 0/64 (proto_version '3', publication_names ";
        assert!(command.starts_with(expected), "{command}");
    });
    assert_eq!(interval.await.unwrap(), Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_database_without_encoding_sends_its_bytes_as_they_are() {
    let outcome = begun(options(100), async |server| {
        server.send(message(b'S', b"server_encoding\0SQL_ASCII\0")).await;
        server.identify("7").await;
        assert_eq!(server.query().await, "SET client_encoding = 'SQL_ASCII'");
        server.send(done()).await;
        server.settings().await;
        server.slot(None).await;
        server.copy_both().await;
    });
    outcome.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn another_server_is_refused() {
    let outcome = begun(options(100), async |server| server.identify("8").await).await;
    let error = outcome.unwrap_err();
    assert!(matches!(error, SourceError::Refused(Refusal::OtherSystem { .. })), "{error}");
    assert_eq!(error.class(), FaultClass::Refused);
}

#[tokio::test(start_paused = true)]
async fn a_source_that_falls_silent_before_the_stream_is_given_up() {
    for answered in 0..4 {
        let start = Instant::now();
        let outcome = begun(options(100), async |server| {
            if answered > 0 {
                server.identify("7").await;
            }
            if answered > 1 {
                server.settings().await;
            }
            if answered > 2 {
                server.slot(None).await;
            }
            tokio::time::sleep(Duration::from_secs(3600)).await;
        });
        let error = outcome.await.unwrap_err();
        assert!(matches!(error, SourceError::Silent { .. }), "{error}");
        assert_eq!((error.class(), error.side()), (FaultClass::Transient, Side::Source));
        assert!(start.elapsed() >= Duration::from_secs(60), "{:?}", start.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn what_may_take_long_is_waited_for() {
    let (mut server, client) = Server::pair();
    let work = async {
        let mut connection =
            ReplicationConnection::log_in(client, &login(ChannelBinding::Prefer)).await.unwrap().session;
        connection.create_slot("s", SlotLifetime::Permanent, SlotSnapshot::Nothing).await.unwrap()
    };
    let served = async {
        server.trust().await;
        assert!(server.query().await.starts_with("CREATE_REPLICATION_SLOT"));
        tokio::time::sleep(Duration::from_secs(7200)).await;
        let created = [("slot_name", Some("s")), ("consistent_point", Some("0/64")), ("snapshot_name", None)];
        server.send([row(&created), done()].concat()).await;
    };
    let (created, ()) = tokio::join!(work, served);
    assert_eq!(created.consistent_point, SourceLsn::new(100));
}

#[tokio::test(start_paused = true)]
async fn a_physical_standby_has_no_say_about_what_is_lost() {
    let (mut server, client) = Server::pair();
    let options = options(1 << 33);
    let started = async {
        let mut connection =
            ReplicationConnection::log_in(client, &login(ChannelBinding::Prefer)).await.unwrap().session;
        // Its WAL ends before the target's progress, and it has no slot: neither may end the flow.
        begin(&mut connection, &options).await.unwrap_err()
    };
    let (error, ()) = tokio::join!(started, server.trust_as("on"));
    assert_eq!((error.class(), error.kind()), (FaultClass::Blocked, "source_standby"), "{error}");
    assert!(error.to_string().contains("scripted:1"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_walsender_that_is_lost_while_it_begins_is_known_to_be_ours() {
    let options = options(100);
    let outcome = begun(options.clone(), async |server| {
        server.identify("7").await;
        server.settings().await;
        server.slot(None).await;
        assert!(server.query().await.starts_with("START_REPLICATION"));
        assert_eq!(options.monitor.backend_pid(), 42, "the next connection may end it");
        server.send(error("57P01", "terminating connection due to administrator command")).await;
        server.send(super::server::message(b'Z', b"I")).await;
    });
    assert_eq!(outcome.await.unwrap_err().class(), FaultClass::Transient);
}

#[tokio::test(start_paused = true)]
async fn a_source_that_is_older_than_the_target_is_refused() {
    let outcome = begun(options(1 << 33), async |server| server.identify("7").await).await;
    assert!(matches!(outcome, Err(SourceError::Refused(Refusal::SourceBehindTarget { .. }))));
}

#[tokio::test(start_paused = true)]
async fn a_missing_slot_is_refused() {
    let outcome = begun(options(100), async |server| {
        server.identify("7").await;
        server.settings().await;
        server.query().await;
        server.send(done()).await;
    });
    assert!(matches!(outcome.await, Err(SourceError::Refused(Refusal::SlotMissing { .. }))));
}

#[tokio::test(start_paused = true)]
async fn a_slot_that_is_in_use_is_waited_for() {
    let outcome = begun(options(100), async |server| {
        server.identify("7").await;
        server.settings().await;
        server.slot(Some("99")).await;
        server.slot(Some("99")).await;
        server.slot(None).await;
        // Somebody was faster.
        server.query().await;
        server.send(error("55006", "replication slot is active")).await;
        server.send(message(b'Z', b"I")).await;
        server.slot(None).await;
        server.copy_both().await;
    });
    outcome.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_slot_that_stays_in_use_is_an_error_that_says_by_whom() {
    let began = Instant::now();
    let outcome = begun(options(100), async |server| {
        server.identify("7").await;
        server.settings().await;
        while began.elapsed() < Duration::from_secs(5) {
            server.slot(Some("99")).await;
        }
    });
    let error = outcome.await.unwrap_err();
    assert_eq!(error.class(), FaultClass::Transient);
    let text = error.to_string();
    assert!(text.contains("PID 99") && text.contains("application relevo_shop"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn our_own_lost_walsender_is_ended() {
    let options = options(100);
    options.monitor.set_backend_pid(99);
    let outcome = begun(options.clone(), async |server| {
        server.identify("7").await;
        server.settings().await;
        server.slot(Some("99")).await;
        let command = server.query().await;
        assert!(command.contains("pg_terminate_backend") && command.contains("active_pid = 99"), "{command}");
        server.send(row(&[("terminated", Some("t"))])).await;
        server.send(done()).await;
        server.slot(None).await;
        server.copy_both().await;
    });
    outcome.await.unwrap();
    assert_eq!(options.monitor.backend_pid(), 42);
}

#[tokio::test]
async fn slots_are_created_and_dropped_in_the_servers_words() {
    let (mut server, client) = Server::pair();
    let asked = async {
        let mut connection =
            ReplicationConnection::log_in(client, &login(ChannelBinding::Prefer)).await.unwrap().session;
        let created = connection
            .create_slot("relevo_shop", SlotLifetime::Permanent, SlotSnapshot::Export)
            .await
            .unwrap();
        let refused = (
            connection.drop_slot("relevo_shop", true).await.unwrap(),
            connection.drop_slot("x", false).await.unwrap_err(),
        );
        (created, refused)
    };
    let served = async {
        server.trust().await;
        let command = server.query().await;
        assert_eq!(command, "CREATE_REPLICATION_SLOT \"relevo_shop\" LOGICAL pgoutput (SNAPSHOT 'export')");
        server.send(row(&[("consistent_point", Some("0/10")), ("snapshot_name", Some("0003-1"))])).await;
        server.send(done()).await;
        assert_eq!(server.query().await, "DROP_REPLICATION_SLOT \"relevo_shop\" WAIT");
        server.send(error("42704", "replication slot \"relevo_shop\" does not exist")).await;
        server.send(message(b'Z', b"I")).await;
        assert_eq!(server.query().await, "DROP_REPLICATION_SLOT \"x\"");
        server.send(error("55006", "replication slot \"x\" is active for PID 1")).await;
        server.send(message(b'Z', b"I")).await;
    };
    let ((created, refused), ()) = tokio::join!(asked, served);
    assert_eq!(
        created,
        CreatedSlot { consistent_point: SourceLsn::new(16), snapshot: Some("0003-1".into()) }
    );
    assert!(!refused.0, "there was none");
    assert_eq!(refused.1.code(), Some("55006"));
}
