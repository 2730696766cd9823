//! Unix sockets at any depth. A socket's address holds 107 bytes, and a state directory may be
//! deeper than that: so a socket is reached through its directory's open descriptor.

use crate::failure::{Context, Result};
use rustix::fd::{AsRawFd, OwnedFd};
use rustix::fs::{Mode, OFlags, open};
use std::path::{Path, PathBuf};
use tokio::net::UnixStream;

/// A directory whose sockets can be named in few bytes for as long as this value lives.
#[derive(Debug)]
pub(crate) struct SocketDir(OwnedFd);

impl SocketDir {
    pub(crate) fn open(directory: &Path) -> Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = open(directory, flags, Mode::empty());
        fd.map(Self)
            .host(format!("opening {}", directory.display()))
    }

    /// A short path of the directory, good in any process of this user.
    pub(crate) fn path(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd()).into()
    }

    /// Connects to a socket in it.
    pub(crate) async fn connect(&self, name: &str) -> std::io::Result<UnixStream> {
        UnixStream::connect(self.path().join(name)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_deeper_than_its_address_is_long() {
        let root = tempfile::tempdir().unwrap();
        let deep = root.path().join("x".repeat(120));
        fs_err::create_dir(&deep).unwrap();
        let dir = SocketDir::open(&deep).unwrap();
        let listener = tokio::net::UnixListener::bind(dir.path().join("s")).unwrap();
        assert!(deep.join("s").exists());
        let (client, server) = tokio::join!(dir.connect("s"), listener.accept());
        assert!(client.is_ok() && server.is_ok());
    }
}
