//! The user's kubeconfig as a file: locked as kubectl locks it, replaced whole, readable by its
//! owner alone.
//!
//! ```text
//! PATH.lock   exists while somebody edits PATH; made exclusively, removed afterwards (client-go).
//!             A knest's says so and is flocked: if it is not any more, its holder was killed
//! ```

use super::Malformed;
use crate::failure::{Context, Failure, Result};
use fs_err::os::unix::fs::OpenOptionsExt as _;
use fs_err::{File, OpenOptions};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde_yaml_ng::{Mapping, Value};
use std::ffi::OsString;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long to wait for another editor; edits take milliseconds.
const PATIENCE: Duration = Duration::from_secs(5);
const INTERVAL: Duration = Duration::from_millis(50);

/// What is in a knest's lock file; client-go's is empty.
const MARK: [u8; 6] = *b"knest\n";

/// Symbolic links are followed this far.
const LINKS: usize = 16;

/// Reads the file at `path` under its lock, and writes back what `change` makes of it: nothing
/// where that is the same, and an empty mapping removes the file. A missing file reads as empty.
pub(super) fn edit(
    path: &Path,
    change: impl FnOnce(Mapping) -> Result<Mapping, Malformed>,
) -> Result<()> {
    let directory = parent(path);
    make_directory(directory)?;
    let _lock = Lock::take(path, PATIENCE)?;
    let file = resolve(path)?;
    let text = match fs_err::read_to_string(&file) {
        Ok(text) => text,
        Err(e) if e.kind() == ErrorKind::NotFound => String::new(),
        Err(e) => return Err(malformed(path).because(e)),
    };
    let before = parse(&text).map_err(|e| malformed(path).because(e))?;
    let after = change(before.clone()).map_err(|e| malformed(path).because(e))?;
    if after == before {
        return Ok(());
    }
    if after.is_empty() && file == path {
        return fs_err::remove_file(&file).host("removing the empty kubeconfig");
    }
    let text = serde_yaml_ng::to_string(&after)
        .map_err(|e| Failure::internal("rendering a kubeconfig").because(e))?;
    replace(&file, text.as_bytes()).host("writing the kubeconfig")
}

/// A kubeconfig's content; empty for an empty file.
pub(super) fn parse(text: &str) -> Result<Mapping, Malformed> {
    match serde_yaml_ng::from_str(text)? {
        Value::Null => Ok(Mapping::new()),
        Value::Mapping(mapping) => Ok(mapping),
        _ => Err(Malformed::NotMapping),
    }
}

fn malformed(path: &Path) -> Failure {
    Failure::host(format!(
        "{} is not a kubeconfig, and is left as it is",
        path.display()
    ))
    .hint("repair or move that file, or name another one with --kubeconfig")
}

fn parent(path: &Path) -> &Path {
    path.parent()
        .filter(|dir| !dir.as_os_str().is_empty())
        .unwrap_or_else(|| Path::new("."))
}

fn make_directory(directory: &Path) -> Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true).mode(0o755);
    builder
        .create(directory)
        .host(format!("making the directory {}", directory.display()))
}

/// Where `path` leads to, whether there is a file or not.
fn resolve(path: &Path) -> Result<PathBuf> {
    let mut file = path.to_path_buf();
    for _ in 0..LINKS {
        match fs_err::read_link(&file) {
            Ok(target) => file = parent(&file).join(target),
            // Not a link, or nothing there.
            Err(e) if matches!(e.kind(), ErrorKind::InvalidInput | ErrorKind::NotFound) => {
                return Ok(file);
            }
            Err(e) => return Err(Failure::host("following the kubeconfig's links").because(e)),
        }
    }
    Err(Failure::host(format!(
        "{} leads through more than {LINKS} links",
        path.display()
    )))
}

/// Puts a new file in place of `file`, in one move. It belongs to whom the old one belonged to.
fn replace(file: &Path, content: &[u8]) -> std::io::Result<()> {
    let mut name = OsString::from(".");
    name.push(file.file_name().unwrap_or_default());
    name.push(format!(".{}.new", std::process::id()));
    let new = file.with_file_name(name);
    let written = write_new(&new, file, content).and_then(|()| fs_err::rename(&new, file));
    if written.is_err() {
        // The first error is the one to tell.
        drop(fs_err::remove_file(&new));
        return written;
    }
    File::open(parent(file))?.sync_all()
}

fn write_new(new: &Path, old: &Path, content: &[u8]) -> std::io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(new)?;
    if let Ok(owner) = old.metadata() {
        let made = file.metadata()?;
        if (owner.uid(), owner.gid()) != (made.uid(), made.gid()) {
            std::os::unix::fs::fchown(file.file(), Some(owner.uid()), Some(owner.gid()))?;
        }
    }
    file.write_all(content)?;
    file.sync_all()
}

/// The lock file, while it is ours.
#[derive(Debug)]
struct Lock {
    path: PathBuf,
    /// Held as well, so that it is known when its holder is no more.
    _held: std::fs::File,
}

impl Lock {
    fn take(path: &Path, patience: Duration) -> Result<Self> {
        let mut name = path.as_os_str().to_owned();
        name.push(".lock");
        let path = PathBuf::from(name);
        let deadline = Instant::now() + patience;
        loop {
            match claim(&path) {
                Ok(held) => return Ok(Self { path, _held: held }),
                Err(e) if e.kind() != ErrorKind::AlreadyExists => {
                    return Err(Failure::host("locking the kubeconfig").because(e));
                }
                Err(_) if clear_abandoned(&path).host("looking at the kubeconfig's lock")? => {}
                Err(_) if Instant::now() < deadline => std::thread::sleep(INTERVAL),
                Err(_) => {
                    return Err(Failure::host(format!(
                        "the kubeconfig is being edited by another program: {} exists",
                        path.display()
                    ))
                    .hint("if no kubectl or knest runs, that file was left behind: remove it"));
                }
            }
        }
    }
}

