//! Rows between two COPYs: cut into chunks to be sent at once, and into the COPYs that the target takes. What may not
//! enter: IO.

use bytes::{Bytes, BytesMut};

use crate::format::Format;
use crate::walk::Walk;

/// How many bytes are sent to the target at once, roughly.
pub(crate) const CHUNK_BYTES: usize = 128 * 1024;

/// How many bytes one COPY into the target takes. The server's verdict is only seen at a COPY's end, so a large
/// table goes in several, within the same transaction: a row that the target refuses in the first gigabyte is not
/// found out after the last.
const SEGMENT_BYTES: u64 = 64 * 1024 * 1024;

/// What is to be sent together.
pub(crate) struct Chunk {
    /// As the target's COPY reads it.
    pub(crate) bytes: Bytes,
    /// How many rows end in it.
    pub(crate) rows: u64,
    /// How many of the bytes are those of rows.
    pub(crate) row_bytes: u64,
}

/// Takes the pieces of the source's COPY, as they come, and makes of them the chunks of the target's COPYs, of which
/// each holds whole rows.
pub(crate) struct Packing {
    format: Format,
    walk: Walk,
    chunk_bytes: usize,
    segment_bytes: u64,
    buffer: BytesMut,
    /// Rows that end in the buffer.
    rows: u64,
    /// Bytes of the buffer that are no row's.
    frame_bytes: usize,
    /// Bytes of rows that the target's COPY has had.
    sent_bytes: u64,
}

impl Packing {
    /// For a table of which so many columns are copied.
    pub(crate) fn new(format: Format, columns: usize) -> Self {
        Self::with_sizes(format, columns, (CHUNK_BYTES, SEGMENT_BYTES))
    }

    fn with_sizes(format: Format, columns: usize, (chunk_bytes, segment_bytes): (usize, u64)) -> Self {
        Self {
            format,
            walk: Walk::new(format, columns),
            chunk_bytes,
            segment_bytes,
            buffer: room(chunk_bytes),
            rows: 0,
            frame_bytes: 0,
            sent_bytes: 0,
        }
    }

    /// A COPY into the target begins.
    pub(crate) fn begin(&mut self) {
        self.sent_bytes = 0;
        self.frame(self.format.head());
    }

    /// What the source sent next. Returns how much of it was taken: not more than a chunk has room for, and of what the
    /// target's COPY has had enough of nothing behind the end of a row.
    ///
    /// # Errors
    /// What is wrong with it. There is no going on after that.
    pub(crate) fn push(&mut self, piece: &[u8]) -> Result<usize, String> {
        let room = self.chunk_bytes.saturating_sub(self.buffer.len()).max(1);
        let piece = piece.get(..room).unwrap_or(piece);
        let (taken, rows) = self.walk.walk(piece, self.has_had_enough(), &mut self.buffer)?;
        self.rows += rows;
        Ok(taken)
    }

    /// The source sends nothing more.
    ///
    /// # Errors
    /// When that is too early.
    pub(crate) fn finish(&self) -> Result<(), String> {
        self.walk.finish()
    }

    /// Whether there is enough for a chunk.
    pub(crate) fn has_chunk(&self) -> bool {
        self.buffer.len() >= self.chunk_bytes
    }

    /// Whether the target's COPY can end here, and has had enough.
    pub(crate) fn is_enough(&self) -> bool {
        self.has_had_enough() && self.walk.is_between_rows()
    }

    fn has_had_enough(&self) -> bool {
        self.sent_bytes + self.buffered_bytes() >= self.segment_bytes
    }

    /// The COPY into the target ends; this is the rest of it.
    pub(crate) fn end(&mut self) -> Chunk {
        self.frame(self.format.tail());
        self.take()
    }

    /// What is there.
    pub(crate) fn take(&mut self) -> Chunk {
        let row_bytes = self.buffered_bytes();
        let bytes = std::mem::replace(&mut self.buffer, room(self.chunk_bytes)).freeze();
        self.frame_bytes = 0;
        self.sent_bytes += row_bytes;
        Chunk { bytes, rows: std::mem::take(&mut self.rows), row_bytes }
    }

    fn frame(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
        self.frame_bytes += bytes.len();
    }

    fn buffered_bytes(&self) -> u64 {
        u64::try_from(self.buffer.len() - self.frame_bytes).unwrap_or(u64::MAX)
    }
}

