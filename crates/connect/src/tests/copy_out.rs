//! COPY as a server might answer it, over a link that cuts its bytes anywhere.

use std::collections::VecDeque;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::task::JoinHandle;
use tokio_postgres::config::SslMode;
use tokio_postgres::{Client, Config, NoTls};

use crate::CopyOut;
use crate::copy_out::RowsAside;
use crate::diverting::Diverting;

/// How many bytes the link carries at once.
const CUTS: [usize; 6] = [1, 2, 5, 13, 4096, 1 << 20];

fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
    [&[kind][..], &length, body].concat()
}

fn ready() -> Vec<u8> {
    frame(b'Z', b"I")
}

fn error(code: &str) -> Vec<u8> {
    frame(b'E', format!("SERROR\0VERROR\0C{code}\0Msaid so\0\0").as_bytes())
}

/// BindComplete and CopyOutResponse.
fn begin() -> Vec<u8> {
    [frame(b'2', b""), frame(b'H', &[0, 0, 1, 0, 0])].concat()
}

/// CopyDone, CommandComplete, ReadyForQuery.
fn done() -> Vec<u8> {
    [frame(b'c', b""), frame(b'C', b"COPY 1\0"), ready()].concat()
}

fn rows(rows: &[&[u8]]) -> Vec<u8> {
    rows.iter().flat_map(|row| frame(b'd', row)).collect()
}

