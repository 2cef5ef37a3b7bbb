//! What can go wrong with transactions that are held until they end.

use std::fmt;
use std::path::PathBuf;

use relevo_model::{Fault, FaultClass, Side, Xid};
use relevo_spool::SpoolError;

/// How much is held of a transaction that still runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// The transaction, as `pg_stat_activity.backend_xid` of the source shows it.
    pub xid: Xid,
    /// What it takes of the spool, in bytes.
    pub spool_bytes: u64,
    /// What the source has sent of it, in bytes.
    pub sent_bytes: u64,
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} holds {} of the spool ({} uncompressed)",
            self.xid.0,
            Size(self.spool_bytes),
            Size(self.sent_bytes)
        )
    }
}

/// Running transactions could not be held.
#[derive(Debug, thiserror::Error)]
pub enum RunningError {
    /// They need more room than the spool may take.
    #[error(
        "the spool is full while transactions run on the source: transaction {largest}{}; {} of --spool-limit {} are in \
         use in {}. Raise --spool-limit and start Relevo again, or end the transaction on the source (SELECT pid, \
         usename, query FROM pg_stat_activity WHERE backend_xid = '{}'; if nobody has it, it has ended, and only more room \
         helps if it committed); the flow then goes on by itself",
        Others(.others), Size(*.used_bytes), Size(*.limit_bytes), .dir.display(), .largest.xid.0
    )]
    Full {
        /// The transaction that takes most.
        largest: Held,
        /// Those that take most after it.
        others: Vec<Held>,
        /// What the spool holds, with what is kept for tables that are being copied.
        used_bytes: u64,
        /// What it may hold.
        limit_bytes: u64,
        /// The spool's directory.
        dir: PathBuf,
    },
    /// The spool failed.
    #[error(
        "the spool failed: {source}. Mend its file system or its rights, or give another directory with --spool; the \
         source sends what was in it again"
    )]
    Spool {
        /// Why.
        #[from]
        source: SpoolError,
    },
    /// What was written to the spool is not what is read.
    #[error("a frame in the spool has only {length_bytes} bytes; please report this")]
    Short {
        /// Its length.
        length_bytes: usize,
    },
}

impl Fault for RunningError {
    fn class(&self) -> FaultClass {
        // The source sends all of it again, so nothing is lost; somebody, or the end of a transaction, makes room.
        FaultClass::Blocked
    }

    fn side(&self) -> Side {
        Side::Source
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Full { .. } => "spool_full",
            Self::Spool { .. } => "spool",
            Self::Short { .. } => "spool_content",
        }
    }
}

/// Bytes as people read them.
struct Size(u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
        let (mut whole, mut tenths, mut unit) = (self.0, 0, 0);
        while whole >= 1024 && unit + 1 < UNITS.len() {
            (whole, tenths, unit) = (whole / 1024, whole % 1024 * 10 / 1024, unit + 1);
        }
        let name = UNITS[unit];
        if tenths == 0 { write!(f, "{whole} {name}") } else { write!(f, "{whole}.{tenths} {name}") }
    }
}

/// Further transactions in a sentence.
struct Others<'a>(&'a [Held]);

impl fmt::Display for Others<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|held| write!(f, "; transaction {held}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_readable() {
        let shown: Vec<String> =
            [0, 1023, 1024, 1536, (1 << 20) - 1, 10 << 30].map(|bytes| Size(bytes).to_string()).into();
        assert_eq!(shown, ["0 B", "1023 B", "1 KiB", "1.5 KiB", "1023.9 KiB", "10 GiB"]);
    }
}
