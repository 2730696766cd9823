//! Layers on top of each other: entries in, one tree of inodes out. Pure; bodies stay where they
//! are.
//!
//! ```text
//! for every layer, oldest first:
//!   1. its whiteouts and opaque marks, which see only what the layers below left
//!   2. its entries, in the archive's order:
//!        directory over directory   new attributes, the children stay
//!        anything over anything     the old one is removed, with all below it
//!        hard link                  one more name for the inode its target names now,
//!                                   or at the layer's end when it comes later in the archive
//! ```
//! Because step 1 is complete before step 2 begins, a mark's place in the archive does not matter.
//! Parents that no layer lists are made: root's, 0755, time 0. A parent that is a symlink is
//! followed, inside the image.

mod carried;

use std::collections::{BTreeMap, HashSet};

use crate::digest::Digest;
use crate::error::{Error, Problem, Result};
use crate::layer::{Body, Entry, Kind, Metadata, display, normalise};
use crate::walk::{Step, Walk};

/// How many names one inode may have in ext4.
const LINK_LIMIT: u32 = 65_000;

/// Index of an inode in its [`Tree`].
pub(crate) type NodeId = u32;

pub(crate) const ROOT: NodeId = 0;

/// The merged image. Inodes without links are removed ones.
#[derive(Debug)]
pub(crate) struct Tree {
    inodes: Vec<Inode>,
    /// The directory that the last entry was in: archives list neighbours together.
    last: Option<(Box<[u8]>, NodeId)>,
}

#[derive(Debug)]
pub(crate) struct Inode {
    pub(crate) metadata: Metadata,
    pub(crate) node: Node,
    /// Names; a directory has one.
    pub(crate) links: u32,
}

#[derive(Debug)]
pub(crate) enum Node {
    Directory(BTreeMap<Box<[u8]>, NodeId>),
    File { origin: Option<Origin>, body: Body },
    Symlink(Box<[u8]>),
    CharDevice { major: u32, minor: u32 },
    BlockDevice { major: u32, minor: u32 },
    Fifo,
}

/// The entry that a file's content comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Origin {
    pub(crate) layer: usize,
    pub(crate) entry: usize,
}

/// The layers of an image as they were read, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Layers(Vec<(Option<Digest>, Vec<Entry>)>);

impl Layers {
    /// Entries that are no layer's come without a digest.
    pub(crate) fn push(&mut self, digest: Option<Digest>, entries: Vec<Entry>) {
        self.0.push((digest, entries));
    }

    /// The image.
    pub(crate) fn merge(self) -> Result<Tree> {
        let mut tree = Tree::new();
        for (layer, (digest, entries)) in self.0.into_iter().enumerate() {
            tree.apply(layer, entries).map_err(|(path, source)| {
                let path = display(&path);
                match digest {
                    Some(layer) => Error::Layer {
                        layer,
                        path,
                        source,
                    },
                    None => Error::Inode { path, source },
                }
            })?;
        }
        Ok(tree)
    }
}

type Failure = (Box<[u8]>, Problem);

impl Tree {
    fn new() -> Tree {
        let mut tree = Tree {
            inodes: Vec::new(),
            last: None,
        };
        tree.inodes.push(implied_directory());
        tree
    }

    pub(crate) fn node(&self, id: NodeId) -> &Node {
        &self.inodes[id as usize].node
    }

    pub(crate) fn inode(&self, id: NodeId) -> &Inode {
        &self.inodes[id as usize]
    }

    /// How many inodes there have been, removed ones included.
    pub(crate) fn len(&self) -> usize {
        self.inodes.len()
    }

    /// All inodes that are still there.
    pub(crate) fn live(&self) -> impl Iterator<Item = &Inode> {
        self.inodes.iter().filter(|inode| inode.links > 0)
    }

    pub(crate) fn children(&self, id: NodeId) -> Option<&BTreeMap<Box<[u8]>, NodeId>> {
        match self.node(id) {
            Node::Directory(children) => Some(children),
            _ => None,
        }
    }

    /// One of an inode's paths, for messages.
    pub(crate) fn path(&self, wanted: NodeId) -> String {
        let mut ahead = vec![(ROOT, String::from("/"))];
        while let Some((id, path)) = ahead.pop() {
            if id == wanted {
                return path;
            }
            for (name, &child) in self.children(id).into_iter().flatten() {
                let slash = if path.len() > 1 { "/" } else { "" };
                ahead.push((child, format!("{path}{slash}{}", display(name))));
            }
        }
        String::new()
    }