/// A session whose COPYs are answered with these bytes, one after the other; then the server hangs up.
struct Session {
    client: Client,
    rows_aside: RowsAside,
    driver: JoinHandle<()>,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Session {
    async fn start(link_bytes: usize, copies: Vec<Vec<u8>>) -> Self {
        let (near, far) = tokio::io::duplex(link_bytes);
        tokio::spawn(serve(far, copies.into()));
        let rows_aside = RowsAside::default();
        let stream = Diverting::new(near, rows_aside.diversion());
        let (client, connection) =
            Config::new().user("u").ssl_mode(SslMode::Disable).connect_raw(stream, NoTls).await.unwrap();
        let driver = tokio::spawn(async move {
            let _ = connection.await;
        });
        Self { client, rows_aside, driver }
    }

    async fn copy_out(&self) -> Result<CopyOut, tokio_postgres::Error> {
        self.rows_aside.copy_out(&self.client, "COPY t TO STDOUT").await
    }

    /// The rows of one COPY, and how it ended.
    async fn copy(&self) -> (Vec<u8>, Result<(), tokio_postgres::Error>) {
        let mut all = Vec::new();
        let mut copy = match self.copy_out().await {
            Ok(copy) => copy,
            Err(error) => return (all, Err(error)),
        };
        loop {
            match copy.next().await {
                Ok(Some(piece)) => {
                    assert!((1..=CopyOut::PIECE_BYTES).contains(&piece.len()), "{} bytes", piece.len());
                    // Not always all of it.
                    let used = piece.len().div_ceil(2);
                    all.extend_from_slice(&piece[..used]);
                    copy.consume(used);
                }
                Ok(None) => return (all, Ok(())),
                Err(error) => return (all, Err(error)),
            }
        }
    }
}

async fn serve(mut link: DuplexStream, mut copies: VecDeque<Vec<u8>>) {
    let length = link.read_u32().await.unwrap();
    link.read_exact(&mut vec![0; length as usize - 4]).await.unwrap();
    link.write_all(&[frame(b'R', &[0; 4]), ready()].concat()).await.unwrap();
    let mut asked = Vec::new();
    // Until the client is gone.
    while let Ok(kind) = link.read_u8().await {
        let length = link.read_u32().await.unwrap();
        link.read_exact(&mut vec![0; length as usize - 4]).await.unwrap();
        asked.push(kind);
        if kind != b'S' {
            continue;
        }
        let answer = match std::mem::take(&mut asked).first() {
            // ParseComplete, ParameterDescription, NoData.
            Some(b'P') => [frame(b'1', b""), frame(b't', &[0, 0]), frame(b'n', b""), ready()].concat(),
            // CloseComplete.
            Some(b'C') => [frame(b'3', b""), ready()].concat(),
            _ => match copies.pop_front() {
                Some(answer) => answer,
                None => return,
            },
        };
        if link.write_all(&answer).await.is_err() || (copies.is_empty() && !answer.ends_with(&ready())) {
            return;
        }
    }
}

#[tokio::test]
async fn rows_arrive_whole_however_the_link_cuts_them() {
    let long = vec![b'x'; 5000];
    let between = [frame(b'S', b"a\0b\0"), frame(b'N', b"SNOTICE\0C00000\0Mhear\0\0")].concat();
    let answer = [begin(), rows(&[b"1\n", b"", b"22\n"]), between, rows(&[&long, b"333\n"]), done()].concat();
    let expected = [&b"1\n22\n"[..], &long, b"333\n"].concat();
    for link_bytes in CUTS {
        let session = Session::start(link_bytes, vec![answer.clone(), [begin(), done()].concat()]).await;
        let (all, end) = session.copy().await;
        assert!(end.is_ok() && all == expected, "{link_bytes}");
        assert_eq!(session.copy().await.0, b"", "no rows at all");
    }
}

#[tokio::test]
async fn a_row_is_never_held_whole() {
    let long: Vec<u8> = (0..10_000_000).map(|n: u32| (n / 251 + n) as u8).collect();
    let session =
        Session::start(1 << 20, vec![[begin(), rows(&[&long, b"1\n", &long]), done()].concat()]).await;
    let (all, end) = session.copy().await;
    assert!(end.is_ok() && all == [&long[..], b"1\n", &long].concat());
}

#[tokio::test]
async fn an_error_comes_behind_the_rows_that_came_before_it() {
    let long = vec![b'x'; 200_000];
    for (link_bytes, rows_before) in
        CUTS.into_iter().map(|cut| (cut, vec![&b"1\n"[..], b"2\n"])).chain([(4096, vec![&long[..]])])
    {
        let failed = [begin(), rows(&rows_before), error("57014"), ready()].concat();
        let session =
            Session::start(link_bytes, vec![failed, [begin(), rows(&[b"3\n"]), done()].concat()]).await;
        let (all, end) = session.copy().await;
        let end = end.unwrap_err();
        assert_eq!(end.as_db_error().map(|error| error.code().code()), Some("57014"), "{end}");
        assert!(all == rows_before.concat());
        // The session is as good as before.
        assert_eq!(session.copy().await.0, b"3\n");
    }
}

#[tokio::test]
async fn a_copy_that_does_not_begin_leaves_the_next_its_rows() {
    for link_bytes in CUTS {
        let refused = [error("42P01"), ready()].concat();
        let session =
            Session::start(link_bytes, vec![refused, [begin(), rows(&[b"1\n"]), done()].concat()]).await;
        let end = session.copy().await.1.unwrap_err();
        assert_eq!(end.as_db_error().map(|error| error.code().code()), Some("42P01"), "{end}");
        assert_eq!(session.copy().await.0, b"1\n");
    }
}

#[tokio::test]
async fn a_link_that_breaks_in_a_row_is_an_error() {
    let whole = [begin(), rows(&[b"1\n", b"2\n"])].concat();
    for cut in begin().len()..=whole.len() {
        let session = Session::start(64, vec![whole[..cut].to_vec()]).await;
        let (all, end) = session.copy().await;
        assert!(end.unwrap_err().is_closed());
        assert!(b"1\n2\n".starts_with(&all));
    }
}

#[tokio::test]
async fn a_copy_that_is_left_gives_nothing_to_the_next() {
    let long = vec![b'x'; 700_000];
    for pieces in 0..5 {
        let first = [begin(), rows(&[&long, b"1\n", &long]), done()].concat();
        let second = [begin(), rows(&[b"2\n"]), done()].concat();
        let session = Session::start(30_000, vec![first, second]).await;
        let mut copy = session.copy_out().await.unwrap();
        for _ in 0..pieces {
            let bytes = copy.next().await.unwrap().unwrap().len();
            copy.consume(bytes);
        }
        drop(copy);
        let (all, end) = session.copy().await;
        end.unwrap();
        assert_eq!(all, b"2\n");
    }
}

#[tokio::test]
async fn rows_that_nobody_takes_hold_the_server_back() {
    let long = vec![b'x'; 3_000_000];
    let session = Session::start(1000, vec![[begin(), rows(&[&long]), done()].concat()]).await;
    let mut copy = session.copy_out().await.unwrap();
    let mut all = 0;
    while let Some(bytes) = copy.next().await.unwrap().map(<[u8]>::len) {
        all += bytes;
        copy.consume(bytes);
        // The driver goes on as far as it may meanwhile.
        for _ in 0..1000 {
            tokio::task::yield_now().await;
        }
        assert!(session.rows_aside.diversion().waiting_bytes() <= CopyOut::PIECE_BYTES);
    }
    assert_eq!(all, long.len());
}
