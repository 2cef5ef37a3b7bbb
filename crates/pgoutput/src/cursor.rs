//! Reads the fields of one frame in order and never past its end.
//!
//! Every error names the byte at which the field begins. No length that the frame claims is believed before
//! the frame is known to be that long, so nothing is allocated for bytes that do not exist.

use bytes::Bytes;
use relevo_model::{SourceLsn, Timestamp, Xid};

use crate::error::{DecodeError, DecodeProblem};

pub(crate) struct Cursor<'a> {
    frame: &'a Bytes,
    position: usize,
}

type Result<T> = std::result::Result<T, DecodeError>;

impl<'a> Cursor<'a> {
    pub(crate) fn new(frame: &'a Bytes) -> Self {
        Self { frame, position: 0 }
    }

    /// An error at the field that begins at `offset`.
    pub(crate) fn error_at(&self, offset: usize, problem: DecodeProblem) -> DecodeError {
        DecodeError { tag: self.frame.first().copied(), offset, problem }
    }

    pub(crate) fn position(&self) -> usize {
        self.position
    }

    fn rest(&self) -> &'a [u8] {
        self.frame.get(self.position..).unwrap_or_default()
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N]> {
        let rest = self.rest();
        let Some(bytes) = rest.first_chunk::<N>() else {
            return Err(self.truncated(field, N));
        };
        self.position += N;
        Ok(*bytes)
    }

    fn truncated(&self, field: &'static str, needed_bytes: usize) -> DecodeError {
        let left_bytes = self.rest().len();
        self.error_at(self.position, DecodeProblem::Truncated { field, needed_bytes, left_bytes })
    }

    pub(crate) fn u8(&mut self, field: &'static str) -> Result<u8> {
        self.array(field).map(|[byte]| byte)
    }

    pub(crate) fn u32(&mut self, field: &'static str) -> Result<u32> {
        self.array(field).map(u32::from_be_bytes)
    }

    pub(crate) fn i32(&mut self, field: &'static str) -> Result<i32> {
        self.array(field).map(i32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self, field: &'static str) -> Result<u64> {
        self.array(field).map(u64::from_be_bytes)
    }

    pub(crate) fn lsn(&mut self, field: &'static str) -> Result<SourceLsn> {
        self.u64(field).map(SourceLsn::new)
    }

    pub(crate) fn time(&mut self, field: &'static str) -> Result<Timestamp> {
        self.array(field).map(i64::from_be_bytes).map(Timestamp::from_postgres_us)
    }

    pub(crate) fn xid(&mut self, field: &'static str) -> Result<Xid> {
        self.u32(field).map(Xid)
    }

    /// A byte that must be one of a few; `read` gives `None` for every other.
    pub(crate) fn one_of<T>(
        &mut self,
        field: &'static str,
        expected: &'static str,
        read: impl FnOnce(u8) -> Option<T>,
    ) -> Result<T> {
        let offset = self.position;
        let found = self.u8(field)?;
        read(found).ok_or_else(|| self.error_at(offset, DecodeProblem::Unexpected { field, found, expected }))
    }

    /// An `Int16` count of things that each take at least `least_bytes`.
    pub(crate) fn count16(&mut self, field: &'static str, least_bytes: usize) -> Result<usize> {
        let offset = self.position;
        let count = usize::from(self.array(field).map(u16::from_be_bytes)?);
        self.check_count(offset, field, count, least_bytes)
    }

    /// An `Int32` length or count. What it counts may not be there: nothing may be allocated by it alone.
    pub(crate) fn length(&mut self, field: &'static str) -> Result<usize> {
        let offset = self.position;
        let found = self.i32(field)?;
        usize::try_from(found)
            .map_err(|_| self.error_at(offset, DecodeProblem::NegativeLength { field, found }))
    }

    /// Refuses a count (read at `offset`) of things that cannot all be in the rest of the frame.
    pub(crate) fn check_count(
        &self,
        offset: usize,
        field: &'static str,
        count: usize,
        least_bytes: usize,
    ) -> Result<usize> {
        let needed_bytes = count.saturating_mul(least_bytes);
        let left_bytes = self.rest().len();
        if needed_bytes > left_bytes {
            let problem = DecodeProblem::Truncated { field, needed_bytes, left_bytes };
            return Err(self.error_at(offset, problem));
        }
        Ok(count)
    }

    /// A slice of the frame; nothing is copied.
    pub(crate) fn bytes(&mut self, field: &'static str, length: usize) -> Result<Bytes> {
        if length > self.rest().len() {
            return Err(self.truncated(field, length));
        }
        let end = self.position + length;
        let bytes = self.frame.slice(self.position..end);
        self.position = end;
        Ok(bytes)
    }

    /// A NUL-terminated string in UTF-8 (the connection's `client_encoding`).
    pub(crate) fn text(&mut self, field: &'static str) -> Result<String> {
        let offset = self.position;
        let rest = self.rest();
        let Some(length) = rest.iter().position(|byte| *byte == 0) else {
            return Err(self.error_at(offset, DecodeProblem::Unterminated { field }));
        };
        let (text, _) = rest.split_at(length);
        self.position += length + 1;
        match std::str::from_utf8(text) {
            Ok(text) => Ok(text.to_owned()),
            Err(source) => Err(self.error_at(offset, DecodeProblem::NotUtf8 { field, source })),
        }
    }

    /// Refuses bytes behind the last field.
    pub(crate) fn finish(&self) -> Result<()> {
        match self.rest().len() {
            0 => Ok(()),
            bytes => Err(self.error_at(self.position, DecodeProblem::Trailing { bytes })),
        }
    }
}
