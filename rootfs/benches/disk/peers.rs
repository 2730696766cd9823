//! Other ways to the same disk, where they are installed: buildah mounts the image, umoci unpacks
//! it, and mkfs makes a disk of the directory. They take turns with the crate in one run.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

use knest_rootfs::{BuildOptions, build};

use crate::images::{Images, cache};
use crate::measure::{Table, medians, timed};
use crate::{Result, SIZE, remove};

/// A peer takes half a minute.
const RUNS: usize = 5;

/// With an empty directory to work in, makes a disk of a layout.
type Peer = fn([&Path; 3]) -> Result<()>;

pub(crate) fn run(images: &Images, table: &mut Table) -> Result<()> {
    let work = tempfile::tempdir_in(cache()?)?;
    let peers: [(&str, f64, Peer); 2] = [("buildah", 15.0, buildah), ("umoci", 10.0, umoci)];
    let (source, image) = images.open("mixed")?;
    let layout = images.path("mixed");
    let [ours, theirs] = ["ours.raw", "theirs.raw"].map(|name| work.path().join(name));
    for (name, bar, peer) in peers {
        let figure = format!("against {name} + mkfs.ext4 -d");
        let missing = [name, "mkfs.ext4"].into_iter().find(|program| {
            let version = Command::new(program).arg("--help").output();
            version.is_err()
        });
        if let Some(program) = missing {
            table.skip(&figure, &format!("{program} is not found"));
            continue;
        }
        // What a peer cannot do here says nothing about how fast it is.
        let mut failure = None;
        let medians = medians(
            RUNS,
            [
                &mut || {
                    remove(&theirs)?;
                    // What it leaves is removed on nobody's time.
                    let room = tempfile::tempdir_in(work.path())?;
                    timed(|| peer([room.path(), &layout, &theirs]))
                        .inspect_err(|error| failure = Some(error.to_string()))
                },
                &mut || {
                    remove(&ours)?;
                    timed(|| build(&source, &image, &ours, &BuildOptions::new(SIZE)))
                },
            ],
        );
        if let Some(failure) = failure {
            table.skip(&figure, failure.lines().last().unwrap_or_default());
            continue;
        }
        let [peer, built] = medians?;
        let how = format!("{built:.2} s, {name} {peer:.1} s");
        table.at_least(&figure, peer / built, bar, "x", &how);
    }
    Ok(())
}

/// The mount ends with the namespace, whatever happens.
fn buildah(paths: [&Path; 3]) -> Result<()> {
    let script = r#"set -e
        work=$1
        buildah() {
            command buildah --root "$work/root" --runroot "$work/run" --storage-driver overlay "$@"
        }
        # It names the image by its path, of which not every one is a legal name.
        cd "$(dirname "$2")"
        container=$(buildah from "oci:$(basename "$2")")
        directory=$(buildah mount "$container")
        mkfs.ext4 -q -F -d "$directory" "$3" "$4"
        sync "$3"
        buildah umount "$container" >&2"#;
    shell("unshare", &["--mount", "sh", "-c", script, "sh"], paths)
}

fn umoci(paths: [&Path; 3]) -> Result<()> {
    let script = r#"set -e
        umoci unpack --image "$2:latest" "$1/bundle" >&2
        mkfs.ext4 -q -F -d "$1/bundle/rootfs" "$3" "$4"
        sync "$3""#;
    shell("sh", &["-c", script, "sh"], paths)
}

fn shell(program: &str, arguments: &[&str], paths: [&Path; 3]) -> Result<()> {
    let size = format!("{}k", SIZE >> 10);
    let output = Command::new(program)
        .args(arguments)
        .args(paths.map(OsStr::new))
        .arg(size)
        .output()?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(format!("{}\n{text}", output.status).into())
}
