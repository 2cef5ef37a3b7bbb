//! Sequences: where those of the source stand is set on the target, at the end of the copy, again and again while the
//! flow streams, and exactly at a hand-over. Logical replication does not carry them.
//!
//! A sequence lives outside of transactions: what is read is its state of the moment. While the flow streams the target
//! may therefore be ahead of its own rows, which is harmless, but must never fall behind them: the next value would be
//! a duplicate key. What may not enter: when this is done, and who is told.

use std::collections::BTreeMap;

use relevo_catalog::{Selection, SequenceInfo, SequenceValue, TableName};
use relevo_connect::describe;
use relevo_model::Side;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::{SnapshotError, sql};

/// How many sequences one statement sets: each takes a lock, and a server has a limit of those.
const SET_AT_ONCE: usize = 500;

/// What may be done to a sequence of the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SequenceMode {
    /// It becomes what the source's is, whatever it was: the end of a copy, a hand-over.
    Exactly,
    /// It only goes ahead, unless the source's own one was seen to go back (`ALTER SEQUENCE … RESTART`, `setval`, a cycle
    /// that began anew). One that somebody has drawn from on the target stays where it is.
    Forward,
}

/// What was done, and what could not be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SequencesSet {
    /// How many sequences take part.
    pub selected: usize,
    /// How many were set.
    pub set: usize,
    /// Sequences of the source that stand elsewhere on the target, each with the reason.
    pub problems: Vec<(TableName, String)>,
}

/// The selected sequences of a flow.
#[derive(Debug)]
pub struct Sequences {
    selection: Selection,
    /// Where the source's stood when it was last looked at, and the target's was not behind. What is known only here is
    /// lost with the process: a sequence that went back while nobody looked stays ahead on the target, and is spoken of.
    seen: BTreeMap<TableName, SequenceValue>,
}

/// Where a sequence of the target stands, as seen from the source's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SequencePlace {
    /// Behind all that the source's was seen at: its next value may have been handed out on the source.
    Behind,
    /// Ahead of all that: somebody has drawn from it or set it there, or the source's has gone back.
    Ahead,
    /// It cannot be said, and why.
    Unknown(&'static str),
}

/// A sequence that stands elsewhere on the target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SequenceGap {
    /// Its name on the source.
    pub name: TableName,
    /// Where the target's stands.
    pub place: SequencePlace,
    /// The source's last value.
    pub source: Option<i64>,
    /// The target's.
    pub target: Option<i64>,
}

/// Which sequences of the target, read between two looks at the source's, are elsewhere than those were at either look. What
/// has moved between the looks may be anywhere in between.
#[must_use]
pub fn sequence_gaps(
    before: &[&SequenceInfo],
    there: &[SequenceInfo],
    after: &[SequenceInfo],
) -> Vec<SequenceGap> {
    let mut unknown = Vec::new();
    let now: BTreeMap<&TableName, SequenceValue> =
        after.iter().filter_map(|sequence| Some((&sequence.name, sequence.value?))).collect();
    let mut gaps = Vec::new();
    for pair in pairs(before, there, &mut unknown) {
        let (name, increment) = (pair.source.name.clone(), pair.source.increment);
        // One that is gone has no place.
        let Some(later) = now.get(&name).copied() else { continue };
        let found = match pair.target.value {
            None => Some(SequencePlace::Unknown(UNREADABLE_THERE)),
            Some(value) => {
                let [one, other, at] = [pair.value, later, value].map(|value| place(increment, value));
                match (at < one.min(other), at > one.max(other)) {
                    (true, _) => Some(SequencePlace::Behind),
                    (_, true) => Some(SequencePlace::Ahead),
                    _ => None,
                }
            }
        };
        gaps.extend(found.map(|place| SequenceGap {
            name,
            place,
            source: Some(later.last_value),
            target: pair.target.value.map(|value| value.last_value),
        }));
    }
    gaps.extend(unknown.into_iter().map(|(name, why)| SequenceGap {
        name,
        place: SequencePlace::Unknown(why),
        source: None,
        target: None,
    }));
    gaps
}

/// A sequence of the source with the one of the target that it means.
struct Pair<'s> {
    source: &'s SequenceInfo,
    value: SequenceValue,
    target: &'s SequenceInfo,
}

impl Sequences {
    /// Those that belong to selected tables, and those without a table that the patterns select by their own names.
    #[must_use]
    pub fn new(selection: Selection) -> Self {
        Self { selection, seen: BTreeMap::new() }
    }

