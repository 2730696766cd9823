//! Which blocks of the disk are taken, and finding ones that are not.

use std::ops::Range;

/// One bit a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bitmap {
    words: Vec<u64>,
    blocks: u32,
}

impl Bitmap {
    pub(crate) fn new(blocks: u32) -> Bitmap {
        Bitmap {
            words: vec![0; (blocks as usize).div_ceil(64)],
            blocks,
        }
    }

    /// Takes a range; the part beyond the disk is ignored.
    pub(crate) fn set(&mut self, range: Range<u32>) {
        let end = range.end.min(self.blocks);
        let mut block = range.start;
        while block < end {
            let bit = block % 64;
            let length = (64 - bit).min(end - block);
            let mask = if length == 64 {
                u64::MAX
            } else {
                ((1 << length) - 1) << bit
            };
            self.words[(block / 64) as usize] |= mask;
            block += length;
        }
    }

    /// The first free run at or behind a block, ending before the disk does.
    pub(crate) fn free_run(&self, from: u32) -> Option<Range<u32>> {
        let start = self.find(from, false)?;
        Some(start..self.find(start, true).unwrap_or(self.blocks))
    }

    /// Taken blocks of a range.
    pub(crate) fn count(&self, range: Range<u32>) -> u32 {
        let (mut block, mut count) = (range.start, 0);
        while block < range.end {
            let bit = block % 64;
            let length = (64 - bit).min(range.end - block);
            let mask = if length == 64 {
                u64::MAX
            } else {
                ((1 << length) - 1) << bit
            };
            count += (self.words[(block / 64) as usize] & mask).count_ones();
            block += length;
        }
        count
    }

    /// The bits of a range that starts at a multiple of 64, lowest first.
    pub(crate) fn bytes(&self, range: Range<u32>) -> Vec<u8> {
        let words = (range.start / 64) as usize..(range.end as usize).div_ceil(64);
        self.words[words]
            .iter()
            .flat_map(|word| word.to_le_bytes())
            .collect()
    }

    fn find(&self, from: u32, taken: bool) -> Option<u32> {
        let mut index = (from / 64) as usize;
        let mut skip = u64::MAX << (from % 64);
        while let Some(&word) = self.words.get(index) {
            let candidates = if taken { word } else { !word } & skip;
            if candidates != 0 {
                let block = u32::try_from(index).ok()? * 64 + candidates.trailing_zeros();
                return (block < self.blocks).then_some(block);
            }
            skip = u64::MAX;
            index += 1;
        }
        None
    }
}

/// Hands out free blocks in ascending order.
pub(crate) struct Allocator {
    pub(crate) bitmap: Bitmap,
    cursor: u32,
}

impl Allocator {
    pub(crate) fn new(bitmap: Bitmap) -> Allocator {
        Allocator { bitmap, cursor: 0 }
    }

    /// So many blocks in as few runs as come first; `None` when the disk is full.
    pub(crate) fn take(&mut self, mut blocks: u32) -> Option<Vec<Range<u32>>> {
        let mut runs = Vec::new();
        while blocks > 0 {
            let free = self.bitmap.free_run(self.cursor)?;
            let length = blocks.min(free.end - free.start);
            let run = free.start..free.start + length;
            self.bitmap.set(run.clone());
            self.cursor = run.end;
            blocks -= length;
            runs.push(run);
        }
        Some(runs)
    }

    /// One block.
    pub(crate) fn take_one(&mut self) -> Option<u32> {
        self.take(1)?.first().map(|run| run.start)
    }

    /// `count` runs of `blocks` adjacent blocks each. The gaps that are too short stay for others.
    pub(crate) fn take_adjacent(&mut self, blocks: u32, count: u32) -> Option<Vec<u32>> {
        let mut starts = Vec::new();
        let mut cursor = self.cursor;
        for _ in 0..count {
            let start = loop {
                let free = self.bitmap.free_run(cursor)?;
                if free.end - free.start >= blocks {
                    break free.start;
                }
                cursor = free.end;
            };
            self.bitmap.set(start..start + blocks);
            cursor = start + blocks;
            starts.push(start);
        }
        Some(starts)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_set_of_blocks(
            blocks in 1_u32..2000,
            ranges in prop::collection::vec((0_u32..2100, 0_u32..300), 0..12),
            from in 0_u32..2000,
        ) {
            let mut bitmap = Bitmap::new(blocks);
            let mut model = vec![false; blocks as usize];
            for (start, length) in ranges {
                bitmap.set(start..start + length);
                for block in start..(start + length).min(blocks) {
                    model[block as usize] = true;
                }
            }
            let taken = model.iter().filter(|&&taken| taken).count();
            prop_assert_eq!(bitmap.count(0..blocks) as usize, taken);
            let start = (from..blocks).find(|&block| !model[block as usize]);
            let expected = start.map(|start| {
                start..(start..blocks).find(|&block| model[block as usize]).unwrap_or(blocks)
            });
            prop_assert_eq!(bitmap.free_run(from), expected);
            let bytes = bitmap.bytes(0..blocks);
            for (block, &taken) in model.iter().enumerate() {
                prop_assert_eq!(bytes[block / 8] >> (block % 8) & 1 == 1, taken);
            }
        }
    }
}
