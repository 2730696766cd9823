//! What the size of a disk decides by itself: groups, and the blocks that data must leave alone.
//!
//! ```text
//! group 0         superblock │ descriptors │ room for more │ journal │ data …
//! groups 3ⁿ 5ⁿ 7ⁿ superblock │ descriptors │ room for more │ data …        (copies)
//! other groups    data …
//! ```
//! The room lets `resize2fs` grow the descriptors without moving anything. Bitmaps and inode tables
//! may lie anywhere (`flex_bg`); they are placed last, behind the data.

use std::ops::Range;

use super::types::{BLOCK, BLOCKS_PER_GROUP, DESCRIPTORS_PER_BLOCK};
use crate::error::{Error, Result};

/// Blocks left free behind the descriptors: 16 GiB more disk each.
const ROOM: u32 = 31;
/// Smallest disk in blocks: 8 MiB.
const SMALLEST: u64 = 2048;
/// Fewest blocks that make it worth to begin another group.
const SMALLEST_GROUP: u32 = 64;

/// A disk's fixed layout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Geometry {
    /// Bytes of the file.
    pub(crate) size: u64,
    pub(crate) blocks: u32,
    pub(crate) groups: u32,
    pub(crate) descriptor_blocks: u32,
    pub(crate) journal: Range<u32>,
}

impl Geometry {
    /// Lays out a disk. A size that is no multiple of the block size is cut to one.
    pub(crate) fn new(size: u64) -> Result<Geometry> {
        const LIMIT: u64 = u32::MAX as u64 * BLOCK;
        let blocks = size / BLOCK;
        let Ok(mut blocks @ 1..) = u32::try_from(blocks) else {
            return Err(if size < BLOCK {
                too_small(size)
            } else {
                Error::TooLarge { size, limit: LIMIT }
            });
        };
        if u64::from(blocks) < SMALLEST {
            return Err(too_small(size));
        }
        let mut groups = blocks.div_ceil(BLOCKS_PER_GROUP);
        let mut descriptor_blocks = groups.div_ceil(DESCRIPTORS_PER_BLOCK);
        let rest = blocks % BLOCKS_PER_GROUP;
        if rest != 0 && groups > 1 && rest < 1 + descriptor_blocks + ROOM + SMALLEST_GROUP {
            blocks -= rest;
            groups -= 1;
            descriptor_blocks = groups.div_ceil(DESCRIPTORS_PER_BLOCK);
        }
        let start = 1 + descriptor_blocks + ROOM;
        let journal = start..start + journal_blocks(blocks);
        Ok(Geometry {
            size: size / BLOCK * BLOCK,
            blocks,
            groups,
            descriptor_blocks,
            journal,
        })
    }

    /// Blocks of a group; only the last may have fewer than the others.
    pub(crate) fn group(&self, group: u32) -> Range<u32> {
        let start = group * BLOCKS_PER_GROUP;
        start..start.saturating_add(BLOCKS_PER_GROUP).min(self.blocks)
    }

    /// Whether a group starts with a superblock and the descriptors (`sparse_super`).
    pub(crate) fn has_superblock(group: u32) -> bool {
        group <= 1 || [3, 5, 7].into_iter().any(|base| is_power(group, base))
    }

    /// The superblock and descriptors of a group; empty where there are none.
    pub(crate) fn header(&self, group: u32) -> Range<u32> {
        let start = group * BLOCKS_PER_GROUP;
        let length = if Geometry::has_superblock(group) {
            1 + self.descriptor_blocks
        } else {
            0
        };
        start..start + length
    }

    /// Where data and the other metadata may go, ascending.
    pub(crate) fn free_ranges(&self) -> Vec<Range<u32>> {
        let mut ranges = Vec::new();
        let mut start = self.journal.end;
        for group in (1..self.groups).filter(|&group| Geometry::has_superblock(group)) {
            let header = self.header(group);
            ranges.push(start..header.start);
            start = header.end + ROOM;
        }
        ranges.push(start..self.blocks);
        ranges.retain(|range| !range.is_empty());
        ranges
    }

