//! Cutting a large table into parts by its blocks. Pure.

use crate::options::Split;

/// So many parts at most, however large the table is.
const MAX_PARTS: u64 = 1000;
/// A part costs about ten round trips and a transaction, which this (half a second of COPY) makes negligible; and with
/// less, a lost link would not repeat noticeably less.
const PART_BYTES: u64 = 64 << 20;
/// A table that is smaller is not worth parts.
const SMALLEST_BYTES: u64 = 2 * PART_BYTES;
/// A table of this size is copied in parts in any case: whole, it would take minutes, and begin again when a link is lost.
const LARGE_BYTES: u64 = 16 << 30;

/// How large the parts of a table of so many bytes shall be; `None`: it is copied whole. `all_bytes` are those of all tables
/// that are copied by so many jobs.
pub(crate) fn part_bytes(split: Split, jobs: usize, bytes: u64, all_bytes: u64) -> Option<u64> {
    let jobs = u128::try_from(jobs).unwrap_or(u128::MAX);
    if jobs == 1 {
        return None;
    }
    // Parts take a tenth more of processor time, and behind the rows there are indexes to be built; so by a quarter more
    // than its share.
    let outlasts_others =
        u128::from(bytes).saturating_mul(jobs).saturating_mul(4) > u128::from(all_bytes).saturating_mul(5);
    match split {
        Split::From(least) => (bytes >= least).then_some(least / 2),
        Split::WherePays if bytes >= LARGE_BYTES => Some(PART_BYTES),
        Split::WherePays => (bytes >= SMALLEST_BYTES && outlasts_others).then_some(PART_BYTES),
    }
}

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
    fn a_table_goes_in_parts_when_the_others_would_wait_for_it() {
        let mib = |count: u64| count << 20;
        let pays = |jobs, bytes, all| part_bytes(Split::WherePays, jobs, mib(bytes), mib(all)).is_some();
        // Two tables of about the same size for two jobs; and one that is most of it.
        assert!(!pays(2, 640, 1150));
        assert!(pays(2, 900, 1150));
        assert!(pays(4, 640, 1150));
        // Alone.
        assert!(pays(2, 200, 200));
        assert!(!pays(1, 200, 200));
        // Too small, and so large that nobody wants to begin again.
        assert!(!pays(2, 100, 100));
        assert!(pays(2, 17 << 10, 100 << 10));
        // Somebody has said so.
        assert_eq!(part_bytes(Split::From(mib(1)), 2, mib(1), mib(100)), Some(mib(1) / 2));
        assert_eq!(part_bytes(Split::From(mib(1)), 2, mib(1) - 1, mib(1)), None);
        assert_eq!(part_bytes(Split::From(mib(1)), 1, mib(9), mib(9)), None);
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
