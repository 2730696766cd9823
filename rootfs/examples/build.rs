//! Builds a disk: `cargo run --example build -- IMAGE DISK [GIB]`.

use std::path::Path;
use std::time::Instant;

use knest_rootfs::{BuildOptions, Image, Platform, build, source};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, reference, disk, rest @ ..] = arguments.as_slice() else {
        return Err("usage: build IMAGE DISK [GIB]".into());
    };
    let gibibytes: u64 = rest.first().map_or(Ok(8), |text| text.parse())?;
    let source = source::open(reference)?;
    let start = Instant::now();
    let image = Image::resolve(&*source, &Platform::host())?;
    let disk = build(
        &*source,
        &image,
        Path::new(disk),
        &BuildOptions::new(gibibytes << 30),
    )?;
    #[expect(clippy::print_stdout, reason = "an example is a program")]
    {
        println!("{} in {:.2?}", disk.path.display(), start.elapsed());
    }
    Ok(())
}
