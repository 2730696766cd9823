//! The image's disk against the bound, and what else a user notices of it.

use std::path::Path;

use knest_rootfs::{BuildOptions, CloneKind, build, clone_disk};

use crate::images::{Images, cache};
use crate::measure::{RUNS, Table, medians, timed};
use crate::{Result, SIZE, bound, remove};

pub(crate) fn run(images: &Images, table: &mut Table) -> Result<()> {
    let work = tempfile::tempdir_in(cache()?)?;
    let disk = work.path().join("disk.raw");
    let flat = work.path().join("bound.raw");
    let packings: &[(&str, &str, bool)] = if cfg!(feature = "zlib-ng") {
        &[("zlib-ng, without diff IDs", "mixed", false)]
    } else {
        &[
            ("the defaults", "mixed", true),
            ("all gzip", "gzip", true),
            ("all zstd", "zstd", true),
        ]
    };
    for &(title, packing, diff_ids) in packings {
        against_the_bound(images, title, packing, diff_ids, [&disk, &flat], table)?;
    }
    if cfg!(feature = "zlib-ng") {
        return Ok(());
    }
    memory(images, &disk, table)?;
    large_directory(images, &disk, table)?;
    let clone = work.path().join("clone");
    let mut kind = CloneKind::Copy;
    let [time] = medians(
        RUNS,
        [&mut || timed(|| clone_disk(&disk, &clone, &CloneKind::ALL).map(|made| kind = made))],
    )?;
    let how = format!("by {kind}");
    table.at_most(
        "second VM from the same image",
        1e3 * time,
        20.0,
        "ms",
        &how,
    );
    Ok(())
}

fn against_the_bound(
    images: &Images,
    title: &str,
    packing: &str,
    verify_diff_ids: bool,
    [disk, flat]: [&Path; 2],
    table: &mut Table,
) -> Result<()> {
    let (source, image) = images.open(packing)?;
    let options = BuildOptions {
        verify_diff_ids,
        ..BuildOptions::new(SIZE)
    };
    let [built, bound] = medians(
        RUNS,
        [
            &mut || {
                remove(disk)?;
                timed(|| build(&source, &image, disk, &options))
            },
            &mut || {
                remove(flat)?;
                timed(|| bound::run(&source, &image, flat, verify_diff_ids))
            },
        ],
    )?;
    let how = format!("{built:.2} s, the bound {bound:.2} s");
    table.at_most(
        &format!("layout to ext4, {title}"),
        built / bound,
        1.15,
        "x",
        &how,
    );
    Ok(())
}

/// The most memory that the process has while it builds: heap, stacks and the program itself.
fn memory(images: &Images, disk: &Path, table: &mut Table) -> Result<()> {
    let (source, image) = images.open("big")?;
    std::fs::write("/proc/self/clear_refs", "5")?;
    build(&source, &image, disk, &BuildOptions::new(SIZE))?;
    let status = std::fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak = peak.and_then(|line| {
        line.trim()
            .trim_end_matches("kB")
            .trim()
            .parse::<f64>()
            .ok()
    });
    let peak = peak.ok_or("no VmHWM")? / 1024.0;
    table.at_most(
        "memory, program included",
        peak,
        100.0,
        "MiB",
        "peak of one build",
    );
    Ok(())
}

fn large_directory(images: &Images, disk: &Path, table: &mut Table) -> Result<()> {
    let (plain, big) = (images.open("gzip")?, images.open("big")?);
    let options = BuildOptions::new(SIZE);
    let build = |(source, image): &(_, _)| {
        remove(disk)?;
        timed(|| build(source, image, disk, &options))
    };
    let [without, with] = medians(RUNS, [&mut || build(&plain), &mut || build(&big)])?;
    let how = format!("{with:.2} s with it, {without:.2} s without");
    table.at_most(
        "a directory of 20,000 files adds",
        with - without,
        0.3,
        "s",
        &how,
    );
    Ok(())
}
