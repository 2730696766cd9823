//! The on-disk structures, as byte offsets (little-endian), and the checksums over them.

use crate::layer::Time;

pub(crate) const BLOCK_SIZE: usize = 4096;
pub(crate) const BLOCK: u64 = BLOCK_SIZE as u64;
pub(crate) const BLOCKS_PER_GROUP: u32 = 8 * 4096;
pub(crate) const INODE_SIZE: u32 = 256;
pub(crate) const INODES_PER_BLOCK: u32 = 4096 / INODE_SIZE;
pub(crate) const DESCRIPTOR_SIZE: u32 = 32;
pub(crate) const DESCRIPTORS_PER_BLOCK: u32 = 4096 / DESCRIPTOR_SIZE;

pub(crate) const ROOT_INODE: u32 = 2;
pub(crate) const JOURNAL_INODE: u32 = 8;
/// The first that is not reserved; by convention `lost+found`.
pub(crate) const FIRST_INODE: u32 = 11;

/// Bytes of `i_extra_isize`: everything up to and including `i_projid`.
pub(crate) const EXTRA_SIZE: u16 = 32;
/// Where attributes start inside an inode.
pub(crate) const INLINE_XATTR_OFFSET: usize = 128 + EXTRA_SIZE as usize;
/// Bytes of an inode that attributes may use, their magic number included.
pub(crate) const INLINE_XATTR_SIZE: usize = INODE_SIZE as usize - INLINE_XATTR_OFFSET;

pub(crate) mod inode_flags {
    pub(crate) const INDEX: u32 = 0x1000;
    pub(crate) const EXTENTS: u32 = 0x8_0000;
}

pub(crate) mod group_flags {
    pub(crate) const INODE_UNINIT: u16 = 1;
    pub(crate) const BLOCK_UNINIT: u16 = 2;
    pub(crate) const INODE_ZEROED: u16 = 4;
}

pub(crate) mod features {
    /// has_journal, ext_attr, dir_index
    pub(crate) const COMPATIBLE: u32 = 0x4 | 0x8 | 0x20;
    /// filetype, extents, flex_bg
    pub(crate) const INCOMPATIBLE: u32 = 0x2 | 0x40 | 0x200;
    /// sparse_super, large_file, huge_file, dir_nlink, extra_isize, metadata_csum
    pub(crate) const READ_ONLY: u32 = 0x1 | 0x2 | 0x8 | 0x20 | 0x40 | 0x400;
}

pub(crate) mod mode {
    pub(crate) const FIFO: u16 = 0o010_000;
    pub(crate) const CHAR: u16 = 0o020_000;
    pub(crate) const DIRECTORY: u16 = 0o040_000;
    pub(crate) const BLOCK: u16 = 0o060_000;
    pub(crate) const FILE: u16 = 0o100_000;
    pub(crate) const SYMLINK: u16 = 0o120_000;
}

/// The file system's own checksum: CRC-32C without the final inversion, so that it can be
/// continued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Checksum(pub(crate) u32);

impl Checksum {
    pub(crate) const START: Checksum = Checksum(!0);

    #[must_use]
    pub(crate) fn add(self, bytes: &[u8]) -> Checksum {
        Checksum(!crc32c::crc32c_append(!self.0, bytes))
    }

    /// The seed of everything that belongs to an inode of generation 0.
    #[must_use]
    pub(crate) fn inode(self, number: u32) -> Checksum {
        self.add(&number.to_le_bytes()).add(&[0; 4])
    }

    pub(crate) fn low(self) -> u16 {
        (self.0 & 0xffff) as u16
    }

    pub(crate) fn high(self) -> u16 {
        (self.0 >> 16) as u16
    }
}

/// Writes at an offset. Offsets are constants inside buffers of constant size.
pub(crate) trait Put {
    fn put(&mut self, offset: usize, bytes: &[u8]);

    fn put16(&mut self, offset: usize, value: u16) {
        self.put(offset, &value.to_le_bytes());
    }

    fn put32(&mut self, offset: usize, value: u32) {
        self.put(offset, &value.to_le_bytes());
    }
}

impl Put for [u8] {
    fn put(&mut self, offset: usize, bytes: &[u8]) {
        self[offset..offset + bytes.len()].copy_from_slice(bytes);
    }
}

/// Low and high 16 bits.
pub(crate) fn halves(value: u32) -> (u16, u16) {
    ((value & 0xffff) as u16, (value >> 16) as u16)
}

/// Low and high 32 bits.
pub(crate) fn words(value: u64) -> (u32, u32) {
    ((value & 0xffff_ffff) as u32, (value >> 32) as u32)
}

/// A time as its two fields: 34 bits of seconds from 1901 to 2446, and 30 bits of nanoseconds.
/// What lies outside is moved to the nearest second that can be written.
pub(crate) fn encode_time(time: Time) -> (u32, u32) {
    const FIRST: i64 = i32::MIN as i64;
    const LAST: i64 = FIRST + (1 << 34) - 1;
    let seconds = time.seconds.clamp(FIRST, LAST);
    let nanoseconds = if seconds == time.seconds {
        time.nanoseconds
    } else {
        0
    };
    let (low, _) = words(seconds.cast_unsigned());
    let epoch = (seconds - i64::from(low.cast_signed())) >> 32;
    let (epoch, _) = words(epoch.cast_unsigned());
    (low, nanoseconds << 2 | epoch & 3)
}

/// The two ways to write a device number: the old one where it suffices, else Linux's wide one.
pub(crate) fn encode_device(major: u32, minor: u32) -> [u32; 2] {
    if major < 256 && minor < 256 {
        [major << 8 | minor, 0]
    } else {
        [
            0,
            minor & 0xff | (major & 0xfff) << 8 | (minor & !0xff) << 12,
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The kernel's table in `Documentation/filesystems/ext4/inodes.rst`.
    #[test]
    fn times() {
        for (seconds, low, epoch) in [
            (-0x8000_0000, 0x8000_0000, 0),
            (-1, 0xffff_ffff, 0),
            (0, 0, 0),
            (0x7fff_ffff, 0x7fff_ffff, 0),
            (0x8000_0000, 0x8000_0000, 1),
            (0xffff_ffff, 0xffff_ffff, 1),
            (0x1_0000_0000, 0, 1),
            (0x1_8000_0000, 0x8000_0000, 2),
            (0x3_7fff_ffff, 0x7fff_ffff, 3),
            (i64::MAX, 0x7fff_ffff, 3),
            (i64::MIN, 0x8000_0000, 0),
        ] {
            assert_eq!(
                encode_time(Time {
                    seconds,
                    nanoseconds: 0
                }),
                (low, epoch),
                "{seconds}"
            );
        }
        let time = Time {
            seconds: -2,
            nanoseconds: 999_999_999,
        };
        assert_eq!(encode_time(time), (0xffff_fffe, 999_999_999 << 2));
    }

    #[test]
    fn the_checksum_is_the_known_one() {
        assert_eq!(!Checksum::START.add(b"123456789").0, 0xe306_9283);
        assert_eq!(
            Checksum::START.add(b"1234").add(b"56789"),
            Checksum::START.add(b"123456789")
        );
    }

    #[test]
    fn devices() {
        assert_eq!(encode_device(1, 3), [0x103, 0]);
        assert_eq!(encode_device(300, 70_000), [0, 0x1111_2c70]);
    }
}
