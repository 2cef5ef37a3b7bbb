//! Random messages of every kind, for the tests of this crate.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use relevo_model::{Cell, OldRow, RelationId, ReplicaIdentity, Row, SourceLsn, Timestamp, Xid};
use relevo_pgoutput::{
    AbortPoint, ColumnDescription, Format, Message, Prepared, Protocol, RelationDescription, Streaming,
};

pub fn formats() -> impl Strategy<Value = Format> {
    (
        prop::sample::select(Protocol::ALL.to_vec()),
        prop::sample::select(vec![Streaming::Off, Streaming::On, Streaming::Parallel]),
    )
        .prop_map(|(protocol, streaming)| Format { protocol, streaming })
}

/// A message together with what is needed to read it: the format, and whether it stands in a stream block.
pub fn messages_in_context() -> impl Strategy<Value = (Format, bool, Message)> {
    (formats(), any::<bool>()).prop_flat_map(|(format, in_stream)| {
        let in_stream = in_stream && format.protocol >= Protocol::V2;
        messages(format, in_stream).prop_map(move |message| (format, in_stream, message))
    })
}

fn messages(format: Format, in_stream: bool) -> BoxedStrategy<Message> {
    let mut kinds = vec![transaction_frames().boxed(), content(in_stream).boxed()];
    if format.protocol >= Protocol::V2 {
        kinds.push(stream_frames(format.abort_point()).boxed());
    }
    if format.protocol >= Protocol::V3 {
        kinds.push(two_phase().boxed());
    }
    prop::strategy::Union::new(kinds).boxed()
}

fn lsns() -> impl Strategy<Value = SourceLsn> {
    any::<u64>().prop_map(SourceLsn::new)
}

fn times() -> impl Strategy<Value = Timestamp> {
    any::<i64>().prop_map(Timestamp::from_postgres_us)
}

fn xids() -> impl Strategy<Value = Xid> {
    any::<u32>().prop_map(Xid)
}

fn relation_ids() -> impl Strategy<Value = RelationId> {
    any::<u32>().prop_map(RelationId)
}

fn names() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z_]{0,12}", "[^\0]{0,8}"]
}

fn cells() -> impl Strategy<Value = Cell> {
    let values = || vec(any::<u8>(), 0..20).prop_map(Bytes::from);
    prop_oneof![
        Just(Cell::Null),
        Just(Cell::Unchanged),
        values().prop_map(Cell::Text),
        values().prop_map(Cell::Binary),
    ]
}

fn rows() -> impl Strategy<Value = Row> {
    vec(cells(), 0..6).prop_map(Row)
}

fn old_rows() -> impl Strategy<Value = OldRow> {
    (any::<bool>(), rows()).prop_map(|(key, row)| if key { OldRow::Key(row) } else { OldRow::Full(row) })
}

fn transaction_frames() -> impl Strategy<Value = Message> {
    prop_oneof![
        (lsns(), times(), xids()).prop_map(|(final_lsn, commit_time, xid)| Message::Begin {
            final_lsn,
            commit_time,
            xid
        }),
        (lsns(), lsns(), times()).prop_map(|(commit_lsn, end_lsn, commit_time)| Message::Commit {
            commit_lsn,
            end_lsn,
            commit_time
        }),
        (any::<u64>(), names()).prop_map(|(commit_lsn, name)| Message::Origin { commit_lsn, name }),
    ]
}

fn relations() -> impl Strategy<Value = RelationDescription> {
    let columns = (any::<bool>(), names(), any::<u32>(), any::<i32>()).prop_map(
        |(identity, name, type_oid, type_modifier)| ColumnDescription {
            identity,
            name,
            type_oid,
            type_modifier,
        },
    );
    let identities = vec![
        ReplicaIdentity::Default,
        ReplicaIdentity::Nothing,
        ReplicaIdentity::Full,
        ReplicaIdentity::Index,
    ];
    (relation_ids(), names(), names(), prop::sample::select(identities), vec(columns, 0..6)).prop_map(
        |(id, namespace, name, replica_identity, columns)| RelationDescription {
            id,
            namespace,
            name,
            replica_identity,
            columns,
        },
    )
}

fn content(in_stream: bool) -> impl Strategy<Value = Message> {
    let message = prop_oneof![
        relations().prop_map(|relation| Message::Relation { xid: None, relation }),
        (any::<u32>(), names(), names()).prop_map(|(type_oid, namespace, name)| Message::Type {
            xid: None,
            type_oid,
            namespace,
            name
        }),
        (relation_ids(), rows()).prop_map(|(relation, new)| Message::Insert { xid: None, relation, new }),
        (relation_ids(), option::of(old_rows()), rows()).prop_map(|(relation, old, new)| Message::Update {
            xid: None,
            relation,
            old,
            new
        }),
        (relation_ids(), old_rows()).prop_map(|(relation, old)| Message::Delete { xid: None, relation, old }),
        (any::<bool>(), any::<bool>(), vec(relation_ids(), 0..5)).prop_map(
            |(cascade, restart_identity, relations)| Message::Truncate {
                xid: None,
                cascade,
                restart_identity,
                relations
            }
        ),
        (any::<bool>(), lsns(), names(), vec(any::<u8>(), 0..20)).prop_map(
            |(transactional, lsn, prefix, content)| Message::Logical {
                xid: None,
                transactional,
                lsn,
                prefix,
                content: content.into()
            }
        ),
    ];
    (message, any::<u32>())
        .prop_map(move |(message, xid)| if in_stream { message.in_stream_of(Xid(xid)) } else { message })
}

fn stream_frames(abort_point: bool) -> impl Strategy<Value = Message> {
    let points =
        (lsns(), times()).prop_map(move |(lsn, time)| abort_point.then_some(AbortPoint { lsn, time }));
    prop_oneof![
        (xids(), any::<bool>()).prop_map(|(xid, first_segment)| Message::StreamStart { xid, first_segment }),
        Just(Message::StreamStop),
        (xids(), lsns(), lsns(), times()).prop_map(|(xid, commit_lsn, end_lsn, commit_time)| {
            Message::StreamCommit { xid, commit_lsn, end_lsn, commit_time }
        }),
        (xids(), xids(), points).prop_map(|(xid, subxid, at)| Message::StreamAbort { xid, subxid, at }),
    ]
}

fn two_phase() -> impl Strategy<Value = Message> {
    let prepared = || {
        (lsns(), lsns(), times(), xids(), names()).prop_map(
            |(prepare_lsn, end_lsn, prepare_time, xid, gid)| Prepared {
                prepare_lsn,
                end_lsn,
                prepare_time,
                xid,
                gid,
            },
        )
    };
    prop_oneof![
        prepared().prop_map(Message::BeginPrepare),
        prepared().prop_map(Message::Prepare),
        prepared().prop_map(Message::StreamPrepare),
        (lsns(), lsns(), times(), xids(), names()).prop_map(
            |(commit_lsn, end_lsn, commit_time, xid, gid)| {
                Message::CommitPrepared { commit_lsn, end_lsn, commit_time, xid, gid }
            }
        ),
        (lsns(), lsns(), times(), times(), xids(), names()).prop_map(
            |(prepare_end_lsn, rollback_end_lsn, prepare_time, rollback_time, xid, gid)| {
                Message::RollbackPrepared {
                    prepare_end_lsn,
                    rollback_end_lsn,
                    prepare_time,
                    rollback_time,
                    xid,
                    gid,
                }
            }
        ),
    ]
}
