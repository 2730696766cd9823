//! A file's extents as a tree: up to four in the inode, else blocks of up to 340 below it.
//!
//! ```text
//! header  magic f30a │ entries 2 │ room 2 │ depth 2 │ generation 4
//! leaf    logical 4 │ length 2 │ physical high 2 │ physical low 4
//! index   logical 4 │ block low 4 │ block high 2 │ 0
//! block   header 12 │ 340 entries of 12 │ checksum 4
//! ```

use super::types::{BLOCK_SIZE, Checksum, Put};
use crate::layer::Extent;

const MAGIC: u16 = 0xf30a;
const IN_INODE: usize = 4;
const IN_BLOCK: usize = 340;

/// How many blocks a tree of so many extents needs beside the inode.
pub(crate) fn tree_blocks(extents: usize) -> usize {
    let mut level = extents;
    let mut blocks = 0;
    while level > IN_INODE {
        level = level.div_ceil(IN_BLOCK);
        blocks += level;
    }
    blocks
}

/// The inode's 60 bytes, and the tree's blocks with their places, taken from `places`.
pub(crate) fn render(
    extents: &[Extent],
    places: &[u32],
    seed: Checksum,
) -> ([u8; 60], Vec<(u32, Vec<u8>)>) {
    let mut places = places.iter().copied();
    let mut blocks = Vec::new();
    let mut depth = 0;
    let mut level: Vec<[u8; 12]> = extents.iter().map(leaf_entry).collect();
    while level.len() > IN_INODE {
        let mut above = Vec::new();
        for (entries, place) in level.chunks(IN_BLOCK).zip(places.by_ref()) {
            let mut block = vec![0; BLOCK_SIZE];
            node(&mut block, entries, IN_BLOCK, depth);
            let checksum = seed.add(&block[..BLOCK_SIZE - 4]);
            block.put32(BLOCK_SIZE - 4, checksum.0);
            above.push(index_entry(entries, place));
            blocks.push((place, block));
        }
        level = above;
        depth += 1;
    }
    let mut root = [0; 60];
    node(&mut root, &level, IN_INODE, depth);
    (root, blocks)
}

fn node(bytes: &mut [u8], entries: &[[u8; 12]], room: usize, depth: u16) {
    bytes.put16(0, MAGIC);
    bytes.put16(2, u16::try_from(entries.len()).unwrap_or_default());
    bytes.put16(4, u16::try_from(room).unwrap_or_default());
    bytes.put16(6, depth);
    for (index, entry) in entries.iter().enumerate() {
        bytes.put(12 + 12 * index, entry);
    }
}

fn leaf_entry(extent: &Extent) -> [u8; 12] {
    let mut entry = [0; 12];
    entry.put32(0, extent.logical);
    entry.put16(4, u16::try_from(extent.length).unwrap_or_default());
    entry.put32(8, extent.physical);
    entry
}

fn index_entry(below: &[[u8; 12]], place: u32) -> [u8; 12] {
    let mut entry = [0; 12];
    if let Some(first) = below.first() {
        entry.put(0, &first[..4]);
    }
    entry.put32(4, place);
    entry
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trees_grow_by_levels() {
        for (extents, blocks) in [
            (0, 0),
            (4, 0),
            (5, 1),
            (340, 1),
            (341, 2),
            (1360, 4),
            (1361, 6),
            (340 * 340 * 4, 340 * 4 + 4),
        ] {
            assert_eq!(tree_blocks(extents), blocks, "{extents}");
            let list: Vec<_> = (0..u32::try_from(extents).unwrap())
                .map(|at| Extent {
                    logical: 2 * at,
                    physical: 9,
                    length: 1,
                })
                .collect();
            let places: Vec<u32> = (100..100 + u32::try_from(blocks).unwrap()).collect();
            let (_, rendered) = render(&list, &places, Checksum::START);
            assert_eq!(
                rendered.iter().map(|&(place, _)| place).collect::<Vec<_>>(),
                places
            );
        }
    }
}
