//! What the assembler makes of messages in order, and what it refuses.

#![expect(clippy::unwrap_used, reason = "helpers of a test")]

use std::error::Error;
use std::sync::Arc;

use bytes::Bytes;
use relevo_model::{
    Ahead, Cell, Change, OldRow, Origin, Relation, RelationId, ReplicaIdentity, Row, SourceLsn, Timestamp,
    TransactionPart, TypeName, Xid,
};
use relevo_pgoutput::{
    AssembleError, Assembler, ColumnDescription, Format, MemoryStore, Message, Place, Prepared, Protocol,
    RelationDescription, Step, Streaming, encode,
};

const FORMAT: Format = Format { protocol: Protocol::V4, streaming: Streaming::On };

fn assembler(part_bytes: usize) -> Assembler {
    Assembler::new(FORMAT, part_bytes, MemoryStore::new(1 << 20))
}

fn feed(assembler: &mut Assembler, message: &Message) -> Result<Vec<TransactionPart>, AssembleError> {
    assembler.feed(&encode(message).unwrap())?;
    let mut parts = Vec::new();
    while let Some(part) = assembler.next_part()? {
        parts.push(part);
    }
    Ok(parts)
}

fn feed_all<'a>(
    assembler: &mut Assembler,
    messages: impl IntoIterator<Item = &'a Message>,
) -> Result<Vec<TransactionPart>, AssembleError> {
    let mut parts = Vec::new();
    for message in messages {
        parts.extend(feed(assembler, message)?);
    }
    Ok(parts)
}

/// The error of the last message; all before it are in order.
fn refused(messages: &[Message]) -> AssembleError {
    let mut assembler = assembler(usize::MAX);
    let (last, before) = messages.split_last().unwrap();
    feed_all(&mut assembler, before).unwrap();
    let error = feed(&mut assembler, last).unwrap_err();
    assert!(
        matches!(feed(&mut assembler, last), Err(AssembleError::Failed)),
        "an error must be the last word"
    );
    error
}

fn begin(xid: u32, final_lsn: u64) -> Message {
    Message::Begin {
        final_lsn: SourceLsn::new(final_lsn),
        commit_time: Timestamp::from_postgres_us(5),
        xid: Xid(xid),
    }
}

fn commit(commit_lsn: u64) -> Message {
    Message::Commit {
        commit_lsn: SourceLsn::new(commit_lsn),
        end_lsn: SourceLsn::new(commit_lsn + 8),
        commit_time: Timestamp::from_postgres_us(5),
    }
}

fn start(xid: u32, first_segment: bool) -> Message {
    Message::StreamStart { xid: Xid(xid), first_segment }
}

fn stream_commit(xid: u32, commit_lsn: u64) -> Message {
    Message::StreamCommit {
        xid: Xid(xid),
        commit_lsn: SourceLsn::new(commit_lsn),
        end_lsn: SourceLsn::new(commit_lsn + 8),
        commit_time: Timestamp::from_postgres_us(5),
    }
}

fn abort(xid: u32, subxid: u32) -> Message {
    Message::StreamAbort { xid: Xid(xid), subxid: Xid(subxid), at: None }
}

fn origin() -> Message {
    Message::Origin { commit_lsn: 77, name: "far".to_owned() }
}

fn describe(xid: Option<u32>, columns: &[&str]) -> Message {
    let columns = columns.iter().map(|name| ColumnDescription {
        identity: *name == "id",
        name: (*name).to_owned(),
        type_oid: 20_000,
        type_modifier: -1,
    });
    Message::Relation {
        xid: xid.map(Xid),
        relation: RelationDescription {
            id: RelationId(1),
            namespace: "public".to_owned(),
            name: "t".to_owned(),
            replica_identity: ReplicaIdentity::Default,
            columns: columns.collect(),
        },
    }
}

fn row(values: &[&str]) -> Row {
    Row(values.iter().map(|value| Cell::Text(Bytes::copy_from_slice(value.as_bytes()))).collect())
}

fn insert(xid: Option<u32>, values: &[&str]) -> Message {
    Message::Insert { xid: xid.map(Xid), relation: RelationId(1), new: row(values) }
}

fn logical(transactional: bool) -> Message {
    Message::Logical {
        xid: None,
        transactional,
        lsn: SourceLsn::new(3),
        prefix: "p".to_owned(),
        content: Bytes::new(),
    }
}

