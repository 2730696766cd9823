//! Images as machines need them: a node's root, which must be able to become a node, and a kernel,
//! which must be one that VMMs boot directly. All functions block.

use super::state::remove;
use super::work::Task;
use crate::failure::{Context, Failure, Result};
use crate::paths::Paths;
use knest_rootfs::source::Layout;
use knest_rootfs::{
    BuildOptions, Cache, Contents, Error, Image, Platform, Progress, Store, Wishes, read_file,
};
use std::io::Write;
use std::path::PathBuf;

/// Where an image of a kernel has it.
const KERNEL: &str = "vmlinux";
const KERNEL_MAX: u64 = 512 << 20;

/// What a node's root must have: how its first process, its container engine and its Kubernetes are
/// found.
const NODE_FILES: [&str; 4] = [
    "sbin/init",
    "usr/bin/kubelet",
    "usr/bin/kubeadm",
    "usr/bin/containerd",
];
/// Where else they may be.
const ELSEWHERE: [&str; 3] = ["usr/local/bin/", "usr/sbin/", "bin/"];

/// An image in the store, for this platform.
#[derive(Debug)]
pub(crate) struct Found {
    layout: Layout,
    pub(super) image: Image,
    reference: String,
}

/// Looks an image up.
pub(crate) fn find(paths: &Paths, reference: &str) -> Result<Found> {
    let what = format!("image {reference}");
    let store = Store::open(paths.images()).host(&what)?;
    let layout = store.resolve(reference).map_err(|error| {
        let missing = matches!(error, Error::NoImage { .. });
        let failure = Failure::host(&what).because(error);
        if missing {
            failure
                .hint("make images builds knest's own and puts them into its store")
                .hint("knest image list shows what is there, knest image load takes more in")
        } else {
            failure
        }
    })?;
    let image = Image::resolve(&layout, &Platform::host()).host(&what)?;
    Ok(Found {
        layout,
        image,
        reference: reference.into(),
    })
}

impl Found {
    /// Bytes of its packed layers.
    pub(super) fn packed(&self) -> u64 {
        self.image.layers.iter().map(|l| l.blob.size).sum()
    }

    /// Checks that it has what makes a node. An image that passed is not read again.
    pub(super) fn check_node(&self, paths: &Paths, task: &Task) -> Result<()> {
        let directory = paths.checked();
        let passed = directory.join(format!("{}.node", self.image.digest().hex()));
        if passed.exists() {
            return Ok(());
        }
        let contents = Contents::read(&self.layout, &self.image, wishes(task, &|p| task.tell(p)))
            .host(format!("reading image {}", self.reference))?;
        let missing: Vec<&str> = NODE_FILES
            .into_iter()
            .filter(|path| {
                let name = path.rsplit('/').next().unwrap_or(path);
                !contents.has(path)
                    && !ELSEWHERE
                        .iter()
                        .any(|place| contents.has(&format!("{place}{name}")))
            })
            .collect();
        if !missing.is_empty() {
            return Err(Failure::host(format!(
                "image {} can't be a node: it lacks {}",
                self.reference,
                missing.join(", ")
            ))
            .hint("a node image has systemd, containerd, kubelet and kubeadm"));
        }
        let what = "remembering a checked image";
        fs_err::create_dir_all(&directory).host(what)?;
        fs_err::write(passed, "").host(what)
    }

    /// The kernel in it, as a file in the cache.
    pub(crate) fn kernel(&self, paths: &Paths, task: &Task) -> Result<PathBuf> {
        let what = format!("taking the kernel out of image {}", self.reference);
        let directory = paths.kernels().join(self.image.digest().hex());
        let path = directory.join(KERNEL);
        if path.exists() {
            return Ok(path);
        }
        let bytes = read_file(
            &self.layout,
            &self.image,
            KERNEL,
            KERNEL_MAX,
            wishes(task, &|p| task.tell(p)),
        )
        .host(&what)?;
        if !is_pvh(&bytes) {
            return Err(Failure::host(format!(
                "image {}: /{KERNEL} is no kernel that a VMM boots directly (an ELF file with a \
                 PVH entry)",
                self.reference
            ))
            .hint("build it with CONFIG_PVH=y and take the uncompressed vmlinux"));
        }
        fs_err::create_dir_all(&directory).host(&what)?;
        let temporary = directory.join(format!(".{KERNEL}.{}", std::process::id()));
        let written = fs_err::File::create(&temporary)
            .and_then(|mut file| {
                file.write_all(&bytes)?;
                file.sync_all()
            })
            .and_then(|()| fs_err::rename(&temporary, &path));
        if written.is_err() {
            drop(remove(&temporary));
        }
        written.host(&what)?;
        Ok(path)
    }

