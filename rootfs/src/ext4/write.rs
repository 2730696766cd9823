//! Metadata to disk, by the plan. The bodies are there already; blocks that were written for
//! files that a newer layer hides become holes again.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use super::blank::{clear, punch};
use super::directory::{FileType, Name, render as render_directory};
use super::extent;
use super::geometry::Geometry;
use super::inode::Record;
use super::plan::{Extra, Plan};
pub(crate) use super::superblock::Identity;
use super::superblock::{Descriptor, Superblock, journal};
use super::types::{
    BLOCK, BLOCK_SIZE, BLOCKS_PER_GROUP, Checksum, FIRST_INODE, INODE_SIZE, JOURNAL_INODE, Put,
    ROOT_INODE, encode_device, group_flags, inode_flags, mode,
};
use super::xattr;
use crate::error::Problem;
use crate::layer::{Extent, Time};
use crate::merge::{Node, NodeId, Tree};
use crate::watch::Watch;

/// More links than this and a directory's count is given up (`dir_nlink`).
const LINK_LIMIT: usize = 65_000;

/// What is on the disk already.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Written<'a> {
    /// Blocks that bodies were written into.
    pub(crate) filled: &'a [Range<u32>],
    /// Whether everything else is zero.
    pub(crate) blank: bool,
}

/// Why metadata could not be written.
#[derive(Debug)]
pub(crate) enum Failure {
    Disk(io::Error),
    /// ext4 cannot hold this inode.
    Inode(NodeId, Problem),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        Failure::Disk(error)
    }
}

/// Writes all metadata of the tree, the superblocks last.
pub(crate) fn write(
    file: &File,
    plan: &Plan,
    tree: &Tree,
    identity: &Identity,
    written: Written<'_>,
    watch: &Watch<'_>,
) -> Result<(), Failure> {
    if written.blank {
        punch(file, &plan.data, written.filled)?;
    } else {
        clear(file, plan)?;
    }
    let writer = Writer {
        file,
        plan,
        tree,
        seed: identity.checksum(),
    };
    writer.inodes(watch)?;
    writer.journal(identity)?;
    writer.groups(identity)?;
    Ok(())
}

struct Writer<'a> {
    file: &'a File,
    plan: &'a Plan,
    tree: &'a Tree,
    seed: Checksum,
}

