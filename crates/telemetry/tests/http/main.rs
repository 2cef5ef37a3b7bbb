//! Every endpoint over a real socket, with a client that speaks plain HTTP/1.1 and nothing more.

#![allow(clippy::unwrap_used, reason = "all of this is test code, helpers too")]

mod metrics;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use relevo_model::{Side, SourceLsn, Timestamp};
use relevo_telemetry::{
    Board, Clock, Committed, HttpOptions, HttpServer, Identity, ReaderStatus, ReadyRules, Role, RunState,
    SlotStatus, StatusSnapshot, TableProgress, TableState, TelemetryError,
};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use self::metrics::{assert_sample, parse};

struct Answer {
    status: u16,
    headers: BTreeMap<String, String>,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        assert_eq!(self.headers["content-type"], "application/json");
        serde_json::from_str(&self.body).unwrap()
    }
}

/// A server over a board whose clock only moves when it is told to.
struct Fixture {
    board: Arc<Board>,
    clock: Arc<AtomicI64>,
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    server: JoinHandle<()>,
}

impl Fixture {
    async fn start(options: HttpOptions) -> Self {
        let clock = Arc::new(AtomicI64::new(800_000_000_000_000));
        let reader = Arc::clone(&clock);
        let identity = Identity {
            name: "shop".to_owned(),
            node: Some("b".to_owned()),
            role: Role::Standby,
            epoch: 7,
            version: "1.2.3".to_owned(),
        };
        let from_fn = Clock::from_fn(move || Timestamp::from_postgres_us(reader.load(Ordering::SeqCst)));
        let board = Board::with_clock(identity, from_fn).unwrap();
        let server = HttpServer::bind("127.0.0.1:0").await.unwrap();
        let address = server.address().unwrap();
        let (stop, stopped) = oneshot::channel();
        let shutdown = async {
            let _ = stopped.await;
        };
        let server = tokio::spawn(server.serve(Arc::clone(&board), options, shutdown));
        Self { board, clock, address, stop, server }
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_postgres_us(self.clock.load(Ordering::SeqCst))
    }

    fn wait(&self, seconds: i64) {
        self.clock.fetch_add(seconds * 1_000_000, Ordering::SeqCst);
    }

    async fn ask(&self, method: &str, path: &str) -> Answer {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let request = format!("{method} {path} HTTP/1.1\r\nHost: relevo\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await.unwrap();
        let text = String::from_utf8(bytes).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let pair =
            |line: &str| line.split_once(": ").map(|(name, value)| (name.to_lowercase(), value.to_owned()));
        Answer { status, headers: lines.filter_map(pair).collect(), body: body.to_owned() }
    }

    async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path).await
    }

    /// A flow that streams, is caught up, and is heard from both sides.
    fn streaming(&self) {
        let board = &self.board;
        board.set_tables(vec![TableProgress {
            name: "public.orders".to_owned(),
            state: TableState::Streaming,
            rows: 3,
            bytes: 300,
            total_bytes_estimate: Some(400),
        }]);
        board.opened(SourceLsn::new(1000), Some(self.now()));
        board.source_polled(SourceLsn::new(1000), Some(self.now()));
        board.contact(Side::Target);
        board.set_state(RunState::Streaming, None);
        board.beat();
    }
}

fn feed(fixture: &Fixture) {
    let board = &fixture.board;
    fixture.streaming();
    let commit_times = [fixture.now(), fixture.now()];
    fixture.wait(2);
    board.source_polled(SourceLsn::new(5000), Some(fixture.now()));
    board.received(SourceLsn::new(4000));
    board.committed(&Committed {
        position: SourceLsn::new(3000),
        commit_times: &commit_times,
        inserts: 5,
        deletes: 1,
        took: Duration::from_millis(20),
        missing_rows: 1,
        reapplied_changes: 16,
        ..Committed::default()
    });
    board.durable(SourceLsn::new(2000));
    board.metrics().set_buffer_bytes(4096);
    board.metrics().reconnect(Side::Target);
    board.metrics().ahead(true);
    board.metrics().beside(true);
    board.metrics().beside(false);
    board.set_verified(Some(Timestamp::from_unix_us(1_500_000_000_250_000)), Some(7));
    board.set_queued_errors(3);
    board.set_armed(&BTreeMap::from([("c".to_owned(), 512), ("d".to_owned(), 0)]));
    board.set_standby_slots(&BTreeMap::from([
        ("c".to_owned(), reader(true, Some(4096))),
        ("d".to_owned(), reader(false, None)),
    ]));
    board.error(Some(Side::Target), "disk_full", "the target's disk is full");
    board.copied("public.orders", 10, 1000);
    board.set_slot(Some(SlotStatus {
        name: "relevo_shop".to_owned(),
        wal_status: Some("reserved".to_owned()),
        retained_bytes: Some(123),
        safe_bytes: None,
    }));
}

