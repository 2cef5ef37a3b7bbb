//! The batcher against its promises: nothing lost, nothing reordered, no waiting without need, no overgrown batch.

use std::collections::BTreeSet;
use std::sync::Arc;

use proptest::prelude::*;
use relevo_model::{Batch, Batcher, SourceLsn, Timestamp, TransactionHeader, TransactionPart, Xid};

/// One thing that happens to a batcher.
#[derive(Debug, Clone)]
enum Step {
    /// The next part of the script comes in.
    Push,
    /// A keepalive comes in, this far behind (or, below 20, before) what came last.
    Keepalive(u64),
    /// The target is idle.
    Take,
    /// It is, and has failed at one of the next.
    TakeOne,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Push),
        1 => (0..60_u64).prop_map(Step::Keepalive),
        2 => Just(Step::Take),
        1 => Just(Step::TakeOne),
    ]
}

/// Transactions as the sizes of their parts, in bytes.
fn transactions() -> impl Strategy<Value = Vec<Vec<usize>>> {
    let whole = prop::collection::vec(0..40_usize, 1..2);
    let parts = prop::collection::vec(0..150_usize, 2..5);
    prop::collection::vec(prop_oneof![3 => whole, 1 => parts], 0..30)
}

fn parts(transactions: &[Vec<usize>]) -> Vec<TransactionPart> {
    let mut parts = Vec::new();
    for (number, sizes) in (1..).zip(transactions) {
        let commit = number * 1000;
        let header = Arc::new(TransactionHeader {
            xid: Xid(7),
            commit_lsn: SourceLsn::new(commit),
            commit_time: Timestamp::default(),
            origin: None,
        });
        for (index, size_bytes) in sizes.iter().enumerate() {
            parts.push(TransactionPart {
                header: Arc::clone(&header),
                first: index == 0,
                changes: Vec::new(),
                end: (index + 1 == sizes.len()).then(|| SourceLsn::new(commit + 500)),
                size_bytes: *size_bytes,
            });
        }
    }
    parts
}

/// What came in and what came out, by the simplest possible book-keeping.
#[derive(Default)]
struct Book {
    pushed: Vec<TransactionPart>,
    taken: Vec<TransactionPart>,
    /// The furthest position that a taken batch may have, and the furthest of all batches taken so far.
    furthest: u64,
    position: u64,
    bare_keepalive: bool,
}

impl Book {
    fn inside(&self) -> bool {
        self.pushed.last().is_some_and(|part| part.end.is_none())
    }

    fn check(&mut self, batch: &Batch, limit_bytes: usize) -> Result<(), TestCaseError> {
        let size: usize = batch.parts.iter().map(|part| part.size_bytes).sum();
        prop_assert_eq!(batch.size_bytes, size);
        prop_assert!(batch.parts.len() <= 1 || size <= limit_bytes, "{} bytes in one batch", size);

        prop_assert_eq!(batch.position.is_none(), batch.unfinished());
        if batch.unfinished() {
            let lsn = batch.parts[0].header.commit_lsn;
            let alone = batch.parts.iter().all(|part| part.header.commit_lsn == lsn);
            prop_assert!(alone, "a whole transaction waits behind an unfinished one");
        }
        prop_assert!(batch.parts.iter().skip(1).all(|part| !part.first || part.end.is_some()));

        self.taken.extend(batch.parts.iter().cloned());
        if let Some(position) = batch.position {
            let last_end = batch.parts.last().and_then(|part| part.end).map_or(0, SourceLsn::as_u64);
            prop_assert!(position.as_u64() >= last_end);
            prop_assert!(position.as_u64() > self.position, "the position went back or stood still");
            self.position = position.as_u64();
            if self.taken.len() == self.pushed.len() {
                prop_assert_eq!(self.position, self.furthest, "the last keepalive is not forgotten");
            } else {
                prop_assert_eq!(self.position, last_end, "a keepalive behind what waits comes too early");
            }
        }
        Ok(())
    }
}

fn take(batcher: &mut Batcher, book: &mut Book, limit_bytes: usize) -> Result<bool, TestCaseError> {
    take_by(batcher, book, limit_bytes, false)
}

