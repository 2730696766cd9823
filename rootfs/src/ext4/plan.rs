//! Where everything that is not a body goes: inode numbers, and blocks for tables, bitmaps,
//! directories, long symlinks, extent trees and attributes. Pure.

use std::collections::HashMap;
use std::ops::Range;

use super::bitmap::{Allocator, Bitmap};
use super::directory::Layout;
use super::extent::tree_blocks;
use super::geometry::Geometry;
use super::stage::LONGEST_EXTENT;
use super::types::{BLOCK, BLOCKS_PER_GROUP, FIRST_INODE, INODES_PER_BLOCK, ROOT_INODE};
use super::xattr;
use crate::error::{Error, Problem, Result};
use crate::layer::{Body, Extent};
use crate::merge::{Node, NodeId, ROOT, Tree};

/// Symlink targets shorter than this live in the inode.
const INLINE_TARGET: usize = 60;
/// Bytes of disk per inode, as mke2fs has it.
const BYTES_PER_INODE: u64 = 16 << 10;
const MEBIBYTE: u64 = 1 << 20;

/// A complete allocation.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) geometry: Geometry,
    pub(crate) inodes_per_group: u32,
    /// Inodes in the order of their numbers, reserved ones left out: the root, `lost+found`, the
    /// rest.
    pub(crate) order: Vec<NodeId>,
    /// By [`NodeId`]; 0 for removed ones.
    pub(crate) numbers: Vec<u32>,
    /// By [`NodeId`]: the number of a directory's parent.
    pub(crate) parents: Vec<u32>,
    /// By group.
    pub(crate) inode_tables: Vec<u32>,
    pub(crate) block_bitmaps: Vec<u32>,
    pub(crate) inode_bitmaps: Vec<u32>,
    /// Of inodes that need blocks of their own.
    pub(crate) extras: HashMap<NodeId, Extra>,
    /// Blocks of bodies.
    pub(crate) data: Bitmap,
    /// All blocks in use.
    pub(crate) used: Bitmap,
}

/// Metadata blocks of one inode.
#[derive(Debug, Default)]
pub(crate) struct Extra {
    /// A directory's or symlink's content.
    pub(crate) content: Vec<Extent>,
    /// Of a directory.
    pub(crate) layout: Option<Layout>,
    /// The extent tree's blocks.
    pub(crate) tree: Vec<u32>,
    pub(crate) xattrs: Option<u32>,
}

impl Plan {
    /// Places everything around the bodies of the tree; `None` when the disk is too small.
    /// The tree's root must have a `lost+found`.
    pub(crate) fn new(
        geometry: &Geometry,
        tree: &Tree,
        lost_found: NodeId,
        seed: &[u32; 4],
    ) -> Result<Option<Plan>> {
        let mut data = Bitmap::new(geometry.blocks);
        for inode in tree.live() {
            if let Node::File { body, .. } = &inode.node {
                for extent in &body.extents {
                    data.set(extent.physical..extent.physical + extent.length);
                }
            }
        }
        Plan::around(geometry, tree, lost_found, seed, data)
    }

    fn around(
        geometry: &Geometry,
        tree: &Tree,
        lost_found: NodeId,
        seed: &[u32; 4],
        data: Bitmap,
    ) -> Result<Option<Plan>> {
        let numbering = Numbering::of(tree, lost_found);
        let Some(inodes_per_group) = inodes_per_group(geometry, numbering.last()) else {
            return Ok(None);
        };
        let mut used = data.clone();
        for group in 0..geometry.groups {
            used.set(geometry.header(group));
        }
        used.set(geometry.journal.clone());
        let mut allocator = Allocator::new(used);
        let Some((inode_tables, block_bitmaps, inode_bitmaps)) =
            tables(&mut allocator, geometry, inodes_per_group)
        else {
            return Ok(None);
        };
        let mut extras = HashMap::new();
        for &id in &numbering.order {
            let needs = Needs::of(tree, id, seed).map_err(|source| Error::Inode {
                path: tree.path(id),
                source,
            })?;
            match needs.place(&mut allocator) {
                Some(None) => {}
                Some(Some(extra)) => drop(extras.insert(id, extra)),
                None => return Ok(None),
            }
        }
        let Numbering {
            order,
            numbers,
            parents,
        } = numbering;
        Ok(Some(Plan {
            geometry: geometry.clone(),
            inodes_per_group,
            order,
            numbers,
            parents,
            inode_tables,
            block_bitmaps,
            inode_bitmaps,
            extras,
            data,
            used: allocator.bitmap,
        }))
    }

