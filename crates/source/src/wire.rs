//! The messages inside CopyData while streaming
//! (manual, *Streaming Replication Protocol*: XLogData, Primary keepalive message, Standby status update).

use bytes::{Buf, BufMut, Bytes, BytesMut};
use postgres_protocol::message::frontend;
use relevo_model::{SourceLsn, Timestamp};

use crate::SourceError;

const XLOG_DATA: u8 = b'w';
const KEEPALIVE: u8 = b'k';
const STATUS_UPDATE: u8 = b'r';

/// One message of the walsender.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum StreamMessage {
    /// `w`: one message of the output plugin.
    Data {
        /// The position that the message belongs to.
        start: SourceLsn,
        /// How far the server has got.
        wal_end: SourceLsn,
        /// When it was sent, by the server's clock.
        sent_at: Timestamp,
        /// The message.
        payload: Bytes,
    },
    /// `k`: how far the server has got.
    Keepalive {
        /// Everything that committed before this position has been sent.
        wal_end: SourceLsn,
        /// The server wants an answer at once, or it takes us for dead.
        reply: bool,
    },
}

impl StreamMessage {
    pub(crate) fn parse(mut content: Bytes) -> Result<Self, SourceError> {
        let short = || SourceError::protocol("a message of the walsender is cut short");
        let tag = content.try_get_u8().map_err(|_| short())?;
        match tag {
            XLOG_DATA if content.len() >= 24 => {
                let start = SourceLsn::new(content.get_u64());
                let wal_end = SourceLsn::new(content.get_u64());
                let sent_at = Timestamp::from_postgres_us(content.get_i64());
                Ok(Self::Data { start, wal_end, sent_at, payload: content })
            }
            KEEPALIVE if content.len() == 17 => {
                let wal_end = SourceLsn::new(content.get_u64());
                let _sent_at = content.get_i64();
                Ok(Self::Keepalive { wal_end, reply: content.get_u8() != 0 })
            }
            XLOG_DATA | KEEPALIVE => Err(short()),
            other => Err(SourceError::protocol(format!(
                "a message {:?} of the walsender, expected 'w' or 'k'",
                char::from(other)
            ))),
        }
    }
}

/// A Standby status update.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StatusUpdate {
    /// In our memory.
    pub write: SourceLsn,
    /// Flushed on the target: what the slot may forget.
    pub flush: SourceLsn,
    /// Committed on the target.
    pub apply: SourceLsn,
    /// Ask the server to answer.
    pub reply: bool,
}

impl StatusUpdate {
    /// Appends the update as a CopyData message.
    pub(crate) fn write(self, sent_at: Timestamp, output: &mut BytesMut) -> Result<(), SourceError> {
        let mut content = [0_u8; 34];
        let mut rest = &mut content[..];
        rest.put_u8(STATUS_UPDATE);
        rest.put_u64(self.write.as_u64());
        rest.put_u64(self.flush.as_u64());
        rest.put_u64(self.apply.as_u64());
        rest.put_i64(sent_at.postgres_us());
        rest.put_u8(u8::from(self.reply));
        let message = frontend::CopyData::new(&content[..])
            .map_err(|source| SourceError::Io { doing: "writing a status update", source })?;
        message.write(output);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_the_walsender_are_read() {
        let mut data = BytesMut::new();
        data.put_u8(b'w');
        data.put_u64(5);
        data.put_u64(6);
        data.put_i64(7);
        data.put_slice(b"B...");
        let message = StreamMessage::parse(data.freeze()).unwrap();
        let StreamMessage::Data { start, wal_end, sent_at, payload } = message else { panic!("data") };
        assert_eq!((start.as_u64(), wal_end.as_u64(), sent_at.postgres_us()), (5, 6, 7));
        assert_eq!(&payload[..], b"B...");

        let mut keepalive = BytesMut::new();
        keepalive.put_u8(b'k');
        keepalive.put_u64(9);
        keepalive.put_i64(0);
        keepalive.put_u8(1);
        let message = StreamMessage::parse(keepalive.freeze()).unwrap();
        assert_eq!(message, StreamMessage::Keepalive { wal_end: SourceLsn::new(9), reply: true });
    }

    #[test]
    fn what_is_short_or_unknown_is_an_error() {
        for content in [&b""[..], b"w", b"k12345678", b"s\0\0", b"k123456781234567812"] {
            StreamMessage::parse(Bytes::copy_from_slice(content)).unwrap_err();
        }
    }

    #[test]
    fn a_status_update_is_laid_out_as_the_manual_says() {
        let mut out = BytesMut::new();
        let [write, flush, apply] = [3, 1, 2].map(SourceLsn::new);
        StatusUpdate { write, flush, apply, reply: true }
            .write(Timestamp::from_postgres_us(4), &mut out)
            .unwrap();
        let words = |n: u64| n.to_be_bytes();
        let expected = [&b"d\0\0\0\x26r"[..], &words(3), &words(1), &words(2), &words(4), &[1]].concat();
        assert_eq!(&out[..], &expected[..]);
    }
}
