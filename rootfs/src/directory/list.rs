//! One directory's children: names, kinds and attributes.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, Stat, fstat, lgetxattr, llistxattr, major, minor, open,
    readlinkat, statat,
};
use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::layer::{Body, Kind, Metadata, Time, Xattr};

/// Most bytes of an attribute's value, and of the list of names, in Linux.
const XATTR_LIMIT: usize = 64 << 10;
/// The label of this machine's policy, not of what is in the directory.
const LABEL: &[u8] = b"security.selinux";

/// What a directory has under one name.
pub(crate) struct Child {
    pub(crate) name: Box<[u8]>,
    /// A file has its size, and no place yet.
    pub(crate) kind: Kind,
    pub(crate) metadata: Metadata,
    /// Device and inode of what has more names than this one.
    pub(crate) shared: Option<(u64, u64)>,
    /// Bytes that its content takes where it is.
    pub(crate) allocated: u64,
}

/// The attributes of the directory that is walked.
pub(crate) fn root(path: &Path) -> Result<Metadata> {
    // Not the link that may lead to it.
    let path = path.join(".");
    let file = open_directory(&path)?;
    let stat = fstat(&file).map_err(|errno| failed("read", &path)(errno))?;
    metadata(&stat, &path)
}

/// All children, by name. Sockets are left out: without their process they are nothing.
pub(crate) fn list(path: &Path) -> Result<Vec<Child>> {
    let directory = open_directory(path)?;
    let mut names = Vec::new();
    for entry in Dir::read_from(&directory).map_err(failed("list", path))? {
        let entry = entry.map_err(failed("list", path))?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(Box::from(name));
        }
    }
    names.sort_unstable();
    let mut children = Vec::with_capacity(names.len());
    for name in names {
        let below = path.join(OsStr::from_bytes(&name));
        let stat = statat(&directory, &*name, AtFlags::SYMLINK_NOFOLLOW);
        let stat = stat.map_err(failed("read", &below))?;
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => Kind::Directory,
            FileType::RegularFile => Kind::File(Body {
                size: u64::try_from(stat.st_size).unwrap_or_default(),
                extents: Box::default(),
            }),
            FileType::Symlink => {
                let target = readlinkat(&directory, &*name, Vec::new());
                Kind::Symlink(target.map_err(failed("read", &below))?.into_bytes().into())
            }
            FileType::CharacterDevice => Kind::CharDevice {
                major: major(stat.st_rdev),
                minor: minor(stat.st_rdev),
            },
            FileType::BlockDevice => Kind::BlockDevice {
                major: major(stat.st_rdev),
                minor: minor(stat.st_rdev),
            },
            FileType::Fifo => Kind::Fifo,
            _ => continue,
        };
        let several = stat.st_nlink > 1 && !matches!(kind, Kind::Directory);
        children.push(Child {
            kind,
            metadata: metadata(&stat, &below)?,
            shared: several.then_some((stat.st_dev, stat.st_ino)),
            allocated: u64::try_from(stat.st_blocks).unwrap_or_default() * 512,
            name,
        });
    }
    Ok(children)
}

fn open_directory(path: &Path) -> Result<rustix::fd::OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    open(path, flags, Mode::empty()).map_err(failed("open", path))
}

fn metadata(stat: &Stat, path: &Path) -> Result<Metadata> {
    let symlink = FileType::from_raw_mode(stat.st_mode) == FileType::Symlink;
    Ok(Metadata {
        mode: u16::try_from(stat.st_mode & 0o7777).unwrap_or_default(),
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime: Time {
            seconds: stat.st_mtime,
            nanoseconds: u32::try_from(stat.st_mtime_nsec).unwrap_or_default(),
        },
        xattrs: xattrs(path, symlink)?,
    })
}

/// File systems without attributes have none.
fn xattrs(path: &Path, symlink: bool) -> Result<Vec<Xattr>> {
    let mut xattrs = Vec::new();
    let none = [Errno::OPNOTSUPP, Errno::NODATA];
    let names = match grown(|buffer| llistxattr(path, buffer)) {
        Ok(names) => names,
        Err(errno) if none.contains(&errno) => return Ok(xattrs),
        Err(errno) => return Err(failed("read the attributes of", path)(errno)),
    };
    for name in names.split(|&byte| byte == 0) {
        // Linux has no user attributes of symlinks, and no access control lists.
        if name.is_empty() || name == LABEL || symlink && name.starts_with(b"system.") {
            continue;
        }
        match grown(|buffer| lgetxattr(path, name, buffer)) {
            Ok(value) => xattrs.push(Xattr {
                name: name.into(),
                value: value.into(),
            }),
            Err(errno) if none.contains(&errno) => {}
            Err(errno) => return Err(failed("read the attributes of", path)(errno)),
        }
    }
    xattrs.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    Ok(xattrs)
}

/// What a call writes into a buffer that is large enough.
fn grown(call: impl Fn(&mut [u8]) -> rustix::io::Result<usize>) -> rustix::io::Result<Vec<u8>> {
    let mut small = [0; 512];
    match call(&mut small) {
        Ok(length) => return Ok(small[..length].to_vec()),
        Err(Errno::RANGE) => {}
        Err(errno) => return Err(errno),
    }
    let mut large = vec![0; XATTR_LIMIT];
    let length = call(&mut large)?;
    large.truncate(length);
    Ok(large)
}

fn failed(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(Errno) -> Error {
    let path = path.into();
    move |errno| Error::file(doing, path)(io::Error::from(errno))
}