/// The inserted rows and the names of their columns.
fn inserted(parts: &[TransactionPart]) -> Vec<(Vec<&str>, &Row)> {
    let changes = parts.iter().flat_map(|part| &part.changes);
    changes
        .map(|change| match change {
            Change::Insert { relation, new } => (column_names(relation), new),
            other => panic!("{other:?}"),
        })
        .collect()
}

fn column_names(relation: &Relation) -> Vec<&str> {
    relation.columns.iter().map(|column| column.name.as_str()).collect()
}

#[test]
fn a_small_transaction_is_one_part() {
    let mut assembler = assembler(1 << 20);
    let messages =
        [begin(9, 100), origin(), describe(None, &["id"]), insert(None, &["1"]), insert(None, &["2"])];
    assert!(!assembler.in_transaction());
    assert!(feed_all(&mut assembler, &messages).unwrap().is_empty());
    assert!(assembler.in_transaction());
    let parts = feed(&mut assembler, &commit(100)).unwrap();
    assert!(!assembler.in_transaction());
    let [part] = &parts[..] else { panic!("{parts:?}") };
    assert!(part.first);
    assert_eq!(part.end, Some(SourceLsn::new(108)));
    assert_eq!(part.header.xid, Xid(9));
    assert_eq!(part.header.commit_lsn, SourceLsn::new(100));
    assert_eq!(part.header.commit_time, Timestamp::from_postgres_us(5));
    assert_eq!(part.header.origin, Some(Origin { name: "far".to_owned(), commit_lsn: 77 }));
    assert_eq!(part.size_bytes, part.changes.iter().map(Change::size_bytes).sum::<usize>());
    assert_eq!(inserted(&parts), [(vec!["id"], &row(&["1"])), (vec!["id"], &row(&["2"]))]);
}

#[test]
fn a_large_transaction_comes_in_parts_as_it_arrives() {
    let mut assembler = assembler(1);
    let mut messages = vec![begin(9, 100), describe(None, &["id"])];
    messages.extend(["1", "2", "3"].map(|value| insert(None, &[value])));
    let mut parts = feed_all(&mut assembler, &messages).unwrap();
    assert_eq!(parts.len(), 2, "all but the last change have been given");
    parts.extend(feed(&mut assembler, &commit(100)).unwrap());
    let shape: Vec<_> =
        parts.iter().map(|part| (part.first, part.changes.len(), part.end.is_some())).collect();
    assert_eq!(shape, [(true, 1, false), (false, 1, false), (false, 1, true)]);
}

#[test]
fn empty_transactions_move_the_position() {
    let mut assembler = assembler(1 << 20);
    let messages = [begin(9, 100), commit(100), start(10, true), Message::StreamStop, stream_commit(10, 108)];
    let parts = feed_all(&mut assembler, &messages).unwrap();
    let shape: Vec<_> = parts.iter().map(|part| (part.first, part.changes.len(), part.end)).collect();
    assert_eq!(shape, [(true, 0, Some(SourceLsn::new(108))), (true, 0, Some(SourceLsn::new(116)))]);
}

#[test]
fn descriptions_become_relations() {
    let mut assembler = assembler(1 << 20);
    let name_type = |namespace: &str| Message::Type {
        xid: None,
        type_oid: 20_000,
        namespace: namespace.to_owned(),
        name: "mood".to_owned(),
    };
    feed_all(&mut assembler, &[begin(9, 100), name_type("app"), describe(None, &["id", "v"])]).unwrap();
    let known = Arc::clone(assembler.relations().get(RelationId(1)).unwrap());
    assert_eq!(known.to_string(), "public.t");
    assert_eq!(known.columns.iter().map(|column| column.identity).collect::<Vec<_>>(), [true, false]);
    let mood = TypeName { schema: "app".to_owned(), name: "mood".to_owned() };
    assert_eq!(known.columns[1].type_name.as_ref(), Some(&mood));

    feed(&mut assembler, &describe(None, &["id", "v"])).unwrap();
    assert!(Arc::ptr_eq(&known, assembler.relations().get(RelationId(1)).unwrap()), "nothing has changed");
    feed_all(&mut assembler, &[name_type(""), describe(None, &["id", "v"])]).unwrap();
    let renamed = assembler.relations().get(RelationId(1)).unwrap();
    assert_eq!(renamed.columns[0].type_name.as_ref().unwrap().schema, "pg_catalog");
}

