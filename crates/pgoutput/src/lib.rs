//! PostgreSQL's logical replication messages (the output of the plugin `pgoutput`), and the transactions that
//! they make up.
//!
//! [`Decoder`] turns the bytes of one message into a [`Message`], [`encode()`] is its exact inverse, and
//! [`Assembler`] turns the messages of one replication connection into transactions of `relevo_model`.
//! [`Options`] asks the server for it.
//!
//! Everything here is a function of bytes. What may not enter: sockets, an async runtime, a clock, SQL.

mod ahead;
mod assemble;
mod cursor;
mod decode;
mod encode;
mod error;
mod format;
mod message;
mod options;
mod relations;
mod stream;
mod transaction;

pub use assemble::{Assembler, Step};
pub use decode::{Decoder, decode};
pub use encode::{encode, encode_into};
pub use error::{AssembleError, DecodeError, DecodeProblem, EncodeError, Place};
pub use format::{Format, Protocol, Streaming};
pub use message::{AbortPoint, ColumnDescription, Message, Prepared, RelationDescription};
pub use options::{Options, OptionsError, OriginFilter};
pub use relations::RelationCache;
pub use stream::{MemoryFrames, MemoryStore, MemoryStoreError, StreamStore};