    /// The inode at a path, symlinks followed.
    pub(crate) fn find(&self, path: &[u8]) -> Option<NodeId> {
        let mut walk = Walk::new(&normalise(path).ok()?);
        match walk.advance(self, None) {
            Step::Arrived(id) => Some(id),
            Step::Blocked(id) if walk.ahead.is_empty() => Some(id),
            Step::Missing(_) | Step::Blocked(_) | Step::Loops | Step::Replaced => None,
        }
    }

    /// Makes the directory at this path the root, with all that is below it and nothing else. False
    /// if there is no such directory.
    fn reroot(&mut self, path: &[u8]) -> bool {
        let Some(id) = self.find(path) else {
            return false;
        };
        if id == ROOT {
            return true;
        }
        let metadata = self.inodes[id as usize].metadata.clone();
        let Node::Directory(children) = &mut self.inodes[id as usize].node else {
            return false;
        };
        let kept = std::mem::take(children);
        let outside = self.children(ROOT).into_iter().flat_map(BTreeMap::keys);
        for name in outside.cloned().collect::<Vec<_>>() {
            self.remove(ROOT, &name);
        }
        let root = &mut self.inodes[ROOT as usize];
        root.metadata = metadata;
        root.node = Node::Directory(kept);
        true
    }

    /// Makes sure that the root has a directory of this name.
    pub(crate) fn ensure_directory(&mut self, name: &[u8], mode: u16) -> Result<NodeId, Problem> {
        let existing = self.child(ROOT, name);
        match existing.map(|id| (id, self.node(id))) {
            Some((id, Node::Directory(_))) => Ok(id),
            Some(_) => Err(Problem::LostAndFound),
            None => {
                let mut inode = implied_directory();
                inode.metadata.mode = mode;
                Ok(self.insert(ROOT, name, inode))
            }
        }
    }

    fn apply(&mut self, layer: usize, entries: Vec<Entry>) -> Result<(), Failure> {
        let is_mark = |entry: &Entry| matches!(entry.kind, Kind::Whiteout | Kind::Opaque);
        let directories: HashSet<&[u8]> = entries
            .iter()
            .filter(|entry| matches!(entry.kind, Kind::Directory))
            .map(|entry| &*entry.path)
            .collect();
        for entry in entries.iter().filter(|entry| is_mark(entry)) {
            self.remove_lower(entry, &directories)
                .map_err(|problem| (entry.path.clone(), problem))?;
        }
        drop(directories);
        let mut early = Vec::new();
        for (number, entry) in entries.into_iter().enumerate() {
            if is_mark(&entry) {
                continue;
            }
            let Entry {
                path,
                kind,
                metadata,
            } = entry;
            let node = match kind {
                Kind::HardLink(target) => {
                    match self.link(&path, &target) {
                        Ok(()) => {}
                        Err(Problem::LinkToNowhere(_)) => early.push((path, target)),
                        Err(problem) => return Err((path, problem)),
                    }
                    continue;
                }
                Kind::Directory => Node::Directory(BTreeMap::new()),
                Kind::File(body) => Node::File {
                    origin: Some(Origin {
                        layer,
                        entry: number,
                    }),
                    body,
                },
                Kind::Symlink(target) => Node::Symlink(target),
                Kind::CharDevice { major, minor } => Node::CharDevice { major, minor },
                Kind::BlockDevice { major, minor } => Node::BlockDevice { major, minor },
                Kind::Fifo => Node::Fifo,
                Kind::Whiteout | Kind::Opaque => continue,
            };
            self.put(
                &path,
                Inode {
                    metadata,
                    node,
                    links: 0,
                },
            )
            .map_err(|problem| (path, problem))?;
        }
        for (path, target) in early {
            self.link(&path, &target)
                .map_err(|problem| (path, problem))?;
        }
        Ok(())
    }

    /// Step 1 for one mark. A parent that the layer replaces by a directory of its own is not
    /// followed into what a lower layer's symlink of that name points at.
    fn remove_lower(&mut self, entry: &Entry, directories: &HashSet<&[u8]>) -> Result<(), Problem> {
        let opaque = matches!(entry.kind, Kind::Opaque);
        let (parent, name) = split(&entry.path);
        let directory = if opaque { &entry.path } else { parent };
        let mut walk = Walk::new(directory);
        let Step::Arrived(id) = walk.advance(self, Some(directories)) else {
            return Ok(());
        };
        if !opaque {
            self.remove(id, name);
            return Ok(());
        }
        let names: Vec<_> = self
            .children(id)
            .into_iter()
            .flat_map(BTreeMap::keys)
            .cloned()
            .collect();
        for name in names {
            self.remove(id, &name);
        }
        Ok(())
    }

