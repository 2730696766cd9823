//! What an image's disk costs as the image grows: in bytes, in layers, in files. Each is held against
//! what the bound takes for the same image, because the machine itself need not be linear: what is
//! more than the page cache takes has to be waited for. The images are made of noise that packs to
//! about seven tenths, and are held in memory.

use std::path::Path;

use knest_rootfs::source::Memory;
use knest_rootfs::{BuildOptions, Compression, Image, Platform, build};

use crate::images::cache;
use crate::measure::{Table, medians, timed};
use crate::plot::{Point, Series, plot};
use crate::{Result, SIZE, bound, remove};

const RUNS: usize = 5;
/// As against the bound itself.
const BAR: f64 = 1.15;

/// An image in numbers.
#[derive(Clone, Copy)]
struct Shape {
    megabytes: u64,
    layers: u64,
    files: u64,
}

/// A cause of cost, and what there may be of it.
struct Cause {
    title: &'static str,
    unit: &'static str,
    values: &'static [u64],
    shape: fn(u64) -> Shape,
    judge: fn(&[Point], &mut Table, &str),
}

const CAUSES: [Cause; 3] = [
    Cause {
        title: "size of the image",
        unit: "MB packed",
        values: &[100, 350, 700, 1500, 3000],
        shape: |megabytes| Shape {
            megabytes,
            layers: 8,
            files: 4000,
        },
        judge: |points, table, how| {
            // What is the same for any image does not count.
            let [first, .., last] = points else { return };
            let ours = last.built - first.built;
            let figure = "growth, 0.1 to 3 GB: what is added";
            table.at_most(
                figure,
                ours / (last.bound - first.bound),
                BAR,
                "x the bound's",
                how,
            );
        },
    },
    Cause {
        title: "layers, of 300 MB in all",
        unit: "layers",
        values: &[1, 2, 5, 10, 20, 40],
        shape: |layers| Shape {
            megabytes: 300,
            layers,
            files: 4000,
        },
        judge: |points, table, how| {
            let ratios = points.iter().map(|point| point.built / point.bound);
            let figure = "growth, 1 to 40 layers: the worst";
            table.at_most(figure, ratios.fold(0.0, f64::max), BAR, "x the bound", how);
        },
    },
    Cause {
        title: "files, of 100 MB in all",
        unit: "files",
        values: &[1000, 75_000, 150_000, 225_000, 300_000],
        shape: |files| Shape {
            megabytes: 100,
            layers: 8,
            files,
        },
        // The bound knows no files.
        judge: |points, table, how| {
            let [first, _, middle, .., last] = points else {
                return;
            };
            let cost = |from: &Point, to: &Point| (to.built - from.built) / (to.cause - from.cause);
            let grown = cost(middle, last) / cost(first, middle);
            let figure = "growth, 1 k to 300 k files: the second half";
            table.at_most(figure, grown, BAR, "x the first", how);
        },
    },
];

pub(crate) fn run(svg: Option<&Path>, table: &mut Table) -> Result<()> {
    let work = tempfile::tempdir_in(cache()?)?;
    let [disk, flat] = ["disk.raw", "flat.raw"].map(|name| work.path().join(name));
    let mut all = Vec::new();
    for cause in CAUSES {
        let mut points = Vec::new();
        for &value in cause.values {
            let source = image((cause.shape)(value))?;
            let image = Image::resolve(&source, &Platform::host())?;
            let [built, bound] = medians(
                RUNS,
                [
                    &mut || {
                        let options = BuildOptions::new(SIZE);
                        let time = timed(|| build(&source, &image, &disk, &options))?;
                        remove(&disk).map(|()| time)
                    },
                    &mut || {
                        let time = timed(|| bound::run(&source, &image, &flat, true))?;
                        remove(&flat).map(|()| time)
                    },
                ],
            )?;
            points.push(Point {
                cause: value as f64,
                built,
                bound,
            });
        }
        let how: Vec<_> = points
            .iter()
            .map(|point| format!("{:.2}/{:.2}", point.built, point.bound))
            .collect();
        (cause.judge)(&points, table, &format!("{} s", how.join(" ")));
        let Cause { title, unit, .. } = cause;
        all.push(Series {
            title,
            unit,
            points,
        });
    }
    svg.map_or(Ok(()), |path| Ok(std::fs::write(path, plot(&all))?))
}

fn image(shape: Shape) -> Result<Memory> {
    let mut noise = Noise(1);
    let layers = (0..shape.layers).map(|layer| {
        let files = shape.files / shape.layers;
        // Packed, seven tenths of it are left.
        let bytes = shape.megabytes * 1_000_000 * 10 / 7 / shape.layers / files.max(1);
        (noise.layer(layer, files, bytes), Compression::Zstd)
    });
    Ok(Memory::from_layers(&Platform::host(), layers)?)
}

/// Numbers without a pattern, the same each time.
struct Noise(u64);

impl Noise {
    /// A tar file.
    fn layer(&mut self, layer: u64, files: u64, bytes: u64) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        let mut body = vec![0; usize::try_from(bytes).unwrap_or_default()];
        for file in 0..files {
            for (index, word) in body.chunks_mut(8).enumerate() {
                let number = if index % 10 < 7 { self.next() } else { 1 };
                word.copy_from_slice(&number.to_le_bytes()[..word.len()]);
            }
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(tar::EntryType::Regular);
            header.set_size(bytes);
            header.set_mode(0o644);
            let path = format!("usr/{layer}/{}/file-{file:06}", file / 200);
            // Writing to memory does not fail.
            drop(tar.append_data(&mut header, path, &*body));
        }
        tar.into_inner().unwrap_or_default()
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}
