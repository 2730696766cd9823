//! The names of the finished disk, between reading and writing.

use std::collections::HashSet;

use crate::error::{Error, Result};
use crate::ext4::{Geometry, Identity, Plan, size_that_fits};
use crate::merge::{Layers, Node, NodeId, Origin, Tree};

/// The files of the finished disk, by part.
pub(crate) struct Survivors {
    pub(crate) blocks: Vec<u64>,
    pub(crate) entries: Vec<HashSet<usize>>,
}

pub(crate) struct Merged {
    pub(crate) tree: Tree,
    lost_found: NodeId,
}

impl Merged {
    /// Of what the layers have in the directory `root`, else in the one that carries a root.
    pub(crate) fn of(layers: Layers, root: Option<&str>) -> Result<Merged> {
        let mut tree = layers.merge()?;
        tree.uncarry(root)?;
        let lost_found = tree
            .ensure_directory(b"lost+found", 0o700)
            .map_err(|source| Error::Inode {
                path: "/lost+found".into(),
                source,
            })?;
        Ok(Merged { tree, lost_found })
    }

    pub(crate) fn require(&self, paths: &[&str]) -> Result<()> {
        let missing = paths
            .iter()
            .find(|path| self.tree.find(path.as_bytes()).is_none());
        missing.map_or(Ok(()), |path| Err(Error::NoSuchFile((*path).to_owned())))
    }

    /// `None` when there is no room, or when not all bodies have their places.
    pub(crate) fn plan(
        &self,
        geometry: &Geometry,
        identity: &Identity,
        complete: bool,
    ) -> Result<Option<Plan>> {
        if !complete {
            return Ok(None);
        }
        Plan::new(geometry, &self.tree, self.lost_found, &identity.hash_seed)
    }

    pub(crate) fn survivors(&self, parts: usize) -> Survivors {
        let mut survivors = Survivors {
            blocks: vec![0; parts],
            entries: vec![HashSet::new(); parts],
        };
        for inode in self.tree.live() {
            if let Node::File {
                origin: Some(Origin { layer, entry }),
                body,
            } = &inode.node
            {
                survivors.blocks[*layer] += body.blocks();
                survivors.entries[*layer].insert(*entry);
            }
        }
        survivors
    }

    pub(crate) fn too_small(&self, size: u64, identity: &Identity) -> Error {
        let least = size + (1 << 20);
        match size_that_fits(&self.tree, self.lost_found, &identity.hash_seed, least) {
            Ok(needed) => Error::TooSmall { size, needed },
            Err(error) => error,
        }
    }
}
