//! Everything below a directory, in an order that only the names decide.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use super::list::{Child, list, root};
use crate::digest::{Digest, Hasher};
use crate::error::{Error, Result};
use crate::layer::{Entry, Kind};
use crate::parallel::each;

/// What is below a directory, contents left where they are.
pub(crate) struct Directory {
    pub(super) root: PathBuf,
    pub(crate) entries: Vec<Entry>,
    /// Of each entry: bytes that its content takes where it is.
    pub(crate) allocated: Vec<u64>,
}

impl Directory {
    /// Lists level after level, several directories at once.
    pub(crate) fn walk(
        path: &Path,
        threads: usize,
        cancel: Option<&AtomicBool>,
    ) -> Result<Directory> {
        let mut directory = Directory {
            root: path.to_owned(),
            entries: vec![Entry {
                path: Box::default(),
                kind: Kind::Directory,
                metadata: root(path)?,
            }],
            allocated: vec![0],
        };
        let mut names = HashMap::new();
        let mut level = vec![0];
        while !level.is_empty() {
            let mut next = Vec::new();
            let lists = directory.level(&level, threads, cancel)?;
            for (parent, children) in level.into_iter().zip(lists) {
                for child in children {
                    if directory.add(parent, child, &mut names) {
                        next.push(directory.entries.len() - 1);
                    }
                }
            }
            level = next;
        }
        Ok(directory)
    }

    /// The children of these entries, in the same order.
    fn level(
        &self,
        level: &[usize],
        threads: usize,
        cancel: Option<&AtomicBool>,
    ) -> Result<Vec<Vec<Child>>> {
        let order: Vec<usize> = (0..level.len()).collect();
        each(threads, &order, |number| {
            if cancel.is_some_and(|cancel| cancel.load(Ordering::Relaxed)) {
                return Err(Error::Cancelled);
            }
            list(&self.path(&self.entries[level[number]].path))
        })
    }

    /// Adds one entry; true for a directory. Of an inode's names the first has the content, the
    /// others are links to it.
    fn add(&mut self, parent: usize, child: Child, names: &mut HashMap<(u64, u64), usize>) -> bool {
        let parent = &self.entries[parent].path;
        let slash: &[u8] = if parent.is_empty() { b"" } else { b"/" };
        let path = [parent, slash, &child.name].concat().into();
        let first = child
            .shared
            .map(|shared| *names.entry(shared).or_insert(self.entries.len()));
        let kind = match first {
            Some(first) if first < self.entries.len() => {
                Kind::HardLink(self.entries[first].path.clone())
            }
            _ => child.kind,
        };
        let is_directory = matches!(kind, Kind::Directory);
        self.entries.push(Entry {
            path,
            kind,
            metadata: child.metadata,
        });
        self.allocated.push(child.allocated);
        is_directory
    }

    /// Where a path is on this machine.
    pub(super) fn path(&self, path: &[u8]) -> PathBuf {
        if path.is_empty() {
            return self.root.join(".");
        }
        self.root.join(OsStr::from_bytes(path))
    }

    /// Bytes of all files.
    pub(crate) fn bytes(&self) -> u64 {
        let sizes = self.entries.iter().map(|entry| match &entry.kind {
            Kind::File(body) => body.size,
            _ => 0,
        });
        sizes.fold(0, u64::saturating_add)
    }

    /// Over all names and attributes.
    pub(crate) fn digest(&self) -> Digest {
        let mut hasher = Hasher::default();
        for Entry {
            path,
            kind,
            metadata,
        } in &self.entries
        {
            // Each text comes with its length, so no two descriptions run into each other.
            let mut text = |bytes: &[u8]| {
                hasher.update(&(bytes.len() as u64).to_le_bytes());
                hasher.update(bytes);
            };
            text(path);
            let (tag, words, target): (_, _, &[u8]) = match kind {
                Kind::Directory => (b'd', [0, 0], b""),
                Kind::File(body) => (b'f', [body.size, 0], b""),
                Kind::Symlink(target) => (b'l', [0, 0], target),
                Kind::HardLink(target) => (b'h', [0, 0], target),
                Kind::CharDevice { major, minor } => {
                    (b'c', [u64::from(*major), u64::from(*minor)], b"")
                }
                Kind::BlockDevice { major, minor } => {
                    (b'b', [u64::from(*major), u64::from(*minor)], b"")
                }
                Kind::Fifo => (b'p', [0, 0], b""),
                // A directory has none.
                Kind::Whiteout | Kind::Opaque => (b'w', [0, 0], b""),
            };
            text(target);
            text(&[tag]);
            for word in words {
                text(&word.to_le_bytes());
            }
            text(&metadata.mode.to_le_bytes());
            text(&metadata.uid.to_le_bytes());
            text(&metadata.gid.to_le_bytes());
            text(&metadata.mtime.seconds.to_le_bytes());
            text(&metadata.mtime.nanoseconds.to_le_bytes());
            for xattr in &metadata.xattrs {
                text(&xattr.name);
                text(&xattr.value);
            }
        }
        hasher.finish()
    }
}