impl Writer<'_> {
    /// Inode tables, and every inode's own blocks. Numbers ascend, so each group is written once.
    fn inodes(&self, watch: &Watch<'_>) -> Result<(), Failure> {
        let mut table = Table {
            writer: self,
            group: 0,
            bytes: Vec::new(),
        };
        table.put(
            JOURNAL_INODE,
            self.journal_record().render(self.seed.inode(JOURNAL_INODE)),
        )?;
        for &id in &self.plan.order {
            watch.check()?;
            let number = self.plan.numbers[id as usize];
            let record = self.inode(id, number)?;
            table.put(number, record)?;
        }
        Ok(table.flush()?)
    }

    fn inode(&self, id: NodeId, number: u32) -> Result<[u8; INODE_SIZE as usize], Failure> {
        let inode = self.tree.inode(id);
        let seed = self.seed.inode(number);
        let nothing = Extra::default();
        let extra = self.plan.extras.get(&id).unwrap_or(&nothing);
        let encoded =
            xattr::encode(&inode.metadata.xattrs).map_err(|problem| Failure::Inode(id, problem))?;
        let xattrs = xattr::render_inline(&encoded.inline);
        let (mask, bits) = encoded.mode.unwrap_or_default();
        let mut record = Record {
            mode: inode.metadata.mode & !mask | bits,
            uid: inode.metadata.uid,
            gid: inode.metadata.gid,
            size: 0,
            time: inode.metadata.mtime,
            links: u16::try_from(inode.links).unwrap_or(u16::MAX),
            flags: 0,
            blocks: u64::from(extra.xattrs.is_some()),
            content: [0; 60],
            xattr_block: extra.xattrs.unwrap_or_default(),
            xattrs: &xattrs,
        };
        if let Some(place) = extra.xattrs {
            let block = xattr::render_block(&encoded.block, place, self.seed);
            self.blocks(place, &block)?;
        }
        match &inode.node {
            Node::Directory(children) => {
                record.mode |= mode::DIRECTORY;
                let subdirectories = children
                    .values()
                    .filter(|&&id| self.tree.children(id).is_some())
                    .count();
                let links = 2 + subdirectories;
                record.links = if links > LINK_LIMIT {
                    1
                } else {
                    u16::try_from(links).unwrap_or(1)
                };
                let content = self.directory(id, extra, seed);
                if extra
                    .layout
                    .as_ref()
                    .is_some_and(|layout| layout.is_indexed())
                {
                    record.flags |= inode_flags::INDEX;
                }
                self.content(&content, &extra.content)?;
                record.size = content.len() as u64;
                self.extents(&mut record, &extra.content, &extra.tree, seed)?;
            }
            Node::File { body, .. } => {
                record.mode |= mode::FILE;
                record.size = body.size;
                self.extents(&mut record, &body.extents, &extra.tree, seed)?;
            }
            Node::Symlink(target) => {
                record.mode |= mode::SYMLINK;
                record.size = target.len() as u64;
                if extra.content.is_empty() {
                    record.content.put(0, target);
                } else {
                    let mut block = target.to_vec();
                    block.resize(BLOCK_SIZE, 0);
                    self.content(&block, &extra.content)?;
                    self.extents(&mut record, &extra.content, &extra.tree, seed)?;
                }
            }
            &Node::CharDevice { major, minor } => {
                record.mode |= mode::CHAR;
                device(&mut record, major, minor);
            }
            &Node::BlockDevice { major, minor } => {
                record.mode |= mode::BLOCK;
                device(&mut record, major, minor);
            }
            Node::Fifo => record.mode |= mode::FIFO,
        }
        Ok(record.render(seed))
    }

    fn directory(&self, id: NodeId, extra: &Extra, seed: Checksum) -> Vec<u8> {
        let (Some(children), Some(layout)) = (self.tree.children(id), &extra.layout) else {
            return Vec::new();
        };
        let names: Vec<_> = children
            .iter()
            .map(|(name, &child)| Name {
                name,
                inode: self.plan.numbers[child as usize],
                file_type: match self.tree.node(child) {
                    Node::Directory(_) => FileType::Directory,
                    Node::File { .. } => FileType::File,
                    Node::Symlink(_) => FileType::Symlink,
                    Node::CharDevice { .. } => FileType::CharDevice,
                    Node::BlockDevice { .. } => FileType::BlockDevice,
                    Node::Fifo => FileType::Fifo,
                },
            })
            .collect();
        let number = self.plan.numbers[id as usize];
        render_directory(layout, &names, number, self.plan.parents[id as usize], seed)
    }

    /// Puts the extent tree into the record and its blocks onto the disk.
    fn extents(
        &self,
        record: &mut Record<'_>,
        extents: &[Extent],
        places: &[u32],
        seed: Checksum,
    ) -> io::Result<()> {
        let (content, blocks) = extent::render(extents, places, seed);
        record.content = content;
        record.flags |= inode_flags::EXTENTS;
        record.blocks += blocks.len() as u64;
        record.blocks += extents
            .iter()
            .map(|extent| u64::from(extent.length))
            .sum::<u64>();
        for (place, block) in blocks {
            self.blocks(place, &block)?;
        }
        Ok(())
    }

    fn content(&self, bytes: &[u8], extents: &[Extent]) -> io::Result<()> {
        for extent in extents {
            let start = extent.logical as usize * BLOCK_SIZE;
            let end = start + extent.length as usize * BLOCK_SIZE;
            if let Some(bytes) = bytes.get(start..end) {
                self.blocks(extent.physical, bytes)?;
            }
        }
        Ok(())
    }

    fn blocks(&self, place: u32, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, u64::from(place) * BLOCK)
    }

    fn journal_extent(&self) -> Extent {
        let journal = &self.plan.geometry.journal;
        Extent {
            logical: 0,
            physical: journal.start,
            length: journal.end - journal.start,
        }
    }

    fn journal_record(&self) -> Record<'static> {
        let extent = self.journal_extent();
        let (content, _) = extent::render(&[extent], &[], self.seed);
        Record {
            mode: mode::FILE | 0o600,
            uid: 0,
            gid: 0,
            size: u64::from(extent.length) * BLOCK,
            time: Time::default(),
            links: 1,
            flags: inode_flags::EXTENTS,
            blocks: u64::from(extent.length),
            content,
            xattr_block: 0,
            xattrs: &[],
        }
    }

    fn journal(&self, identity: &Identity) -> io::Result<()> {
        let Extent {
            physical, length, ..
        } = self.journal_extent();
        self.blocks(physical, &journal(length, &identity.uuid))
    }

    /// Bitmaps, then descriptors and superblocks with all their copies.
    fn groups(&self, identity: &Identity) -> io::Result<()> {
        let Plan {
            geometry,
            inodes_per_group,
            ..
        } = self.plan;
        let directories = self.directories_by_group();
        let mut table = Vec::new();
        let (mut free_blocks, mut free_inodes) = (0, 0);
        for group in 0..geometry.groups {
            let mut descriptor = self.group(group)?;
            descriptor.directories = directories[group as usize];
            free_blocks += descriptor.free_blocks;
            free_inodes += descriptor.free_inodes;
            table.extend_from_slice(&descriptor.render(group, self.seed));
        }
        table.resize(geometry.descriptor_blocks as usize * BLOCK_SIZE, 0);
        let journal = self.journal_record();
        let superblock = Superblock {
            identity: *identity,
            inodes: geometry.groups * inodes_per_group,
            blocks: geometry.blocks,
            free_blocks,
            free_inodes,
            inodes_per_group: *inodes_per_group,
            journal: (journal.content, journal.size),
        };
        for group in (0..geometry.groups).filter(|&group| Geometry::has_superblock(group)) {
            let start = u64::from(group * BLOCKS_PER_GROUP) * BLOCK;
            // The first one leaves room for a boot sector.
            let offset = if group == 0 { 1024 } else { 0 };
            self.file
                .write_all_at(&superblock.render(group), start + offset)?;
            self.file.write_all_at(&table, start + BLOCK)?;
        }
        Ok(())
    }

    /// Writes a group's bitmaps where they say more than that nothing is used.
    fn group(&self, group: u32) -> io::Result<Descriptor> {
        let plan = self.plan;
        let blocks = plan.geometry.group(group);
        let used = plan.used.count(blocks.clone());
        let per_group = plan.inodes_per_group;
        let first = group * per_group;
        let used_inodes = plan.last_inode().saturating_sub(first).min(per_group);
        let index = group as usize;
        let mut descriptor = Descriptor {
            block_bitmap: plan.block_bitmaps[index],
            inode_bitmap: plan.inode_bitmaps[index],
            inode_table: plan.inode_tables[index],
            free_blocks: blocks.end - blocks.start - used,
            free_inodes: per_group - used_inodes,
            directories: 0,
            flags: group_flags::INODE_ZEROED,
            block_checksum: Checksum(0),
            inode_checksum: Checksum(0),
            unused_inodes: per_group - used_inodes,
        };
        let header = plan.geometry.header(group);
        if used == header.end - header.start && group + 1 < plan.geometry.groups {
            descriptor.flags |= group_flags::BLOCK_UNINIT;
        } else {
            let mut bitmap = plan.used.bytes(blocks.clone());
            bitmap.resize(BLOCK_SIZE, 0);
            fill_from(&mut bitmap, blocks.end - blocks.start);
            descriptor.block_checksum = self.seed.add(&bitmap);
            self.blocks(descriptor.block_bitmap, &bitmap)?;
        }
        if used_inodes == 0 {
            descriptor.flags |= group_flags::INODE_UNINIT;
        } else {
            let mut bitmap = vec![0; BLOCK_SIZE];
            for inode in 0..used_inodes {
                bitmap[inode as usize / 8] |= 1 << (inode % 8);
            }
            fill_from(&mut bitmap, per_group);
            descriptor.inode_checksum = self.seed.add(&bitmap[..per_group as usize / 8]);
            self.blocks(descriptor.inode_bitmap, &bitmap)?;
        }
        Ok(descriptor)
    }

    fn directories_by_group(&self) -> Vec<u32> {
        let mut count = vec![0; self.plan.geometry.groups as usize];
        for &id in &self.plan.order {
            if self.tree.children(id).is_some() {
                let number = self.plan.numbers[id as usize];
                count[((number - 1) / self.plan.inodes_per_group) as usize] += 1;
            }
        }
        count
    }
}

