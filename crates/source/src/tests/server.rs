//! The scripted server: reads what a client sends, sends what the test says.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use relevo_connect::{ChannelBinding, Host, HostName, Place};
use relevo_model::{Side, SourceIdentity, SourceLsn, Timestamp, Xid};
use relevo_pgoutput::{Message, encode};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use crate::wire::StatusUpdate;
use crate::{Login, SourceMonitor, StartOptions};

pub(super) struct Server {
    stream: DuplexStream,
}

/// One message of the server.
pub(super) fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap();
    [&[tag][..], &length.to_be_bytes(), body].concat()
}

/// An ErrorResponse.
pub(super) fn error(code: &str, text: &str) -> Vec<u8> {
    let fields = format!("SERROR\0VERROR\0C{code}\0M{text}\0Rtest\0\0");
    message(b'E', fields.as_bytes())
}

/// A NoticeResponse of this C function.
pub(super) fn notice(code: &str, routine: &str) -> Vec<u8> {
    let fields = format!("SWARNING\0VWARNING\0C{code}\0Mskipped\0R{routine}\0\0");
    message(b'N', fields.as_bytes())
}

/// A row of named columns.
pub(super) fn row(columns: &[(&str, Option<&str>)]) -> Vec<u8> {
    let count = u16::try_from(columns.len()).unwrap().to_be_bytes();
    let (mut head, mut data) = (BytesMut::from(&count[..]), BytesMut::from(&count[..]));
    for (name, value) in columns {
        head.put_slice(name.as_bytes());
        head.put_slice(&[0; 19]);
        match value {
            Some(value) => {
                data.put_u32(u32::try_from(value.len()).unwrap());
                data.put_slice(value.as_bytes());
            }
            None => data.put_i32(-1),
        }
    }
    [message(b'T', &head), message(b'D', &data)].concat()
}

/// The end of a command.
pub(super) fn done() -> Vec<u8> {
    [message(b'C', b"SELECT 1\0"), message(b'Z', b"I")].concat()
}

/// What a walsender sends for one message of pgoutput.
pub(super) fn data(at: u64, content: &Message) -> Vec<u8> {
    let mut body = BytesMut::new();
    body.put_u8(b'w');
    body.put_u64(at);
    body.put_u64(at);
    body.put_i64(0);
    body.put_slice(&encode(content).unwrap());
    message(b'd', &body)
}

pub(super) fn keepalive(wal_end: u64, reply: bool) -> Vec<u8> {
    let mut body = BytesMut::new();
    body.put_u8(b'k');
    body.put_u64(wal_end);
    body.put_i64(0);
    body.put_u8(u8::from(reply));
    message(b'd', &body)
}

pub(super) fn begin(commit: u64) -> Vec<u8> {
    let final_lsn = SourceLsn::new(commit);
    data(commit, &Message::Begin { final_lsn, commit_time: Timestamp::default(), xid: Xid(7) })
}

pub(super) fn change(at: u64, size_bytes: usize) -> Vec<u8> {
    let content = Bytes::from(vec![b'x'; size_bytes]);
    let lsn = SourceLsn::new(at);
    data(at, &Message::Logical { xid: None, transactional: true, lsn, prefix: "test".into(), content })
}

pub(super) fn commit(commit: u64) -> Vec<u8> {
    let (commit_lsn, end_lsn) = (SourceLsn::new(commit), SourceLsn::new(commit + 1));
    data(commit + 1, &Message::Commit { commit_lsn, end_lsn, commit_time: Timestamp::default() })
}

/// A transaction with one change of about this size.
pub(super) fn transaction(at: u64, size_bytes: usize) -> Vec<u8> {
    [begin(at), change(at, size_bytes), commit(at)].concat()
}

pub(super) fn login(binding: ChannelBinding) -> Login {
    Login {
        at: Place {
            side: Side::Source,
            host: Host { name: HostName::Tcp("scripted".into()), address: None, port: 1 },
        },
        user: "md5_user".into(),
        database: "shop".into(),
        password: Some(relevo_connect::Secret::new("password")),
        binding,
        end_point: None,
        parameters: vec![("application_name".into(), "relevo_shop".into())],
    }
}

pub(super) fn options(start: u64) -> StartOptions {
    StartOptions {
        info: "postgres://md5_user@scripted/shop".parse().unwrap(),
        application_name: "relevo_shop".into(),
        slot: "relevo_shop".into(),
        publications: vec!["relevo_shop".into()],
        start_lsn: SourceLsn::new(start),
        expected: SourceIdentity { system_id: "7".into(), timeline: 1, database: "shop".into() },
        part_bytes: 1 << 20,
        buffer_bytes: 1 << 20,
        status_interval: Duration::from_secs(1),
        receive_timeout: Duration::from_secs(60),
        slot_wait: Duration::from_secs(5),
        skip_applied: None,
        ahead: false,
        monitor: SourceMonitor::default(),
    }
}

