//! WAL positions. A position on the source and a position on the target are different types on purpose.
//!
//! The two servers write independent WAL streams, so comparing an LSN of one with an LSN of the other is
//! always a bug, and one that only shows as lost changes. There is no conversion between the two types.

use std::fmt;
use std::str::FromStr;

/// The text was not an LSN such as `16/B374D848`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LsnParseError(String);

impl fmt::Display for LsnParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is not an LSN: expected two hexadecimal numbers, such as 16/B374D848", self.0)
    }
}

impl std::error::Error for LsnParseError {}

fn parse(text: &str) -> Result<u64, LsnParseError> {
    let error = || LsnParseError(text.to_owned());
    let (high, low) = text.split_once('/').ok_or_else(error)?;
    let part = |digits: &str| {
        let plain = (1..=8).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_hexdigit());
        if plain { u32::from_str_radix(digits, 16).map_err(|_| error()) } else { Err(error()) }
    };
    Ok((u64::from(part(high)?) << 32) | u64::from(part(low)?))
}

macro_rules! lsn {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(u64);

        impl $name {
            /// `0/0`, PostgreSQL's invalid position: earlier than every real one.
            pub const ZERO: Self = Self(0);

            /// The position at this byte of the WAL stream.
            #[must_use]
            pub const fn new(bytes: u64) -> Self {
                Self(bytes)
            }

            /// The byte of the WAL stream, as the protocol's `Int64` carries it.
            #[must_use]
            pub const fn as_u64(self) -> u64 {
                self.0
            }

            /// How many bytes of WAL lie between `earlier` and this position; 0 when `earlier` is not earlier.
            #[must_use]
            pub const fn bytes_since(self, earlier: Self) -> u64 {
                self.0.saturating_sub(earlier.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = LsnParseError;

            fn from_str(text: &str) -> Result<Self, LsnParseError> {
                parse(text).map(Self)
            }
        }
    };
}

lsn!(
    /// A position in the WAL of the source: the only kind that is ever confirmed to a slot.
    SourceLsn
);
lsn!(
    /// A position in the WAL of the target: only used to learn when a commit there has been flushed.
    TargetLsn
);

impl TargetLsn {
    /// The position that a flush must reach so that everything written before `pg_current_wal_insert_lsn()`
    /// returned `self` is durable.
    ///
    /// The insert position is where the *next* record starts. When the last record ended exactly at a page
    /// boundary the insert position already lies behind the header of the next page, which nobody flushes
    /// until another record is written; waiting for it would wait for ever on an idle server.
    /// (`XLogBytePosToRecPtr` against `XLogBytePosToEndRecPtr` in `access/transam/xlog.c`.)
    #[must_use]
    pub const fn flush_bound(self, block_bytes: u64, segment_bytes: u64) -> Self {
        const LONG_HEADER_BYTES: u64 = 40;
        const SHORT_HEADER_BYTES: u64 = 24;
        if self.0 % segment_bytes == LONG_HEADER_BYTES {
            Self(self.0 - LONG_HEADER_BYTES)
        } else if self.0 % block_bytes == SHORT_HEADER_BYTES {
            Self(self.0 - SHORT_HEADER_BYTES)
        } else {
            self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_round_trips() {
        for text in ["0/0", "16/B374D848", "FFFFFFFF/FFFFFFFF", "0/10"] {
            assert_eq!(text.parse::<SourceLsn>().unwrap().to_string(), text);
        }
        assert_eq!("1/0".parse::<TargetLsn>().unwrap().as_u64(), 1 << 32);
    }

    #[test]
    fn what_is_not_an_lsn_is_refused() {
        for text in ["", "0", "/", "0/", "/0", "+1/0", "0/1/2", "123456789/0", "g/0", " 0/0", "0/-1"] {
            assert!(text.parse::<SourceLsn>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn order_and_distance() {
        let (early, late) = (SourceLsn::new(100), SourceLsn::new(164));
        assert!(early < late);
        assert_eq!(late.bytes_since(early), 64);
        assert_eq!(early.bytes_since(late), 0);
    }

    #[test]
    fn an_insert_position_behind_a_page_header_is_flushed_at_the_boundary() {
        let (block, segment) = (8192, 16 << 20);
        let bound = |n| TargetLsn::new(n).flush_bound(block, segment).as_u64();
        assert_eq!(bound(8192 + 24), 8192);
        assert_eq!(bound((16 << 20) + 40), 16 << 20);
        assert_eq!(bound(8192 + 40), 8192 + 40);
        assert_eq!(bound(8192 + 96), 8192 + 96);
    }
}
