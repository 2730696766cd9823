//! Superblock, group descriptors and the empty journal's superblock.

use super::types::{
    BLOCK_SIZE, BLOCKS_PER_GROUP, Checksum, EXTRA_SIZE, FIRST_INODE, INODE_SIZE, JOURNAL_INODE,
    Put, features, halves, words,
};

/// What makes a file system this one and no other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) uuid: [u8; 16],
    /// Of directory hashes.
    pub(crate) hash_seed: [u32; 4],
}

impl Identity {
    /// The seed of all metadata checksums.
    pub(crate) fn checksum(&self) -> Checksum {
        Checksum::START.add(&self.uuid)
    }
}

/// The numbers of a superblock.
#[derive(Debug)]
pub(crate) struct Superblock {
    pub(crate) identity: Identity,
    pub(crate) inodes: u32,
    pub(crate) blocks: u32,
    pub(crate) free_blocks: u32,
    pub(crate) free_inodes: u32,
    pub(crate) inodes_per_group: u32,
    /// The journal inode's content and size, kept here for repair.
    pub(crate) journal: ([u8; 60], u64),
}

impl Superblock {
    /// The 1024 bytes of the copy in a group.
    pub(crate) fn render(&self, group: u32) -> [u8; 1024] {
        let mut bytes = [0; 1024];
        let sb = &mut bytes;
        sb.put32(0x00, self.inodes);
        sb.put32(0x04, self.blocks);
        sb.put32(0x0c, self.free_blocks);
        sb.put32(0x10, self.free_inodes);
        sb.put32(0x18, 2); // blocks of 1024 << 2
        sb.put32(0x1c, 2);
        sb.put32(0x20, BLOCKS_PER_GROUP);
        sb.put32(0x24, BLOCKS_PER_GROUP);
        sb.put32(0x28, self.inodes_per_group);
        sb.put16(0x36, u16::MAX); // no check after so many mounts
        sb.put16(0x38, 0xef53);
        sb.put16(0x3a, 1); // clean
        sb.put16(0x3c, 1); // on errors continue
        sb.put32(0x4c, 1); // revision
        sb.put32(0x54, FIRST_INODE);
        sb.put16(0x58, halves(INODE_SIZE).0);
        // Group numbers beyond 16 bits are cut, as mke2fs does.
        sb.put16(0x5a, halves(group).0);
        sb.put32(0x5c, features::COMPATIBLE);
        sb.put32(0x60, features::INCOMPATIBLE);
        sb.put32(0x64, features::READ_ONLY);
        sb.put(0x68, &self.identity.uuid);
        sb.put32(0xe0, JOURNAL_INODE);
        for (index, word) in self.identity.hash_seed.into_iter().enumerate() {
            sb.put32(0xec + 4 * index, word);
        }
        sb[0xfc] = 1; // half MD4
        sb[0xfd] = 1; // the journal's inode is kept below
        sb.put32(0x100, 0x4 | 0x8); // user_xattr, acl
        let (journal, size) = self.journal;
        let (size, size_high) = words(size);
        sb.put(0x10c, &journal);
        sb.put32(0x148, size_high);
        sb.put32(0x14c, size);
        sb.put16(0x15c, EXTRA_SIZE);
        sb.put16(0x15e, EXTRA_SIZE);
        sb.put32(0x160, 1); // hashes over signed bytes
        sb[0x174] = 4; // 16 groups share their bitmaps' place
        sb[0x175] = 1; // CRC-32C
        let checksum = Checksum::START.add(&sb[..0x3fc]);
        sb.put32(0x3fc, checksum.0);
        bytes
    }
}

/// One group's descriptor.
#[derive(Debug)]
pub(crate) struct Descriptor {
    pub(crate) block_bitmap: u32,
    pub(crate) inode_bitmap: u32,
    pub(crate) inode_table: u32,
    pub(crate) free_blocks: u32,
    pub(crate) free_inodes: u32,
    pub(crate) directories: u32,
    pub(crate) flags: u16,
    pub(crate) block_checksum: Checksum,
    pub(crate) inode_checksum: Checksum,
    /// Inodes at the end of the table that were never used.
    pub(crate) unused_inodes: u32,
}

impl Descriptor {
    pub(crate) fn render(&self, group: u32, seed: Checksum) -> [u8; 32] {
        // A group has at most 32,768 of anything.
        let small = |value: u32| halves(value).0;
        let mut bytes = [0; 32];
        bytes.put32(0x00, self.block_bitmap);
        bytes.put32(0x04, self.inode_bitmap);
        bytes.put32(0x08, self.inode_table);
        bytes.put16(0x0c, small(self.free_blocks));
        bytes.put16(0x0e, small(self.free_inodes));
        bytes.put16(0x10, small(self.directories));
        bytes.put16(0x12, self.flags);
        bytes.put16(0x18, self.block_checksum.low());
        bytes.put16(0x1a, self.inode_checksum.low());
        bytes.put16(0x1c, small(self.unused_inodes));
        let checksum = seed.add(&group.to_le_bytes()).add(&bytes);
        bytes.put16(0x1e, checksum.low());
        bytes
    }
}

/// The first block of an empty journal of so many blocks (big-endian, version 2).
pub(crate) fn journal(blocks: u32, uuid: &[u8; 16]) -> Vec<u8> {
    let mut block = vec![0; BLOCK_SIZE];
    let words = [
        (0x00, 0xc03b_3998), // magic
        (0x04, 4),           // superblock, version 2
        (0x0c, 4096),        // block size
        (0x10, blocks),
        (0x14, 1), // first block of the log
        (0x18, 1), // first sequence number
        (0x40, 1), // users
    ];
    for (offset, value) in words {
        block.put(offset, &u32::to_be_bytes(value));
    }
    block.put(0x30, uuid);
    block
}
