//! `knest image export`.

use super::{Env, RegistryArgs, long, store};
use crate::cluster::quantity::Quantity;
use crate::failure::{Context, Result};
use crate::image::{self, Origin, Registries, failure};
use crate::ui::Output;
use crate::work::Task;
use knest_rootfs::source::registry::Registry;
use knest_rootfs::{
    BlobSource, BuildOptions, Disk, DiskFormat, Image, Platform, Store, Wishes, build,
    build_from_directory, source, to_qcow2,
};
use serde_json::json;
use std::path::{Path, PathBuf};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "IMAGE is a name of the store's or of a registry's, oci:DIR[:TAG], \
    oci-archive:FILE, docker-archive:FILE, or dir:DIR, a plain directory. One that is not in the store is pulled into \
    it while the disk is made.\n\nExamples:\n  \
    knest image export knest.dev/node:v1.37.2 --disk node.raw --size 8Gi"
)]
pub(crate) struct Args {
    /// The image
    image: String,
    /// The file to write; it appears whole or not at all
    #[arg(long, value_name = "FILE")]
    disk: PathBuf,
    /// The disk's size; what is not used takes no space
    #[arg(long, default_value_t = Quantity::gib(8), value_name = "QUANTITY")]
    size: Quantity,
    /// The disk's format
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Which of its images, as os/architecture [default: this machine's]
    #[arg(long)]
    platform: Option<Platform>,
    #[command(flatten)]
    registry: RegistryArgs,
}

#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
enum Format {
    #[default]
    Raw,
    Qcow2,
}

/// What the work needs of the arguments.
struct Job {
    origin: Origin,
    platform: Platform,
    size: u64,
    format: DiskFormat,
    disk: PathBuf,
    registries: Registries,
}

pub(super) async fn run(args: Args, env: &Env) -> Result<()> {
    let store = store(env)?;
    let stored = image::stored(&store, &args.image)?;
    let platform = match (args.platform, &stored) {
        (Some(platform), _) => platform,
        (None, Some(_)) => image::platform(&store, &args.image)?,
        (None, None) => Platform::host(),
    };
    let job = Job {
        origin: Origin::parse(&args.image)?,
        platform,
        size: args.size.bytes(),
        format: match args.format {
            Format::Raw => DiskFormat::Raw,
            Format::Qcow2 => DiskFormat::Qcow2,
        },
        disk: std::path::absolute(&args.disk).host("the disk's path")?,
        registries: args.registry.registries(env)?,
    };
    let title = format!("Making a disk of {}", args.image);
    let disk = long(env, &title, move |task| match (stored, &job.origin) {
        (Some(layout), _) => job.build_all(&layout, task),
        (None, Origin::Local(place)) => {
            job.build_all(source::open(place).map_err(failure)?.as_ref(), task)
        }
        (None, Origin::Directory(directory)) => job.make(task, |path, options| {
            build_from_directory(directory, path, options)
        }),
        (None, Origin::Registry(reference)) => {
            let options = job.registries.options(&task.cancel);
            let registry = Registry::open(reference, &options).map_err(failure)?;
            job.receive(&store, &registry, &reference.to_string(), task)
        }
    })
    .await?;
    match env.printer.output {
        Output::Json => env.printer.json(&json!({
            "disk": disk.path.display().to_string(), "bytes": disk.size,
            "image": disk.image.to_string(),
        })),
        Output::Table => Ok(()),
    }
}

impl Job {
    fn build_all(&self, source: &dyn BlobSource, task: &Task) -> Result<Disk> {
        let image = Image::resolve(source, &self.platform).map_err(failure)?;
        self.build(source, &image, task)
    }

    /// Builds while the image comes in, and keeps it.
    fn receive(&self, store: &Store, registry: &Registry, name: &str, task: &Task) -> Result<Disk> {
        let image = Image::resolve(registry, &self.platform).map_err(failure)?;
        let wishes = Wishes {
            cancel: Some(&task.cancel),
            progress: None,
        };
        let intake = store.receive(registry, &image, wishes).map_err(failure)?;
        let disk = self.build(&intake, &image, task)?;
        intake.finish(name).map_err(failure)?;
        Ok(disk)
    }

    fn build(&self, source: &dyn BlobSource, image: &Image, task: &Task) -> Result<Disk> {
        self.make(task, |path, options| build(source, image, path, options))
    }

    /// A disk by way of the raw one that this function makes.
    fn make(
        &self,
        task: &Task,
        raw: impl FnOnce(&Path, &BuildOptions<'_>) -> knest_rootfs::Result<Disk>,
    ) -> Result<Disk> {
        let options = BuildOptions {
            // A base of clones is read-only; this disk is the user's.
            mode: 0o644,
            wishes: task.wishes(),
            ..BuildOptions::new(self.size)
        };
        if self.format == DiskFormat::Raw {
            return raw(&self.disk, &options).map_err(failure);
        }
        let parent = self.disk.parent().unwrap_or_else(|| Path::new("/"));
        let scratch = tempfile::Builder::new()
            .prefix(".new-disk-")
            .tempdir_in(parent);
        let scratch = scratch.host("making a directory for the raw disk")?;
        let disk = raw(&scratch.path().join("raw"), &options).map_err(failure)?;
        to_qcow2(&disk.path, &self.disk).map_err(failure)?;
        Ok(Disk {
            path: self.disk.clone(),
            ..disk
        })
    }
}