    /// The highest inode number in use.
    pub(crate) fn last_inode(&self) -> u32 {
        last_inode(self.order.len())
    }
}

/// A size in bytes with which the tree fits when its bodies lie one behind the other, at least
/// `least`.
pub(crate) fn size_that_fits(
    tree: &Tree,
    lost_found: NodeId,
    seed: &[u32; 4],
    least: u64,
) -> Result<u64> {
    let bodies = tree.live().filter_map(|inode| match &inode.node {
        Node::File { body, .. } => Some(body.blocks()),
        _ => None,
    });
    let blocks: u64 = bodies.sum();
    let mut size = (blocks * BLOCK)
        .next_multiple_of(MEBIBYTE)
        .max(8 * MEBIBYTE);
    loop {
        let geometry = Geometry::new(size)?;
        let mut data = Bitmap::new(geometry.blocks);
        let region = geometry.share(&[blocks]).concat();
        let mut missing = blocks;
        for range in region {
            let length = u64::from(range.end - range.start).min(missing);
            missing -= length;
            data.set(range.start..range.start + u32::try_from(length).unwrap_or_default());
        }
        if missing == 0 && Plan::around(&geometry, tree, lost_found, seed, data)?.is_some() {
            break;
        }
        size += (size / 64).next_multiple_of(MEBIBYTE);
    }
    // Files that a copy of the superblock cuts in two may need an extent block more.
    let size = (size + size / 256).next_multiple_of(MEBIBYTE) + MEBIBYTE;
    Ok(size.max(least))
}

struct Numbering {
    order: Vec<NodeId>,
    numbers: Vec<u32>,
    parents: Vec<u32>,
}

impl Numbering {
    /// A directory's entries get neighbouring numbers, so listing it reads neighbouring inodes.
    fn of(tree: &Tree, lost_found: NodeId) -> Numbering {
        let none = vec![0; tree.len()];
        let mut numbering = Numbering {
            order: Vec::new(),
            numbers: none.clone(),
            parents: none,
        };
        numbering.add(ROOT);
        numbering.add(lost_found);
        numbering.parents[ROOT as usize] = ROOT_INODE;
        let mut ahead = vec![ROOT];
        while let Some(directory) = ahead.pop() {
            let number = numbering.numbers[directory as usize];
            let first = ahead.len();
            for &child in tree
                .children(directory)
                .into_iter()
                .flat_map(|names| names.values())
            {
                numbering.add(child);
                if tree.children(child).is_some() {
                    numbering.parents[child as usize] = number;
                    ahead.push(child);
                }
            }
            ahead[first..].reverse();
        }
        numbering
    }

    fn add(&mut self, id: NodeId) {
        if self.numbers[id as usize] == 0 {
            self.order.push(id);
            self.numbers[id as usize] = if id == ROOT {
                ROOT_INODE
            } else {
                last_inode(self.order.len())
            };
        }
    }

    fn last(&self) -> u32 {
        last_inode(self.order.len())
    }
}

/// Numbers from 11 on follow the root's 2.
fn last_inode(inodes: usize) -> u32 {
    u32::try_from(inodes)
        .unwrap_or(u32::MAX)
        .saturating_add(FIRST_INODE - 2)
}

