//! Frames typed by hand from the manual's *Logical Replication Message Formats*, and the errors that people see.

#![expect(clippy::unwrap_used, reason = "helpers of a test")]

use std::error::Error;

use bytes::Bytes;
use relevo_model::{Cell, OldRow, RelationId, ReplicaIdentity, Row, SourceLsn, Timestamp, Xid};
use relevo_pgoutput::{
    AbortPoint, ColumnDescription, Format, Message, Prepared, Protocol, RelationDescription, Streaming,
    decode, encode,
};

const V1: Format = Format { protocol: Protocol::V1, streaming: Streaming::Off };
const V2: Format = Format { protocol: Protocol::V2, streaming: Streaming::On };
const V3: Format = Format { protocol: Protocol::V3, streaming: Streaming::On };
const V4: Format = Format { protocol: Protocol::V4, streaming: Streaming::On };
const V4_PARALLEL: Format = Format { protocol: Protocol::V4, streaming: Streaming::Parallel };

/// Reads `'c'` as that character, `"text"` as its bytes and a NUL, and everything else as hexadecimal.
fn frame(notation: &str) -> Bytes {
    let mut bytes = Vec::new();
    for word in notation.split_whitespace() {
        if let Some(text) = word.strip_prefix('"') {
            bytes.extend(text.trim_end_matches('"').bytes());
            bytes.push(0);
        } else if let Some(character) = word.strip_prefix('\'') {
            bytes.push(character.as_bytes()[0]);
        } else {
            assert!(word.len().is_multiple_of(2), "{word}");
            for digits in word.as_bytes().chunks(2) {
                bytes.push(u8::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).unwrap());
            }
        }
    }
    bytes.into()
}

fn golden(notation: &str, format: Format, in_stream: bool, message: &Message) {
    let frame = frame(notation);
    assert_eq!(&decode(&frame, format, in_stream).unwrap(), message);
    assert_eq!(encode(message).unwrap(), frame);
}

fn lsn(bytes: u64) -> SourceLsn {
    SourceLsn::new(bytes)
}

fn time(us: i64) -> Timestamp {
    Timestamp::from_postgres_us(us)
}

fn text(value: &'static str) -> Cell {
    Cell::Text(Bytes::from_static(value.as_bytes()))
}

#[test]
fn begin() {
    golden(
        "'B' 0000000016B374D8 000000000000000A 00000304",
        V1,
        false,
        &Message::Begin { final_lsn: lsn(0x16B3_74D8), commit_time: time(10), xid: Xid(772) },
    );
}

#[test]
fn commit() {
    golden(
        "'C' 00 0000000100000002 0000000100000032 FFFFFFFFFFFFFFFF",
        V1,
        false,
        &Message::Commit {
            commit_lsn: lsn(0x1_0000_0002),
            end_lsn: lsn(0x1_0000_0032),
            commit_time: time(-1),
        },
    );
}

#[test]
fn origin() {
    golden(
        "'O' 00000000000000FF \"relevo_shop\"",
        V1,
        false,
        &Message::Origin { commit_lsn: 255, name: "relevo_shop".to_owned() },
    );
}

#[test]
fn relation() {
    let relation = RelationDescription {
        id: RelationId(16_384),
        namespace: "public".to_owned(),
        name: "Größe".to_owned(),
        replica_identity: ReplicaIdentity::Default,
        columns: vec![
            ColumnDescription { identity: true, name: "id".to_owned(), type_oid: 23, type_modifier: -1 },
            ColumnDescription {
                identity: false,
                name: "n".to_owned(),
                type_oid: 1700,
                type_modifier: 0x000A_0006,
            },
        ],
    };
    golden(
        "'R' 00004000 \"public\" \"Größe\" 'd' 0002 01 \"id\" 00000017 FFFFFFFF 00 \"n\" 000006A4 000A0006",
        V1,
        false,
        &Message::Relation { xid: None, relation: relation.clone() },
    );
    golden(
        "'R' 00000305 00004000 \"public\" \"Größe\" 'd' 0002 01 \"id\" 00000017 FFFFFFFF 00 \"n\" 000006A4 000A0006",
        V2,
        true,
        &Message::Relation { xid: Some(Xid(773)), relation },
    );
    for (letter, replica_identity) in
        [('n', ReplicaIdentity::Nothing), ('f', ReplicaIdentity::Full), ('i', ReplicaIdentity::Index)]
    {
        let relation = RelationDescription {
            id: RelationId(1),
            namespace: String::new(),
            name: "t".to_owned(),
            replica_identity,
            columns: Vec::new(),
        };
        golden(
            &format!("'R' 00000001 00 \"t\" '{letter}' 0000"),
            V1,
            false,
            &Message::Relation { xid: None, relation },
        );
    }
}

#[test]
fn type_name() {
    let message =
        |xid| Message::Type { xid, type_oid: 20_000, namespace: "app".to_owned(), name: "mood".to_owned() };
    golden("'Y' 00004E20 \"app\" \"mood\"", V1, false, &message(None));
    golden("'Y' 00000007 00004E20 \"app\" \"mood\"", V2, true, &message(Some(Xid(7))));
}