    fn put(&mut self, path: &[u8], inode: Inode) -> Result<(), Problem> {
        if path.is_empty() {
            self.inodes[ROOT as usize].metadata = inode.metadata;
            return Ok(());
        }
        let (parent, name) = split(path);
        let parent = self.make_directory(parent)?;
        if matches!(inode.node, Node::Directory(_))
            && let Some(id) = self.child(parent, name)
            && matches!(self.node(id), Node::Directory(_))
        {
            self.inodes[id as usize].metadata = inode.metadata;
            return Ok(());
        }
        self.remove(parent, name);
        self.insert(parent, name, inode);
        Ok(())
    }

    fn link(&mut self, path: &[u8], target: &[u8]) -> Result<(), Problem> {
        let nowhere = || Problem::LinkToNowhere(display(target));
        let (parent, name) = split(target);
        let mut walk = Walk::new(parent);
        let Step::Arrived(directory) = walk.advance(self, None) else {
            return Err(nowhere());
        };
        let id = self.child(directory, name).ok_or_else(nowhere)?;
        if matches!(self.node(id), Node::Directory(_)) {
            return Err(Problem::LinkToDirectory(display(target)));
        }
        let (parent, name) = split(path);
        let parent = self.make_directory(parent)?;
        if self.child(parent, name) == Some(id) {
            return Ok(());
        }
        // Counted first, so that removing the target's parent leaves the inode alone.
        if self.inodes[id as usize].links >= LINK_LIMIT {
            return Err(Problem::TooManyLinks);
        }
        self.inodes[id as usize].links += 1;
        self.remove(parent, name);
        if let Node::Directory(children) = &mut self.inodes[parent as usize].node {
            children.insert(name.into(), id);
        }
        Ok(())
    }

    pub(crate) fn child(&self, directory: NodeId, name: &[u8]) -> Option<NodeId> {
        self.children(directory)?.get(name).copied()
    }

    fn insert(&mut self, parent: NodeId, name: &[u8], mut inode: Inode) -> NodeId {
        inode.links = 1;
        // Layers are limited to far fewer entries than this can count.
        let id = NodeId::try_from(self.inodes.len()).unwrap_or(NodeId::MAX);
        self.inodes.push(inode);
        if let Node::Directory(children) = &mut self.inodes[parent as usize].node {
            children.insert(name.into(), id);
        }
        id
    }

    /// Removes a name and, when it was the last, its inode and all below it.
    fn remove(&mut self, parent: NodeId, name: &[u8]) {
        let Node::Directory(children) = &mut self.inodes[parent as usize].node else {
            return;
        };
        let Some(id) = children.remove(name) else {
            return;
        };
        self.last = None;
        let mut doomed = vec![id];
        while let Some(id) = doomed.pop() {
            let inode = &mut self.inodes[id as usize];
            inode.links -= 1;
            if inode.links == 0 {
                inode.metadata = Metadata::default();
                let node = std::mem::replace(&mut inode.node, Node::Fifo);
                if let Node::Directory(children) = node {
                    doomed.extend(children.into_values());
                }
            }
        }
    }

    /// The directory at a path, made with its parents where they are missing.
    fn make_directory(&mut self, path: &[u8]) -> Result<NodeId, Problem> {
        if let Some((last, id)) = &self.last
            && **last == *path
        {
            return Ok(*id);
        }
        let mut walk = Walk::new(path);
        loop {
            match walk.advance(self, None) {
                Step::Arrived(id) => {
                    self.last = Some((path.into(), id));
                    return Ok(id);
                }
                Step::Missing(name) => {
                    let parent = walk.here();
                    let id = self.insert(parent, &name, implied_directory());
                    walk.enter(id);
                }
                Step::Blocked(_) | Step::Loops | Step::Replaced => return Err(Problem::Parent),
            }
        }
    }
}

fn implied_directory() -> Inode {
    let metadata = Metadata {
        mode: 0o755,
        ..Metadata::default()
    };
    Inode {
        metadata,
        node: Node::Directory(BTreeMap::new()),
        links: 1,
    }
}

/// Parent and name.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (&[], path),
    }
}
