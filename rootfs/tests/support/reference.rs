//! The merge as one would explain it: a map from paths to inodes, layer after layer. Slow and
//! plain on purpose.

use std::collections::{BTreeMap, BTreeSet};

use knest_rootfs::Digest;

use super::tar::Item;
use super::{Bytes, Found, Kind, Listing};

/// The listing of a disk with these layers, oldest first. `None` where they break a rule.
pub fn merge(layers: &[Vec<Item>]) -> Option<Listing> {
    let mut world = World::default();
    world.inodes.push(Item {
        mtime: (0, 0),
        ..super::tar::directory("")
    });
    world.paths.insert(Vec::new(), 0);
    for layer in layers {
        world.apply(layer)?;
    }
    if !world.paths.contains_key(&b"lost+found"[..]) {
        let item = super::tar::directory("lost+found").mode(0o700).at(0, 0);
        world.add(b"lost+found".to_vec(), item);
    }
    Some(world.listing())
}

#[derive(Default)]
struct World {
    inodes: Vec<Item>,
    paths: BTreeMap<Bytes, usize>,
}

impl World {
    fn apply(&mut self, layer: &[Item]) -> Option<()> {
        let own: BTreeSet<Bytes> = layer
            .iter()
            .filter(|item| item.kind == b'5')
            .map(|item| clean(&item.path))
            .collect();
        for item in layer {
            let path = clean(&item.path);
            let (parent, name) = split(&path);
            if name == b".wh..wh..opq" {
                if let Some(directory) = self.real(&parent, Some(&own)) {
                    self.remove_below(&directory);
                }
            } else if let Some(name) = name.strip_prefix(b".wh.")
                && let Some(directory) = self.real(&parent, Some(&own))
            {
                self.remove(&join(&directory, name));
            }
        }
        let mut late = Vec::new();
        for item in layer {
            let path = clean(&item.path);
            let (parent, name) = split(&path);
            if name.starts_with(b".wh.") {
                continue;
            }
            if path.is_empty() {
                self.inodes[0] = item.clone();
                continue;
            }
            if item.kind == b'1' {
                match self.inode(&item.link) {
                    Some(inode) if self.inodes[inode].kind == b'5' => return None,
                    Some(inode) => self.bind(&path, inode)?,
                    None => late.push(item),
                }
                continue;
            }
            let parent = self.make(&parent)?;
            let path = join(&parent, &name);
            let existing = self.paths.get(&path).copied();
            if let Some(inode) = existing
                && item.kind == b'5'
                && self.inodes[inode].kind == b'5'
            {
                self.inodes[inode] = item.clone();
                continue;
            }
            self.remove(&path);
            self.add(path, item.clone());
        }
        for item in late {
            let inode = self.inode(&item.link)?;
            if self.inodes[inode].kind == b'5' {
                return None;
            }
            self.bind(&clean(&item.path), inode)?;
        }
        Some(())
    }

    fn add(&mut self, path: Bytes, item: Item) {
        self.inodes.push(item);
        self.paths.insert(path, self.inodes.len() - 1);
    }

    /// What a hard link means by its target.
    fn inode(&self, target: &[u8]) -> Option<usize> {
        let (parent, name) = split(&clean(target));
        let directory = self.real(&parent, None)?;
        self.paths.get(&join(&directory, &name)).copied()
    }

    fn bind(&mut self, path: &[u8], inode: usize) -> Option<()> {
        let (parent, name) = split(path);
        let parent = self.make(&parent)?;
        let path = join(&parent, &name);
        if self.paths.get(&path) != Some(&inode) {
            self.remove(&path);
            self.paths.insert(path, inode);
        }
        Some(())
    }

    fn remove(&mut self, path: &[u8]) {
        if self.paths.remove(path).is_some() {
            self.remove_below(path);
        }
    }

    fn remove_below(&mut self, path: &[u8]) {
        let below = join(path, b"");
        self.paths
            .retain(|other, _| other.is_empty() || !other.starts_with(&below) || *other == path);
    }

    /// The real path of a directory, its symlinks followed; `None` where it does not exist.
    fn real(&self, path: &[u8], own: Option<&BTreeSet<Bytes>>) -> Option<Bytes> {
        match self.follow(path, own) {
            (real, rest) if rest.is_empty() => {
                (self.inodes[*self.paths.get(&real)?].kind == b'5').then_some(real)
            }
            _ => None,
        }
    }

