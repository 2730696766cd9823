//! What the driver is measured against: what C would do. posix_spawn (the standard library's way where
//! nothing has to be done between fork and exec), connecting in a busy loop, raw bytes.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use knest_vmm::request::{self, Body};

use crate::support;

/// The body of `vm.create` for this guest.
pub(crate) fn create_body(kernel: &Path) -> Vec<u8> {
    match request::vm_create(&support::config(kernel.to_owned())).body {
        Body::Json(json) => json,
        other => panic!("{other:?}"),
    }
}

/// Up to a booted guest, with its files in `dir`.
pub(crate) fn start(binary: &Path, dir: &Path, create: &[u8]) -> Child {
    let socket = dir.join("floor.sock");
    drop(std::fs::remove_file(&socket));
    let log = |name: &str| {
        let mut options = std::fs::OpenOptions::new();
        options
            .create(true)
            .append(true)
            .open(dir.join(name))
            .unwrap()
    };
    let child = Command::new(binary)
        .arg("--api-socket")
        .arg(format!("path={}", socket.display()))
        .arg("--event-monitor")
        .arg(format!("path={}", dir.join("floor.json").display()))
        .stdin(Stdio::null())
        .stdout(log("floor.out"))
        .stderr(log("floor.err"))
        .spawn()
        .unwrap();
    while UnixStream::connect(&socket).is_err() {
        std::thread::yield_now();
    }
    call(&socket, "PUT", "vm.create", create);
    call(&socket, "PUT", "vm.boot", &[]);
    child
}

/// Ends what [`start`] began.
pub(crate) fn stop(mut child: Child, dir: &Path) {
    call(&dir.join("floor.sock"), "PUT", "vmm.shutdown", &[]);
    child.wait().unwrap();
}

/// One call over a fresh connection.
pub(crate) fn call(socket: &Path, method: &str, name: &str, body: &[u8]) {
    let mut stream = UnixStream::connect(socket).unwrap();
    let head = format!(
        "{method} /api/v1/{name} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(&[head.as_bytes(), body].concat()).unwrap();
    let mut answer = vec![0; 65536];
    let size = stream.read(&mut answer).unwrap();
    answer.truncate(size);
    let text = String::from_utf8_lossy(&answer);
    assert!(text.starts_with("HTTP/1.1 20"), "{text}");
}
