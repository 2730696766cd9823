//! The benchmark image in knest's cache, made when it is missing.

use std::path::{Path, PathBuf};
use std::process::Command;

use knest_rootfs::source::Layout;
use knest_rootfs::{Image, Platform};

use crate::Result;

/// The image in its packings, and room to work in.
pub(crate) struct Images {
    directory: PathBuf,
}

/// Below knest's cache: what only benchmarks use.
pub(crate) fn cache() -> Result<PathBuf> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/cache-dir");
    let output = Command::new(script).output()?;
    let text = String::from_utf8(output.stdout)?;
    let cache = Path::new(text.trim_end()).join("bench");
    std::fs::create_dir_all(&cache)?;
    Ok(cache)
}

impl Images {
    /// The images, or the reason why there are none.
    pub(crate) fn find() -> Result<std::result::Result<Images, String>> {
        let directory = cache()?.join("image");
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let tools = here.join("../../shared/tools");
        if !directory.exists() {
            if !tools.exists() {
                return Ok(Err(format!("{} is not there", tools.display())));
            }
            println!("making the benchmark image, once: some minutes");
            let made = Command::new(here.join("benches/disk/image.sh"))
                .args([&tools, &directory])
                .output();
            match made {
                Ok(output) if output.status.success() => {}
                Ok(output) => {
                    let text = String::from_utf8_lossy(&output.stderr).into_owned();
                    let last = text.lines().last().unwrap_or_default();
                    return Ok(Err(format!("image.sh failed: {last}")));
                }
                Err(error) => return Ok(Err(format!("image.sh: {error}"))),
            }
        }
        Ok(Ok(Images { directory }))
    }

    /// One packing of the image: `mixed`, `gzip`, `zstd`, `big`.
    pub(crate) fn open(&self, packing: &str) -> Result<(Layout, Image)> {
        let source = Layout::open(self.path(packing), None)?;
        let image = Image::resolve(&source, &Platform::host())?;
        Ok((source, image))
    }

    pub(crate) fn path(&self, packing: &str) -> PathBuf {
        self.directory.join(packing)
    }
}