fn reader(active: bool, safe_bytes: Option<u64>) -> ReaderStatus {
    ReaderStatus {
        active,
        slot: SlotStatus {
            name: "relevo_shop_x".to_owned(),
            wal_status: Some("extended".to_owned()),
            retained_bytes: Some(77),
            safe_bytes,
        },
    }
}

#[tokio::test]
async fn the_status_document_keeps_its_contract() {
    let fixture = Fixture::start(HttpOptions::default()).await;
    let before = fixture.get("/api/status").await.json();
    for unknown in
        ["source_lsn", "received_lsn", "applied_lsn", "durable_lsn", "lag_bytes", "slot", "last_error"]
    {
        assert_eq!(before[unknown], Value::Null, "{unknown}");
    }
    assert_eq!(before["state"], "preparing");
    fixture.board.set_name("shop_renamed");
    assert_eq!(fixture.get("/api/status").await.json()["name"], "shop_renamed");
    fixture.board.set_name("shop");

    feed(&fixture);
    fixture.board.set_not_added(2);
    fixture.board.set_copy_phase(Some("rows"));
    let answer = fixture.get("/api/status").await;
    let status = answer.json();
    let expected = serde_json::json!({
        "name": "shop",
        "node": "b",
        "role": "standby",
        "epoch": 7,
        "state": "streaming",
        "source_lsn": "0/1388",
        "received_lsn": "0/FA0",
        "applied_lsn": "0/BB8",
        "durable_lsn": "0/7D0",
        "lag_bytes": 2000,
        "lag_seconds": 2.0,
        "slot": {"name": "relevo_shop", "wal_status": "reserved", "retained_bytes": 123, "safe_bytes": null},
        "tables": {"copied": 1, "total": 1, "not_added": 2},
        // The full disk and the missing row.
        "errors": 2,
        "queued_errors": 3,
        "transactions_applied": 2,
        "changes_applied": 6,
        "verification": {"at": "2017-07-14T02:40:00.25Z", "differences": 7},
        "at": "2025-05-08T06:13:22Z",
        "heartbeat_age_seconds": 2.0,
        "version": "1.2.3",
    });
    for (key, value) in expected.as_object().unwrap() {
        assert_eq!(&status[key], value, "{key}");
    }
    assert_eq!(status["copy"]["total_bytes_estimate"], 400);
    assert_eq!(status["copy"]["tables"][0]["rows"], 13);
    assert_eq!(status["copy"]["bytes_per_second"], Value::Null);
    assert_eq!(status["copy"]["remaining_seconds"], 0);
    assert_eq!(status["last_error"]["kind"], "disk_full");
    assert_eq!(status["started_at"], "2025-05-08T06:13:20Z");
    let read: StatusSnapshot = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(read, fixture.board.snapshot(), "it reads back as what was written");
}

