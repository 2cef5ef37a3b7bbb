//! Tests of the order of work: everything once, in its order, whatever ends first and whatever is lost on the way.

use proptest::prelude::*;

use super::*;

fn parts(count: u64) -> Vec<Range> {
    (0..count).map(|n| Range { first: n * 10, end: Some((n + 1) * 10), file: 1 }).collect()
}

/// What the world does: which of the running tasks ends next, and whether something is lost.
#[derive(Debug, Clone)]
struct Step {
    which: prop::sample::Index,
    lost: bool,
}

fn step() -> impl Strategy<Value = Step> {
    (any::<prop::sample::Index>(), prop::bool::weighted(0.2)).prop_map(|(which, lost)| Step { which, lost })
}

#[derive(Debug, Default, Clone)]
struct Seen {
    split: Vec<Range>,
    parts: Vec<Range>,
    complete: bool,
    statements: Vec<usize>,
    ready: bool,
}

/// Ends a task as a server would, and checks that it was right to begin it.
fn end(seen: &mut Seen, task: &Task, splits: bool, lost: bool) -> Outcome {
    match task {
        Task::Rows if splits => {
            *seen = Seen { split: parts(3), ..Seen::default() };
            Outcome::Split(parts(3))
        }
        Task::Rows => {
            *seen = Seen { complete: true, ..Seen::default() };
            Outcome::Done
        }
        Task::Part(_) if lost => Outcome::Rewritten,
        Task::Part(range) => {
            assert!(!seen.parts.contains(range), "a part twice");
            seen.parts.push(*range);
            Outcome::Done
        }
        Task::Complete(all) => {
            assert_eq!(all, &seen.split);
            assert_eq!(seen.parts.len(), all.len(), "not all parts are there");
            if lost {
                let missing = seen.parts.split_off(1);
                return Outcome::MissingParts(missing);
            }
            seen.complete = true;
            Outcome::Done
        }
        Task::Statement(number) => {
            assert!(seen.complete, "a statement before the rows");
            assert!(!seen.statements.contains(number), "a statement twice");
            seen.statements.push(*number);
            Outcome::Done
        }
        Task::Ready => {
            if lost && !seen.statements.is_empty() {
                return Outcome::MissingStatements(seen.statements.split_off(0));
            }
            seen.ready = true;
            Outcome::Done
        }
    }
}

proptest! {
    #[test]
    fn everything_is_done_once_and_in_its_order(
        tables in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<bool>(), 0..4)), 0..4),
        workers in 1_usize..5,
        steps in prop::collection::vec(step(), 0..60),
    ) {
        let mut work = Work::new(tables.iter().map(|(_, statements)| (false, statements.clone())).collect());
        let mut seen = vec![Seen::default(); tables.len()];
        let mut running: Vec<(usize, Task)> = Vec::new();
        let mut steps = steps.into_iter();
        loop {
            while running.len() < workers {
                match work.next() {
                    Next::Task(number, task) => running.push((number, task)),
                    Next::Wait => { prop_assert!(!running.is_empty(), "waits for nothing"); break }
                    Next::Over => break,
                }
            }
            for (number, task) in &running {
                let beside = running.iter().filter(|(other, _)| other == number).count();
                let shares = match task {
                    Task::Part(_) => true,
                    Task::Statement(at) => tables[*number].1[*at],
                    _ => false,
                };
                prop_assert!(shares || beside == 1, "{task:?} has company");
            }
            if running.is_empty() { break }
            let (at, lost) = steps.next().map_or((0, false), |s| (s.which.index(running.len()), s.lost));
            let (number, task) = running.remove(at);
            let outcome = end(&mut seen[number], &task, tables[number].0, lost);
            if outcome == Outcome::Rewritten {
                // The parts that run beside it will not count.
                seen[number].parts.clear();
                let siblings: Vec<_> = running.iter().filter(|(other, _)| *other == number).cloned().collect();
                running.retain(|(other, _)| *other != number);
                work.ended(number, outcome);
                for _ in siblings { work.ended(number, Outcome::Rewritten) }
            } else {
                work.ended(number, outcome);
            }
        }
        prop_assert_eq!(work.next(), Next::Over);
        prop_assert_eq!((work.tables_without_rows(), work.steps_left()), (0, 0));
        for (seen, (_, statements)) in seen.iter().zip(&tables) {
            prop_assert!(seen.ready && seen.statements.len() == statements.len());
        }
    }
}

#[test]
fn a_small_table_does_not_wait_for_the_parts_of_a_large_one() {
    let mut work = Work::new(vec![(false, vec![]), (false, vec![]), (true, vec![true])]);
    assert_eq!(work.next(), Next::Task(0, Task::Rows));
    work.ended(0, Outcome::Split(parts(3)));
    assert_eq!(work.next(), Next::Task(0, Task::Part(parts(3)[0])));
    assert_eq!(work.next(), Next::Task(1, Task::Rows));
    assert_eq!(work.next(), Next::Task(2, Task::Statement(0)));
    assert_eq!(work.next(), Next::Task(0, Task::Part(parts(3)[1])));
}

#[test]
fn the_largest_table_is_served_first_in_every_stage() {
    let mut work = Work::new(vec![(false, vec![true, true, false]), (false, vec![])]);
    assert_eq!(work.next(), Next::Task(0, Task::Rows));
    assert_eq!(work.next(), Next::Task(1, Task::Rows));
    assert_eq!(work.next(), Next::Wait);
    work.ended(0, Outcome::Split(parts(2)));
    assert_eq!(work.next(), Next::Task(0, Task::Part(parts(2)[0])));
    assert_eq!(work.next(), Next::Task(0, Task::Part(parts(2)[1])));
    work.ended(0, Outcome::Done);
    assert_eq!(work.next(), Next::Wait);
    work.ended(0, Outcome::Done);
    assert_eq!(work.next(), Next::Task(0, Task::Complete(parts(2))));
    work.ended(0, Outcome::Done);
    assert_eq!(work.tables_without_rows(), 1);
    assert_eq!(work.next(), Next::Task(0, Task::Statement(0)));
    assert_eq!(work.next(), Next::Task(0, Task::Statement(1)));
    // The third needs the table for itself.
    assert_eq!(work.next(), Next::Wait);
    work.ended(1, Outcome::Done);
    assert_eq!(work.next(), Next::Task(1, Task::Ready));
}
