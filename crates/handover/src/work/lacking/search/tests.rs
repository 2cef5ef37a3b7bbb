//! Histories of an old primary, applied in batches by two standbys: what the search says is what one of them lacks.

use std::collections::BTreeSet;
use std::sync::Arc;

use proptest::prelude::*;
use relevo_model::{Relation, RelationId, ReplicaIdentity, Row, Timestamp, TransactionHeader, Xid};

use super::*;

/// Where the old primary's transaction begins its commit record, and where it ends.
const STRIDE: u64 = 100;
const RECORD: u64 = 30;

fn commit(number: u64) -> SourceLsn {
    SourceLsn::new(1000 + number * STRIDE)
}

fn end(number: u64) -> SourceLsn {
    SourceLsn::new(1000 + number * STRIDE + RECORD)
}

fn message(content: &str) -> Change {
    Change::Message {
        lsn: SourceLsn::ZERO,
        transactional: true,
        prefix: "relevo".to_owned(),
        content: content.to_owned().into(),
    }
}

fn row() -> Change {
    let relation = Relation {
        id: RelationId(1),
        schema: "public".to_owned(),
        name: "t".to_owned(),
        replica_identity: ReplicaIdentity::Default,
        columns: Vec::new(),
    };
    Change::Insert { relation: Arc::new(relation), new: Row(Vec::new()) }
}

/// A transaction of the new primary at a place of its WAL, in one part or two.
fn transaction(at: u64, changes: Vec<Change>, parts: usize) -> Vec<TransactionPart> {
    let header = Arc::new(TransactionHeader {
        xid: Xid(1),
        commit_lsn: SourceLsn::new(at),
        commit_time: Timestamp::default(),
        origin: None,
    });
    let cut = if parts > 1 { changes.len() / 2 } else { 0 };
    let part = |first, changes, end: Option<u64>| TransactionPart {
        header: Arc::clone(&header),
        first,
        changes,
        end: end.map(SourceLsn::new),
        size_bytes: 0,
    };
    let mut before = changes;
    let after = before.split_off(cut);
    match parts {
        1 => vec![part(true, after, Some(at + 8))],
        _ => vec![part(true, before, None), part(false, after, Some(at + 8))],
    }
}

/// The batch of the transactions `from..to`; `before`: the last that was applied.
fn batch(at: u64, before: Option<u64>, (from, to): (u64, u64), parts: usize) -> Vec<TransactionPart> {
    let after = before.map_or(SourceLsn::new(999), commit);
    let mark = |last: u64| {
        let mark = AppliedMark { system_id: "7".to_owned(), after, first: commit(from), last: commit(last) };
        message(&mark.to_string())
    };
    // What continues a transaction of the target says so again.
    let middle = from + (to - 1 - from) / 2;
    let changes = vec![message("applied"), mark(middle), row(), mark(to - 1), row()];
    transaction(at, changes, parts)
}

/// The batches of the new primary over all transactions, by their sizes.
fn batches(sizes: &[u64]) -> Vec<(u64, (u64, u64))> {
    let mut next = 0;
    let at = |index: usize| 5000 + 100 * index as u64;
    sizes
        .iter()
        .enumerate()
        .map(|(index, size)| {
            let of = (next, next + size);
            next += size;
            (at(index), of)
        })
        .collect()
}

proptest! {
    /// Wherever the standby stands and wherever the slot begins: the search names a position only if all that commits there
    /// or behind is just what the standby lacks; and it names one whenever the slot begins early enough and no batch holds both
    /// what it has and what it lacks.
    #[test]
    fn it_gets_all_that_it_lacks_and_nothing_twice(
        sizes in prop::collection::vec(1_u64..5, 1..12),
        has in 0_u64..40,
        idle in 0_u64..(STRIDE - RECORD),
        slot in 0_usize..12,
        parts in 1_usize..3,
    ) {
        let all = batches(&sizes);
        let count = all.last().unwrap().1.1;
        // It has the first `has` transactions, and maybe the position of a keepalive behind them.
        let has = has.min(count);
        let position = match has {
            0 => SourceLsn::new(1000 - STRIDE + RECORD + idle),
            has => SourceLsn::new(end(has - 1).as_u64() + idle),
        };
        let slot = slot.min(all.len());
        let begin = SourceLsn::new(all.get(slot).map_or(9000, |batch| batch.0) - 50);
        let mut search = Search::new("7", position, begin);
        let mut goes_on = true;
        for (at, (from, to)) in all.iter().skip(slot) {
            for part in batch(*at, from.checked_sub(1), (*from, *to), parts) {
                goes_on = goes_on && search.take(&part);
            }
        }
        let found = search.end(SourceLsn::new(9000), commit(count - 1));
        let boundary = all.iter().any(|(_, (from, _))| *from == has) || has == count;
        let held = all.get(slot).map_or(has == count, |(_, (from, _))| *from <= has);
        // Before the very first it stands at no position that the new primary vouches for.
        let known = has > 0 || position > SourceLsn::new(999);
        if let Ok(found) = &found {
            let sent: BTreeSet<u64> = all.iter().filter(|(at, _)| *at >= found.as_u64())
                .flat_map(|(_, (from, to))| *from..*to).collect();
            prop_assert_eq!(sent, (has..count).collect::<BTreeSet<u64>>());
            prop_assert!(*found >= begin);
        }
        prop_assert_eq!(found.is_ok(), boundary && held && known, "{:?}", found);
    }
}

fn search() -> Search {
    Search::new("7", commit(1), SourceLsn::new(4000))
}

fn take(search: &mut Search, parts: Vec<TransactionPart>) -> bool {
    parts.iter().all(|part| search.take(part))
}

#[test]
fn rows_that_came_otherwise_end_the_search_and_what_has_none_does_not() {
    for changes in [vec![row()], vec![message("applied"), row()], vec![message("heartbeat"), row()]] {
        let mut search = search();
        assert!(!take(&mut search, transaction(5000, changes, 1)));
        let found = search.end(SourceLsn::new(9000), SourceLsn::ZERO);
        assert_eq!(found, Err(Nowhere::Otherwise(SourceLsn::new(5000))));
    }
    let mut search = search();
    for changes in [vec![], vec![message("applied")], vec![message("handover")]] {
        assert!(take(&mut search, transaction(5000, changes, 1)));
    }
    assert!(take(&mut search, batch(5100, Some(0), (1, 2), 1)));
    assert_eq!(search.end(SourceLsn::new(9000), commit(1)), Ok(SourceLsn::new(5008)));
}

#[test]
fn another_primary_of_earlier_ends_the_search() {
    let mut search = Search::new("8", commit(1), SourceLsn::new(4000));
    assert!(!take(&mut search, batch(5000, None, (0, 1), 1)));
}

#[test]
fn who_lacks_nothing_follows_from_where_the_role_was_taken_and_who_cannot_know_does_not() {
    assert_eq!(search().end(SourceLsn::new(9000), commit(0)), Ok(SourceLsn::new(9000)));
    assert_eq!(search().end(SourceLsn::new(9000), commit(1)), Err(Nowhere::Gap(commit(1))));
}
