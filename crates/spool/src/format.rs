//! The bytes of a log's file: a header with the seal, then blocks. What may not enter: files.
//!
//! All numbers are little-endian. The header is written once, but for the seal in it, which is rewritten after every sync
//! and says up to where the file is known to be on disk: what fails its checksum before that is damage, what fails
//! after it is the trace of a crash. Header and seal fit one sector, so no crash tears them.
//!
//! The checksum of a block's header begins from that of the block before, the first from the file's salt. So a block is
//! taken only in the place it was written for; bytes that an earlier life of the file left behind are not.

use crc32fast::Hasher;

/// Where the name begins.
pub(crate) const FILE_HEADER_BYTES: usize = 60;
/// Where the seal stands in the header.
pub(crate) const SEAL_OFFSET: u64 = 24;
/// The header of a block.
pub(crate) const BLOCK_HEADER_BYTES: usize = 48;
/// What stands before each frame in a block: its position and its length.
pub(crate) const FRAME_HEADER_BYTES: usize = 12;
/// No block holds more uncompressed bytes, whatever its writer was told: what a reader is willing to allocate.
pub(crate) const MAX_BLOCK_BYTES: usize = 1 << 20;

/// The name of the format, with its version as the last byte.
const MAGIC: [u8; 8] = *b"RELSPL\0\x01";

/// A place between two blocks, and what lies before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Point {
    /// Bytes from the beginning of the file.
    pub offset: u64,
    /// The checksum that the next block's header begins from.
    pub chain: u32,
    /// Frames before here.
    pub frames: u64,
    /// The position of the last of them.
    pub last: u64,
}

impl Point {
    /// The position of the last frame, if there is one.
    pub(crate) fn last_position(&self) -> Option<u64> {
        (self.frames > 0).then_some(self.last)
    }
}

/// What a file's header says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct FileHeader {
    pub salt: u64,
    pub name: String,
}

impl FileHeader {
    /// Where the first block begins.
    pub(crate) fn start(&self) -> Point {
        let chain = checksum(0, &self.salt.to_le_bytes());
        Point { offset: (FILE_HEADER_BYTES + self.name.len()) as u64, chain, frames: 0, last: 0 }
    }

    /// The header with a seal that covers nothing but it.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(FILE_HEADER_BYTES + self.name.len());
        bytes.extend(MAGIC);
        bytes.extend(self.salt.to_le_bytes());
        bytes.extend((self.name.len() as u32).to_le_bytes());
        bytes.extend(checksum(checksum(0, &bytes), self.name.as_bytes()).to_le_bytes());
        bytes.extend(encode_seal(self.salt, &self.start()));
        bytes.extend(self.name.as_bytes());
        bytes
    }

    /// Reads the header from the beginning of a file; `None` when it is not one.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let fixed = bytes.get(..FILE_HEADER_BYTES)?;
        let length = number(fixed, 16) as usize;
        let name = bytes.get(FILE_HEADER_BYTES..)?.get(..length)?;
        let crc = checksum(checksum(0, &fixed[..20]), name);
        if fixed[..8] != MAGIC || crc != number(fixed, 20) {
            return None;
        }
        Some(Self { salt: long(fixed, 8), name: String::from_utf8(name.to_vec()).ok()? })
    }
}

/// Whether this is the beginning of a file that ends within its name, and whose seal covers nothing behind that.
pub(crate) fn lacks_name(bytes: &[u8]) -> bool {
    let Some(fixed) = bytes.get(..FILE_HEADER_BYTES) else { return false };
    let end = FILE_HEADER_BYTES as u64 + u64::from(number(fixed, 16));
    let seal = decode_seal(long(fixed, 8), fixed);
    (bytes.len() as u64) < end && fixed[..8] == MAGIC && seal.is_some_and(|seal| seal.offset == end)
}

/// The seal that says: all before `point` is on disk.
pub(crate) fn encode_seal(salt: u64, point: &Point) -> [u8; FILE_HEADER_BYTES - SEAL_OFFSET as usize] {
    let mut bytes = [0; FILE_HEADER_BYTES - SEAL_OFFSET as usize];
    bytes[0..8].copy_from_slice(&point.offset.to_le_bytes());
    bytes[8..16].copy_from_slice(&point.frames.to_le_bytes());
    bytes[16..24].copy_from_slice(&point.last.to_le_bytes());
    bytes[24..28].copy_from_slice(&point.chain.to_le_bytes());
    // Four bytes stay zero; the checksum covers them.
    let crc = checksum(checksum(0, &salt.to_le_bytes()), &bytes[..32]);
    bytes[32..36].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// Reads the seal from the beginning of a file; `None` when it is not one.
pub(crate) fn decode_seal(salt: u64, header: &[u8]) -> Option<Point> {
    let bytes = header.get(SEAL_OFFSET as usize..FILE_HEADER_BYTES)?;
    let crc = checksum(checksum(0, &salt.to_le_bytes()), &bytes[..32]);
    (crc == number(bytes, 32)).then(|| Point {
        offset: long(bytes, 0),
        frames: long(bytes, 8),
        last: long(bytes, 16),
        chain: number(bytes, 24),
    })
}

/// What a block is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Whole frames, each with its position and length before it.
    Frames,
    /// A part of one frame that is larger than a block. Such blocks follow each other until `rest` is 0.
    Part,
    /// No frames, but: of the last [`Kind::Frames`] block before this one, only the first `frames` count. This is how
    /// a log is truncated within a block that is on disk already, without a moment at which a crash would lose the
    /// block. Several may follow each other, the last counts: none is taken back, or a crash might undo it.
    Keep,
}