#[tokio::test]
async fn the_past_is_there_as_soon_as_somebody_asks() {
    let fixture = Fixture::start(HttpOptions::default()).await;
    fixture.board.look();
    fixture.wait(3);
    feed(&fixture);
    fixture.board.look();
    let history = fixture.get("/api/history").await.json();
    assert_eq!((&history["interval_seconds"], &history["span_seconds"]), (&5.0.into(), &900.0.into()));
    assert_eq!(history["now_unix_ms"], 1_746_684_805_000_i64);
    let sample = |at, transactions, changes, lag_bytes, retained| {
        serde_json::json!({
            "at_unix_ms": at, "role": "standby", "epoch": 7, "state": if retained { "streaming" } else { "preparing" },
            "lag_seconds": if retained { 2.0 } else { 0.0 }, "lag_bytes": lag_bytes,
            "transactions_per_second": transactions, "changes_per_second": changes, "wal_bytes_per_second": null,
            "retained_bytes": retained.then_some(123), "safe_bytes": null,
        })
    };
    let expected = [
        sample(1_746_684_800_000_i64, Value::Null, Value::Null, Value::Null, false),
        sample(1_746_684_805_000, 0.4.into(), 1.2.into(), 2000.into(), true),
    ];
    assert_eq!(history["samples"], Value::from(expected.to_vec()));
    let tables = fixture.get("/api/tables").await.json();
    assert_eq!(
        (&tables["tables"][0]["name"], &tables["tables"][0]["rows"]),
        (&"public.orders".into(), &13.into())
    );
}

#[tokio::test]
async fn a_copy_under_way_says_how_fast_it_is_and_how_long_it_takes() {
    let fixture = Fixture::start(HttpOptions::default()).await;
    let table = |name: &str, state| TableProgress {
        name: name.to_owned(),
        state,
        rows: 0,
        bytes: 0,
        total_bytes_estimate: Some(4000),
    };
    let board = &fixture.board;
    let absent = parse(&fixture.get("/metrics").await.body).0;
    assert!(!absent.contains_key("relevo_copy_total_bytes"), "no copy was made");
    board.set_tables(vec![table("public.a", TableState::Copying), table("public.b", TableState::Pending)]);
    board.set_copy_phase(Some("rows"));
    board.rows_begin();
    fixture.wait(10);
    board.copied("public.a", 20, 2000);
    let copy = fixture.get("/api/status").await.json()["copy"].clone();
    assert_eq!((&copy["rows"], &copy["bytes"]), (&20.into(), &2000.into()));
    assert_eq!((&copy["bytes_per_second"], &copy["remaining_seconds"]), (&200.into(), &30.into()));
    let (samples, _) = parse(&fixture.get("/metrics").await.body);
    assert_sample(&samples, "relevo_copy_total_bytes", 8000.0);
    assert_sample(&samples, "relevo_copy_remaining_seconds", 30.0);
    // The rows are there; what follows them has no rate.
    board.set_table_state("public.a", TableState::Copied);
    board.set_table_state("public.b", TableState::Copied);
    board.set_copy_phase(Some("indexes"));
    let copy = fixture.get("/api/status").await.json()["copy"].clone();
    assert_eq!((&copy["bytes_per_second"], &copy["remaining_seconds"]), (&Value::Null, &0.into()));
}

#[tokio::test]
async fn health_follows_the_heartbeat_and_not_the_state() {
    let options = HttpOptions { max_heartbeat_age: Duration::from_secs(60), ..HttpOptions::default() };
    let fixture = Fixture::start(options).await;
    fixture.board.set_state(RunState::Failed, Some("a unique violation".to_owned()));
    fixture.wait(60);
    assert_eq!(fixture.get("/healthz").await.status, 200);
    fixture.wait(1);
    let answer = fixture.get("/healthz").await;
    assert_eq!(answer.status, 503);
    assert_eq!(answer.json()["heartbeat_age_seconds"], 61.0);
    fixture.board.beat();
    assert_eq!(fixture.get("/healthz").await.json()["alive"], true);
}

#[tokio::test]
async fn readiness_says_what_is_missing() {
    let ready = ReadyRules { max_lag_seconds: Some(5.0), max_silence_seconds: 10.0 };
    let fixture = Fixture::start(HttpOptions { ready, ..HttpOptions::default() }).await;
    let reasons = async || {
        let answer = fixture.get("/readyz").await;
        let json = answer.json();
        assert_eq!(answer.status, if json["ready"] == true { 200 } else { 503 });
        json["reasons"].to_string()
    };
    fixture.board.set_state(RunState::Preparing, Some("waiting for the slot".to_owned()));
    let first = reasons().await;
    for part in [
        "preparing, not streaming: waiting for the slot",
        "the source was not heard",
        "the target was not heard",
    ] {
        assert!(first.contains(part), "{first}");
    }
    fixture.streaming();
    assert_eq!(reasons().await, "[]");

    fixture.wait(7);
    assert!(reasons().await.contains("the lag is 7.0 s, 5 s are allowed"));
    fixture.wait(7);
    assert!(reasons().await.contains("the target has been silent for 14 s"));
    fixture.streaming();
    // A table that is added while the others follow the source.
    fixture.board.set_table_state("public.orders", TableState::Copying);
    assert_eq!(reasons().await, "[]");
    fixture.board.set_state(RunState::Copying, None);
    assert!(reasons().await.contains("0 of 1 tables are copied"));
}

