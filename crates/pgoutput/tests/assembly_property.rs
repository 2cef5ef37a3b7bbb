//! What the assembler makes of a stream, with the transactions that still run in memory, must be exactly what was
//! committed, in commit order.

#![expect(clippy::unwrap_used, reason = "helpers of a test")]

mod server;

use bytes::Bytes;
use proptest::prelude::*;
use relevo_model::TransactionPart;
use relevo_pgoutput::{AssembleError, Assembler, Format, MemoryStore, Protocol, Streaming};

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
