//! One inode as its 256 bytes.

use super::types::{
    Checksum, EXTRA_SIZE, INLINE_XATTR_OFFSET, INODE_SIZE, Put, encode_time, halves, words,
};
use crate::layer::Time;

/// What an inode says.
#[derive(Debug)]
pub(crate) struct Record<'a> {
    /// Type and permissions.
    pub(crate) mode: u16,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// In bytes.
    pub(crate) size: u64,
    /// Stands for all four times: an image has no other.
    pub(crate) time: Time,
    pub(crate) links: u16,
    pub(crate) flags: u32,
    /// Blocks of the file system, those of the extent tree and the attributes included.
    pub(crate) blocks: u64,
    /// Extent tree, symlink target or device number.
    pub(crate) content: [u8; 60],
    pub(crate) xattr_block: u32,
    /// The attribute area, or empty.
    pub(crate) xattrs: &'a [u8],
}

impl Record<'_> {
    /// The bytes; `seed` is the inode's own checksum seed.
    pub(crate) fn render(&self, seed: Checksum) -> [u8; INODE_SIZE as usize] {
        let mut bytes = [0; INODE_SIZE as usize];
        let (uid, uid_high) = halves(self.uid);
        let (gid, gid_high) = halves(self.gid);
        let (size, size_high) = words(self.size);
        // Sectors of 512 bytes, in 48 bits.
        let (sectors, sectors_high) = words(self.blocks * 8);
        let (time, extra) = encode_time(self.time);
        bytes.put16(0x00, self.mode);
        bytes.put16(0x02, uid);
        bytes.put32(0x04, size);
        bytes.put32(0x08, time); // atime
        bytes.put32(0x0c, time); // ctime
        bytes.put32(0x10, time); // mtime
        bytes.put16(0x18, gid);
        bytes.put16(0x1a, self.links);
        bytes.put32(0x1c, sectors);
        bytes.put32(0x20, self.flags);
        bytes.put(0x28, &self.content);
        bytes.put32(0x68, self.xattr_block);
        bytes.put32(0x6c, size_high);
        bytes.put16(0x74, halves(sectors_high).0);
        bytes.put16(0x78, uid_high);
        bytes.put16(0x7a, gid_high);
        bytes.put16(0x80, EXTRA_SIZE);
        bytes.put32(0x84, extra); // ctime
        bytes.put32(0x88, extra); // mtime
        bytes.put32(0x8c, extra); // atime
        bytes.put32(0x90, time); // crtime
        bytes.put32(0x94, extra);
        bytes.put(INLINE_XATTR_OFFSET, self.xattrs);
        let checksum = seed.add(&bytes);
        bytes.put16(0x7c, checksum.low());
        bytes.put16(0x82, checksum.high());
        bytes
    }
}
