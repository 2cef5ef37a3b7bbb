//! What the assembler makes of a stream, with the transactions that still run in memory, must be exactly what was
//! committed, in commit order.

#![expect(clippy::unwrap_used, reason = "helpers of a test")]

mod server;

use bytes::Bytes;
use std::sync::Arc;

use proptest::prelude::*;
use relevo_model::{Ahead, SourceLsn, TransactionPart};
use relevo_pgoutput::{AssembleError, Assembler, Format, MemoryStore, Protocol, Step, Streaming};

use server::{Server, join, steps};

fn assemble(
    frames: &[Bytes],
    format: Format,
    part_bytes: usize,
) -> Result<Vec<TransactionPart>, AssembleError> {
    let mut assembler = Assembler::new(format, part_bytes, MemoryStore::new(1 << 30));
    let mut parts = Vec::new();
    for frame in frames {
        assembler.feed(frame)?;
        while let Some(part) = assembler.next_part()? {
            parts.push(part);
        }
    }
    Ok(parts)
}

/// What is decided about a transaction that goes ahead, each time that something of it comes.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Decision {
    GoOn,
    Refuse,
}

/// As [`assemble`], by somebody who takes what goes ahead until he decides otherwise. Returns how many transactions he took
/// so, too.
fn assemble_ahead(
    frames: &[Bytes],
    part_bytes: usize,
    mut decisions: impl Iterator<Item = Decision>,
) -> Result<(Vec<TransactionPart>, usize), AssembleError> {
    let format = Format { protocol: Protocol::V4, streaming: Streaming::On };
    let mut assembler = Assembler::new(format, part_bytes, MemoryStore::new(1 << 30)).with_ahead();
    let (mut parts, mut taken): (Vec<TransactionPart>, usize) = (Vec::new(), 0);
    let mut ahead: Vec<TransactionPart> = Vec::new();
    for frame in frames {
        assembler.feed(frame)?;
        loop {
            let event = match assembler.step()? {
                Step::Part(part) => {
                    parts.push(part);
                    continue;
                }
                Step::Ahead(event) => event,
                Step::More => continue,
                Step::Unsettled => panic!("nobody waits for the settlement"),
                Step::Done => break,
            };
            let xid = event.xid();
            if !matches!(&event, Ahead::Part(part) if part.first) {
                assert_eq!(ahead.first().map(|part| part.header.xid), Some(xid), "one at a time");
            }
            if !matches!(event, Ahead::Abort(_)) && decisions.next() == Some(Decision::Refuse) {
                ahead.clear();
                assert!(assembler.settle_ahead(xid, false));
                continue;
            }
            match event {
                Ahead::Part(part) => {
                    assert_eq!((part.header.commit_lsn, part.end), (SourceLsn::ZERO, None));
                    ahead.push(part);
                }
                Ahead::Abort(_) => ahead.clear(),
                Ahead::Commit(last) => {
                    assert!(matches!(assembler.step()?, Step::Unsettled) && assembler.in_transaction());
                    let header = Arc::clone(&last.header);
                    parts.extend(
                        ahead.drain(..).map(|part| TransactionPart { header: Arc::clone(&header), ..part }),
                    );
                    parts.push(last);
                    taken += 1;
                    assert!(assembler.settle_ahead(xid, true) && !assembler.settle_ahead(xid, true));
                }
            }
        }
    }
    Ok((parts, taken))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn what_was_committed_is_what_is_assembled(
        steps in prop::collection::vec(steps(), 0..40),
        parallel in any::<bool>(),
        part_bytes in prop_oneof![Just(1_usize), Just(200), Just(1_000), Just(10_000), Just(usize::MAX)],
    ) {
        let mut server = Server::new(parallel);
        for step in steps {
            server.play(step);
        }
        let streaming = if parallel { Streaming::Parallel } else { Streaming::On };
        let format = Format { protocol: Protocol::V4, streaming };
        let parts = assemble(&server.frames, format, part_bytes).map_err(|error| {
            TestCaseError::fail(format!("{error:?}"))
        })?;
        prop_assert_eq!(join(parts, part_bytes), server.committed);
    }

    /// Whatever is taken ahead and whatever is not, the transactions are those that were committed.
    #[test]
    fn what_goes_ahead_is_what_was_committed(
        steps in prop::collection::vec(steps(), 0..60),
        part_bytes in prop_oneof![Just(1_usize), Just(200), Just(1_000)],
        decisions in prop::collection::vec(prop_oneof![6 => Just(Decision::GoOn), 1 => Just(Decision::Refuse)], 0..30),
    ) {
        let mut server = Server::new(false);
        for step in steps {
            server.play(step);
        }
        let decided = decisions.into_iter().chain(std::iter::repeat(Decision::GoOn));
        let (parts, _) = assemble_ahead(&server.frames, part_bytes, decided).map_err(|error| {
            TestCaseError::fail(format!("{error:?}"))
        })?;
        prop_assert_eq!(join(parts, part_bytes), server.committed);
    }

    /// A frame lost, doubled or exchanged with its neighbour may go unnoticed, but never panics.
    #[test]
    fn a_disturbed_stream_never_panics(
        steps in prop::collection::vec(steps(), 1..20),
        disturbances in prop::collection::vec((any::<prop::sample::Index>(), 0..3_u8), 1..4),
    ) {
        let mut server = Server::new(false);
        for step in steps {
            server.play(step);
        }
        for (place, kind) in disturbances {
            if server.frames.len() < 2 {
                break;
            }
            let place = place.index(server.frames.len() - 1);
            match kind {
                0 => drop(server.frames.remove(place)),
                1 => server.frames.insert(place, server.frames[place].clone()),
                _ => server.frames.swap(place, place + 1),
            }
        }
        let format = Format { protocol: Protocol::V4, streaming: Streaming::On };
        let _parts_or_error = assemble(&server.frames, format, 500);
    }
}