    /// The same, with missing directories made.
    fn make(&mut self, path: &[u8]) -> Option<Bytes> {
        let mut ahead = path.to_vec();
        loop {
            let (real, rest) = self.follow(&ahead, None);
            let kind = self.paths.get(&real).map(|&inode| self.inodes[inode].kind);
            if rest.is_empty() && kind == Some(b'5') {
                return Some(real);
            }
            if kind.is_some() {
                return None;
            }
            self.add(real.clone(), super::tar::directory("").at(0, 0));
            ahead = [real, b"/".to_vec(), rest].concat();
        }
    }

    /// Follows a path as far as it exists: the real path of the last component that was looked at,
    /// and what lies beyond.
    fn follow(&self, path: &[u8], own: Option<&BTreeSet<Bytes>>) -> (Bytes, Bytes) {
        let mut rest: Vec<Bytes> = path
            .split(|&byte| byte == b'/')
            .map(<[u8]>::to_vec)
            .collect();
        let mut real = Bytes::new();
        let mut links = 0;
        while !rest.is_empty() {
            let name = rest.remove(0);
            if name.is_empty() || name == b"." {
                continue;
            }
            if name == b".." {
                real = split(&real).0;
                continue;
            }
            let next = join(&real, &name);
            let item = self.paths.get(&next).map(|&inode| &self.inodes[inode]);
            match item {
                Some(item) if item.kind == b'2' && links < 40 => {
                    let replaced = links == 0 && own.is_some_and(|own| own.contains(&next));
                    if replaced {
                        return (next, b"replaced".to_vec());
                    }
                    links += 1;
                    let target = item.link.split(|&byte| byte == b'/').map(<[u8]>::to_vec);
                    rest.splice(0..0, target);
                    if item.link.starts_with(b"/") {
                        real.clear();
                    }
                }
                Some(item) if item.kind == b'5' => real = next,
                _ => return (next, rest.join(&b'/')),
            }
        }
        (real, Bytes::new())
    }

    fn listing(&self) -> Listing {
        let mut names: BTreeMap<usize, BTreeSet<Bytes>> = BTreeMap::new();
        for (path, &inode) in &self.paths {
            names.entry(inode).or_default().insert(path.clone());
        }
        let found = |(path, &inode): (&Bytes, &usize)| {
            let item = &self.inodes[inode];
            let names = names[&inode].clone();
            let kind = match item.kind {
                b'5' => Kind::Directory,
                b'0' => {
                    let whole = || (item.data.len() as u64, Digest::of(&item.data).to_string());
                    let (size, digest) = item.summary.clone().unwrap_or_else(whole);
                    Kind::File(size, digest)
                }
                b'2' => Kind::Symlink(item.link.clone()),
                b'3' => Kind::CharDevice(item.device.0, item.device.1),
                b'4' => Kind::BlockDevice(item.device.0, item.device.1),
                _ => Kind::Fifo,
            };
            let found = Found {
                mode: if item.kind == b'2' { 0o777 } else { item.mode },
                uid: u32::try_from(item.uid).unwrap(),
                gid: u32::try_from(item.gid).unwrap(),
                mtime: item.mtime,
                xattrs: item.xattrs.iter().cloned().collect(),
                names: if kind == Kind::Directory {
                    BTreeSet::new()
                } else {
                    names
                },
                kind,
            };
            (path.clone(), found)
        };
        self.paths.iter().map(found).collect()
    }
}

fn clean(path: &[u8]) -> Bytes {
    let parts: Vec<_> = path
        .split(|&byte| byte == b'/')
        .filter(|part| !part.is_empty() && *part != b".")
        .collect();
    parts.join(&b'/')
}

fn split(path: &[u8]) -> (Bytes, Bytes) {
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(slash) => (path[..slash].to_vec(), path[slash + 1..].to_vec()),
        None => (Bytes::new(), path.to_vec()),
    }
}

fn join(directory: &[u8], name: &[u8]) -> Bytes {
    if directory.is_empty() {
        name.to_vec()
    } else {
        [directory, b"/", name].concat()
    }
}
