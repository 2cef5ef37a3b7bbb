//! Follows the rows of a COPY through its bytes, in either format, however they are cut: how many rows there are, and
//! where one ends. What may not enter: IO, and what a value means.

use bytes::{BufMut, BytesMut};

use crate::format::Format;

/// What the binary format begins with (manual, *COPY*, *Binary Format*).
const SIGNATURE: &[u8; 11] = b"PGCOPY\n\xff\r\n\0";
/// The signature, flags of which none is set, and an extension area without bytes.
const HEADER: &[u8; 19] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// Stands in the place of a row's number of fields.
const TRAILER: i16 = -1;
/// A reader that does not know one of these flags must not go on.
const CRITICAL_FLAGS: u32 = 0xffff_0000;

/// Where in a COPY of the source we are.
pub(crate) enum Walk {
    /// Text: whether the last byte ended a row.
    Text { between_rows: bool },
    /// Binary.
    Binary(BinaryWalk),
}

impl Walk {
    /// At the beginning of a COPY of so many columns.
    pub(crate) fn new(format: Format, columns: usize) -> Self {
        match format {
            Format::Text => Self::Text { between_rows: true },
            Format::Binary => Self::Binary(BinaryWalk::new(columns)),
        }
    }

    /// Goes over the bytes that come next. Those of rows are added to `rows`, where a row is never begun with less than
    /// what tells it from the end; what stands before and behind all rows is not. With `to_row_end` it goes no further than
    /// the next end of a row. Returns how many bytes it went over, and how many rows have ended.
    ///
    /// # Errors
    /// What is wrong with the bytes. There is no going on after that.
    pub(crate) fn walk(
        &mut self,
        piece: &[u8],
        to_row_end: bool,
        rows: &mut BytesMut,
    ) -> Result<(usize, u64), String> {
        match self {
            Self::Text { between_rows } => {
                let end = || piece.iter().position(|byte| *byte == b'\n');
                let end = if to_row_end { end() } else { None };
                let piece = end.and_then(|end| piece.get(..=end)).unwrap_or(piece);
                *between_rows = piece.last().map_or(*between_rows, |byte| *byte == b'\n');
                rows.extend_from_slice(piece);
                Ok((piece.len(), line_feeds(piece)))
            }
            Self::Binary(walk) => walk.walk(piece, to_row_end, rows),
        }
    }

    /// Whether the bytes that were added last end a row, or none were.
    pub(crate) fn is_between_rows(&self) -> bool {
        match self {
            Self::Text { between_rows } => *between_rows,
            Self::Binary(walk) => matches!(walk.next, Next::Row | Next::Nothing),
        }
    }

    /// No more bytes come.
    ///
    /// # Errors
    /// When that is too early.
    pub(crate) fn finish(&self) -> Result<(), String> {
        match self {
            Self::Text { between_rows: true } | Self::Binary(BinaryWalk { next: Next::Nothing, .. }) => {
                Ok(())
            }
            Self::Text { .. } => Err("the rows end without a line feed".to_owned()),
            Self::Binary(_) => Err("the rows end without the format's trailer".to_owned()),
        }
    }
}

impl Format {
    /// What a COPY into the target begins with.
    pub(crate) fn head(self) -> &'static [u8] {
        match self {
            Self::Text => b"",
            Self::Binary => HEADER,
        }
    }

    /// What it ends with.
    pub(crate) fn tail(self) -> &'static [u8] {
        match self {
            Self::Text => b"",
            Self::Binary => &const { TRAILER.to_be_bytes() },
        }
    }
}

/// How many rows of text end in these bytes. A line feed only stands at the end of a row; within values it is written as
/// `\n` (manual, *COPY*, *Text Format*). In stretches that a byte can count, which the compiler turns into a few
/// instructions each.
fn line_feeds(bytes: &[u8]) -> u64 {
    let stretch = |stretch: &[u8]| stretch.iter().map(|byte| u8::from(*byte == b'\n')).sum::<u8>();
    bytes.chunks(usize::from(u8::MAX)).map(|bytes| u64::from(stretch(bytes))).sum()
}

/// What the next byte belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// The header without its extension area.
    Header,
    /// So many bytes of the extension area.
    Extension(usize),
    /// A row's number of fields, or the trailer.
    Row,
    /// The length of a field, when so many fields of the row are left with it.
    Length(usize),
    /// So many bytes of a value, behind which so many fields are left.
    Value(usize, usize),
    /// The trailer has been there.
    Nothing,
}

/// Where in a COPY in binary format we are.
pub(crate) struct BinaryWalk {
    columns: usize,
    next: Next,
    /// The beginning of what has to be seen as a whole and was cut.
    held: [u8; HEADER.len()],
    held_bytes: usize,
}

impl BinaryWalk {
    fn new(columns: usize) -> Self {
        Self { columns, next: Next::Header, held: [0; HEADER.len()], held_bytes: 0 }
    }

