//! What a layer says about one path, and how paths are spelled: bytes, relative to the root,
//! without `.`, `..` or empty components; the root itself is the empty path.

use crate::error::Problem;

/// Longest path that Linux resolves, in bytes.
const PATH_LIMIT: usize = 4096;
/// Longest file name of Linux and ext4, in bytes.
const NAME_LIMIT: usize = 255;

/// One path of a layer.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// Normalised. For whiteouts the path that is removed, for opaque marks the directory.
    pub(crate) path: Box<[u8]>,
    pub(crate) kind: Kind,
    pub(crate) metadata: Metadata,
}

#[derive(Clone, Debug)]
pub(crate) enum Kind {
    Directory,
    File(Body),
    Symlink(Box<[u8]>),
    /// Another name of the file at this normalised path.
    HardLink(Box<[u8]>),
    CharDevice {
        major: u32,
        minor: u32,
    },
    BlockDevice {
        major: u32,
        minor: u32,
    },
    Fifo,
    /// Removes the path from the layers below.
    Whiteout,
    /// Empties the directory of what the layers below put there.
    Opaque,
}

/// A file's content: where the sink put it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Body {
    /// In bytes.
    pub(crate) size: u64,
    /// Ascending; what lies between them is zero.
    pub(crate) extents: Box<[Extent]>,
}

impl Body {
    /// Blocks that hold data.
    pub(crate) fn blocks(&self) -> u64 {
        self.extents
            .iter()
            .map(|extent| u64::from(extent.length))
            .sum()
    }
}

/// A run of blocks that are adjacent in the file and on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    /// First block inside the file.
    pub(crate) logical: u32,
    /// First block on the disk.
    pub(crate) physical: u32,
    /// Blocks; at least 1.
    pub(crate) length: u32,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Metadata {
    /// Permissions with set-user-ID, set-group-ID and sticky: 12 bits.
    pub(crate) mode: u16,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: Time,
    pub(crate) xattrs: Vec<Xattr>,
}

/// An extended attribute with its full name, such as `security.capability`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Xattr {
    pub(crate) name: Box<[u8]>,
    pub(crate) value: Box<[u8]>,
}

/// A moment; nanoseconds always count forward.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Time {
    pub(crate) seconds: i64,
    pub(crate) nanoseconds: u32,
}

/// A path for people.
pub(crate) fn display(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

/// Brings a name from a tar file into the one spelling that the merge compares.
pub(crate) fn normalise(name: &[u8]) -> Result<Box<[u8]>, Problem> {
    let mut path = Vec::with_capacity(name.len());
    for component in name.split(|&byte| byte == b'/') {
        match component {
            b"" | b"." => continue,
            b".." => return Err(Problem::Escapes),
            _ if component.len() > NAME_LIMIT || component.contains(&0) => {
                return Err(Problem::Name);
            }
            _ => {}
        }
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(component);
    }
    if path.len() > PATH_LIMIT {
        Err(Problem::Name)
    } else {
        Ok(path.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_spelling() {
        for (name, expected) in [
            ("usr/bin/sh", "usr/bin/sh"),
            ("./usr//bin/./sh/", "usr/bin/sh"),
            ("/etc", "etc"),
            ("./", ""),
            ("...", "..."),
        ] {
            assert_eq!(
                &*normalise(name.as_bytes()).unwrap(),
                expected.as_bytes(),
                "{name}"
            );
        }
        for name in ["..", "a/../b", "/../etc/passwd", "a\0b"] {
            assert!(normalise(name.as_bytes()).is_err(), "{name}");
        }
        assert!(normalise(&[b'n'; 255]).is_ok());
        assert!(normalise(&[b'n'; 256]).is_err());
        assert!(normalise(&b"d/".repeat(2049)).is_err());
    }
}