    /// Sets the target's sequences to where the source's stand at present. Cheap when nothing has moved: catalogs and
    /// values are read by a few queries, whatever the number of sequences, and only those that differ are written. The
    /// one on the target is that of the same column, which may have another name, or else the one of the same name.
    ///
    /// Both clients need `search_path = ''`. Let their statements have limits of their own: `setval` waits for whoever
    /// has locked the sequence.
    ///
    /// # Errors
    /// [`SnapshotError::Catalog`], [`SnapshotError::Sql`]: the sequences could not be read, or the target is lost. That
    /// single ones cannot be set is no error; see [`SequencesSet::problems`].
    pub async fn set(
        &mut self,
        source: &Client,
        target: &Client,
        mode: SequenceMode,
    ) -> Result<SequencesSet, SnapshotError> {
        let found = relevo_catalog::sequences(source).await.map_err(SnapshotError::catalog(Side::Source))?;
        let wanted: Vec<&SequenceInfo> =
            found.iter().filter(|sequence| sequence.is_selected(&self.selection)).collect();
        let mut outcome = SequencesSet { selected: wanted.len(), ..SequencesSet::default() };
        if wanted.is_empty() {
            return Ok(outcome);
        }
        // After the source's: what is read here may only have become newer meanwhile.
        let there = relevo_catalog::sequences(target).await.map_err(SnapshotError::catalog(Side::Target))?;
        let (mut due, mut problems) = (Vec::new(), Vec::new());
        let pairs = pairs(&wanted, &there, &mut problems);
        outcome.problems.extend(problems.into_iter().map(|(name, why)| (name, why.to_owned())));
        for pair in pairs {
            let name = &pair.source.name;
            let seen = self.seen.get(name).copied();
            match verdict(pair.source.increment, pair.value, seen, pair.target.value, mode) {
                // What is to be set counts as seen once it is.
                Verdict::Set => {
                    due.push(pair);
                    continue;
                }
                Verdict::Equal => {}
                Verdict::Ahead => outcome.problems.push((name.clone(), AHEAD.to_owned())),
                Verdict::Unreadable => outcome.problems.push((name.clone(), UNREADABLE_THERE.to_owned())),
            }
            self.seen.insert(name.clone(), pair.value);
        }
        for some in due.chunks(SET_AT_ONCE) {
            self.set_some(some, target, mode, &mut outcome).await?;
        }
        Ok(outcome)
    }

    async fn set_some(
        &mut self,
        pairs: &[Pair<'_>],
        target: &Client,
        mode: SequenceMode,
        outcome: &mut SequencesSet,
    ) -> Result<(), SnapshotError> {
        match set(target, pairs).await {
            Ok(()) => {
                outcome.set += pairs.len();
                self.seen.extend(pairs.iter().map(|pair| (pair.source.name.clone(), pair.value)));
                return Ok(());
            }
            Err(error) if error.as_db_error().is_none() => {
                return Err(SnapshotError::target_sql("setting the sequences")(error));
            }
            Err(_) => {}
        }
        // One of them cannot be set; the others shall be.
        for pair in pairs {
            match set(target, std::slice::from_ref(pair)).await {
                Ok(()) => {
                    outcome.set += 1;
                    self.seen.insert(pair.source.name.clone(), pair.value);
                }
                Err(error) if error.as_db_error().is_none() => {
                    return Err(SnapshotError::target_sql("setting the sequences")(error));
                }
                // Somebody holds it just now; who follows the source looks at it again.
                Err(error)
                    if mode == SequenceMode::Forward
                        && error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => {}
                Err(error) => outcome.problems.push((pair.source.name.clone(), describe(&error))),
            }
        }
        Ok(())
    }
}

/// The words for a sequence that could not be set.
#[must_use]
pub fn sequence_stays(sequence: &TableName, problem: &str) -> String {
    format!("sequence {sequence} keeps its value on the target: {problem}")
}

const UNREADABLE: &str = "its value on the source may not be read; grant SELECT on it";
const UNREADABLE_THERE: &str = "its value on the target may not be read; grant SELECT and UPDATE on it there";
const MISSING: &str = "the target has no such sequence";
const AHEAD: &str = "it is ahead of the source's, by nextval or setval on the target or because the source's went back while \
                     nobody looked; it is left alone until the source's passes it";

/// Which sequence means which.
fn pairs<'s>(
    wanted: &[&'s SequenceInfo],
    there: &'s [SequenceInfo],
    problems: &mut Vec<(TableName, &'static str)>,
) -> Vec<Pair<'s>> {
    let by_name: BTreeMap<&TableName, &SequenceInfo> =
        there.iter().map(|sequence| (&sequence.name, sequence)).collect();
    let by_owner: BTreeMap<_, &SequenceInfo> =
        there.iter().filter_map(|sequence| Some((sequence.owned_by.as_ref()?, sequence))).collect();
    let mut pairs = Vec::with_capacity(wanted.len());
    for source in wanted {
        let owned = source.owned_by.as_ref().and_then(|owner| by_owner.get(owner).copied());
        match (source.value, owned.or_else(|| by_name.get(&source.name).copied())) {
            (None, _) => problems.push((source.name.clone(), UNREADABLE)),
            (_, None) => problems.push((source.name.clone(), MISSING)),
            (Some(value), Some(target)) => pairs.push(Pair { source, value, target }),
        }
    }
    pairs
}

/// What is to be done with one sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Equal,
    Set,
    /// The target's would have to go back although the source's did not.
    Ahead,
    /// Where the target's stands is not known.
    Unreadable,
}

