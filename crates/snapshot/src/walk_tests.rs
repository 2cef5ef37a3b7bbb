//! Tests of walking over rows: any rows, cut anywhere, and bytes that are no rows.

use proptest::prelude::*;

use super::*;

/// Rows of a table, each with a value for each column.
#[derive(Debug, Clone)]
pub(crate) struct Rows {
    pub(crate) columns: usize,
    rows: Vec<Vec<Option<Vec<u8>>>>,
    /// The flags that a reader need not know, and what the extension area holds.
    flags: u16,
    extension: Vec<u8>,
}

impl Rows {
    pub(crate) fn of(columns: usize, rows: Vec<Vec<Option<Vec<u8>>>>) -> Self {
        Self { columns, rows, flags: 0, extension: Vec::new() }
    }

    pub(crate) fn count(&self) -> usize {
        self.rows.len()
    }

    /// The bytes of each row.
    fn bodies(&self, format: Format) -> Vec<Vec<u8>> {
        let row = |row: &Vec<Option<Vec<u8>>>| match format {
            Format::Text => {
                let field = |field: &Option<Vec<u8>>| {
                    field.as_ref().map_or("\\N".to_owned(), |bytes| format!("{bytes:?}"))
                };
                (row.iter().map(field).collect::<Vec<_>>().join("\t") + "\n").into_bytes()
            }
            Format::Binary => {
                let mut bytes = i16::try_from(row.len()).unwrap().to_be_bytes().to_vec();
                for field in row {
                    let length = field.as_ref().map_or(-1, |value| i32::try_from(value.len()).unwrap());
                    bytes.extend_from_slice(&length.to_be_bytes());
                    bytes.extend_from_slice(field.as_deref().unwrap_or_default());
                }
                bytes
            }
        };
        self.rows.iter().map(row).collect()
    }

    pub(crate) fn body(&self, format: Format) -> Vec<u8> {
        self.bodies(format).concat()
    }

    /// What the source sends.
    pub(crate) fn source(&self, format: Format) -> Vec<u8> {
        if format == Format::Text {
            return self.body(format);
        }
        let extension = i32::try_from(self.extension.len()).unwrap().to_be_bytes();
        let flags = u32::from(self.flags).to_be_bytes();
        [&SIGNATURE[..], &flags, &extension, &self.extension, &self.body(format), format.tail()].concat()
    }
}

pub(crate) fn rows() -> impl Strategy<Value = Rows> {
    // Bytes of which counts and lengths are made, too.
    let byte = prop_oneof![Just(0_u8), Just(0xff), Just(b'\n'), any::<u8>()];
    let value = prop::option::weighted(0.8, prop::collection::vec(byte.clone(), 0..40));
    let extension = prop_oneof![3 => Just(Vec::new()), 1 => prop::collection::vec(byte, 0..40)];
    (0_usize..6, any::<u16>(), extension).prop_flat_map(move |(columns, flags, extension)| {
        let row = prop::collection::vec(value.clone(), columns);
        prop::collection::vec(row, 0..30).prop_map(move |rows| Rows {
            columns,
            rows,
            flags,
            extension: extension.clone(),
        })
    })
}

/// Cuts into pieces of these lengths, over and over; some may be empty.
pub(crate) fn cut<'b>(bytes: &'b [u8], lengths: &[usize]) -> Vec<&'b [u8]> {
    let (mut rest, mut pieces) = (bytes, Vec::new());
    for length in lengths.iter().cycle() {
        // All lengths may be zero.
        let length = if pieces.len() > 2 * bytes.len() { rest.len() } else { *length };
        let (piece, later) = rest.split_at(length.min(rest.len()));
        pieces.push(piece);
        rest = later;
        if rest.is_empty() {
            return pieces;
        }
    }
    pieces
}

/// Walks over the pieces to the end. Returns the rows' bytes and how many rows there were, or what is wrong.
fn walk(walk: &mut Walk, pieces: &[&[u8]]) -> Result<(Vec<u8>, u64), String> {
    let (mut out, mut count) = (BytesMut::new(), 0);
    for piece in pieces {
        count += walk.walk(piece, false, &mut out)?.1;
    }
    walk.finish()?;
    Ok((out.to_vec(), count))
}

fn binary(columns: usize, bytes: &[u8]) -> Result<(Vec<u8>, u64), String> {
    walk(&mut Walk::new(Format::Binary, columns), &[bytes])
}