#[test]
fn a_message_outside_any_transaction_is_nothing_and_inside_a_change() {
    let mut assembler = assembler(1 << 20);
    assert!(feed(&mut assembler, &logical(false)).unwrap().is_empty());
    assert!(!assembler.in_transaction());
    let parts = feed_all(&mut assembler, &[begin(9, 100), logical(true), commit(100)]).unwrap();
    assert!(matches!(parts[0].changes[..], [Change::Message { transactional: true, .. }]));
    assert!(matches!(
        refused(&[logical(true)]),
        AssembleError::OutOfPlace { message: "Message", place: Place::Outside, .. }
    ));
}

#[test]
fn streams_interleave_and_commit_in_their_order() {
    let mut assembler = assembler(1 << 20);
    let before = [
        start(10, true),
        origin(),
        describe(Some(10), &["id"]),
        insert(Some(10), &["a1"]),
        insert(Some(11), &["a2"]),
        Message::StreamStop,
        start(20, true),
        describe(Some(20), &["id"]),
        insert(Some(20), &["b1"]),
        Message::StreamStop,
    ];
    assert!(feed_all(&mut assembler, &before).unwrap().is_empty());
    assert!(!assembler.in_transaction(), "between blocks a keepalive counts");
    assert!(assembler.streamed_bytes() > 0);
    feed(&mut assembler, &start(10, false)).unwrap();
    assert!(assembler.in_transaction());
    let between = [insert(Some(12), &["a3"]), insert(Some(10), &["a4"]), Message::StreamStop];
    feed_all(&mut assembler, &between).unwrap();
    let ordinary = [begin(30, 100), describe(None, &["id"]), insert(None, &["c1"]), commit(100)];
    let parts = feed_all(&mut assembler, &ordinary).unwrap();
    assert_eq!(inserted(&parts), [(vec!["id"], &row(&["c1"]))]);

    // 11 is aborted, and 13, of which nothing was ever published.
    assert!(feed_all(&mut assembler, &[abort(10, 11), abort(10, 13)]).unwrap().is_empty());
    let parts = feed(&mut assembler, &stream_commit(20, 200)).unwrap();
    assert_eq!(inserted(&parts), [(vec!["id"], &row(&["b1"]))]);
    assert_eq!(parts[0].header.origin, None);
    let parts = feed(&mut assembler, &stream_commit(10, 300)).unwrap();
    assert_eq!(
        inserted(&parts).iter().map(|(_, new)| *new).collect::<Vec<_>>(),
        [&row(&["a1"]), &row(&["a3"]), &row(&["a4"])]
    );
    assert_eq!(parts[0].header.origin, Some(Origin { name: "far".to_owned(), commit_lsn: 77 }));
    assert_eq!(assembler.streamed_bytes(), 0);
}

#[test]
fn an_aborted_stream_leaves_nothing_behind() {
    let mut assembler = assembler(1 << 20);
    let messages = [
        start(10, true),
        describe(Some(10), &["id"]),
        insert(Some(11), &["1"]),
        Message::StreamStop,
        abort(10, 11),
        abort(10, 10),
    ];
    assert!(feed_all(&mut assembler, &messages).unwrap().is_empty());
    assert_eq!(assembler.streamed_bytes(), 0);
    assert!(assembler.relations().get(RelationId(1)).is_none());
    assert!(matches!(
        feed(&mut assembler, &stream_commit(10, 100)),
        Err(AssembleError::UnknownStream { message: "Stream Commit", xid: Xid(10) })
    ));
}

/// Subtransaction 11 alters the table, uses it, and is rolled back, which releases its lock; transaction 20 alters
/// the table otherwise and uses it; then 10 commits. The server has described the table to 20 and will not do so
/// again, so what it said to 11 must not come back.
#[test]
fn a_rolled_back_alter_table_does_not_outlive_its_subtransaction() {
    let mut assembler = assembler(1 << 20);
    let messages = [
        start(10, true),
        describe(Some(11), &["id", "rolled_back"]),
        insert(Some(11), &["1", "x"]),
        Message::StreamStop,
        abort(10, 11),
        begin(20, 100),
        describe(None, &["id", "kept"]),
        insert(None, &["2", "y"]),
        commit(100),
        stream_commit(10, 200),
        begin(21, 300),
        insert(None, &["3", "z"]),
        commit(300),
    ];
    let parts = feed_all(&mut assembler, &messages).unwrap();
    assert_eq!(
        inserted(&parts),
        [(vec!["id", "kept"], &row(&["2", "y"])), (vec!["id", "kept"], &row(&["3", "z"]))]
    );
}

