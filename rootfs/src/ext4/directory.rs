//! A directory's blocks. Names that fit one block are a plain list; more are leaves ordered by
//! hash under an index of one or two levels.
//!
//! ```text
//! entry   inode 4 │ length 2 │ name length 1 │ type 1 │ name, padded to 4
//! leaf    entries … │ tail 12: checksum of the block
//! root    "." 12 │ ".." to the end, and hidden inside: info 8 │ limit, count, first block │
//!         (hash, block) … │ tail 8        at 24, 32, 40, 32 + 8 × limit
//! node    empty entry 8 │ limit, count, first block │ (hash, block) … │ tail 8
//! ```

use std::ops::Range;

use super::hash::hash;
use super::types::{BLOCK_SIZE, Checksum, Put};

const TAIL: usize = 12;
const LEAF: usize = BLOCK_SIZE - TAIL;
/// Leaves are left with some room, so that the first new names don't split them.
const LEAF_FILL: usize = LEAF - LEAF / 8;
const ROOT_LIMIT: usize = (BLOCK_SIZE - 32) / 8 - 1;
const NODE_LIMIT: usize = (BLOCK_SIZE - 8) / 8 - 1;
const HALF_MD4: u8 = 1;

/// The kinds of inode as directories name them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum FileType {
    File = 1,
    Directory = 2,
    CharDevice = 3,
    BlockDevice = 4,
    Fifo = 5,
    Symlink = 7,
}

/// A name in a directory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Name<'a> {
    pub(crate) name: &'a [u8],
    pub(crate) inode: u32,
    pub(crate) file_type: FileType,
}

/// How a directory's names are spread over blocks.
#[derive(Debug)]
pub(crate) enum Layout {
    /// One block, in the order given.
    Plain,
    Indexed {
        /// Hash and position in the order given, ascending.
        order: Vec<(u32, u32)>,
        /// Parts of `order`.
        leaves: Vec<Range<usize>>,
    },
}

impl Layout {
    /// Spreads names over blocks.
    pub(crate) fn of<'a>(names: impl Iterator<Item = &'a [u8]> + Clone, seed: &[u32; 4]) -> Layout {
        let dots = entry_size(1) + entry_size(2);
        if dots
            + names
                .clone()
                .map(|name| entry_size(name.len()))
                .sum::<usize>()
            <= LEAF
        {
            return Layout::Plain;
        }
        let mut order = Vec::new();
        let mut sizes = Vec::new();
        for (position, name) in (0_u32..).zip(names) {
            order.push((hash(name, seed), position));
            sizes.push(entry_size(name.len()));
        }
        order.sort_unstable();
        let mut leaves = Vec::new();
        let (mut start, mut filled) = (0, 0);
        for (index, &(_, position)) in order.iter().enumerate() {
            let size = sizes[position as usize];
            if filled + size > LEAF_FILL {
                leaves.push(start..index);
                (start, filled) = (index, 0);
            }
            filled += size;
        }
        leaves.push(start..order.len());
        Layout::Indexed { order, leaves }
    }

    pub(crate) fn is_indexed(&self) -> bool {
        matches!(self, Layout::Indexed { .. })
    }

    /// Blocks that the directory takes; `None` beyond two levels (16 million names).
    pub(crate) fn blocks(&self) -> Option<u32> {
        let Layout::Indexed { leaves, .. } = self else {
            return Some(1);
        };
        let nodes = index_nodes(leaves.len());
        (nodes <= ROOT_LIMIT)
            .then(|| u32::try_from(1 + nodes + leaves.len()).ok())
            .flatten()
    }
}

/// Index blocks between root and leaves: none while the root can list all leaves.
fn index_nodes(leaves: usize) -> usize {
    if leaves <= ROOT_LIMIT {
        0
    } else {
        leaves.div_ceil(NODE_LIMIT)
    }
}

fn entry_size(name_length: usize) -> usize {
    (8 + name_length).next_multiple_of(4)
}

