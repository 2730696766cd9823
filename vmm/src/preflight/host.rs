//! What this host has beside KVM that a VM, or Cloud Hypervisor itself, can use.

use std::fs::OpenOptions;
use std::io;
use std::path::Path;

use rustix::process::{Resource, getrlimit};

use super::{Access, Verdict};
use crate::sys;

/// Huge pages of one size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct HugePages {
    /// Bytes of one.
    pub size: u64,
    /// How many are set aside.
    pub total: u64,
    /// How many of these nobody uses.
    pub free: u64,
}

/// What a process may have of something, and what it may raise that to. `None` is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limit {
    /// Now.
    pub soft: Option<u64>,
    /// At most.
    pub hard: Option<u64>,
}

/// What this process finds on its host. Children have the same unless something is taken from them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Whether disks can use `io_uring`; Cloud Hypervisor takes AIO where they can't.
    pub io_uring: Verdict,
    /// Whether a snapshot can be restored on demand, page by page.
    pub userfaultfd: Verdict,
    /// The version of Landlock's interface, which `landlock_enable` needs; `None` without Landlock.
    pub landlock: Option<u32>,
    /// The device that devices of the host are passed through by.
    pub vfio: Access,
    /// IOMMU groups; without one there is nothing to pass through.
    pub iommu_groups: usize,
    /// The sizes that this kernel knows, the smallest first.
    pub huge_pages: Vec<HugePages>,
    /// Descriptors of one process.
    pub open_files: Limit,
    /// Bytes of memory that one process may lock; a passed-through device locks all of a guest's.
    pub locked_memory: Limit,
}

impl Host {
    /// Looks. Never fails, and leaves nothing behind. A millisecond, blocking.
    #[must_use]
    pub fn inspect() -> Self {
        Self {
            io_uring: verdict(sys::io_uring(), |error| {
                let setting = setting("/proc/sys/kernel/io_uring_disabled").unwrap_or_default();
                match setting {
                    0 => format!("the kernel refuses it: {error}"),
                    _ => format!("it is switched off (kernel.io_uring_disabled = {setting})"),
                }
            }),
            userfaultfd: verdict(sys::userfaultfd(), |error| {
                format!("the kernel refuses it: {error}")
            }),
            landlock: sys::landlock().ok(),
            vfio: open("/dev/vfio/vfio".as_ref()),
            iommu_groups: entries("/sys/kernel/iommu_groups".as_ref()).count(),
            huge_pages: huge_pages("/sys/kernel/mm/hugepages".as_ref()),
            open_files: limit(Resource::Nofile),
            locked_memory: limit(Resource::Memlock),
        }
    }
}

fn verdict(tried: io::Result<()>, reason: impl FnOnce(io::Error) -> String) -> Verdict {
    match tried {
        Ok(()) => Verdict::Yes,
        Err(error) => Verdict::No {
            reason: reason(error),
        },
    }
}

fn open(device: &Path) -> Access {
    match OpenOptions::new().read(true).write(true).open(device) {
        Ok(_) => Access::Granted,
        Err(error) => Access::refused(error),
    }
}

fn limit(resource: Resource) -> Limit {
    let limit = getrlimit(resource);
    Limit {
        soft: limit.current,
        hard: limit.maximum,
    }
}

fn entries(directory: &Path) -> impl Iterator<Item = std::path::PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten();
    entries.flatten().map(|entry| entry.path())
}

fn setting(path: impl AsRef<Path>) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// Of directories `hugepages-2048kB`.
fn huge_pages(directory: &Path) -> Vec<HugePages> {
    let page = |path: std::path::PathBuf| {
        let name = path.file_name()?.to_str()?;
        let size: u64 = name
            .strip_prefix("hugepages-")?
            .strip_suffix("kB")?
            .parse()
            .ok()?;
        Some(HugePages {
            size: size.checked_mul(1024)?,
            total: setting(path.join("nr_hugepages"))?,
            free: setting(path.join("free_hugepages"))?,
        })
    };
    let mut pages: Vec<_> = entries(directory).filter_map(page).collect();
    pages.sort();
    pages
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_and_leaves_nothing() {
        let open = || entries("/proc/self/fd".as_ref()).count();
        let host = Host::inspect();
        assert!(
            host.open_files.soft.is_none_or(|limit| limit > 2),
            "{host:?}"
        );
        let before = open();
        // Other tests open files of their own meanwhile; a leak would be three a look.
        for _ in 0..100 {
            assert_eq!(Host::inspect().landlock, host.landlock);
        }
        assert!(open() < before + 100, "{before}");
    }

    #[test]
    fn sizes_of_huge_pages() {
        let dir = tempfile::tempdir().unwrap();
        for (name, total) in [("hugepages-1048576kB", "0\n"), ("hugepages-2048kB", "8\n")] {
            let page = dir.path().join(name);
            std::fs::create_dir(&page).unwrap();
            std::fs::write(page.join("nr_hugepages"), total).unwrap();
            std::fs::write(page.join("free_hugepages"), "0\n").unwrap();
        }
        std::fs::create_dir(dir.path().join("other")).unwrap();
        let pages = huge_pages(dir.path());
        assert_eq!(pages.len(), 2);
        assert_eq!((pages[0].size, pages[0].total), (2 << 20, 8));
        assert_eq!(huge_pages("/nowhere".as_ref()), []);
    }
}
