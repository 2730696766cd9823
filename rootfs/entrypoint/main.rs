//! The program of an image that carries a root file system as the directory `/rootfs`: run with a
//! path and a size in bytes, it leaves a raw disk of that size there, or on that block device.
//!
//! ```text
//! knest-container-rootfs [--from DIRECTORY] PATH BYTES
//! ```
//! Linked statically it needs nothing else in the image. It needs no privilege but to read what is
//! in the directory.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use knest_rootfs::{BuildOptions, Disk, Result, build_from_directory};

const USAGE: &str = "usage: knest-container-rootfs [--from DIRECTORY] PATH BYTES

Makes PATH, a file or a block device, an ext4 disk of BYTES bytes with what is in DIRECTORY
(default /rootfs).";

struct Arguments {
    from: PathBuf,
    path: PathBuf,
    bytes: u64,
}

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    if matches!(arguments.as_slice(), [only] if only == "--help" || only == "-h") {
        return say(USAGE, 0);
    }
    let arguments = match parse(&arguments) {
        Ok(arguments) => arguments,
        Err(reason) => return say(&format!("error: {reason}\n{USAGE}"), 2),
    };
    let start = Instant::now();
    match run(&arguments) {
        Ok(disk) => {
            let (path, size) = (disk.path.display(), disk.size);
            say(
                &format!("{path}: {size} bytes in {:.2?}", start.elapsed()),
                0,
            )
        }
        Err(error) => {
            let mut text = format!("error: {error}");
            let mut cause = std::error::Error::source(&error);
            while let Some(error) = cause {
                text.push_str(&format!(": {error}"));
                cause = error.source();
            }
            say(&text, 1)
        }
    }
}

fn parse(arguments: &[OsString]) -> std::result::Result<Arguments, String> {
    let (from, rest) = match arguments {
        [flag, from, rest @ ..] if flag == "--from" => (from.as_os_str(), rest),
        rest => (OsStr::new("/rootfs"), rest),
    };
    let [path, bytes] = rest else {
        return Err(format!("two arguments are needed, not {}", rest.len()));
    };
    let number = bytes.to_str().and_then(|text| text.parse().ok());
    Ok(Arguments {
        from: from.into(),
        path: path.into(),
        bytes: number.ok_or_else(|| format!("{} is no number of bytes", bytes.display()))?,
    })
}

fn run(arguments: &Arguments) -> Result<Disk> {
    // Unlike a base for clones, this disk is a machine's own.
    let options = BuildOptions {
        mode: 0o644,
        ..BuildOptions::new(arguments.bytes)
    };
    build_from_directory(&arguments.from, Path::new(&arguments.path), &options)
}

#[expect(clippy::print_stderr, reason = "a program's log")]
fn say(text: &str, code: u8) -> ExitCode {
    eprintln!("{text}");
    ExitCode::from(code)
}