/// The lock file, knest's and held before anybody sees it.
fn claim(path: &Path) -> std::io::Result<std::fs::File> {
    let mut file = tempfile::Builder::new()
        .prefix(".knest-")
        .tempfile_in(parent(path))?;
    file.write_all(&MARK)?;
    flock(file.as_file(), FlockOperation::NonBlockingLockExclusive)?;
    file.persist_noclobber(path).map_err(|e| e.error)
}

/// Removes a knest's whose holder was killed; whether there may be none now. One without a mark is
/// another program's, whose life nobody can tell.
fn clear_abandoned(path: &Path) -> std::io::Result<bool> {
    let mut file = match OpenOptions::new().read(true).write(true).open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(true),
        Err(e) => return Err(e),
    };
    let mut mark = [0; MARK.len()];
    if file.read_exact(&mut mark).is_err() || mark != MARK {
        return Ok(false);
    }
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => return Ok(false),
        Err(e) => return Err(e.into()),
    }
    // Not one that took its place.
    let ours = file.metadata()?.ino();
    if fs_err::metadata(path).is_ok_and(|there| there.ino() == ours) {
        fs_err::remove_file(path)?;
    }
    Ok(true)
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Nothing to be done about it here; the next editor says what stands in its way.
        drop(fs_err::remove_file(&self.path));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn same(mapping: Mapping) -> Result<Mapping, Malformed> {
        Ok(mapping)
    }
    fn add(mut mapping: Mapping) -> Result<Mapping, Malformed> {
        mapping.insert("added".into(), 1.into());
        Ok(mapping)
    }
    fn clear(_: Mapping) -> Result<Mapping, Malformed> {
        Ok(Mapping::new())
    }

    #[test]
    fn made_private_and_without_remains() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b/config");
        edit(&path, add).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs_err::read_to_string(&path).unwrap(), "added: 1\n");
        assert_eq!(fs_err::read_dir(parent(&path)).unwrap().count(), 1);
        edit(&path, clear).unwrap();
        assert_eq!(fs_err::read_dir(parent(&path)).unwrap().count(), 0);
    }

    #[test]
    fn a_file_that_needs_no_change_is_not_touched() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config");
        let text = "# mine\n\"kind\":   Config\n";
        fs_err::write(&path, text).unwrap();
        edit(&path, same).unwrap();
        assert_eq!(fs_err::read_to_string(&path).unwrap(), text);
    }

    #[test]
    fn an_open_file_is_closed_to_others() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config");
        fs_err::write(&path, "kind: Config\n").unwrap();
        fs_err::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
        edit(&path, add).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn links_stay_links() {
        let dir = tempfile::tempdir().unwrap();
        let (link, file) = (dir.path().join("config"), dir.path().join("dotfiles/kube"));
        fs_err::create_dir(parent(&file)).unwrap();
        fs_err::os::unix::fs::symlink("dotfiles/kube", &link).unwrap();
        edit(&link, add).unwrap();
        assert!(link.is_symlink() && file.is_file());
        edit(&link, clear).unwrap();
        assert!(link.is_symlink() && file.is_file());
        let circle = dir.path().join("circle");
        fs_err::os::unix::fs::symlink("circle", &circle).unwrap();
        assert!(edit(&circle, add).is_err());
    }

    #[test]
    fn a_malformed_file_is_told_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config");
        for text in [
            &b"- a list\n"[..],
            b"a: [",
            b"a: 1\na: 2\n",
            b"\xff\xfe",
            b"text",
        ] {
            fs_err::write(&path, text).unwrap();
            let error = edit(&path, add).unwrap_err().render();
            assert!(
                error.contains("is not a kubeconfig, and is left as it is"),
                "{error}"
            );
            assert_eq!(fs_err::read(&path).unwrap(), text);
            assert!(!dir.path().join("config.lock").exists());
        }
    }

    #[test]
    fn a_held_lock_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config");
        let held = Lock::take(&path, Duration::ZERO).unwrap();
        let error = Lock::take(&path, Duration::ZERO).unwrap_err().render();
        assert!(error.contains("config.lock exists"), "{error}");
        drop(held);
        Lock::take(&path, Duration::ZERO).unwrap();
    }

    #[test]
    fn what_a_killed_knest_left_is_no_lock_and_another_programs_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config");
        let lock = dir.path().join("config.lock");
        fs_err::write(&lock, MARK).unwrap();
        drop(Lock::take(&path, Duration::ZERO).unwrap());
        assert_eq!(fs_err::read_dir(dir.path()).unwrap().count(), 0);
        fs_err::write(&lock, "").unwrap();
        Lock::take(&path, Duration::ZERO).unwrap_err();
        assert!(lock.exists());
    }

    #[test]
    fn editors_wait_for_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config");
        std::thread::scope(|scope| {
            for number in 0..8 {
                let path = &path;
                scope.spawn(move || {
                    edit(path, |mut mapping| {
                        mapping.insert(number.into(), Value::Null);
                        Ok(mapping)
                    })
                    .unwrap();
                });
            }
        });
        assert_eq!(
            parse(&fs_err::read_to_string(&path).unwrap())
                .unwrap()
                .len(),
            8
        );
    }
}
