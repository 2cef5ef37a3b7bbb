//! Rows in the text format of COPY (manual, *COPY*, "Text Format").
//!
//! What may not enter: when rows go by COPY; the statement itself is built with the others.

use bytes::{BufMut, BytesMut};
use relevo_model::{Cell, Row};

/// Whether COPY's text format can carry the row: no value in binary form, and none that was not sent.
pub(crate) fn carries(row: &Row) -> bool {
    row.0.iter().all(|cell| matches!(cell, Cell::Null | Cell::Text(_)))
}

/// Appends the cells of a row as one line. Only rows that it [`carries`] are passed.
pub(crate) fn put_row<'c>(cells: impl Iterator<Item = &'c Cell>, out: &mut BytesMut) {
    for (index, cell) in cells.enumerate() {
        if index > 0 {
            out.put_u8(b'\t');
        }
        match cell {
            Cell::Text(bytes) => put_escaped(bytes, out),
            Cell::Null | Cell::Unchanged | Cell::Binary(_) => out.put_slice(b"\\N"),
        }
    }
    out.put_u8(b'\n');
}

/// Backslash, tab, newline and carriage return get a backslash; everything else stands for itself. With every
/// backslash doubled, neither `\N` nor the end marker `\.` can arise from a value.
fn put_escaped(value: &[u8], out: &mut BytesMut) {
    out.reserve(value.len() + 1);
    let mut plain_from = 0;
    for (at, byte) in value.iter().enumerate() {
        let escaped = match byte {
            b'\\' => b'\\',
            b'\t' => b't',
            b'\n' => b'n',
            b'\r' => b'r',
            _ => continue,
        };
        out.put_slice(&value[plain_from..at]);
        out.put_slice(&[b'\\', escaped]);
        plain_from = at + 1;
    }
    out.put_slice(&value[plain_from..]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use proptest::prelude::*;

    /// What the server does with a line (`CopyReadAttributesText`, `commands/copyfromparse.c`), as far as this
    /// module's output uses it.
    fn read_back(line: &[u8]) -> Vec<Cell> {
        let body = line.strip_suffix(b"\n").unwrap();
        assert!(!body.contains(&b'\n') && !body.contains(&b'\r'), "one row is one line");
        assert_ne!(body, b"\\.", "a row is not the end marker");
        body.split(|byte| *byte == b'\t')
            .map(|field| {
                if field == b"\\N" {
                    return Cell::Null;
                }
                let mut bytes = Vec::new();
                let mut rest = field.iter();
                while let Some(byte) = rest.next() {
                    bytes.push(match byte {
                        b'\\' => match rest.next().unwrap() {
                            b't' => b'\t',
                            b'n' => b'\n',
                            b'r' => b'\r',
                            other => *other,
                        },
                        other => *other,
                    });
                }
                Cell::Text(Bytes::from(bytes))
            })
            .collect()
    }

    fn cell() -> impl Strategy<Value = Cell> {
        let nasty = prop::collection::vec(
            prop_oneof![
                Just(b'\\'),
                Just(b'\t'),
                Just(b'\n'),
                Just(b'\r'),
                Just(b'N'),
                Just(b'.'),
                any::<u8>()
            ],
            0..20,
        );
        prop_oneof![Just(Cell::Null), nasty.prop_map(|bytes| Cell::Text(Bytes::from(bytes)))]
    }

    proptest! {
        #[test]
        fn every_row_reads_back_as_it_was(cells in prop::collection::vec(cell(), 1..8)) {
            let mut out = BytesMut::new();
            put_row(cells.iter(), &mut out);
            prop_assert_eq!(read_back(&out), cells);
        }
    }

    #[test]
    fn the_end_marker_and_the_null_marker_can_be_values() {
        let mut out = BytesMut::new();
        put_row([Cell::Text(Bytes::from_static(b"\\."))].iter(), &mut out);
        put_row([Cell::Text(Bytes::from_static(b"\\N")), Cell::Null].iter(), &mut out);
        assert_eq!(&out[..], b"\\\\.\n\\\\N\t\\N\n");
    }

    #[test]
    fn binary_and_unsent_values_do_not_go_by_copy() {
        assert!(carries(&Row(vec![Cell::Null, Cell::Text(Bytes::new())])));
        assert!(!carries(&Row(vec![Cell::Binary(Bytes::new())])));
        assert!(!carries(&Row(vec![Cell::Unchanged])));
    }
}
