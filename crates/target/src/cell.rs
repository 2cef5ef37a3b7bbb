//! Cells as statement parameters and as text for people. The bytes of a value go out exactly as they came in.
//!
//! What may not enter: any knowledge of what a value means. There is no parsing here, and no formatting of one.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;

use bytes::{BufMut, BytesMut};
use relevo_model::Cell;
use tokio_postgres::types::{Format, IsNull, ToSql, Type};

/// How much of one value a message to people shows, in characters.
const SHOWN_CHARS: usize = 100;

/// A cell as a parameter: whatever the type, its own bytes in its own format.
pub(crate) struct RawCell<'a>(pub(crate) Cow<'a, Cell>);

impl fmt::Debug for RawCell<'_> {
    /// Without the value: the driver's debug log prints parameters, and they are the users' data.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.0 {
            Cell::Null => f.write_str("NULL"),
            Cell::Unchanged => f.write_str("unchanged"),
            Cell::Text(bytes) => write!(f, "text of {} bytes", bytes.len()),
            Cell::Binary(bytes) => write!(f, "binary of {} bytes", bytes.len()),
        }
    }
}

impl ToSql for RawCell<'_> {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        match &*self.0 {
            Cell::Null => Ok(IsNull::Yes),
            Cell::Text(bytes) | Cell::Binary(bytes) => {
                out.put_slice(bytes);
                Ok(IsNull::No)
            }
            // Sending NULL here would overwrite a value that the source never sent.
            Cell::Unchanged => Err("an unchanged out-of-line value was used as a parameter".into()),
        }
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn encode_format(&self, _: &Type) -> Format {
        match &*self.0 {
            Cell::Binary(_) => Format::Binary,
            Cell::Null | Cell::Unchanged | Cell::Text(_) => Format::Text,
        }
    }

    fn to_sql_checked(&self, ty: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        self.to_sql(ty, out)
    }
}

/// The cell for a message: its text, cut short.
pub(crate) fn shown(cell: &Cell) -> String {
    match cell {
        Cell::Null => "NULL".to_owned(),
        Cell::Unchanged => "(unchanged)".to_owned(),
        Cell::Text(bytes) => shorten(&String::from_utf8_lossy(bytes)),
        Cell::Binary(bytes) => {
            let hex: String = bytes.iter().take(SHOWN_CHARS / 2).map(|byte| format!("{byte:02x}")).collect();
            let rest = if bytes.len() > SHOWN_CHARS / 2 { "…" } else { "" };
            format!("\\x{hex}{rest}")
        }
    }
}

fn shorten(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn sent(cell: &Cell) -> (Option<Vec<u8>>, bool) {
        let mut out = BytesMut::new();
        let raw = RawCell(Cow::Borrowed(cell));
        let null = raw.to_sql_checked(&Type::INT4, &mut out).unwrap();
        let binary = matches!(raw.encode_format(&Type::INT4), Format::Binary);
        (matches!(null, IsNull::No).then(|| out.to_vec()), binary)
    }

    #[test]
    fn bytes_go_out_as_they_came_in_whatever_the_type() {
        assert_eq!(sent(&Cell::Text(Bytes::from_static(b"  007"))), (Some(b"  007".to_vec()), false));
        assert_eq!(sent(&Cell::Binary(Bytes::from_static(b"\0\x01"))), (Some(b"\0\x01".to_vec()), true));
        assert_eq!(sent(&Cell::Text(Bytes::new())), (Some(Vec::new()), false));
        assert_eq!(sent(&Cell::Null), (None, false));
    }

    #[test]
    fn an_unchanged_value_is_never_sent_as_null() {
        let raw = RawCell(Cow::Owned(Cell::Unchanged));
        assert!(raw.to_sql_checked(&Type::TEXT, &mut BytesMut::new()).is_err());
    }

    #[test]
    fn messages_cut_long_values_at_a_character() {
        let long = Cell::Text(Bytes::from("ä".repeat(150)));
        assert_eq!(shown(&long), format!("{}…", "ä".repeat(100)));
        assert_eq!(shown(&Cell::Text(Bytes::from("ä".repeat(100)))), "ä".repeat(100));
        assert_eq!(shown(&Cell::Binary(Bytes::from_static(&[0, 255]))), "\\x00ff");
    }

    #[test]
    fn the_drivers_debug_log_shows_no_values() {
        let secret = Cell::Text(Bytes::from_static(b"hunter2"));
        assert_eq!(format!("{:?}", RawCell(Cow::Owned(secret))), "text of 7 bytes");
    }
}