fn take_by(
    batcher: &mut Batcher,
    book: &mut Book,
    limit_bytes: usize,
    one: bool,
) -> Result<bool, TestCaseError> {
    let waits = book.taken.len() < book.pushed.len() || book.bare_keepalive;
    let batch = if one { batcher.take_one_until(None) } else { batcher.take() };
    prop_assert_eq!(batch.is_some(), waits, "take is Some exactly when something waits");
    if let Some(batch) = batch.as_ref().filter(|_| one) {
        let lsns: BTreeSet<SourceLsn> = batch.parts.iter().map(|part| part.header.commit_lsn).collect();
        prop_assert!(lsns.len() <= 1, "several transactions where one was asked for");
    }
    if let Some(batch) = &batch {
        book.check(batch, limit_bytes)?;
    }
    if book.taken.len() == book.pushed.len() {
        book.bare_keepalive = false;
    }
    let waiting: usize = book.pushed[book.taken.len()..].iter().map(|part| part.size_bytes).sum();
    prop_assert_eq!(batcher.waiting_bytes(), waiting);
    Ok(waits)
}

proptest! {
    #[test]
    fn batches_are_the_input_cut_at_the_right_places(
        transactions in transactions(),
        steps in prop::collection::vec(step(), 0..200),
        limit_bytes in 1..200_usize,
    ) {
        let mut script = parts(&transactions).into_iter();
        let mut batcher = Batcher::new(limit_bytes);
        let mut book = Book::default();
        for step in steps {
            match step {
                Step::Push => if let Some(part) = script.next() {
                    book.furthest = part.end.map_or(book.furthest, SourceLsn::as_u64);
                    book.bare_keepalive = false;
                    book.pushed.push(part.clone());
                    batcher.push(part);
                },
                Step::Keepalive(offset) => {
                    let position = (book.furthest + offset).saturating_sub(20);
                    if !book.inside() && position > book.furthest {
                        book.furthest = position;
                        book.bare_keepalive = true;
                    }
                    batcher.keepalive(SourceLsn::new(position));
                }
                Step::Take => { take(&mut batcher, &mut book, limit_bytes)?; }
                Step::TakeOne => { take_by(&mut batcher, &mut book, limit_bytes, true)?; }
            }
        }
        while take(&mut batcher, &mut book, limit_bytes)? {}
        prop_assert_eq!(book.taken, book.pushed);
    }
}

fn one_part(commit: u64, first: bool, end: Option<u64>) -> TransactionPart {
    let mut part = parts(&[vec![10]]).remove(0);
    part.header =
        Arc::new(TransactionHeader { commit_lsn: SourceLsn::new(commit), ..(*part.header).clone() });
    part.first = first;
    part.end = end.map(SourceLsn::new);
    part
}

#[test]
fn a_keepalive_never_commits_half_a_transaction_whose_first_part_was_taken() {
    let mut batcher = Batcher::new(100);
    batcher.push(one_part(1000, true, None));
    assert!(batcher.take().is_some_and(|batch| batch.unfinished()));
    batcher.keepalive(SourceLsn::new(1200));
    assert_eq!(batcher.take(), None);
    batcher.push(one_part(1000, false, Some(1500)));
    assert_eq!(batcher.take().and_then(|batch| batch.position), Some(SourceLsn::new(1500)));
}

#[test]
fn a_keepalive_that_lags_behind_a_commit_does_not_move_the_target_back() {
    let mut batcher = Batcher::new(100);
    batcher.push(one_part(1000, true, Some(1500)));
    batcher.keepalive(SourceLsn::new(1400));
    assert_eq!(batcher.take().and_then(|batch| batch.position), Some(SourceLsn::new(1500)));
    assert_eq!(batcher.take(), None);
}

#[test]
fn nothing_behind_a_limit_is_taken_and_what_was_begun_goes_on() {
    let lsn = SourceLsn::new;
    let mut batcher = Batcher::new(1000);
    batcher.push(one_part(1000, true, Some(1100)));
    batcher.push(one_part(1100, true, Some(1200)));
    let taken = batcher.take_until(Some(lsn(1100))).unwrap();
    assert_eq!(
        (taken.transactions(), taken.position),
        (1, Some(lsn(1100))),
        "the second commits at the limit"
    );
    assert_eq!(batcher.take_until(Some(lsn(1100))), None);
    batcher.keepalive(lsn(1300));
    let taken = batcher.take_until(Some(lsn(1250))).unwrap();
    assert_eq!((taken.transactions(), taken.position), (1, Some(lsn(1200))), "the keepalive lies beyond");
    assert_eq!(batcher.take_until(Some(lsn(1250))), None);
    assert_eq!(batcher.take().and_then(|batch| batch.position), Some(lsn(1300)), "it was not lost");

    batcher.push(one_part(1400, true, None));
    assert!(batcher.take_until(Some(lsn(1500))).is_some_and(|batch| batch.unfinished()));
    batcher.push(one_part(1400, false, Some(1410)));
    let taken = batcher.take_until(Some(lsn(1400))).and_then(|batch| batch.position);
    assert_eq!(taken, Some(lsn(1410)), "a transaction that was begun goes on");
}