impl Server {
    pub(super) fn pair() -> (Self, DuplexStream) {
        let (server, client) = tokio::io::duplex(1 << 22);
        (Self { stream: server }, client)
    }

    pub(super) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
    }

    /// The startup packet's parameters.
    pub(super) async fn startup(&mut self) -> Vec<(String, String)> {
        let length = self.stream.read_u32().await.unwrap();
        let mut body = vec![0; usize::try_from(length).unwrap() - 4];
        self.stream.read_exact(&mut body).await.unwrap();
        assert_eq!(&body[..4], [0, 3, 0, 0]);
        let texts: Vec<_> =
            body[4..].split(|b| *b == 0).map(|t| String::from_utf8(t.to_vec()).unwrap()).collect();
        texts
            .chunks(2)
            .filter(|pair| pair.len() == 2 && !pair[0].is_empty())
            .map(|p| (p[0].clone(), p[1].clone()))
            .collect()
    }

    /// The client's next message; `None` at the end of the stream.
    pub(super) async fn message(&mut self) -> Option<(char, Vec<u8>)> {
        let tag = self.stream.read_u8().await.ok()?;
        let length = self.stream.read_u32().await.unwrap();
        let mut body = vec![0; usize::try_from(length).unwrap() - 4];
        self.stream.read_exact(&mut body).await.unwrap();
        Some((char::from(tag), body))
    }

    /// The client's next message, which must be a query.
    pub(super) async fn query(&mut self) -> String {
        let (tag, body) = self.message().await.unwrap();
        assert_eq!(tag, 'Q');
        String::from_utf8(body[..body.len() - 1].to_vec()).unwrap()
    }

    /// The client's next message, which must be a status update.
    pub(super) async fn status(&mut self) -> StatusUpdate {
        let (tag, body) = self.message().await.unwrap();
        assert_eq!((tag, body[0], body.len()), ('d', b'r', 34));
        let lsn = |at: usize| SourceLsn::new(u64::from_be_bytes(body[at..at + 8].try_into().unwrap()));
        StatusUpdate { write: lsn(1), flush: lsn(9), apply: lsn(17), reply: body[33] == 1 }
    }

    /// Lets everybody in.
    pub(super) async fn trust(&mut self) {
        self.trust_as("off").await;
    }

    /// Lets everybody in; `in_hot_standby` is `on` or `off`.
    pub(super) async fn trust_as(&mut self, in_hot_standby: &str) {
        self.startup().await;
        self.send(message(b'R', &[0; 4])).await;
        self.send(message(b'S', format!("in_hot_standby\0{in_hot_standby}\0").as_bytes())).await;
        self.ready().await;
    }

    /// What comes after AuthenticationOk.
    pub(super) async fn ready(&mut self) {
        self.send(message(b'S', b"server_version\x0015.4 (Debian)\0")).await;
        self.send(message(b'K', &[0, 0, 0, 42, 0, 0, 0, 1])).await;
        self.send(message(b'Z', b"I")).await;
    }

    /// Answers everything up to where the slot is looked at.
    pub(super) async fn identify(&mut self, system_id: &str) {
        assert_eq!(self.query().await, "IDENTIFY_SYSTEM");
        self.send(row(&[
            ("systemid", Some(system_id)),
            ("timeline", Some("1")),
            ("xlogpos", Some("1/0")),
            ("dbname", Some("shop")),
        ]))
        .await;
        self.send(done()).await;
    }

    pub(super) async fn settings(&mut self) {
        assert_eq!(self.query().await, "SHOW \"server_version_num\"");
        self.send(row(&[("server_version_num", Some("150004"))])).await;
        self.send(done()).await;
        assert!(self.query().await.contains("wal_sender_timeout"));
        self.send(row(&[("setting", Some("60000"))])).await;
        self.send(done()).await;
    }

    /// Answers a look at the slot.
    pub(super) async fn slot(&mut self, active_pid: Option<&str>) {
        assert!(self.query().await.contains("s.slot_name = 'relevo_shop'"));
        self.send(row(&[
            ("logical", Some("t")),
            ("plugin", Some("pgoutput")),
            ("database", Some("shop")),
            ("active_pid", active_pid),
            ("holder_application", active_pid.map(|_| "relevo_shop")),
            ("confirmed_flush_lsn", Some("0/10")),
        ]))
        .await;
        self.send(done()).await;
    }

    pub(super) async fn copy_both(&mut self) -> String {
        let command = self.query().await;
        self.send(message(b'W', &[0, 0, 0])).await;
        command
    }

    /// Everything up to the begin of the stream.
    pub(super) async fn stream(&mut self) {
        self.trust().await;
        self.identify("7").await;
        self.settings().await;
        self.slot(None).await;
        self.copy_both().await;
    }
}