proptest! {
    #[test]
    fn rows_are_found_wherever_the_bytes_are_cut(
        rows in rows(), lengths in prop::collection::vec(0_usize..60, 1..20), is_binary: bool,
    ) {
        let format = if is_binary { Format::Binary } else { Format::Text };
        let mut ends = vec![0];
        for body in rows.bodies(format) {
            ends.push(ends.last().unwrap() + body.len());
        }
        let source = rows.source(format);
        let mut walk = Walk::new(format, rows.columns);
        let (mut out, mut count) = (BytesMut::new(), 0);
        for piece in cut(&source, &lengths) {
            let (gone, ended) = walk.walk(piece, false, &mut out).unwrap();
            prop_assert_eq!(gone, piece.len());
            count += ended;
            let ended = ends.iter().position(|end| *end == out.len());
            if walk.is_between_rows() {
                prop_assert_eq!(ended, Some(usize::try_from(count).unwrap()));
            } else {
                // It may not have been seen yet that the first row begins.
                prop_assert!(ended.is_none() || out.is_empty(), "not noticed that a row ended");
            }
        }
        prop_assert_eq!(walk.finish(), Ok(()));
        prop_assert_eq!((out.to_vec(), count), (rows.body(format), rows.count() as u64));
    }

    #[test]
    fn every_row_can_be_stopped_at(
        rows in rows(), lengths in prop::collection::vec(0_usize..60, 1..20), is_binary: bool,
    ) {
        let format = if is_binary { Format::Binary } else { Format::Text };
        let source = rows.source(format);
        let mut walk = Walk::new(format, rows.columns);
        let (mut out, mut bodies) = (BytesMut::new(), Vec::new());
        for mut piece in cut(&source, &lengths) {
            while !piece.is_empty() {
                let (gone, ended) = walk.walk(piece, true, &mut out).unwrap();
                prop_assert!(gone > 0 && ended <= 1);
                if ended == 1 {
                    prop_assert!(walk.is_between_rows());
                    bodies.push(out.split().to_vec());
                }
                piece = &piece[gone..];
            }
        }
        prop_assert_eq!(walk.finish(), Ok(()));
        prop_assert!(out.is_empty());
        prop_assert_eq!(bodies, rows.bodies(format));
    }

    #[test]
    fn rows_that_break_off_are_an_error(rows in rows(), at: prop::sample::Index) {
        let source = rows.source(Format::Binary);
        prop_assert!(binary(rows.columns, &source[..at.index(source.len())]).is_err());
    }

    #[test]
    fn whatever_comes_is_found_to_be_rows_or_an_error(
        rows in rows(), changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        lengths in prop::collection::vec(0_usize..60, 1..20), more in prop::collection::vec(any::<u8>(), 0..8),
    ) {
        let mut source = rows.source(Format::Binary);
        for (at, byte) in &changes {
            let at = at.index(source.len());
            source[at] = *byte;
        }
        source.extend_from_slice(&more);
        let whole = binary(rows.columns, &source);
        // The same however it is cut; and what is taken for rows is what was sent.
        let in_pieces = walk(&mut Walk::new(Format::Binary, rows.columns), &cut(&source, &lengths));
        prop_assert_eq!(whole.is_ok(), in_pieces.is_ok());
        if let (Ok(whole), Ok(in_pieces)) = (whole, in_pieces) {
            prop_assert_eq!(&whole, &in_pieces);
            prop_assert!(source.ends_with(&[&whole.0[..], Format::Binary.tail()].concat()));
        }
    }
}

#[test]
fn malformed_rows_are_told_by_what_is_wrong_with_them() {
    let header = Format::Binary.head();
    let row = [0, 1, 0, 0, 0, 2, b'a', b'b'];
    let says = |columns: usize, parts: &[&[u8]], what: &str| {
        let error = binary(columns, &parts.concat()).unwrap_err();
        assert!(error.contains(what), "{error}");
    };
    assert_eq!(binary(1, &[header, &row, &[255, 255]].concat()), Ok((row.to_vec(), 1)));
    says(1, &[b"a line of text, which is not binary\n"], "signature");
    says(1, &[SIGNATURE, &[0, 1, 0, 0, 0, 0, 0, 0]], "flags that are not known: 0x00010000");
    says(1, &[SIGNATURE, &[0, 0, 0, 0, 255, 255, 255, 255]], "length of their header");
    says(2, &[header, &row], "a row has 1 fields instead of 2");
    says(1, &[header, &[255, 254]], "a row has -2 fields");
    says(1, &[header, &[0, 1, 255, 255, 255, 254]], "a length of -2 bytes");
    says(1, &[header, &row, &[255, 255], &[0]], "behind the format's trailer");
    says(1, &[header, &row], "without the format's trailer");
    says(1, &[header, &row, &[255]], "without the format's trailer");
    says(1, &[], "without the format's trailer");
    let mut over = Walk::new(Format::Binary, 1);
    over.walk(&[header, &[255, 255]].concat(), false, &mut BytesMut::new()).unwrap();
    over.walk(&[], false, &mut BytesMut::new()).unwrap();
    assert!(over.walk(&[255], false, &mut BytesMut::new()).unwrap_err().contains("behind"));
    let mut text = Walk::new(Format::Text, 1);
    assert!(walk(&mut text, &[b"a\n", b"b"]).unwrap_err().contains("line feed"));
}

#[test]
fn lines_are_counted_over_any_length() {
    for length in [0, 1, 254, 255, 256, 100_000] {
        assert_eq!(line_feeds(&vec![b'\n'; length]), length as u64);
        assert_eq!(line_feeds(&vec![b'x'; length]), 0);
    }
    let mut text = Walk::new(Format::Text, 2);
    assert_eq!(walk(&mut text, &[b"1\ta\\nb\n2\t", b"\\N\n\n"]), Ok((b"1\ta\\nb\n2\t\\N\n\n".to_vec(), 3)));
}