/// What stands before a block's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BlockHeader {
    pub kind: Kind,
    /// Length of the uncompressed content.
    pub raw_bytes: u32,
    /// Length of what follows the header.
    pub stored_bytes: u32,
    /// Frames in it (0 for a part that is not the last).
    pub frames: u32,
    pub first: u64,
    pub last: u64,
    /// Part: bytes of the frame that follow in later parts. Keep: frames of the log up to here.
    pub rest: u64,
    /// Checksum of what follows the header.
    pub body_crc: u32,
}

impl BlockHeader {
    /// The header's bytes, and the checksum that the next block begins from.
    pub(crate) fn encode(&self, chain: u32) -> ([u8; BLOCK_HEADER_BYTES], u32) {
        let tag = match self.kind {
            Kind::Frames => b"RFRM",
            Kind::Part => b"RPRT",
            Kind::Keep => b"RKEP",
        };
        let mut bytes = [0; BLOCK_HEADER_BYTES];
        bytes[0..4].copy_from_slice(tag);
        bytes[4..8].copy_from_slice(&self.raw_bytes.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.stored_bytes.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.frames.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.first.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.last.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.rest.to_le_bytes());
        bytes[40..44].copy_from_slice(&self.body_crc.to_le_bytes());
        let crc = checksum(chain, &bytes[..44]);
        bytes[44..48].copy_from_slice(&crc.to_le_bytes());
        (bytes, crc)
    }

    /// Reads a header that follows the given checksum; with it, the checksum that the next block begins from.
    pub(crate) fn decode(bytes: &[u8; BLOCK_HEADER_BYTES], chain: u32) -> Result<(Self, u32), &'static str> {
        let crc = checksum(chain, &bytes[..44]);
        if crc != number(bytes, 44) {
            return Err("the checksum of a block's header does not fit");
        }
        let kind = match &bytes[0..4] {
            b"RFRM" => Kind::Frames,
            b"RPRT" => Kind::Part,
            b"RKEP" => Kind::Keep,
            _ => return Err("a block of a kind that this version does not know"),
        };
        let header = Self {
            kind,
            raw_bytes: number(bytes, 4),
            stored_bytes: number(bytes, 8),
            frames: number(bytes, 12),
            first: long(bytes, 16),
            last: long(bytes, 24),
            rest: long(bytes, 32),
            body_crc: number(bytes, 40),
        };
        let too_long = header.raw_bytes as usize > MAX_BLOCK_BYTES
            || header.stored_bytes as usize > zstd::zstd_safe::compress_bound(MAX_BLOCK_BYTES);
        if too_long || header.first > header.last {
            return Err("a block's header that no writer makes");
        }
        Ok((header, crc))
    }

    /// Whether more parts of its frame must follow.
    pub(crate) fn is_unfinished(&self) -> bool {
        self.kind == Kind::Part && self.rest > 0
    }

    /// Where the next block begins.
    pub(crate) fn after(&self, before: &Point, chain: u32) -> Point {
        let offset = before.offset + BLOCK_HEADER_BYTES as u64 + u64::from(self.stored_bytes);
        let (frames, last) = match self.kind {
            Kind::Keep => (self.rest, self.last),
            Kind::Part if self.rest > 0 => (before.frames, before.last),
            Kind::Frames | Kind::Part => (before.frames + u64::from(self.frames), self.last),
        };
        Point { offset, chain, frames, last }
    }
}

/// Adds a frame to the content of a block.
pub(crate) fn push_frame(raw: &mut Vec<u8>, position: u64, frame: &[u8]) {
    raw.extend(position.to_le_bytes());
    raw.extend((frame.len() as u32).to_le_bytes());
    raw.extend(frame);
}

/// The frame that begins at `at` in a block's content: position, and where its bytes begin and end.
pub(crate) fn frame_at(raw: &[u8], at: usize) -> Option<(u64, std::ops::Range<usize>)> {
    let header = raw.get(at..)?.get(..FRAME_HEADER_BYTES)?;
    let begin = at + FRAME_HEADER_BYTES;
    let end = begin.checked_add(number(header, 8) as usize).filter(|end| *end <= raw.len())?;
    Some((long(header, 0), begin..end))
}

/// CRC-32 of bytes that follow those with the checksum `before`.
pub(crate) fn checksum(before: u32, bytes: &[u8]) -> u32 {
    let mut hasher = Hasher::new_with_initial(before);
    hasher.update(bytes);
    hasher.finalize()
}

/// Four bytes of a slice that is long enough.
fn number(bytes: &[u8], at: usize) -> u32 {
    let mut four = [0; 4];
    four.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(four)
}

/// Eight bytes of a slice that is long enough.
fn long(bytes: &[u8], at: usize) -> u64 {
    let mut eight = [0; 8];
    eight.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(eight)
}