#[test]
fn a_committed_stream_is_read_back_part_by_part() {
    let mut assembler = assembler(1);
    let mut messages = vec![start(10, true), describe(Some(10), &["id"])];
    messages.extend((0..5).map(|_| insert(Some(10), &["v"])));
    messages.push(Message::StreamStop);
    feed_all(&mut assembler, &messages).unwrap();
    assembler.feed(&encode(&stream_commit(10, 100)).unwrap()).unwrap();
    for index in 0..5 {
        assert!(assembler.in_transaction());
        let part = assembler.next_part().unwrap().unwrap();
        assert_eq!((part.first, part.changes.len(), part.end.is_some()), (index == 0, 1, index == 4));
    }
    assert!(!assembler.in_transaction());
    assert!(assembler.next_part().unwrap().is_none());
}

#[test]
fn a_running_transaction_goes_ahead_and_its_descriptions_are_known_to_all_when_it_has_committed() {
    let mut assembler = assembler(1).with_ahead();
    fn step(assembler: &mut Assembler, message: &Message) -> Step {
        assembler.feed(&encode(message).unwrap()).unwrap();
        assembler.step().unwrap()
    }
    for message in [start(10, true), describe(Some(10), &["id"]), insert(Some(10), &["1"])] {
        assert!(matches!(step(&mut assembler, &message), Step::Done), "{message:?}");
    }
    let Step::Ahead(Ahead::Part(first)) = step(&mut assembler, &insert(Some(10), &["2"])) else {
        panic!("no part")
    };
    assert_eq!((first.changes.len(), first.first, first.end), (1, true, None));
    assert!(matches!(step(&mut assembler, &Message::StreamStop), Step::Done));
    let Step::Ahead(Ahead::Commit(last)) = step(&mut assembler, &stream_commit(10, 100)) else {
        panic!("no commit")
    };
    assert_eq!((last.changes.len(), last.first, last.header.commit_lsn), (1, false, SourceLsn::new(100)));
    assert!(assembler.settle_ahead(Xid(10), true));
    let after = [begin(11, 200), insert(None, &["3"]), commit(200)];
    let parts = feed_all(&mut assembler, &after).unwrap();
    assert_eq!(parts.len(), 1, "the table needs no other description");
}

#[test]
fn what_was_taken_back_comes_whole_behind_its_commit() {
    for at_commit in [false, true] {
        let mut assembler = assembler(1).with_ahead();
        let messages = [start(10, true), describe(Some(10), &["id"]), insert(Some(10), &["1"])];
        assert_eq!(feed_all(&mut assembler, &messages).unwrap(), []);
        assembler.feed(&encode(&insert(Some(10), &["2"])).unwrap()).unwrap();
        assert!(matches!(assembler.step().unwrap(), Step::Ahead(_)));
        assert!(at_commit || assembler.settle_ahead(Xid(10), false));
        assembler.feed(&encode(&Message::StreamStop).unwrap()).unwrap();
        assembler.feed(&encode(&stream_commit(10, 100)).unwrap()).unwrap();
        if at_commit {
            assert!(matches!(assembler.step().unwrap(), Step::Ahead(Ahead::Commit(_))));
            assert!(assembler.settle_ahead(Xid(10), false));
        }
        let mut parts = Vec::new();
        while let Some(part) = assembler.next_part().unwrap() {
            parts.push(part);
        }
        assert_eq!(parts.iter().map(|part| part.changes.len()).collect::<Vec<_>>(), [1, 1]);
        assert!(parts.iter().all(|part| part.header.commit_lsn == SourceLsn::new(100)));
        assert!(!assembler.settle_ahead(Xid(10), true), "it is too late");
    }
}

