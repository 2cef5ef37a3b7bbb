//! Compression of blocks. Compressors are large, logs are many: a few are kept for all logs of a spool.

use std::io;
use std::sync::{Mutex, PoisonError};

use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe::compress_bound;

use crate::format::{BLOCK_HEADER_BYTES, BlockHeader, checksum};

/// zstd's fastest ordinary level: its successors cost more time than they save bytes here.
const LEVEL: i32 = 1;
/// How many idle compressors are kept, about 1 MiB each.
const MAX_IDLE: usize = 2;

/// The most bytes that a block with so much content can take in a file.
pub(crate) fn max_block_bytes(raw_bytes: usize) -> u64 {
    (BLOCK_HEADER_BYTES + compress_bound(raw_bytes)) as u64
}

/// Makes the bytes of blocks.
pub(crate) struct Encoder {
    compressor: Compressor<'static>,
    block: Vec<u8>,
}

impl Encoder {
    fn new() -> io::Result<Self> {
        Ok(Self { compressor: Compressor::new(LEVEL)?, block: Vec::new() })
    }

    /// The block with this content, and the checksum that the next one begins from. Lengths and checksum of the
    /// content are filled into `header`.
    pub(crate) fn block(
        &mut self,
        header: &mut BlockHeader,
        raw: &[u8],
        chain: u32,
    ) -> io::Result<(&[u8], u32)> {
        let needed_bytes = BLOCK_HEADER_BYTES + compress_bound(raw.len());
        if self.block.len() < needed_bytes {
            self.block.resize(needed_bytes, 0);
        }
        let body = &mut self.block[BLOCK_HEADER_BYTES..];
        let stored = if raw.is_empty() { 0 } else { self.compressor.compress_to_buffer(raw, body)? };
        let end = BLOCK_HEADER_BYTES + stored;
        header.raw_bytes = raw.len() as u32;
        header.stored_bytes = stored as u32;
        header.body_crc = checksum(0, &self.block[BLOCK_HEADER_BYTES..end]);
        let (bytes, chain) = header.encode(chain);
        self.block[..BLOCK_HEADER_BYTES].copy_from_slice(&bytes);
        Ok((&self.block[..end], chain))
    }
}

/// The idle compressors of a spool.
#[derive(Default)]
pub(crate) struct Encoders {
    idle: Mutex<Vec<Encoder>>,
}

impl Encoders {
    /// An idle encoder, or a new one. One that is not given back is just dropped.
    pub(crate) fn take(&self) -> io::Result<Encoder> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        idle.map_or_else(Encoder::new, Ok)
    }

    /// Keeps an encoder for the next who asks.
    pub(crate) fn give(&self, encoder: Encoder) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < MAX_IDLE {
            idle.push(encoder);
        }
    }
}

/// Reads the content of blocks.
pub(crate) struct Decoder {
    decompressor: Decompressor<'static>,
}

impl Decoder {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { decompressor: Decompressor::new()? })
    }

    /// The content of a block; `None` when the bytes are not what the header says.
    pub(crate) fn content(&mut self, header: &BlockHeader, stored: &[u8]) -> Option<Vec<u8>> {
        if checksum(0, stored) != header.body_crc {
            return None;
        }
        let length = header.raw_bytes as usize;
        self.decompressor.decompress(stored, length).ok().filter(|raw| raw.len() == length)
    }
}
