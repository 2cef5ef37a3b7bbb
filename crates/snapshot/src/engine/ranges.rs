//! Cutting a large table into parts by its blocks. Pure.

/// So many parts at most, however large the table is.
const MAX_PARTS: u64 = 1000;

/// A part of a table: the rows whose place (`ctid`) is in these blocks of this file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range {
    /// The first block.
    pub(crate) first: u64,
    /// The block behind the last one; `None`: up to the end of the table, however far it has grown.
    pub(crate) end: Option<u64>,
    /// The file that the blocks are in (`relfilenode`): in another one they hold other rows.
    pub(crate) file: u32,
}

/// Cuts a table of so many blocks and bytes (with TOAST, which is why the two are not proportional) into parts of about
/// `part_bytes`. Together they are the table, and no block is in two. One part only: it is not worth it.
pub(crate) fn cut(blocks: u64, bytes: u64, part_bytes: u64, file: u32) -> Vec<Range> {
    let parts = (bytes / part_bytes.max(1)).clamp(1, MAX_PARTS).min(blocks.max(1));
    let blocks_a_part = blocks.div_ceil(parts).max(1);
    let count = blocks.div_ceil(blocks_a_part).max(1);
    let part =
        |n| Range { first: n * blocks_a_part, end: (n + 1 < count).then_some((n + 1) * blocks_a_part), file };
    (0..count).map(part).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn parts_cover_every_block_once(
            blocks in 0_u64..5_000_000_000, bytes in any::<u64>(), part_bytes in any::<u64>(),
        ) {
            let parts = cut(blocks, bytes, part_bytes, 7);
            prop_assert!(!parts.is_empty() && parts.len() <= MAX_PARTS as usize);
            prop_assert_eq!(parts[0].first, 0);
            for pair in parts.windows(2) {
                prop_assert_eq!(pair[0].end, Some(pair[1].first));
                prop_assert!(pair[0].first < pair[1].first);
            }
            prop_assert_eq!(parts.last().unwrap().end, None);
            // The last part begins within the table.
            prop_assert!(parts.last().unwrap().first < blocks.max(1));
        }
    }

    #[test]
    fn parts_are_about_as_large_as_asked_for() {
        let mib = 1 << 20;
        assert_eq!(cut(16_384, 128 * mib, 64 * mib, 1).len(), 2);
        assert_eq!(cut(81_920, 640 * mib, 64 * mib, 1).len(), 10);
        // Nearly all of it is TOAST.
        assert_eq!(cut(3, 640 * mib, 64 * mib, 1).len(), 3);
        assert_eq!(cut(0, 640 * mib, 64 * mib, 1), [Range { first: 0, end: None, file: 1 }]);
    }
}
