//! Images that carry a root file system instead of being one: it is below a directory that a label
//! names, or below `/rootfs`, as Virtink's ContainerRootfs has it. What lies beside it is for a
//! container that copies it out.

use super::{ROOT, Tree};
use crate::error::{Error, Result};
use crate::walk::{Step, Walk};

/// Where a root is carried that no label tells of.
const PLACE: &[u8] = b"rootfs";
/// What a directory there has if it is to be a machine's root.
const INIT: &[u8] = b"sbin/init";

impl Tree {
    /// Makes the root that the image carries the root, with nothing else; an image that carries none
    /// stays as it is.
    pub(crate) fn uncarry(&mut self, stated: Option<&str>) -> Result<()> {
        let found = match stated {
            Some(place) => self.reroot(place.as_bytes()),
            None => !self.carries() || self.reroot(PLACE),
        };
        match (found, stated) {
            (false, Some(place)) => Err(Error::NoRoot(place.to_owned())),
            _ => Ok(()),
        }
    }

    /// Whether there is a root in the usual place. Its symlinks are meant for a machine that has it
    /// as its root.
    fn carries(&self) -> bool {
        let place = self.child(ROOT, PLACE);
        let Some(place) = place.filter(|&id| self.children(id).is_some()) else {
            return false;
        };
        let mut walk = Walk::below(place, INIT);
        matches!(walk.advance(self, None), Step::Blocked(_)) && walk.ahead.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use crate::layer::{Body, Entry, Kind, Metadata};
    use crate::merge::{Layers, Tree};

    fn tree(entries: &[(&str, Kind)]) -> Tree {
        let entries = entries.iter().map(|(path, kind)| Entry {
            path: path.as_bytes().into(),
            kind: kind.clone(),
            metadata: Metadata::default(),
        });
        let mut layers = Layers::default();
        layers.push(None, entries.collect());
        layers.merge().unwrap()
    }

    fn file() -> Kind {
        Kind::File(Body::default())
    }

    fn link(target: &str) -> Kind {
        Kind::Symlink(target.as_bytes().into())
    }

    #[test]
    fn what_is_carried_becomes_the_root() {
        let entries = [
            ("bin/entrypoint", file()),
            ("sbin/init", file()),
            ("rootfs/usr/lib/systemd/systemd", file()),
            ("rootfs/sbin", link("usr/sbin")),
            ("rootfs/usr/sbin/init", link("/usr/lib/systemd/systemd")),
        ];
        let mut carrier = tree(&entries);
        carrier.uncarry(None).unwrap();
        assert!(carrier.find(b"usr/lib/systemd/systemd").is_some());
        assert!(carrier.find(b"rootfs").is_none() && carrier.find(b"bin/entrypoint").is_none());
        // What the image says counts.
        let mut carrier = tree(&entries);
        carrier.uncarry(Some("/")).unwrap();
        assert!(carrier.find(b"bin/entrypoint").is_some());
        assert!(carrier.uncarry(Some("/nowhere")).is_err());
    }

    #[test]
    fn an_image_that_is_a_root_stays() {
        for entries in [
            &[("sbin/init", file()), ("rootfs", Kind::Directory)][..],
            &[("rootfs", file())],
            &[("rootfs/etc/passwd", file())],
            &[("rootfs/sbin/init", Kind::Directory)],
            // It points out of what is carried.
            &[
                ("lib/init", file()),
                ("rootfs/sbin/init", link("/lib/init")),
            ],
        ] {
            let mut tree = tree(entries);
            tree.uncarry(None).unwrap();
            assert!(tree.find(b"rootfs").is_some(), "{entries:?}");
        }
    }
}