/// An empty buffer that holds a chunk, with what a COPY begins and ends with, without growing.
fn room(chunk_bytes: usize) -> BytesMut {
    BytesMut::with_capacity(chunk_bytes + 64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::walk::tests::{Rows, cut, rows};

    /// Takes the pieces as a copy does, and returns what each COPY into the target was given, and the counts.
    fn pack(packing: &mut Packing, pieces: &[&[u8]]) -> (Vec<Vec<u8>>, u64, u64) {
        let (mut copies, mut rows, mut row_bytes) = (vec![Vec::new()], 0, 0);
        packing.begin();
        let mut take = |copies: &mut Vec<Vec<u8>>, chunk: Chunk| {
            copies.last_mut().unwrap().extend_from_slice(&chunk.bytes);
            rows += chunk.rows;
            row_bytes += chunk.row_bytes;
        };
        for piece in pieces {
            let mut left = *piece;
            while !left.is_empty() {
                let taken = packing.push(left).unwrap();
                assert!(taken > 0);
                left = &left[taken..];
                if packing.is_enough() {
                    take(&mut copies, packing.end());
                    copies.push(Vec::new());
                    packing.begin();
                } else if packing.has_chunk() {
                    take(&mut copies, packing.take());
                }
            }
        }
        packing.finish().unwrap();
        take(&mut copies, packing.end());
        (copies, rows, row_bytes)
    }

    proptest! {
        #[test]
        fn every_copy_into_the_target_is_a_whole_one_and_together_they_are_the_source_s(
            rows in rows(), lengths in prop::collection::vec(0_usize..60, 1..20),
            sizes in (1_usize..200, 1_u64..300), binary: bool,
        ) {
            let format = if binary { Format::Binary } else { Format::Text };
            let bytes = rows.source(format);
            let mut packing = Packing::with_sizes(format, rows.columns, sizes);
            let (copies, count, row_bytes) = pack(&mut packing, &cut(&bytes, &lengths));
            let mut all = Vec::new();
            for copy in &copies {
                let (head, tail) = (format.head(), format.tail());
                prop_assert!(copy.starts_with(head) && copy.ends_with(tail));
                let mut walk = Walk::new(format, rows.columns);
                let mut found = BytesMut::new();
                walk.walk(copy, false, &mut found).unwrap();
                prop_assert_eq!(walk.finish(), Ok(()));
                all.extend_from_slice(&found);
            }
            prop_assert_eq!(&all, &rows.body(format));
            prop_assert_eq!((count, row_bytes), (rows.count() as u64, all.len() as u64));
        }
    }

    #[test]
    fn a_copy_into_the_target_ends_when_it_has_had_enough() {
        for format in [Format::Text, Format::Binary] {
            let rows = Rows::of(1, vec![vec![Some(b"twelve bytes".to_vec())]; 100]);
            let body = rows.body(format).len() as u64;
            let mut packing = Packing::with_sizes(format, 1, (64, body / 4));
            let bytes = rows.source(format);
            let (copies, ..) = pack(&mut packing, &cut(&bytes, &[7]));
            assert!((4..8).contains(&copies.len()), "{}", copies.len());
        }
    }

    #[test]
    fn a_copy_ends_where_a_row_does_even_if_no_piece_does() {
        for format in [Format::Text, Format::Binary] {
            let value = vec![b'x'; 1000];
            let rows = Rows::of(1, vec![vec![Some(value)]; 100]);
            let mut packing = Packing::with_sizes(format, 1, (64, 2000));
            let bytes = rows.source(format);
            let (copies, ..) = pack(&mut packing, &cut(&bytes, &[61]));
            // Never more than what is enough, a row, and what comes before and behind all rows.
            let most = 2000 + rows.body(format).len() / 100 + 64;
            assert!(copies.len() > 10 && copies.iter().all(|copy| copy.len() < most), "{}", copies.len());
        }
    }

    #[test]
    fn no_rows_are_one_whole_copy() {
        for format in [Format::Text, Format::Binary] {
            let rows = Rows::of(3, Vec::new());
            let bytes = rows.source(format);
            let (copies, count, row_bytes) = pack(&mut Packing::new(format, 3), &cut(&bytes, &[5]));
            assert_eq!(copies, [[format.head(), format.tail()].concat()]);
            assert_eq!((count, row_bytes), (0, 0));
        }
    }
}
