//! The words of Relevo: positions, relations, changes, transactions, batches, and the two ports.
//!
//! This crate is for values that every other crate talks about and for the contract between a source and a
//! target. What may not enter: input and output, an async runtime, SQL, and any knowledge of how bytes look
//! on a wire.

mod batch;
mod change;
mod flow;
mod kinds;
mod lsn;
mod mark;
mod port;
mod relation;
mod time;

pub use batch::{Batch, Batcher, TransactionPart};
pub use change::{Cell, Change, OldRow, Origin, Row, TransactionHeader, Xid};
pub use flow::{FlowName, FlowNameError};
pub use kinds::{KINDS, is_kind};
pub use lsn::{LsnParseError, SourceLsn, TargetLsn};
pub use mark::{AppliedMark, NoAppliedMark, is_applied};
pub use port::{
    Ahead, AheadTarget, Applied, ChangeSource, ChangeTarget, Fault, FaultClass, Feedback, FlushProbe, HELD,
    Progress, Side, SourceEvent, SourceIdentity,
};
pub use relation::{Column, QualifiedName, Relation, RelationId, ReplicaIdentity, TypeName};
pub use time::Timestamp;
