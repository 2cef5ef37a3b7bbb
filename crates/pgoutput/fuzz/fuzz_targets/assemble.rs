//! Any frames one after the other: no panic, and only parts that follow each other as parts do.

#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use relevo_pgoutput::{Assembler, Format, MemoryStore, Protocol, Streaming};

fuzz_target!(|data: &[u8]| {
    let format = Format { protocol: Protocol::V4, streaming: Streaming::On };
    let mut assembler = Assembler::new(format, 256, MemoryStore::new(1 << 16));
    let mut rest = data;
    let mut open = false;
    // Each frame stands behind one byte that is its length.
    while let Some((length, behind)) = rest.split_first() {
        let (frame, behind) = behind.split_at(usize::from(*length).min(behind.len()));
        rest = behind;
        if assembler.feed(&Bytes::copy_from_slice(frame)).is_err() {
            return;
        }
        while let Ok(Some(part)) = assembler.next_part() {
            assert_eq!(part.first, !open);
            open = part.end.is_none();
        }
    }
});
