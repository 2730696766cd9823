//! The console's readers, at a pseudo terminal whose other side is the test instead of a guest.
#![expect(clippy::unwrap_used, reason = "a failure here is the test's failure")]

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use knest_vmm::client::Client;
use knest_vmm::console::Console;
use knest_vmm::testing::{Reply, Stub};
use nix::pty::openpty;
use nix::sys::termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

const LIMIT: Duration = Duration::from_secs(10);

/// The guest's side of a terminal, raw as Cloud Hypervisor makes it, and the other one's path.
fn terminal() -> (tokio::fs::File, OwnedFd, PathBuf) {
    let pty = openpty(None, None).unwrap();
    let mut settings = tcgetattr(&pty.slave).unwrap();
    cfmakeraw(&mut settings);
    tcsetattr(&pty.slave, SetArg::TCSANOW, &settings).unwrap();
    let path = nix::unistd::ttyname(&pty.slave).unwrap();
    let guest = tokio::fs::File::from_std(std::fs::File::from(pty.master));
    (guest, pty.slave, path)
}

/// A stand-in whose `vm.info` names a terminal, which can be changed.
fn stand_in(dir: &Path, terminal: &Path) -> (Stub, Client, Arc<Mutex<PathBuf>>) {
    let named = Arc::new(Mutex::new(terminal.to_owned()));
    let answer = Arc::clone(&named);
    let socket = dir.join("api.sock");
    let stub = Stub::listen(&socket, move |_| {
        let file = answer.lock().unwrap().clone();
        Reply::json(&serde_json::json!({
            "state": "Running", "config": {"console": {"mode": "Pty", "file": file}},
        }))
    });
    (stub.unwrap(), Client::new(socket), named)
}

async fn hears(reader: &mut UnixStream, text: &str) {
    let mut heard = Vec::new();
    let hear = async {
        while !String::from_utf8_lossy(&heard).contains(text) {
            assert!(reader.read_buf(&mut heard).await.unwrap() > 0, "the end");
        }
    };
    let done = tokio::time::timeout(LIMIT, hear).await;
    assert!(done.is_ok(), "{text:?} did not come");
}

#[tokio::test]
async fn every_reader_hears_all_and_may_type() {
    let dir = tempfile::tempdir().unwrap();
    let (mut guest, _open, path) = terminal();
    let (_stub, client, _) = stand_in(dir.path(), &path);
    let console = Console::start(client, &dir.path().join("console.sock")).unwrap();
    guest.write_all(b"login: ").await.unwrap();
    guest.flush().await.unwrap();
    let mut first = UnixStream::connect(console.socket()).await.unwrap();
    hears(&mut first, "login: ").await;
    // One that comes later is told what was said before.
    let mut second = UnixStream::connect(console.socket()).await.unwrap();
    hears(&mut second, "login: ").await;
    second.write_all(b"root\r").await.unwrap();
    let mut typed = [0; 5];
    tokio::time::timeout(LIMIT, guest.read_exact(&mut typed))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&typed, b"root\r");
    guest.write_all(b"welcome").await.unwrap();
    guest.flush().await.unwrap();
    hears(&mut first, "welcome").await;
    hears(&mut second, "welcome").await;
    // One that has nothing more to type goes on reading.
    second.shutdown().await.unwrap();
    guest.write_all(b"still").await.unwrap();
    guest.flush().await.unwrap();
    hears(&mut second, "still").await;
    let socket = console.socket().to_owned();
    drop(console);
    assert_eq!(first.read_to_end(&mut Vec::new()).await.unwrap(), 5);
    assert!(!socket.exists());
}

#[tokio::test]
async fn a_reader_that_sleeps_stalls_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let (mut guest, _open, path) = terminal();
    let (_stub, client, _) = stand_in(dir.path(), &path);
    let console = Console::start(client, &dir.path().join("console.sock")).unwrap();
    let _asleep = UnixStream::connect(console.socket()).await.unwrap();
    let line = [&[b'x'; 4095][..], b"\n"].concat();
    let flood = async {
        for _ in 0..1000 {
            guest.write_all(&line).await.unwrap();
        }
        guest.write_all(b"the end").await.unwrap();
        guest.flush().await.unwrap();
    };
    tokio::time::timeout(LIMIT, flood).await.unwrap();
    let mut late = UnixStream::connect(console.socket()).await.unwrap();
    hears(&mut late, "the end").await;
}

#[tokio::test]
async fn a_terminal_that_changes_is_found_again() {
    let dir = tempfile::tempdir().unwrap();
    let (guest, open, path) = terminal();
    let (_stub, client, named) = stand_in(dir.path(), &path);
    let console = Console::start(client, &dir.path().join("console.sock")).unwrap();
    let mut reader = UnixStream::connect(console.socket()).await.unwrap();
    let (mut next, _open, path) = terminal();
    *named.lock().unwrap() = path;
    drop((guest, open));
    next.write_all(b"after the reboot").await.unwrap();
    next.flush().await.unwrap();
    hears(&mut reader, "after the reboot").await;
}