/// Bits from `start` to the end stand for what does not exist, and count as used.
fn fill_from(bitmap: &mut [u8], start: u32) {
    for bit in start..BLOCKS_PER_GROUP {
        bitmap[bit as usize / 8] |= 1 << (bit % 8);
    }
}

fn device(record: &mut Record<'_>, major: u32, minor: u32) {
    for (index, word) in encode_device(major, minor).into_iter().enumerate() {
        record.content.put32(4 * index, word);
    }
}

/// Collects inodes of one group and writes them at once.
struct Table<'a> {
    writer: &'a Writer<'a>,
    group: u32,
    bytes: Vec<u8>,
}

impl Table<'_> {
    fn put(&mut self, number: u32, record: [u8; INODE_SIZE as usize]) -> io::Result<()> {
        let per_group = self.writer.plan.inodes_per_group;
        let (group, index) = ((number - 1) / per_group, (number - 1) % per_group);
        if group != self.group {
            self.flush()?;
            self.group = group;
        }
        let start = index as usize * INODE_SIZE as usize;
        let end = start + INODE_SIZE as usize;
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        self.bytes.put(start, &record);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        let bytes = std::mem::take(&mut self.bytes);
        let start = self.writer.plan.inode_tables[self.group as usize];
        self.writer.blocks(start, &bytes)
    }
}

const _: () = assert!(ROOT_INODE < JOURNAL_INODE && JOURNAL_INODE < FIRST_INODE);