    /// Its root disk of so many bytes, found in the cache or built; `more` says how to ask for more.
    pub(crate) fn disk(
        &self,
        paths: &Paths,
        size: u64,
        more: &str,
        task: &Task,
    ) -> Result<PathBuf> {
        let what = format!("making a disk of image {}", self.reference);
        let cache = Cache::open(paths.disks()).host(&what)?;
        let tell = |p| task.tell(p);
        let options = BuildOptions {
            wishes: wishes(task, &tell),
            ..BuildOptions::new(size)
        };
        let disk = cache.disk(&self.layout, &self.image, &options);
        let disk = disk.map_err(|error| {
            let small = matches!(error, Error::TooSmall { .. });
            let failure = Failure::host(&what).because(error);
            if small { failure.hint(more) } else { failure }
        })?;
        Ok(disk.path)
    }
}

fn wishes<'a>(task: &'a Task, tell: &'a (dyn Fn(Progress) + Sync)) -> Wishes<'a> {
    Wishes {
        cancel: Some(&task.cancel),
        progress: Some(tell),
    }
}

/// Whether these bytes are an ELF64 file with Xen's note 18, where VMMs find the entry that expects
/// nothing set up (`PHYS32_ENTRY`).
fn is_pvh(elf: &[u8]) -> bool {
    fn number(bytes: &[u8], at: usize, length: usize) -> Option<usize> {
        let field = bytes.get(at..at.checked_add(length)?)?;
        let value = field
            .iter()
            .rev()
            .fold(0_u64, |n, b| n << 8 | u64::from(*b));
        usize::try_from(value).ok()
    }
    fn notes(mut notes: &[u8]) -> Option<bool> {
        while !notes.is_empty() {
            let (name, text) = (number(notes, 0, 4)?, number(notes, 4, 4)?);
            let owner = notes.get(12..12_usize.checked_add(name)?)?;
            if owner == b"Xen\0" && number(notes, 8, 4)? == 18 {
                return Some(true);
            }
            let length = name.checked_next_multiple_of(4)?.checked_add(text)?;
            let length = length.checked_next_multiple_of(4)?.checked_add(12)?;
            notes = notes.get(length..)?;
        }
        Some(false)
    }
    fn header(elf: &[u8], index: usize) -> Option<bool> {
        const NOTE: usize = 4;
        let at = number(elf, 32, 8)?.checked_add(index.checked_mul(number(elf, 54, 2)?)?)?;
        if number(elf, at, 4)? != NOTE {
            return Some(false);
        }
        let (start, length) = (number(elf, at + 8, 8)?, number(elf, at + 32, 8)?);
        notes(elf.get(start..start.checked_add(length)?)?)
    }
    // 64 bits, little-endian.
    elf.starts_with(b"\x7fELF\x02\x01")
        && (0..number(elf, 56, 2).unwrap_or(0)).any(|index| header(elf, index) == Some(true))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An ELF64 header, one program header of type 4, and one note of Xen's.
    fn elf(kind: u8) -> Vec<u8> {
        let mut elf = vec![0; 120];
        elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
        elf[32] = 64;
        elf[54] = 56;
        elf[56] = 1;
        elf[64] = 4;
        elf[72] = 120;
        elf[96] = 40;
        // Another owner's note first: 4 + 1 bytes, each rounded up.
        elf.extend([
            4, 0, 0, 0, 1, 0, 0, 0, 18, 0, 0, 0, b'G', b'N', b'U', 0, 9, 0, 0, 0,
        ]);
        elf.extend([
            4, 0, 0, 0, 4, 0, 0, 0, kind, 0, 0, 0, b'X', b'e', b'n', 0, 1, 2, 3, 4,
        ]);
        elf
    }

    #[test]
    fn pvh_is_a_note() {
        assert!(is_pvh(&elf(18)));
        assert!(!is_pvh(&elf(17)));
        assert!(!is_pvh(b"MZ"));
        assert!(!is_pvh(&elf(18)[..100]));
        let whole = elf(18);
        for length in 0..whole.len() {
            assert!(!is_pvh(&whole[..length]));
        }
    }
}