#[test]
fn insert() {
    let new = Row(vec![text("42"), Cell::Null, Cell::Binary(Bytes::from_static(&[0, 0xFF])), text("")]);
    let tuple = "'N' 0004 't' 00000002 3432 'n' 'b' 00000002 00FF 't' 00000000";
    golden(
        &format!("'I' 00004000 {tuple}"),
        V1,
        false,
        &Message::Insert { xid: None, relation: RelationId(16_384), new: new.clone() },
    );
    golden(
        &format!("'I' 00000309 00004000 {tuple}"),
        V2,
        true,
        &Message::Insert { xid: Some(Xid(777)), relation: RelationId(16_384), new },
    );
}

#[test]
fn update() {
    let message = |xid, old| Message::Update {
        xid,
        relation: RelationId(16_384),
        old,
        new: Row(vec![text("2"), Cell::Unchanged]),
    };
    let new = "'N' 0002 't' 00000001 32 'u'";
    golden(&format!("'U' 00004000 {new}"), V1, false, &message(None, None));
    let key = OldRow::Key(Row(vec![text("1"), Cell::Null]));
    golden(&format!("'U' 00004000 'K' 0002 't' 00000001 31 'n' {new}"), V1, false, &message(None, Some(key)));
    let full = OldRow::Full(Row(vec![text("1"), text("x")]));
    golden(
        &format!("'U' 0000000A 00004000 'O' 0002 't' 00000001 31 't' 00000001 78 {new}"),
        V2,
        true,
        &message(Some(Xid(10)), Some(full)),
    );
}

#[test]
fn delete() {
    let message = |xid, old| Message::Delete { xid, relation: RelationId(16_384), old };
    let key = OldRow::Key(Row(vec![text("1")]));
    golden("'D' 00004000 'K' 0001 't' 00000001 31", V1, false, &message(None, key));
    let full = OldRow::Full(Row(vec![Cell::Null]));
    golden("'D' 0000000A 00004000 'O' 0001 'n'", V2, true, &message(Some(Xid(10)), full));
}

#[test]
fn truncate() {
    let message = |xid, cascade, restart_identity| Message::Truncate {
        xid,
        cascade,
        restart_identity,
        relations: vec![RelationId(16_384), RelationId(16_390)],
    };
    golden("'T' 00000002 00 00004000 00004006", V1, false, &message(None, false, false));
    golden("'T' 00000002 01 00004000 00004006", V1, false, &message(None, true, false));
    golden("'T' 00000002 02 00004000 00004006", V1, false, &message(None, false, true));
    golden("'T' 0000000A 00000002 03 00004000 00004006", V2, true, &message(Some(Xid(10)), true, true));
}

#[test]
fn logical_message() {
    let message = |xid, transactional| Message::Logical {
        xid,
        transactional,
        lsn: lsn(0x200),
        prefix: "relevo".to_owned(),
        content: Bytes::from_static(&[0, 1, 2]),
    };
    golden("'M' 00 0000000000000200 \"relevo\" 00000003 000102", V1, false, &message(None, false));
    golden(
        "'M' 00000007 01 0000000000000200 \"relevo\" 00000003 000102",
        V2,
        true,
        &message(Some(Xid(7)), true),
    );
}

#[test]
fn stream_frames() {
    golden("'S' 00000304 01", V2, false, &Message::StreamStart { xid: Xid(772), first_segment: true });
    golden("'S' 00000304 00", V2, false, &Message::StreamStart { xid: Xid(772), first_segment: false });
    golden("'E'", V2, true, &Message::StreamStop);
    golden(
        "'c' 00000304 00 0000000000000100 0000000000000130 000000000000000A",
        V2,
        false,
        &Message::StreamCommit {
            xid: Xid(772),
            commit_lsn: lsn(0x100),
            end_lsn: lsn(0x130),
            commit_time: time(10),
        },
    );
}

#[test]
fn stream_abort_has_its_point_only_in_parallel_streaming() {
    let short = "'A' 00000304 00000305";
    let long = "'A' 00000304 00000305 0000000000000100 000000000000000A";
    let message = |at| Message::StreamAbort { xid: Xid(772), subxid: Xid(773), at };
    let point = AbortPoint { lsn: lsn(0x100), time: time(10) };
    for format in [V2, V3, V4] {
        golden(short, format, false, &message(None));
        assert!(decode(&frame(long), format, false).is_err());
    }
    golden(long, V4_PARALLEL, false, &message(Some(point)));
    assert!(decode(&frame(short), V4_PARALLEL, false).is_err());
}

