//! Frames of one transaction in memory, packed into chunks: what they take is what they hold, and little more.

use std::vec::IntoIter;

use bytes::{Buf, Bytes};
use relevo_model::Xid;

/// Of each frame: its length and its subtransaction, 4 bytes each.
const HEADER_BYTES: usize = 8;
/// The first chunk of a transaction; each one after it is as large as all before, up to the largest.
const SMALLEST_CHUNK_BYTES: usize = 1 << 10;
const LARGEST_CHUNK_BYTES: usize = 64 << 10;

/// Frames in the order in which they were pushed.
#[derive(Debug, Default)]
pub(crate) struct Packed {
    chunks: Vec<Vec<u8>>,
    bytes: u64,
}

impl Packed {
    /// Adds a frame, which must be shorter than 4 GiB.
    pub(crate) fn push(&mut self, subxid: Xid, frame: &[u8]) {
        let grows_bytes = self.growth_bytes(frame.len());
        let mut chunk = match self.chunks.pop_if(|_| grows_bytes == 0) {
            Some(chunk) => chunk,
            None => {
                let chunk = Vec::with_capacity(usize::try_from(grows_bytes).unwrap_or(usize::MAX));
                self.bytes += chunk.capacity() as u64;
                chunk
            }
        };
        #[expect(clippy::cast_possible_truncation, reason = "a frame of the protocol has at most 1 GiB")]
        chunk.extend_from_slice(&(frame.len() as u32).to_be_bytes());
        chunk.extend_from_slice(&subxid.0.to_be_bytes());
        chunk.extend_from_slice(frame);
        self.chunks.push(chunk);
    }

    /// How much more memory a frame of this length takes.
    pub(crate) fn growth_bytes(&self, frame_bytes: usize) -> u64 {
        let needed = HEADER_BYTES + frame_bytes;
        if self.chunks.last().is_some_and(|chunk| chunk.capacity() - chunk.len() >= needed) {
            return 0;
        }
        let usual = usize::try_from(self.bytes).unwrap_or(usize::MAX);
        needed.max(usual.clamp(SMALLEST_CHUNK_BYTES, LARGEST_CHUNK_BYTES)) as u64
    }

    /// The memory that is taken.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The frames, each with its subtransaction.
    pub(crate) fn into_frames(self) -> PackedFrames {
        PackedFrames { chunks: self.chunks.into_iter(), chunk: Bytes::new() }
    }
}

/// The frames of a transaction that was held in memory. A chunk is freed when its last frame is.
#[derive(Debug)]
pub(crate) struct PackedFrames {
    chunks: IntoIter<Vec<u8>>,
    chunk: Bytes,
}

impl Iterator for PackedFrames {
    type Item = (Xid, Bytes);

    fn next(&mut self) -> Option<Self::Item> {
        if self.chunk.is_empty() {
            self.chunk = self.chunks.next()?.into();
        }
        let (length, subxid) = (self.chunk.get_u32(), self.chunk.get_u32());
        Some((Xid(subxid), self.chunk.split_to(length as usize)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_back_as_they_were() {
        let mut packed = Packed::default();
        let frames: Vec<(Xid, Vec<u8>)> =
            (0..2000_u32).map(|n| (Xid(n % 7), vec![n as u8; (n as usize * 37) % 5000])).collect();
        for (subxid, frame) in &frames {
            packed.push(*subxid, frame);
        }
        let content: usize = frames.iter().map(|(_, frame)| HEADER_BYTES + frame.len()).sum();
        assert!(packed.bytes() as usize <= content + content / 8, "{} for {content}", packed.bytes());
        let back: Vec<_> = packed.into_frames().map(|(subxid, frame)| (subxid, frame.to_vec())).collect();
        assert_eq!(back, frames);
    }

    #[test]
    fn a_frame_larger_than_a_chunk_and_one_without_content_fit() {
        let mut packed = Packed::default();
        packed.push(Xid(1), &[]);
        packed.push(Xid(2), &vec![7; 3 * LARGEST_CHUNK_BYTES]);
        packed.push(Xid(3), &[]);
        let lengths: Vec<_> = packed.into_frames().map(|(subxid, frame)| (subxid.0, frame.len())).collect();
        assert_eq!(lengths, [(1, 0), (2, 3 * LARGEST_CHUNK_BYTES), (3, 0)]);
    }

    #[test]
    fn a_tiny_transaction_takes_little() {
        let mut packed = Packed::default();
        packed.push(Xid(1), b"insert");
        assert!(packed.bytes() <= 1024, "{}", packed.bytes());
    }
}