#[tokio::test]
async fn the_page_needs_nothing_from_elsewhere() {
    let fixture = Fixture::start(HttpOptions::default()).await;
    let page = fixture.get("/").await;
    assert_eq!(page.status, 200);
    assert_eq!(page.headers["content-type"], "text/html; charset=utf-8");
    let files =
        ["/page.js", "/page.css", "/page/chart.js", "/page/panels.js", "/page/picture.js", "/page/words.js"];
    let mut parts = vec![page];
    for file in files {
        parts.push(fixture.get(file).await);
    }
    for part in parts {
        assert_eq!(part.status, 200);
        assert!(!part.body.contains("http://") && !part.body.contains("https://"));
        // Whatever a server has said goes in as text, and nothing brings a script or a style of its own.
        for forbidden in [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "<style",
            " style=",
            " onclick=",
        ] {
            assert!(!part.body.contains(forbidden), "{forbidden}");
        }
        assert!(part.headers["content-security-policy"].starts_with("default-src 'none'"));
    }
}

#[tokio::test]
async fn what_is_not_there_and_what_is_not_allowed_is_answered_in_json() {
    let fixture = Fixture::start(HttpOptions::default()).await;
    let missing = fixture.get("/metrics/nope?x=1").await;
    assert_eq!(missing.status, 404);
    assert!(missing.json()["error"].is_string());
    assert_eq!(missing.headers["x-content-type-options"], "nosniff");
    let posted = fixture.ask("POST", "/metrics").await;
    assert_eq!(posted.status, 405);
    assert!(posted.json()["error"].is_string());
    for path in ["/", "/metrics", "/healthz", "/readyz", "/api/status", "/api/history", "/api/tables"] {
        let (head, get) = (fixture.ask("HEAD", path).await, fixture.get(path).await);
        assert_eq!((head.status, head.body.as_str()), (get.status, ""), "{path}");
        assert_eq!(head.headers["content-type"], get.headers["content-type"], "{path}");
        assert_eq!(get.headers["cache-control"], "no-store");
    }
}

#[tokio::test]
async fn a_port_in_use_is_named_with_the_way_out() {
    let fixture = Fixture::start(HttpOptions::default()).await;
    let address = fixture.address.to_string();
    let error = HttpServer::bind(&address).await.unwrap_err();
    assert!(matches!(error, TelemetryError::Listen { .. }));
    let text = error.to_string();
    for part in [address.as_str(), "in use", "--http-listen", "RELEVO_HTTP_LISTEN"] {
        assert!(text.contains(part), "{text}");
    }
    let text = HttpServer::bind("9187").await.unwrap_err().to_string();
    assert!(text.contains("expected HOST:PORT"), "{text}");
}

#[tokio::test]
async fn shutting_down_does_not_wait_for_a_client_that_says_nothing() {
    let options = HttpOptions { shutdown_grace: Duration::from_millis(50), ..HttpOptions::default() };
    let fixture = Fixture::start(options).await;
    let mut silent = TcpStream::connect(fixture.address).await.unwrap();
    silent.write_all(b"GET /metrics HTTP/1.1\r\n").await.unwrap();
    assert_eq!(fixture.get("/healthz").await.status, 200);
    fixture.stop.send(()).unwrap();
    tokio::time::timeout(Duration::from_secs(5), fixture.server).await.unwrap().unwrap();
    assert!(TcpStream::connect(fixture.address).await.is_err(), "nobody listens any more");
}
