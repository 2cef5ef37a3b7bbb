//! What both ends have agreed on about the messages: protocol version and streaming.

use std::fmt;

/// A version of the logical replication protocol
/// (manual, *Logical Streaming Replication Parameters*: `proto_version`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// PostgreSQL 10: whole transactions.
    V1,
    /// PostgreSQL 14: in-progress transactions may be streamed.
    V2,
    /// PostgreSQL 15: transactions may be sent when they are prepared.
    V3,
    /// PostgreSQL 16: a streamed abort may say where and when it happened, so that it can be applied in parallel.
    V4,
}

impl Protocol {
    /// Every version, lowest first.
    pub const ALL: [Self; 4] = [Self::V1, Self::V2, Self::V3, Self::V4];

    /// The highest version that a server speaks. Argument: its `server_version_num`, such as 150018.
    #[must_use]
    pub const fn highest(server_version_num: u32) -> Self {
        match server_version_num / 10_000 {
            0..=13 => Self::V1,
            14 => Self::V2,
            15 => Self::V3,
            _ => Self::V4,
        }
    }

    /// The number, as `proto_version` takes it.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::V1 => 1,
            Self::V2 => 2,
            Self::V3 => 3,
            Self::V4 => 4,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.number().fmt(f)
    }
}

/// Whether the server may send large transactions before they end (the option `streaming`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Streaming {
    /// Every transaction is sent whole, after its commit.
    #[default]
    Off,
    /// Large ones are sent in blocks while they run. Needs protocol 2.
    On,
    /// As `On`, and aborts carry their LSN and time. Needs protocol 4.
    Parallel,
}

/// What decides how the bytes of a message are to be read, for the whole of one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Format {
    /// The protocol version asked for.
    pub protocol: Protocol,
    /// The kind of streaming asked for.
    pub streaming: Streaming,
}

impl Format {
    /// Whether a Stream Abort message carries the abort's LSN and time.
    #[must_use]
    pub const fn abort_point(self) -> bool {
        matches!((self.protocol, self.streaming), (Protocol::V4, Streaming::Parallel))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_server_is_asked_for_the_highest_protocol_that_it_speaks() {
        let cases = [
            (100_023, Protocol::V1),
            (130_000, Protocol::V1),
            (140_000, Protocol::V2),
            (149_999, Protocol::V2),
            (150_018, Protocol::V3),
            (160_000, Protocol::V4),
            (170_010, Protocol::V4),
            (180_004, Protocol::V4),
        ];
        for (version, protocol) in cases {
            assert_eq!(Protocol::highest(version), protocol, "{version}");
        }
    }
}
