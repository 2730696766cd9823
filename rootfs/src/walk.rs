//! One path through the merged tree, symlinks followed inside the image. Pure.

use std::collections::HashSet;

use crate::merge::{Node, NodeId, ROOT, Tree};

/// How many symlinks one path may pass, as in Linux.
const SYMLINK_LIMIT: u32 = 40;

/// A path on its way from the root, symlinks followed without ever leaving the root.
pub(crate) struct Walk {
    /// Directories from the root to here.
    stack: Vec<NodeId>,
    /// Components still to go, the next one last.
    pub(crate) ahead: Vec<Box<[u8]>>,
    /// The part of the original path that is behind, while no symlink was followed.
    literal: Option<Vec<u8>>,
    followed: u32,
}

pub(crate) enum Step {
    /// At a directory, nothing ahead.
    Arrived(NodeId),
    /// The directory here has no such name.
    Missing(Box<[u8]>),
    /// The name is there, and it is neither directory nor symlink.
    Blocked(NodeId),
    /// Too many symlinks.
    Loops,
    /// The next component is a symlink that the current layer replaces.
    Replaced,
}

impl Walk {
    pub(crate) fn new(path: &[u8]) -> Walk {
        Walk::below(ROOT, path)
    }

    /// A path that begins at a directory and never leaves it.
    pub(crate) fn below(root: NodeId, path: &[u8]) -> Walk {
        let mut walk = Walk {
            stack: vec![root],
            ahead: Vec::new(),
            literal: Some(Vec::new()),
            followed: 0,
        };
        walk.push(path);
        walk
    }

    fn push(&mut self, path: &[u8]) {
        self.ahead
            .extend(path.rsplit(|&byte| byte == b'/').map(Box::from));
    }

    pub(crate) fn here(&self) -> NodeId {
        self.stack.last().copied().unwrap_or(ROOT)
    }

    pub(crate) fn enter(&mut self, directory: NodeId) {
        self.stack.push(directory);
    }

    pub(crate) fn advance(&mut self, tree: &Tree, replaced: Option<&HashSet<&[u8]>>) -> Step {
        while let Some(name) = self.ahead.pop() {
            match &*name {
                b"" | b"." => continue,
                b".." => {
                    if self.stack.len() > 1 {
                        self.stack.pop();
                    }
                    continue;
                }
                _ => {}
            }
            if let Some(literal) = &mut self.literal {
                if !literal.is_empty() {
                    literal.push(b'/');
                }
                literal.extend_from_slice(&name);
            }
            let Some(id) = tree.child(self.here(), &name) else {
                return Step::Missing(name);
            };
            match tree.node(id) {
                Node::Directory(_) => self.enter(id),
                Node::Symlink(target) => {
                    let literal = self.literal.take();
                    if let (Some(replaced), Some(literal)) = (replaced, literal)
                        && replaced.contains(&*literal)
                    {
                        return Step::Replaced;
                    }
                    self.followed += 1;
                    if self.followed > SYMLINK_LIMIT {
                        return Step::Loops;
                    }
                    if target.starts_with(b"/") {
                        self.stack.truncate(1);
                    }
                    self.push(target);
                }
                _ => return Step::Blocked(id),
            }
        }
        Step::Arrived(self.here())
    }
}
