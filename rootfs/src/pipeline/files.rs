//! The parts of a directory: runs of its entries, none with many more bytes than another.

use std::ops::Range;

use super::parts::Parts;
use crate::digest::Digest;
use crate::directory::Directory;
use crate::error::Result;
use crate::ext4::BLOCK;
use crate::layer::{BodySink, Entry, Kind};
use crate::watch::Watch;

/// A part ends where its files have so many blocks (32 MiB), unless it is one file …
const PART_BLOCKS: u64 = 8192;
/// … or where it has so many entries.
const PART_ENTRIES: usize = 2048;

/// A directory that is being read.
pub(crate) struct Files<'a> {
    directory: &'a Directory,
    watch: &'a Watch<'a>,
    parts: Vec<(Range<usize>, u64)>,
}

impl<'a> Files<'a> {
    pub(crate) fn new(directory: &'a Directory, watch: &'a Watch<'a>) -> Files<'a> {
        let mut parts: Vec<(Range<usize>, u64)> = Vec::new();
        for index in 0..directory.entries.len() {
            let blocks = blocks(directory, index);
            match parts.last_mut() {
                Some((range, sum))
                    if *sum + blocks <= PART_BLOCKS && range.len() < PART_ENTRIES =>
                {
                    range.end += 1;
                    *sum += blocks;
                }
                _ => parts.push((index..index + 1, blocks)),
            }
        }
        Files {
            directory,
            watch,
            parts,
        }
    }
}

/// Blocks that a file needs at most; where it has holes, about.
fn blocks(directory: &Directory, index: usize) -> u64 {
    let Kind::File(body) = &directory.entries[index].kind else {
        return 0;
    };
    let allocated = directory.allocated[index];
    if Directory::is_sparse(body.size, allocated) {
        allocated.div_ceil(BLOCK) + 1
    } else {
        body.size.div_ceil(BLOCK)
    }
}

impl Parts for Files<'_> {
    fn count(&self) -> usize {
        self.parts.len()
    }

    fn wanted(&self, part: usize) -> u64 {
        self.parts[part].1
    }

    fn cost(&self, part: usize) -> u64 {
        let (entries, blocks) = &self.parts[part];
        entries.len() as u64 * 4 + blocks
    }

    fn layer(&self, _: usize) -> Option<Digest> {
        None
    }

    fn read(&self, part: usize, _: bool, sink: &mut dyn BodySink) -> Result<Vec<Entry>> {
        let (entries, _) = &self.parts[part];
        self.directory.read(entries.clone(), self.watch, sink)
    }
}