#[test]
fn a_rollback_or_a_truncate_ends_what_goes_ahead() {
    let truncate = Message::Truncate {
        xid: Some(Xid(10)),
        cascade: false,
        restart_identity: false,
        relations: vec![RelationId(1)],
    };
    for (ending, inside) in [(truncate, true), (abort(10, 11), false)] {
        let mut assembler = assembler(1).with_ahead();
        let messages = [start(10, true), describe(Some(10), &["id"]), insert(Some(10), &["1"])];
        assert_eq!(feed_all(&mut assembler, &messages).unwrap(), []);
        assembler.feed(&encode(&insert(Some(10), &["2"])).unwrap()).unwrap();
        assert!(matches!(assembler.step().unwrap(), Step::Ahead(Ahead::Part(_))));
        if !inside {
            assembler.feed(&encode(&Message::StreamStop).unwrap()).unwrap();
        }
        assembler.feed(&encode(&ending).unwrap()).unwrap();
        assert!(matches!(assembler.step().unwrap(), Step::Ahead(Ahead::Abort(Xid(10)))), "{ending:?}");
        assert!(matches!(assembler.step().unwrap(), Step::Done));
    }
}

#[test]
fn feeding_over_a_pending_part_is_refused() {
    let mut assembler = assembler(1 << 20);
    assembler.feed(&encode(&begin(9, 100)).unwrap()).unwrap();
    assembler.feed(&encode(&commit(100)).unwrap()).unwrap();
    let error = assembler.feed(&encode(&begin(10, 200)).unwrap());
    assert!(matches!(error, Err(AssembleError::PartsPending)));
    assert!(matches!(assembler.next_part(), Err(AssembleError::Failed)));
}

#[test]
fn messages_out_of_place_are_refused() {
    let is_out_of_place = |messages: &[Message], name: &str, place: Place| {
        let error = refused(messages);
        assert!(
            matches!(&error, AssembleError::OutOfPlace { message, place: at, .. } if *message == name && *at == place),
            "{error}"
        );
    };
    is_out_of_place(&[commit(100)], "Commit", Place::Outside);
    is_out_of_place(&[insert(None, &["1"])], "Insert", Place::Outside);
    is_out_of_place(&[describe(None, &["id"])], "Relation", Place::Outside);
    is_out_of_place(&[origin()], "Origin", Place::Outside);
    is_out_of_place(&[Message::StreamStop], "Stream Stop", Place::Outside);
    is_out_of_place(&[begin(9, 100), begin(10, 200)], "Begin", Place::Transaction(Xid(9)));
    is_out_of_place(&[begin(9, 100), start(10, true)], "Stream Start", Place::Transaction(Xid(9)));
    is_out_of_place(&[begin(9, 100), stream_commit(10, 90)], "Stream Commit", Place::Transaction(Xid(9)));
    is_out_of_place(&[begin(9, 100), origin(), origin()], "Origin", Place::TransactionContent(Xid(9)));
    let late = [begin(9, 100), describe(None, &["id"]), origin()];
    is_out_of_place(&late, "Origin", Place::TransactionContent(Xid(9)));
    let block = Place::StreamBlock(Xid(9));
    is_out_of_place(&[start(9, true), begin(10, 100)], "Begin", block);
    is_out_of_place(&[start(9, true), start(10, true)], "Stream Start", block);
    is_out_of_place(&[start(9, true), abort(9, 9)], "Stream Abort", block);
    is_out_of_place(&[start(9, true), origin(), origin()], "Origin", block);
    is_out_of_place(&[start(9, true), Message::StreamStop, start(9, false), origin()], "Origin", block);
}

#[test]
fn streams_that_were_not_begun_or_begun_twice_are_refused() {
    let unknown = |messages: &[Message]| matches!(refused(messages), AssembleError::UnknownStream { .. });
    assert!(unknown(&[start(9, false)]));
    assert!(unknown(&[stream_commit(9, 100)]));
    assert!(unknown(&[abort(9, 9)]));
    assert!(unknown(&[abort(9, 10)]));
    let twice = refused(&[start(9, true), Message::StreamStop, start(9, true)]);
    assert!(matches!(twice, AssembleError::StreamedTwice { xid: Xid(9) }));
}

