//! The assembler with the store: whatever is streamed, rolled back and committed in between, what comes out is what was
//! committed, in commit order, also when next to nothing fits into memory.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../../pgoutput/tests/server/mod.rs"]
mod server;

use bytes::Bytes;
use proptest::prelude::*;
use relevo_model::TransactionPart;
use relevo_pgoutput::{AssembleError, Assembler, Format, Protocol, Step, Streaming};
use relevo_running::RunningStore;
use relevo_spool::SharedSpool;

use server::{Server, join, steps};

fn assemble(
    frames: &[Bytes],
    format: Format,
    part_bytes: usize,
    store: RunningStore,
) -> Result<Vec<TransactionPart>, AssembleError> {
    let mut assembler = Assembler::new(format, part_bytes, store);
    let mut parts = Vec::new();
    for frame in frames {
        assembler.feed(frame)?;
        loop {
            match assembler.step()? {
                Step::Part(part) => parts.push(part),
                Step::More => assert!(assembler.in_transaction() && assembler.is_reading_back()),
                Step::Done => break,
                Step::Ahead(_) | Step::Unsettled => panic!("nothing was asked to go ahead"),
            }
        }
    }
    Ok(parts)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn what_was_committed_is_what_is_assembled(
        steps in prop::collection::vec(steps(), 0..40),
        part_bytes in prop_oneof![Just(1_usize), Just(200), Just(10_000), Just(usize::MAX)],
        memory_bytes in prop_oneof![Just(0_u64), Just(1 << 10), Just(3 << 10), Just(1 << 30)],
    ) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("spool");
        let mut server = Server::new(false);
        steps.into_iter().for_each(|step| server.play(step));
        let format = Format { protocol: Protocol::V4, streaming: Streaming::On };
        let store = RunningStore::new(SharedSpool::new(path.clone(), 1 << 30), memory_bytes);
        let parts = assemble(&server.frames, format, part_bytes, store).map_err(|error| {
            TestCaseError::fail(format!("{error:?}"))
        })?;
        prop_assert_eq!(join(parts, part_bytes), server.committed);
        prop_assert!(!path.exists(), "the spool is left behind");
    }
}
