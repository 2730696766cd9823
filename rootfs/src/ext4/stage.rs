//! Bodies to disk while a layer is being read: one layer's region, filled from front to back.
//!
//! Consecutive files are neighbours on the disk, so a few large writes carry thousands of files.
//! Blocks of zeros are left out: eight or more in a row become a hole in the file, fewer are kept
//! so as not to cut its extents. When the region is full the stage goes on counting, and the build
//! starts over with exact sizes.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use super::types::{BLOCK, BLOCK_SIZE};
use crate::layer::{Body, BodySink, Extent, Visit};

/// Bytes per write.
const BUFFER: usize = 1 << 20;
/// Shortest run of zero blocks that becomes a hole between data.
const SHORTEST_HOLE: u32 = 8;
/// Longest extent in blocks.
pub(crate) const LONGEST_EXTENT: u32 = 32_768;
const ZEROS: [u8; BLOCK_SIZE] = [0; BLOCK_SIZE];

/// Writes one layer's bodies into its region.
pub(crate) struct Stage<'a> {
    file: &'a File,
    region: std::vec::IntoIter<Range<u32>>,
    /// Blocks of the current range that are still free.
    room: Range<u32>,
    /// Blocks on their way to the disk; `start` is the first one's place.
    buffer: Vec<u8>,
    start: u32,
    /// The current block of the current file.
    partial: Vec<u8>,
    /// Blocks of the current file that are complete.
    logical: u32,
    zeros: u32,
    size: u64,
    extents: Vec<Extent>,
    /// Only these entries' bodies are wanted, when given.
    wanted: Option<&'a dyn Fn(usize) -> bool>,
    overflowed: bool,
    filled: Vec<Range<u32>>,
}

impl<'a> Stage<'a> {
    pub(crate) fn new(
        file: &'a File,
        region: Vec<Range<u32>>,
        wanted: Option<&'a dyn Fn(usize) -> bool>,
    ) -> Stage<'a> {
        Stage {
            file,
            region: region.into_iter(),
            room: 0..0,
            buffer: Vec::with_capacity(BUFFER),
            start: 0,
            partial: Vec::with_capacity(BLOCK_SIZE),
            logical: 0,
            zeros: 0,
            size: 0,
            extents: Vec::new(),
            wanted,
            overflowed: false,
            filled: Vec::new(),
        }
    }

    /// Writes what is still buffered. The ranges that were filled, or `None` when the region was
    /// too small: then the bodies have the right lengths but no places.
    pub(crate) fn close(mut self) -> io::Result<Option<Vec<Range<u32>>>> {
        self.flush()?;
        Ok((!self.overflowed).then_some(self.filled))
    }

    fn block(&mut self, block: &[u8]) -> io::Result<()> {
        if block == ZEROS {
            self.zeros += 1;
            return Ok(());
        }
        if (1..SHORTEST_HOLE).contains(&self.zeros) && !self.extents.is_empty() {
            for _ in 0..std::mem::take(&mut self.zeros) {
                self.append(&ZEROS)?;
            }
        }
        self.logical += std::mem::take(&mut self.zeros);
        self.append(block)
    }

    fn append(&mut self, block: &[u8]) -> io::Result<()> {
        let physical = self.place()?;
        let logical = self.logical;
        self.logical += 1;
        match self.extents.last_mut() {
            Some(last)
                if last.logical + last.length == logical
                    && last.physical + last.length == physical
                    && last.length < LONGEST_EXTENT =>
            {
                last.length += 1;
            }
            _ => self.extents.push(Extent {
                logical,
                physical,
                length: 1,
            }),
        }
        if self.overflowed {
            return Ok(());
        }
        self.buffer.extend_from_slice(block);
        if self.buffer.len() == BUFFER {
            self.flush()
        } else {
            Ok(())
        }
    }

    /// The next free block. Beyond the region it is a made-up one behind the last.
    fn place(&mut self) -> io::Result<u32> {
        while self.room.is_empty() && !self.overflowed {
            self.flush()?;
            match self.region.next() {
                Some(range) => {
                    self.start = range.start;
                    self.room = range;
                }
                None => self.overflowed = true,
            }
        }
        let block = self.room.start;
        self.room.start = block.wrapping_add(1);
        Ok(block)
    }

    fn flush(&mut self) -> io::Result<()> {
        if !self.buffer.is_empty() {
            self.file
                .write_all_at(&self.buffer, u64::from(self.start) * BLOCK)?;
            // The buffer holds at most 256 blocks.
            let blocks = u32::try_from(self.buffer.len() / BLOCK_SIZE).unwrap_or_default();
            let end = self.start + blocks;
            match self.filled.last_mut() {
                Some(last) if last.end == self.start => last.end = end,
                _ => self.filled.push(self.start..end),
            }
            self.start = end;
            self.buffer.clear();
        }
        Ok(())
    }

    fn complete_partial(&mut self) -> io::Result<()> {
        if self.partial.len() == BLOCK_SIZE {
            let block = std::mem::take(&mut self.partial);
            self.block(&block)?;
            self.partial = block;
            self.partial.clear();
        }
        Ok(())
    }
}