/// A directory's blocks, checksums included. `names` are those that `layout` was made of; `seed`
/// is the directory's own checksum seed.
pub(crate) fn render(
    layout: &Layout,
    names: &[Name<'_>],
    own: u32,
    parent: u32,
    seed: Checksum,
) -> Vec<u8> {
    let dot = Name {
        name: b".",
        inode: own,
        file_type: FileType::Directory,
    };
    let dots = [
        dot,
        Name {
            name: b"..",
            inode: parent,
            ..dot
        },
    ];
    let Layout::Indexed { order, leaves } = layout else {
        return leaf(dots.iter().chain(names), seed);
    };
    let nodes = index_nodes(leaves.len());
    let first_leaf = 1 + nodes;
    // A leaf that begins with the hash that the one before ends with says so in the lowest bit.
    let key = |index: usize| {
        let start = leaves[index].start;
        let (hash, _) = order[start];
        let continues = start > 0 && order[start - 1].0 == hash;
        hash | u32::from(continues)
    };
    let pairs: Vec<_> = (0..leaves.len())
        .map(|index| (key(index), block_number(first_leaf + index)))
        .collect();
    let mut blocks = vec![0; BLOCK_SIZE];
    write_entry(&mut blocks, 0, &dots[0], 12);
    write_entry(&mut blocks, 12, &dots[1], BLOCK_SIZE - 12);
    blocks[28] = HALF_MD4;
    blocks[29] = 8;
    if nodes == 0 {
        index(&mut blocks, 32, ROOT_LIMIT, &pairs, seed);
    } else {
        blocks[30] = 1;
        let parts: Vec<_> = pairs.chunks(NODE_LIMIT).collect();
        let numbers = parts
            .iter()
            .enumerate()
            .map(|(at, part)| (part[0].0, block_number(1 + at)));
        index(
            &mut blocks,
            32,
            ROOT_LIMIT,
            &numbers.collect::<Vec<_>>(),
            seed,
        );
        for part in parts {
            let mut node = vec![0; BLOCK_SIZE];
            node.put16(4, 4096);
            index(&mut node, 8, NODE_LIMIT, part, seed);
            blocks.extend_from_slice(&node);
        }
    }
    for range in leaves {
        let names = order[range.clone()]
            .iter()
            .map(|&(_, position)| &names[position as usize]);
        blocks.extend_from_slice(&leaf(names, seed));
    }
    blocks
}

/// Directories have far fewer blocks than this can count; [`Layout::blocks`] made sure.
fn block_number(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn leaf<'a>(names: impl Iterator<Item = &'a Name<'a>>, seed: Checksum) -> Vec<u8> {
    let mut block = vec![0; BLOCK_SIZE];
    let (mut offset, mut last) = (0, 0);
    for name in names {
        last = offset;
        let size = entry_size(name.name.len());
        write_entry(&mut block, offset, name, size);
        offset += size;
    }
    // The last entry reaches to the tail.
    block.put16(last + 4, u16::try_from(LEAF - last).unwrap_or_default());
    block.put16(LEAF + 4, 12);
    block[LEAF + 7] = 0xde;
    let checksum = seed.add(&block[..LEAF]);
    block.put32(LEAF + 8, checksum.0);
    block
}

fn write_entry(block: &mut [u8], offset: usize, name: &Name<'_>, size: usize) {
    block.put32(offset, name.inode);
    block.put16(offset + 4, u16::try_from(size).unwrap_or_default());
    block[offset + 6] = u8::try_from(name.name.len()).unwrap_or_default();
    block[offset + 7] = name.file_type as u8;
    block.put(offset + 8, name.name);
}

/// Fills in an index from `offset` to the end of the block. The first pair's hash has no place:
/// everything below the second belongs to it.
fn index(block: &mut [u8], offset: usize, limit: usize, pairs: &[(u32, u32)], seed: Checksum) {
    for (position, &(hash, number)) in pairs.iter().enumerate() {
        block.put32(offset + 8 * position, hash);
        block.put32(offset + 8 * position + 4, number);
    }
    block.put16(offset, u16::try_from(limit).unwrap_or_default());
    block.put16(offset + 2, u16::try_from(pairs.len()).unwrap_or_default());
    // The tail's reserved word is covered, and its checksum counts as zero.
    let checksum = seed.add(&block[..offset + 8 * pairs.len()]).add(&[0; 8]);
    block.put32(offset + 8 * limit + 4, checksum.0);
}