    /// Splits the free blocks among the layers. Each gets a region of about its size, one behind
    /// the other; what is left of the disk is split in proportion, for layers larger than they
    /// seemed. The result depends on nothing but the arguments, so no block's place depends on
    /// which thread is faster.
    pub(crate) fn share(&self, wanted: &[u64]) -> Vec<Vec<Range<u32>>> {
        let ranges = self.free_ranges();
        let free: u64 = ranges
            .iter()
            .map(|range| u64::from(range.end - range.start))
            .sum();
        let sum: u128 = wanted.iter().map(|&blocks| u128::from(blocks)).sum();
        let part = |whole: u64, blocks: u64| {
            let part = u128::from(whole) * u128::from(blocks) / sum.max(1);
            u64::try_from(part).unwrap_or(whole)
        };
        let fits = sum <= u128::from(free);
        let rest = if fits {
            free - u64::try_from(sum).unwrap_or(free)
        } else {
            0
        };
        let mut cutter = Cutter {
            ranges: ranges.into_iter(),
            current: 0..0,
        };
        let mut regions: Vec<_> = wanted
            .iter()
            .map(|&blocks| cutter.cut(if fits { blocks } else { part(free, blocks) }))
            .collect();
        for (region, &blocks) in regions.iter_mut().zip(wanted) {
            region.extend(cutter.cut(part(rest, blocks)));
        }
        regions
    }
}

/// Takes blocks off the front of ascending ranges.
struct Cutter<I> {
    ranges: I,
    current: Range<u32>,
}

impl<I: Iterator<Item = Range<u32>>> Cutter<I> {
    fn cut(&mut self, mut blocks: u64) -> Vec<Range<u32>> {
        let mut taken = Vec::new();
        while blocks > 0 {
            if self.current.is_empty() {
                let Some(next) = self.ranges.next() else {
                    break;
                };
                self.current = next;
            }
            let left = self.current.end - self.current.start;
            let length = u32::try_from(blocks).map_or(left, |blocks| blocks.min(left));
            taken.push(self.current.start..self.current.start + length);
            self.current.start += length;
            blocks -= u64::from(length);
        }
        taken
    }
}

fn too_small(size: u64) -> Error {
    Error::TooSmall {
        size,
        needed: SMALLEST * BLOCK,
    }
}

fn is_power(number: u32, base: u32) -> bool {
    let mut power = base;
    while power < number {
        let Some(next) = power.checked_mul(base) else {
            return false;
        };
        power = next;
    }
    power == number
}

/// mke2fs's sizes up to 64 MiB, so that the journal always fits into group 0 in one piece.
fn journal_blocks(blocks: u32) -> u32 {
    match blocks {
        // The kernel refuses anything shorter.
        0..32_768 => 1024,
        32_768..262_144 => 4096,
        262_144..524_288 => 8192,
        _ => 16_384,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn superblocks_lie_where_the_kernel_looks() {
        let groups: Vec<_> = (0..=350)
            .filter(|&group| Geometry::has_superblock(group))
            .collect();
        assert_eq!(groups, [0, 1, 3, 5, 7, 9, 25, 27, 49, 81, 125, 243, 343]);
    }

    #[test]
    fn limits() {
        assert!(matches!(Geometry::new(0), Err(Error::TooSmall { .. })));
        assert!(matches!(
            Geometry::new(1 << 20),
            Err(Error::TooSmall { .. })
        ));
        assert!(matches!(
            Geometry::new(1 << 44),
            Err(Error::TooLarge { .. })
        ));
        assert!(Geometry::new(8 << 20).is_ok());
        assert_eq!(Geometry::new((1 << 44) - 4096).unwrap().groups, 131_072);
    }

    #[test]
    fn a_stump_of_a_group_is_left_unused() {
        let geometry = Geometry::new(GIB + 64 * 4096).unwrap();
        assert_eq!((geometry.groups, geometry.blocks), (8, 262_144));
        assert_eq!(Geometry::new(GIB + (1 << 20)).unwrap().groups, 9);
    }

    proptest! {
        #[test]
        fn regions_are_disjoint_and_free(
            size in (8_u64 << 20)..(64 * GIB),
            wanted in prop::collection::vec(0_u64..4_000_000, 0..8),
        ) {
            let geometry = Geometry::new(size).unwrap();
            let free = geometry.free_ranges();
            let regions = geometry.share(&wanted);
            let mut all: Vec<_> = regions.iter().flatten().cloned().collect();
            all.sort_by_key(|range| range.start);
            for pair in all.windows(2) {
                prop_assert!(pair[0].end <= pair[1].start);
            }
            for range in &all {
                prop_assert!(!range.is_empty());
                let inside = |free: &Range<u32>| free.start <= range.start && range.end <= free.end;
                prop_assert!(free.iter().any(inside));
            }
            let total: u64 = free.iter().map(|range| u64::from(range.end - range.start)).sum();
            if wanted.iter().sum::<u64>() <= total {
                for (region, &wanted) in regions.iter().zip(&wanted) {
                    let got: u64 =
                        region.iter().map(|range| u64::from(range.end - range.start)).sum();
                    prop_assert!(got >= wanted);
                }
            }
        }
    }
}
