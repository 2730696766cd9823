//! `cargo bench -p knest-rootfs [--features zlib-ng]`: what making a disk of an image costs beside the
//! least that it could cost, what a second VM's disk costs, memory, and a large directory. A bar that is
//! missed makes it fail; what this machine has not got is skipped with a reason.
//!
//! The image is made once, by the recipe beside the repository, and kept in knest's cache.

#![expect(clippy::print_stdout, reason = "a benchmark is a program")]

mod bound;
mod images;
mod measure;
mod speed;

use std::path::Path;
use std::process::ExitCode;

use measure::Table;

type Result<T, E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

/// Bytes of the disks.
const SIZE: u64 = 8 << 30;

/// Removing a file of gigabytes takes a while that belongs to nobody.
fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

fn main() -> Result<ExitCode> {
    let mut table = Table::default();
    match images::Images::find()? {
        Ok(images) => speed::run(&images, &mut table)?,
        Err(reason) => table.skip("the benchmark image", &reason),
    }
    print!("{table}");
    Ok(if table.missed() {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}