#[test]
fn two_phase() {
    let body = "0000000000000100 0000000000000130 000000000000000A 00000304 \"gid-1\"";
    let prepared = Prepared {
        prepare_lsn: lsn(0x100),
        end_lsn: lsn(0x130),
        prepare_time: time(10),
        xid: Xid(772),
        gid: "gid-1".to_owned(),
    };
    golden(&format!("'b' {body}"), V3, false, &Message::BeginPrepare(prepared.clone()));
    golden(&format!("'P' 00 {body}"), V3, false, &Message::Prepare(prepared.clone()));
    golden(&format!("'p' 00 {body}"), V3, false, &Message::StreamPrepare(prepared));
    golden(
        &format!("'K' 00 {body}"),
        V3,
        false,
        &Message::CommitPrepared {
            commit_lsn: lsn(0x100),
            end_lsn: lsn(0x130),
            commit_time: time(10),
            xid: Xid(772),
            gid: "gid-1".to_owned(),
        },
    );
    golden(
        "'r' 00 0000000000000100 0000000000000130 000000000000000A 000000000000000B 00000304 \"gid-1\"",
        V3,
        false,
        &Message::RollbackPrepared {
            prepare_end_lsn: lsn(0x100),
            rollback_end_lsn: lsn(0x130),
            prepare_time: time(10),
            rollback_time: time(11),
            xid: Xid(772),
            gid: "gid-1".to_owned(),
        },
    );
}

/// What a person reads when a frame is broken: the message, the byte, what was expected, what was found.
#[test]
fn errors_name_tag_offset_and_expectation() {
    let cases = [
        ("", V1, false, "empty logical replication message, byte 0: expected the message's tag"),
        (
            "'Z' 00",
            V1,
            false,
            "message 'Z' (0x5a), byte 0: expected the tag of a logical replication message",
        ),
        (
            "'E'",
            V1,
            false,
            "(Stream Stop), byte 0: expected a message of protocol 1, found one that exists since",
        ),
        (
            "'P' 00",
            V2,
            false,
            "(Prepare), byte 0: expected a message of protocol 2, found one that exists since protocol 3",
        ),
        ("'C' 01", V1, false, "'C' (0x43) (Commit), byte 1: expected 0 as the flags, found 0x01"),
        (
            "'B' 00000000",
            V1,
            false,
            "(Begin), byte 1: expected the final LSN in 8 bytes, but only 4 are left",
        ),
        (
            "'I' 00004000 'K'",
            V1,
            false,
            "(Insert), byte 5: expected 'N' as the tuple's letter, found 'K' (0x4b)",
        ),
        (
            "'I' 00004000 'N' 0001 'x'",
            V1,
            false,
            "byte 8: expected 'n', 'u', 't' or 'b' as the value's kind, found 'x'",
        ),
        (
            "'I' 00004000 'N' FFFF 'n'",
            V1,
            false,
            "byte 6: expected the number of values in 65535 bytes, but only 1",
        ),
        (
            "'I' 00004000 'N' 0001 't' 7FFFFFFF 00",
            V1,
            false,
            "byte 13: expected the value in 2147483647 bytes",
        ),
        (
            "'I' 00004000 'N' 0001 't' FFFFFFFF",
            V1,
            false,
            "byte 9: expected 0 or more as the value's length, found -1",
        ),
        (
            "'U' 00004000 'K' 0000 'O' 0000",
            V1,
            false,
            "byte 8: expected 'N' as the new tuple's letter, found 'O'",
        ),
        ("'D' 00004000 'N' 0000", V1, false, "byte 5: expected 'K' or 'O' as the tuple's letter, found 'N'"),
        (
            "'T' 00000000 04",
            V1,
            false,
            "byte 5: expected a sum of 1 (CASCADE) and 2 (RESTART IDENTITY) as the options",
        ),
        (
            "'T' 7FFFFFFF 00 00000001",
            V1,
            false,
            "byte 1: expected the number of relations in 8589934588 bytes",
        ),
        ("'M' 02", V1, false, "(Message), byte 1: expected 0 or 1 (transactional) as the flags, found 0x02"),
        (
            "'R' 00004000 \"s\" \"t\" 'x'",
            V1,
            false,
            "byte 9: expected 'd', 'n', 'f' or 'i' as the replica identity",
        ),
        (
            "'R' 00004000 \"s\" \"t\" 'd' 0001 02 \"c\" 00000000 00000000",
            V1,
            false,
            "expected 0 or 1 (identity) as the column's flags",
        ),
        (
            "'R' 00004000 \"s\" 74",
            V1,
            false,
            "byte 7: expected the relation's name as a string that ends with a NUL",
        ),
        ("'R' 00004000 E400 \"t\"", V1, false, "byte 5: expected the relation's schema in UTF-8"),
        ("'S' 00000001 02", V2, false, "(Stream Start), byte 5: expected 0 or 1 as the first-segment flag"),
        ("'E' 0000", V2, true, "(Stream Stop), byte 1: expected the frame's end, found 2 more bytes"),
    ];
    for (notation, format, in_stream, expected) in cases {
        let error = decode(&frame(notation), format, in_stream).unwrap_err().to_string();
        assert!(error.contains(expected), "{notation}\n  said:     {error}\n  expected: {expected}");
    }
}

#[test]
fn a_name_that_is_not_utf8_says_where_it_goes_wrong() {
    let error = decode(&frame("'Y' 00004E20 \"s\" 61FF00"), V1, false).unwrap_err();
    assert_eq!(error.offset, 7);
    assert!(error.source().unwrap().to_string().contains("index 1"));
}
