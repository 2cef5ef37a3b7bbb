//! Any bytes, in any format: no panic, and what decodes encodes to the same bytes again.

#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use relevo_pgoutput::{Format, Protocol, Streaming, decode, encode};

fuzz_target!(|data: &[u8]| {
    let Some((context, frame)) = data.split_first() else { return };
    let protocol = Protocol::ALL[usize::from(context & 3)];
    let streaming = if context & 4 == 0 { Streaming::On } else { Streaming::Parallel };
    let frame = Bytes::copy_from_slice(frame);
    if let Ok(message) = decode(&frame, Format { protocol, streaming }, context & 8 != 0) {
        assert_eq!(encode(&message).as_ref(), Ok(&frame));
    }
});