fn verdict(
    increment: i64,
    source: SequenceValue,
    seen: Option<SequenceValue>,
    target: Option<SequenceValue>,
    mode: SequenceMode,
) -> Verdict {
    let is_ahead = |one: SequenceValue, other: SequenceValue| place(increment, one) > place(increment, other);
    match (target, mode) {
        (Some(target), _) if target == source => Verdict::Equal,
        (_, SequenceMode::Exactly) => Verdict::Set,
        (None, SequenceMode::Forward) => Verdict::Unreadable,
        (Some(target), SequenceMode::Forward) if is_ahead(source, target) => Verdict::Set,
        (Some(_), SequenceMode::Forward) if seen.is_some_and(|seen| is_ahead(seen, source)) => Verdict::Set,
        (Some(_), SequenceMode::Forward) => Verdict::Ahead,
    }
}

/// Grows as the sequence goes on: a value that was handed out lies behind the same one that was not.
fn place(increment: i64, value: SequenceValue) -> (i128, bool) {
    let last = i128::from(value.last_value);
    (if increment < 0 { -last } else { last }, value.is_called)
}

async fn set(target: &Client, pairs: &[Pair<'_>]) -> Result<(), tokio_postgres::Error> {
    let names: Vec<String> = pairs.iter().map(|pair| pair.target.name.quoted()).collect();
    let values: Vec<i64> = pairs.iter().map(|pair| pair.value.last_value).collect();
    let called: Vec<bool> = pairs.iter().map(|pair| pair.value.is_called).collect();
    target.execute(sql::SET_SEQUENCES, &[&names, &values, &called]).await.map(drop)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(last_value: i64, is_called: bool) -> SequenceValue {
        SequenceValue { last_value, is_called }
    }

    fn forward(
        increment: i64,
        source: SequenceValue,
        seen: Option<SequenceValue>,
        target: SequenceValue,
    ) -> Verdict {
        verdict(increment, source, seen, Some(target), SequenceMode::Forward)
    }

    #[test]
    fn the_target_follows_in_the_direction_of_the_sequence() {
        assert_eq!(forward(1, at(5, true), None, at(4, true)), Verdict::Set);
        assert_eq!(forward(-1, at(-5, true), None, at(-4, true)), Verdict::Set);
        assert_eq!(forward(1, at(5, true), None, at(5, false)), Verdict::Set);
        assert_eq!(forward(1, at(5, true), Some(at(1, true)), at(5, true)), Verdict::Equal);
    }

    #[test]
    fn it_goes_back_only_after_the_source() {
        assert_eq!(forward(1, at(5, true), None, at(6, true)), Verdict::Ahead);
        assert_eq!(forward(1, at(5, true), Some(at(4, true)), at(6, true)), Verdict::Ahead);
        assert_eq!(forward(1, at(1, false), Some(at(6, true)), at(6, true)), Verdict::Set);
        assert_eq!(forward(-1, at(-1, true), Some(at(-6, true)), at(-6, true)), Verdict::Set);
        // RESTART at the very value that was handed out last.
        assert_eq!(forward(1, at(6, false), Some(at(6, true)), at(6, true)), Verdict::Set);
    }

    #[test]
    fn a_hand_over_takes_what_the_source_has_whatever_is_there() {
        let exactly = |target| verdict(1, at(5, true), None, target, SequenceMode::Exactly);
        assert_eq!((exactly(Some(at(9, true))), exactly(None)), (Verdict::Set, Verdict::Set));
        assert_eq!(exactly(Some(at(5, true))), Verdict::Equal);
        assert_eq!(verdict(1, at(5, true), None, None, SequenceMode::Forward), Verdict::Unreadable);
    }

    #[test]
    fn the_sequence_of_the_same_column_counts_more_than_the_one_of_the_same_name() {
        let sequence = |name: &str, owner: Option<&str>, value: Option<i64>| SequenceInfo {
            name: TableName::new("public", name),
            owned_by: owner.map(|table| (TableName::new("public", table), "id".to_owned())),
            identity: false,
            increment: 1,
            value: value.map(|value| at(value, true)),
        };
        let source = [
            sequence("t_id_seq", Some("t"), Some(1)),
            sequence("own", None, Some(2)),
            sequence("gone", None, Some(3)),
            sequence("secret", None, None),
        ];
        let there = [
            sequence("t_id_seq", Some("u"), Some(0)),
            sequence("t_other", Some("t"), Some(0)),
            sequence("own", None, Some(0)),
            sequence("secret", None, Some(0)),
        ];
        let mut problems = Vec::new();
        let wanted: Vec<&SequenceInfo> = source.iter().collect();
        let found = pairs(&wanted, &there, &mut problems);
        let names: Vec<_> = found
            .iter()
            .map(|pair| (pair.source.name.name.as_str(), pair.target.name.name.as_str()))
            .collect();
        assert_eq!(names, [("t_id_seq", "t_other"), ("own", "own")]);
        let reasons: Vec<_> = problems.iter().map(|(name, why)| (name.name.as_str(), *why)).collect();
        assert_eq!(reasons, [("gone", MISSING), ("secret", UNREADABLE)]);
    }

    fn gap(before: SequenceValue, there: SequenceValue, after: SequenceValue) -> Option<SequencePlace> {
        let sequence = |value| SequenceInfo {
            name: TableName::new("public", "s"),
            owned_by: None,
            identity: false,
            increment: 1,
            value: Some(value),
        };
        let found = sequence_gaps(&[&sequence(before)], &[sequence(there)], &[sequence(after)]);
        found.into_iter().next().map(|gap| gap.place)
    }

    #[test]
    fn what_the_source_was_at_between_the_looks_is_no_gap() {
        assert_eq!(gap(at(5, true), at(5, true), at(9, true)), None);
        assert_eq!(gap(at(5, true), at(7, true), at(9, true)), None);
        assert_eq!(gap(at(5, true), at(4, true), at(9, true)), Some(SequencePlace::Behind));
        assert_eq!(gap(at(5, true), at(5, false), at(5, true)), Some(SequencePlace::Behind));
        assert_eq!(gap(at(5, true), at(10, true), at(9, true)), Some(SequencePlace::Ahead));
        // The source's went back meanwhile.
        assert_eq!(gap(at(9, true), at(1, false), at(1, false)), None);
    }

    proptest! {
        /// However the source's moves, and whatever is drawn on the target: the target is never left behind it, and is
        /// only taken back when the source's went back.
        #[test]
        fn the_target_is_never_behind_and_never_goes_back_alone(
            increment in prop_oneof![Just(1_i64), Just(-1), Just(7), Just(i64::MIN), Just(i64::MAX)],
            steps in proptest::collection::vec((any::<i64>(), any::<bool>(), proptest::option::of(any::<i64>())), 1..20),
        ) {
            let (mut seen, mut target): (Option<SequenceValue>, SequenceValue) = (None, at(1, false));
            for (value, is_called, drawn) in steps {
                let source = at(value, is_called);
                if let Some(drawn) = drawn {
                    target = at(drawn, true);
                }
                let before = target;
                if forward(increment, source, seen, target) == Verdict::Set {
                    target = source;
                }
                let (had, place) = (seen.replace(source), |value| place(increment, value));
                prop_assert!(place(target) >= place(source));
                let went_back = place(target) < place(before);
                prop_assert!(!went_back || had.is_some_and(|had| place(source) < place(had)));
            }
        }
    }
}
