//! Rows as one parameter: the text of an array of the table's row type (manual, *Arrays*, "Array Input and Output
//! Syntax", and *Composite Types*, "Composite Type Input and Output Syntax").
//!
//! Each value is read by its own type's input function, with the column's modifier, exactly as when it is a parameter
//! of its own. So any type goes, arrays and composites too. What may not enter: which rows go together.

use bytes::{BufMut, Bytes, BytesMut};
use relevo_model::Cell;

/// An array that grows by rows.
#[derive(Debug)]
pub(crate) struct Records {
    out: BytesMut,
    rows: u64,
}

impl Records {
    pub(crate) fn new() -> Self {
        Self { out: BytesMut::from(&b"{"[..]), rows: 0 }
    }

    /// Adds a row. `cells` are those of the table's columns in their order; without one, or with one that was not sent, the
    /// field is NULL.
    pub(crate) fn push<'c>(&mut self, cells: impl Iterator<Item = Option<&'c Cell>>) {
        let out = &mut self.out;
        out.put_slice(if self.rows == 0 { b"\"(" } else { b",\"(" });
        for (index, cell) in cells.enumerate() {
            if index > 0 {
                out.put_u8(b',');
            }
            if let Some(Cell::Text(bytes) | Cell::Binary(bytes)) = cell {
                put_field(bytes, out);
            }
        }
        out.put_slice(b")\"");
        self.rows += 1;
    }

    /// How many rows it holds.
    pub(crate) fn rows(&self) -> u64 {
        self.rows
    }

    /// The text.
    pub(crate) fn finish(mut self) -> Bytes {
        self.out.put_u8(b'}');
        self.out.freeze()
    }
}

/// A field of a record within a quoted element of an array: what the record doubles, the array puts a backslash before.
fn put_field(value: &[u8], out: &mut BytesMut) {
    let special = |byte: &u8| matches!(byte, b'"' | b'\\' | b',' | b'(' | b')');
    if !value.is_empty() && !value.iter().any(special) {
        out.put_slice(value);
        return;
    }
    out.put_slice(b"\\\"");
    let mut plain_from = 0;
    for (at, byte) in value.iter().enumerate() {
        let escaped: &[u8] = match byte {
            b'"' => b"\\\"\\\"",
            b'\\' => b"\\\\\\\\",
            _ => continue,
        };
        out.put_slice(&value[plain_from..at]);
        out.put_slice(escaped);
        plain_from = at + 1;
    }
    out.put_slice(&value[plain_from..]);
    out.put_slice(b"\\\"");
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The elements of an array all of whose elements are quoted (`ReadArrayStr`, `utils/adt/arrayfuncs.c`).
    fn read_array(text: &[u8]) -> Vec<Vec<u8>> {
        let mut rest = text.strip_prefix(b"{").unwrap().strip_suffix(b"}").unwrap();
        let mut elements = Vec::new();
        while !rest.is_empty() {
            if !elements.is_empty() {
                rest = rest.strip_prefix(b",").unwrap();
            }
            rest = rest.strip_prefix(b"\"").unwrap();
            let mut element = Vec::new();
            loop {
                let (byte, after) = rest.split_first().unwrap();
                rest = after;
                match byte {
                    b'"' => break,
                    b'\\' => {
                        element.push(rest[0]);
                        rest = &rest[1..];
                    }
                    other => element.push(*other),
                }
            }
            elements.push(element);
        }
        elements
    }

    /// The fields of a record (`record_in`, `utils/adt/rowtypes.c`).
    fn read_record(text: &[u8]) -> Vec<Option<Vec<u8>>> {
        let mut rest = text.strip_prefix(b"(").unwrap();
        let mut fields = Vec::new();
        loop {
            if rest[0] == b',' || rest[0] == b')' {
                fields.push(None);
            } else {
                let (mut field, mut quoted) = (Vec::new(), false);
                while quoted || (rest[0] != b',' && rest[0] != b')') {
                    match rest[0] {
                        b'\\' => {
                            field.push(rest[1]);
                            rest = &rest[1..];
                        }
                        b'"' if !quoted => quoted = true,
                        b'"' if rest[1] == b'"' => {
                            field.push(b'"');
                            rest = &rest[1..];
                        }
                        b'"' => quoted = false,
                        other => field.push(other),
                    }
                    rest = &rest[1..];
                }
                fields.push(Some(field));
            }
            if rest[0] == b')' {
                assert_eq!(rest, b")");
                return fields;
            }
            rest = &rest[1..];
        }
    }

    fn cell() -> impl Strategy<Value = Option<Vec<u8>>> {
        let bytes = prop::collection::vec(
            prop_oneof![
                prop::sample::select(b"\"\\,(){} \t\nN\0"[..11].to_vec()),
                prop::sample::select(b"abc0".to_vec()),
            ],
            0..8,
        );
        prop::option::of(bytes)
    }

    proptest! {
        #[test]
        fn rows_are_read_as_they_were(rows in prop::collection::vec(prop::collection::vec(cell(), 2..5), 0..5)) {
            let mut records = Records::new();
            for row in &rows {
                let cells: Vec<Cell> = row
                    .iter()
                    .map(|cell| cell.as_ref().map_or(Cell::Null, |bytes| Cell::Text(Bytes::copy_from_slice(bytes))))
                    .collect();
                records.push(cells.iter().map(Some));
            }
            prop_assert_eq!(records.rows(), rows.len() as u64);
            let read: Vec<_> = read_array(&records.finish()).iter().map(|record| read_record(record)).collect();
            prop_assert_eq!(read, rows);
        }
    }

    #[test]
    fn what_is_not_there_is_null() {
        let mut records = Records::new();
        let (a, b) = (Cell::Text(Bytes::from_static(b"1")), Cell::Text(Bytes::new()));
        records.push([None, Some(&a), Some(&Cell::Unchanged), Some(&b)].into_iter());
        assert_eq!(&records.finish()[..], br#"{"(,1,,\"\")"}"#);
    }
}