#[test]
fn positions_that_do_not_fit_are_refused() {
    let error = refused(&[begin(9, 0x100), commit(0x108)]);
    assert_eq!(
        error.to_string(),
        "transaction 9 was announced with commit LSN 0/100, but committed at 0/108"
    );
    let backwards = [begin(9, 0x100), commit(0x100), begin(10, 0x107), commit(0x107)];
    assert!(matches!(refused(&backwards), AssembleError::CommitOrder { xid: Xid(10), .. }));
    let stream =
        [begin(9, 0x100), commit(0x100), start(10, true), Message::StreamStop, stream_commit(10, 0x50)];
    assert!(matches!(refused(&stream), AssembleError::CommitOrder { xid: Xid(10), .. }));
    let no_end = Message::Commit {
        commit_lsn: SourceLsn::new(100),
        end_lsn: SourceLsn::new(100),
        commit_time: Timestamp::default(),
    };
    assert!(matches!(refused(&[begin(9, 100), no_end]), AssembleError::CommitOrder { .. }));
}

#[test]
fn rows_that_do_not_fit_their_table_are_refused() {
    let error = |message: Message| refused(&[begin(9, 100), describe(None, &["id", "v"]), message]);
    let unknown = refused(&[begin(9, 100), insert(None, &["1"])]);
    assert!(matches!(unknown, AssembleError::UnknownRelation { relation: RelationId(1), .. }));
    let truncate = Message::Truncate {
        xid: None,
        cascade: false,
        restart_identity: false,
        relations: vec![RelationId(1), RelationId(2)],
    };
    assert!(matches!(error(truncate), AssembleError::UnknownRelation { relation: RelationId(2), .. }));
    assert_eq!(
        error(insert(None, &["1"])).to_string(),
        "Insert of table public.t: expected 2 values in the new row, found 1"
    );
    let relation = RelationId(1);
    let narrow = OldRow::Key(row(&["1"]));
    let delete = Message::Delete { xid: None, relation, old: narrow.clone() };
    assert!(matches!(error(delete), AssembleError::ColumnCount { row: "old", found: 1, .. }));
    let update = Message::Update { xid: None, relation, old: Some(narrow), new: row(&["1", "2"]) };
    assert!(matches!(error(update), AssembleError::ColumnCount { row: "old", .. }));
    let update = Message::Update { xid: None, relation, old: None, new: row(&["1", "2", "3"]) };
    assert!(matches!(error(update), AssembleError::ColumnCount { row: "new", found: 3, .. }));

    let unchanged = Row(vec![Cell::Null, Cell::Unchanged]);
    let message = Message::Insert { xid: None, relation, new: unchanged.clone() };
    assert!(error(message).to_string().contains("expected a value of column v in the new row"));
    let message = Message::Delete { xid: None, relation, old: OldRow::Full(unchanged.clone()) };
    assert!(matches!(error(message), AssembleError::Unchanged { row: "old", .. }));
    let update = Message::Update { xid: None, relation, old: None, new: unchanged };
    let parts = [begin(9, 100), describe(None, &["id", "v"]), update, commit(100)];
    assert_eq!(feed_all(&mut assembler(usize::MAX), &parts).unwrap()[0].changes.len(), 1);
}

#[test]
fn prepared_transactions_are_refused() {
    let prepared = Prepared {
        prepare_lsn: SourceLsn::new(1),
        end_lsn: SourceLsn::new(2),
        prepare_time: Timestamp::default(),
        xid: Xid(9),
        gid: "g".to_owned(),
    };
    let (xid, gid) = (prepared.xid, prepared.gid.clone());
    let (lsn, time) = (prepared.prepare_lsn, prepared.prepare_time);
    for message in [
        Message::BeginPrepare(prepared.clone()),
        Message::Prepare(prepared.clone()),
        Message::StreamPrepare(prepared),
        Message::CommitPrepared { commit_lsn: lsn, end_lsn: lsn, commit_time: time, xid, gid: gid.clone() },
        Message::RollbackPrepared {
            prepare_end_lsn: lsn,
            rollback_end_lsn: lsn,
            prepare_time: time,
            rollback_time: time,
            xid,
            gid,
        },
    ] {
        assert!(matches!(refused(&[message]), AssembleError::TwoPhase { xid: Xid(9), .. }));
    }
}

#[test]
fn a_full_store_says_what_is_full() {
    let mut assembler = Assembler::new(FORMAT, 1 << 20, MemoryStore::new(100));
    let messages = [start(10, true), insert(Some(10), &["0123456789"]), insert(Some(10), &["0123456789"])];
    let error = feed_all(&mut assembler, &messages).unwrap_err();
    assert!(error.to_string().contains("streamed transaction 10"), "{error}");
    let cause = error.source().unwrap().to_string();
    assert!(cause.contains("100 are allowed: allow more"), "{cause}");
}
