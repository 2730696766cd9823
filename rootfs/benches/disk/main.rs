//! `cargo bench -p knest-rootfs [--features zlib-ng] [-- SECTION…] [--plot FILE]`: what making a disk
//! costs, beside the least that it could cost and beside other tools. A bar that is missed makes it
//! fail; what this machine has not got is skipped with a reason.
//!
//! ```text
//! speed    the image against the bound program, a second VM's disk, memory, large directories
//! peers    buildah and umoci, each followed by mkfs.ext4 -d
//! growth   larger images, more layers, more files; --plot draws it
//! ```
//! The image is made once, by the recipe beside the repository, and kept in knest's cache.

#![expect(clippy::print_stdout, reason = "a benchmark is a program")]

mod bound;
mod growth;
mod images;
mod measure;
mod peers;
mod plot;
mod speed;

use std::path::{Path, PathBuf};
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
    let mut sections = Vec::new();
    let mut plot: Option<PathBuf> = None;
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            // Cargo's own.
            "--bench" => {}
            "--plot" => plot = arguments.next().map(PathBuf::from),
            _ => sections.push(argument),
        }
    }
    let wanted = |name: &str| sections.is_empty() || sections.iter().any(|section| section == name);
    let mut table = Table::default();
    let images = images::Images::find()?;
    if let Err(reason) = &images {
        table.skip("the benchmark image", reason);
    }
    if let Ok(images) = &images {
        if wanted("speed") {
            speed::run(images, &mut table)?;
        }
        // The other rows do not depend on the decoder.
        if cfg!(not(feature = "zlib-ng")) && wanted("peers") {
            peers::run(images, &mut table)?;
        }
    }
    if cfg!(not(feature = "zlib-ng")) && wanted("growth") {
        growth::run(plot.as_deref(), &mut table)?;
    }
    print!("{table}");
    Ok(if table.missed() {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}