/// Enough for the image and a quarter more, at least mke2fs's ratio; `None` when there are more
/// inodes than a bitmap per group can hold.
fn inodes_per_group(geometry: &Geometry, last: u32) -> Option<u32> {
    let wanted = (u64::from(last) * 5 / 4 + 64).max(geometry.size / BYTES_PER_INODE);
    let per_group = wanted
        .div_ceil(u64::from(geometry.groups))
        .next_multiple_of(u64::from(INODES_PER_BLOCK))
        .min(u64::from(BLOCKS_PER_GROUP));
    let enough = per_group * u64::from(geometry.groups) >= u64::from(last);
    enough.then(|| u32::try_from(per_group).ok()).flatten()
}

type Tables = (Vec<u32>, Vec<u32>, Vec<u32>);

fn tables(allocator: &mut Allocator, geometry: &Geometry, inodes_per_group: u32) -> Option<Tables> {
    let groups = geometry.groups;
    let inode_tables = allocator.take_adjacent(inodes_per_group / INODES_PER_BLOCK, groups)?;
    let blocks = |runs: Vec<Range<u32>>| runs.into_iter().flatten().collect();
    let block_bitmaps = blocks(allocator.take(groups)?);
    let inode_bitmaps = blocks(allocator.take(groups)?);
    Some((inode_tables, block_bitmaps, inode_bitmaps))
}

/// The blocks that one inode needs beside its bodies.
struct Needs<'a> {
    content: u32,
    layout: Option<Layout>,
    body: Option<&'a Body>,
    xattrs: bool,
}

impl Needs<'_> {
    fn of<'a>(tree: &'a Tree, id: NodeId, seed: &[u32; 4]) -> Result<Needs<'a>, Problem> {
        let inode = tree.inode(id);
        let xattrs = !xattr::encode(&inode.metadata.xattrs)?.block.is_empty();
        let mut needs = Needs {
            content: 0,
            layout: None,
            body: None,
            xattrs,
        };
        match &inode.node {
            Node::Directory(children) => {
                let layout = Layout::of(children.keys().map(|name| &**name), seed);
                let too_many = Problem::TooManyEntries(16 << 20, u64::from(u32::MAX));
                needs.content = layout.blocks().ok_or(too_many)?;
                needs.layout = Some(layout);
            }
            Node::Symlink(target) if target.len() >= INLINE_TARGET => needs.content = 1,
            Node::File { body, .. } => needs.body = Some(body),
            _ => {}
        }
        Ok(needs)
    }

    /// `None` when the disk is full; nothing where nothing is needed.
    fn place(self, allocator: &mut Allocator) -> Option<Option<Extra>> {
        let content = extents(allocator.take(self.content)?);
        let count = self.body.map_or(content.len(), |body| body.extents.len());
        let tree = u32::try_from(tree_blocks(count)).ok()?;
        let tree: Vec<u32> = allocator.take(tree)?.into_iter().flatten().collect();
        let xattrs = if self.xattrs {
            Some(allocator.take_one()?)
        } else {
            None
        };
        if content.is_empty() && tree.is_empty() && xattrs.is_none() {
            return Some(None);
        }
        Some(Some(Extra {
            content,
            layout: self.layout,
            tree,
            xattrs,
        }))
    }
}