impl BodySink for Stage<'_> {
    fn begin(&mut self, entry: usize, _: &[u8], _: u64) -> Visit {
        (self.logical, self.zeros, self.size) = (0, 0, 0);
        match self.wanted {
            Some(wanted) if !wanted(entry) => Visit::Skip,
            _ => Visit::Take,
        }
    }

    fn data(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        self.size += bytes.len() as u64;
        if !self.partial.is_empty() {
            let missing = (BLOCK_SIZE - self.partial.len()).min(bytes.len());
            self.partial.extend_from_slice(&bytes[..missing]);
            self.complete_partial()?;
            bytes = &bytes[missing..];
        }
        let blocks = bytes.chunks_exact(BLOCK_SIZE);
        let rest = blocks.remainder();
        for block in blocks {
            self.block(block)?;
        }
        self.partial.extend_from_slice(rest);
        Ok(())
    }

    fn hole(&mut self, mut bytes: u64) -> io::Result<()> {
        self.size += bytes;
        while bytes > 0 && !self.partial.is_empty() {
            let missing = BLOCK_SIZE - self.partial.len();
            let length = usize::try_from(bytes).map_or(missing, |bytes| bytes.min(missing));
            self.partial.resize(self.partial.len() + length, 0);
            self.complete_partial()?;
            bytes -= length as u64;
        }
        // The largest file has fewer than 2^32 blocks.
        self.zeros += u32::try_from(bytes / BLOCK).map_err(|_| io::ErrorKind::InvalidData)?;
        self.partial.resize(
            self.partial.len() + usize::try_from(bytes % BLOCK).unwrap_or(0),
            0,
        );
        Ok(())
    }

    fn finish(&mut self) -> io::Result<Body> {
        if !self.partial.is_empty() {
            self.partial.resize(BLOCK_SIZE, 0);
            self.complete_partial()?;
        }
        let extents = self.extents.as_slice().into();
        self.extents.clear();
        Ok(Body {
            size: self.size,
            extents,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What a file that was staged holds, by its extents.
    fn read(file: &File, body: &Body) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(body.size.next_multiple_of(BLOCK)).unwrap()];
        for extent in &body.extents {
            let start = extent.logical as usize * BLOCK_SIZE;
            let range = start..start + extent.length as usize * BLOCK_SIZE;
            file.read_exact_at(&mut bytes[range], u64::from(extent.physical) * BLOCK)
                .unwrap();
        }
        bytes.truncate(usize::try_from(body.size).unwrap());
        bytes
    }

    #[derive(Clone, Debug)]
    enum Piece {
        Data(Vec<u8>),
        Hole(u64),
    }

    fn piece() -> impl Strategy<Value = Piece> {
        prop_oneof![
            (1_usize..20_000, any::<u8>())
                .prop_map(|(length, byte)| Piece::Data(vec![byte; length])),
            (1_usize..90_000).prop_map(|length| Piece::Data(vec![0; length])),
            (0_u64..100_000).prop_map(Piece::Hole),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn what_goes_in_comes_out(
            files in prop::collection::vec(prop::collection::vec(piece(), 0..6), 1..6),
            gap in 1_u32..200,
        ) {
            let disk = tempfile::tempfile().unwrap();
            let region = vec![3..3 + gap, 1000..1005, 2000..100_000];
            let mut stage = Stage::new(&disk, region.clone(), None);
            let mut bodies = Vec::new();
            for pieces in &files {
                let mut expected = Vec::new();
                prop_assert_eq!(stage.begin(0, b"", 0), Visit::Take);
                for piece in pieces {
                    match piece {
                        Piece::Data(bytes) => {
                            stage.data(bytes).unwrap();
                            expected.extend_from_slice(bytes);
                        }
                        &Piece::Hole(bytes) => {
                            stage.hole(bytes).unwrap();
                            expected.resize(expected.len() + usize::try_from(bytes).unwrap(), 0);
                        }
                    }
                }
                bodies.push((stage.finish().unwrap(), expected));
            }
            prop_assert!(stage.close().unwrap().is_some());
            let mut used = std::collections::HashSet::new();
            for (body, expected) in bodies {
                prop_assert_eq!(read(&disk, &body), expected);
                for extent in &body.extents {
                    for block in extent.physical..extent.physical + extent.length {
                        prop_assert!(used.insert(block));
                        prop_assert!(region.iter().any(|range| range.contains(&block)));
                    }
                }
            }
        }
    }

    #[test]
    fn a_full_region_is_told_and_lengths_stay_right() {
        let disk = tempfile::tempfile().unwrap();
        let mut stage = Stage::new(&disk, vec![5..6, 6..7], None);
        stage.begin(0, b"", 0);
        stage.data(&[1; 10 * BLOCK_SIZE]).unwrap();
        let body = stage.finish().unwrap();
        assert_eq!((body.size, body.blocks()), (40_960, 10));
        assert!(stage.close().unwrap().is_none());
        assert_eq!(disk.metadata().unwrap().len(), 7 * BLOCK);
    }

    #[test]
    fn long_runs_of_zeros_cost_nothing() {
        let disk = tempfile::tempfile().unwrap();
        let mut stage = Stage::new(&disk, vec![5..6, 6..1000], None);
        stage.begin(0, b"", 0);
        stage.data(&[1; BLOCK_SIZE]).unwrap();
        stage.data(&[0; 100 * BLOCK_SIZE]).unwrap();
        stage.hole(5 << 30).unwrap();
        stage.data(b"end").unwrap();
        let body = stage.finish().unwrap();
        assert_eq!((body.blocks(), body.extents.len()), (2, 2));
        assert_eq!(body.size, (5 << 30) + 101 * BLOCK + 3);
    }
}