    fn walk(&mut self, piece: &[u8], to_row_end: bool, rows: &mut BytesMut) -> Result<(usize, u64), String> {
        let mut bytes = piece;
        while let Next::Header | Next::Extension(_) = self.next {
            if bytes.is_empty() {
                return Ok((piece.len(), 0));
            }
            bytes = self.header(bytes)?;
        }
        // The first byte of a row's number of fields is held back: it may be the trailer's.
        let held = (self.next == Next::Row && self.held_bytes > 0).then_some(self.held[0]);
        let (mut at, mut ended) = (0, 0);
        let end = self.rows(bytes, to_row_end, (&mut at, &mut ended))?;
        if let Some(first) = held.filter(|_| end > 0) {
            rows.put_u8(first);
        }
        rows.extend_from_slice(bytes.get(..end).unwrap_or_default());
        Ok((piece.len() - bytes.len() + at, ended))
    }

    /// Takes something off the header, and returns what comes behind.
    fn header<'b>(&mut self, bytes: &'b [u8]) -> Result<&'b [u8], String> {
        if let Next::Extension(left) = self.next {
            let skipped = left.min(bytes.len());
            self.next = if skipped == left { Next::Row } else { Next::Extension(left - skipped) };
            return Ok(bytes.get(skipped..).unwrap_or_default());
        }
        let mut at = 0;
        let Some(header) = self.gather::<{ HEADER.len() }>(bytes, &mut at) else { return Ok(&[]) };
        let (signature, rest) = header.split_at(SIGNATURE.len());
        if signature != SIGNATURE {
            return Err("they do not begin with the signature of COPY's binary format".to_owned());
        }
        let number = |at: usize| rest.get(at..)?.first_chunk().map(|bytes| u32::from_be_bytes(*bytes));
        let (flags, extension) = (number(0).unwrap_or(0), number(4).unwrap_or(0));
        if flags & CRITICAL_FLAGS != 0 {
            return Err(format!("their header has flags that are not known: {flags:#010x}"));
        }
        let extension = i32::try_from(extension).ok().and_then(|length| usize::try_from(length).ok());
        self.next = Next::Extension(extension.ok_or("the length of their header is not a length")?);
        Ok(bytes.get(at..).unwrap_or_default())
    }

    /// Goes over bytes of rows, up to `at`, and counts those that end. Returns up to where they are to be passed on now.
    fn rows(
        &mut self,
        bytes: &[u8],
        to_row_end: bool,
        (at, ended): (&mut usize, &mut u64),
    ) -> Result<usize, String> {
        loop {
            self.next = match self.next {
                Next::Row => {
                    let begun = *at;
                    let Some(fields) = self.gather(bytes, at) else { return Ok(begun) };
                    match i16::from_be_bytes(fields) {
                        TRAILER if *at == bytes.len() => {
                            self.next = Next::Nothing;
                            return Ok(begun);
                        }
                        TRAILER => return Err("bytes come behind the format's trailer".to_owned()),
                        fields if usize::try_from(fields) == Ok(self.columns) => Next::Length(self.columns),
                        fields => {
                            return Err(format!("a row has {fields} fields instead of {}", self.columns));
                        }
                    }
                }
                Next::Length(0) => {
                    *ended += 1;
                    if to_row_end {
                        self.next = Next::Row;
                        return Ok(*at);
                    }
                    Next::Row
                }
                Next::Length(left) => {
                    let Some(length) = self.gather(bytes, at) else { return Ok(*at) };
                    match i32::from_be_bytes(length) {
                        // NULL
                        -1 => Next::Length(left - 1),
                        length => match usize::try_from(length) {
                            Ok(length) => Next::Value(length, left - 1),
                            Err(_) => return Err(format!("a field has a length of {length} bytes")),
                        },
                    }
                }
                Next::Value(length, left) => {
                    let there = bytes.len() - *at;
                    if length > there {
                        self.next = Next::Value(length - there, left);
                        *at = bytes.len();
                        return Ok(*at);
                    }
                    *at += length;
                    Next::Length(left)
                }
                Next::Nothing if *at == bytes.len() => return Ok(*at),
                Next::Nothing => return Err("bytes come behind the format's trailer".to_owned()),
                Next::Header | Next::Extension(_) => return Ok(*at),
            };
        }
    }

    /// The next bytes, as many as are asked for; `None`: they are not all there, and what is there is held.
    fn gather<const COUNT: usize>(&mut self, bytes: &[u8], at: &mut usize) -> Option<[u8; COUNT]> {
        let rest = bytes.get(*at..).unwrap_or_default();
        if self.held_bytes == 0
            && let Some(whole) = rest.first_chunk::<COUNT>()
        {
            *at += COUNT;
            return Some(*whole);
        }
        for byte in rest.iter().take(COUNT - self.held_bytes) {
            self.held[self.held_bytes] = *byte;
            self.held_bytes += 1;
            *at += 1;
        }
        if self.held_bytes < COUNT {
            return None;
        }
        self.held_bytes = 0;
        self.held.first_chunk::<COUNT>().copied()
    }
}

#[cfg(test)]
#[path = "walk_tests.rs"]
pub(crate) mod tests;