/// Runs of blocks as one file's extents.
fn extents(runs: Vec<Range<u32>>) -> Vec<Extent> {
    let mut extents = Vec::new();
    let mut logical = 0;
    for run in runs {
        let mut physical = run.start;
        while physical < run.end {
            let length = (run.end - physical).min(LONGEST_EXTENT);
            extents.push(Extent {
                logical,
                physical,
                length,
            });
            logical += length;
            physical += length;
        }
    }
    extents
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::layer::{Entry, Kind, Metadata, Xattr};
    use crate::merge::Layers;

    /// A file's extents: blocks to skip and to take, from the front of the free ones.
    type Pieces = Vec<(u32, u32)>;

    fn entry(path: String, kind: Kind, xattr: usize) -> Entry {
        let xattr = Xattr {
            name: (*b"user.a").into(),
            value: vec![1; xattr].into(),
        };
        let metadata = Metadata {
            xattrs: vec![xattr],
            ..Metadata::default()
        };
        Entry {
            path: path.into_bytes().into(),
            kind,
            metadata,
        }
    }

    fn bodies(geometry: &Geometry, files: &[Pieces]) -> Vec<Body> {
        let mut free = geometry.free_ranges().into_iter().flatten();
        let body = |pieces: &Pieces| {
            let mut extents: Vec<Extent> = Vec::new();
            let mut logical = 0;
            for &(skip, take) in pieces {
                logical += 1;
                for physical in free.by_ref().skip(skip as usize).take(take as usize) {
                    extents.push(Extent {
                        logical,
                        physical,
                        length: 1,
                    });
                    logical += 1;
                }
            }
            Body {
                size: u64::from(logical) * BLOCK,
                extents: extents.into(),
            }
        };
        files.iter().map(body).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn every_block_has_one_owner(
            size in (8_u64 << 20)..(600 << 20),
            files in prop::collection::vec(
                (prop::collection::vec((0_u32..9, 1_u32..40), 0..30), 0_usize..4000),
                0..40,
            ),
            names in 0_usize..3000,
            links in prop::collection::vec(1_usize..4000, 0..20),
        ) {
            let geometry = Geometry::new(size).unwrap();
            let pieces: Vec<_> = files.iter().map(|(pieces, _)| pieces.clone()).collect();
            let bodies = bodies(&geometry, &pieces);
            let mut entries = Vec::new();
            for (index, (body, (_, xattr))) in bodies.iter().zip(&files).enumerate() {
                entries.push(entry(format!("f/{index}"), Kind::File(body.clone()), *xattr));
            }
            for index in 0..names {
                entries.push(entry(format!("d/{index:0100}"), Kind::Fifo, 1));
            }
            for (index, &length) in links.iter().enumerate() {
                let target = vec![b't'; length].into();
                entries.push(entry(format!("l/{index}"), Kind::Symlink(target), 60));
            }
            let mut layers = Layers::default();
            layers.push(None, entries);
            let mut tree = layers.merge().unwrap();
            let lost_found = tree.ensure_directory(b"lost+found", 0o700).unwrap();
            let plan = Plan::new(&geometry, &tree, lost_found, &[1, 2, 3, 4]).unwrap();
            let Some(plan) = plan else {
                let fits = size_that_fits(&tree, lost_found, &[1, 2, 3, 4], size).unwrap();
                prop_assert!(fits >= size);
                return Ok(());
            };
            let mut owned = vec![false; geometry.blocks as usize];
            let mut own = |range: Range<u32>| {
                for block in range {
                    assert!(!owned[block as usize], "block {block} has two owners");
                    owned[block as usize] = true;
                }
            };
            for group in 0..geometry.groups {
                own(geometry.header(group));
            }
            own(geometry.journal.clone());
            for extent in bodies.iter().flat_map(|body| &body.extents) {
                own(extent.physical..extent.physical + extent.length);
            }
            for &start in &plan.inode_tables {
                own(start..start + plan.inodes_per_group / INODES_PER_BLOCK);
            }
            for &block in plan.block_bitmaps.iter().chain(&plan.inode_bitmaps) {
                own(block..block + 1);
            }
            for extra in plan.extras.values() {
                for extent in &extra.content {
                    own(extent.physical..extent.physical + extent.length);
                }
                for &block in extra.tree.iter().chain(&extra.xattrs) {
                    own(block..block + 1);
                }
            }
            let count = u32::try_from(owned.iter().filter(|&&owned| owned).count()).unwrap();
            prop_assert_eq!(plan.used.count(0..geometry.blocks), count);
            for (block, &owned) in (0..).zip(&owned) {
                prop_assert_eq!(plan.used.count(block..block + 1) == 1, owned);
            }
            let mut numbers: Vec<_> =
                plan.order.iter().map(|&id| plan.numbers[id as usize]).collect();
            prop_assert_eq!(numbers.len(), tree.live().count());
            numbers.sort_unstable();
            numbers.dedup();
            prop_assert_eq!(numbers.len(), plan.order.len());
            prop_assert_eq!(numbers.last().copied(), Some(plan.last_inode()));
            prop_assert!(plan.last_inode() <= plan.inodes_per_group * geometry.groups);
        }
    }
}
