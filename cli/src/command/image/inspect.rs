//! `knest image inspect`.

use super::{Env, RegistryArgs, long, store};
use crate::failure::Result;
use crate::image::{self, Origin, failure};
use knest_rootfs::source::registry::Registry;
use knest_rootfs::{BlobSource, Image, Platform, source};
use serde_json::json;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "IMAGE is a name of the store's, oci:DIR[:TAG], oci-archive:FILE, \
    docker-archive:FILE, or dir:DIR, of which it says what `load` makes; with --remote a name in a registry, of which only the \
    documents are read."
)]
pub(crate) struct Args {
    /// The image
    image: String,
    /// Ask the registry, not the store
    #[arg(long)]
    remote: bool,
    /// Which of its images, as os/architecture [default: the store's, or this machine's]
    #[arg(long)]
    platform: Option<Platform>,
    #[command(flatten)]
    registry: RegistryArgs,
}

pub(super) async fn run(args: Args, env: &Env) -> Result<()> {
    let host = args.platform.clone().unwrap_or_else(Platform::host);
    let image = match Origin::parse(&args.image)? {
        Origin::Local(place) => {
            let source = source::open(&place).map_err(failure)?;
            resolve(source.as_ref(), &host)?
        }
        Origin::Directory(_) => {
            let (place, scratch) = (args.image.clone(), env.paths.cache.clone());
            long(env, &format!("Packing {place}"), move |task| {
                resolve(image::local(&place, &host, &scratch, task)?.as_ref(), &host)
            })
            .await?
        }
        Origin::Registry(reference) if args.remote => {
            let registries = args.registry.registries(env)?;
            long(env, &format!("Asking for {reference}"), move |task| {
                let options = registries.options(&task.cancel);
                let source = Registry::open(&reference, &options).map_err(failure)?;
                resolve(&source, &host)
            })
            .await?
        }
        Origin::Registry(_) => {
            let store = store(env)?;
            let Some(source) = image::stored(&store, &args.image)? else {
                return Err(
                    image::missing(&store, &args.image).hint("or ask the registry: --remote")
                );
            };
            let stored = image::platform(&store, &args.image)?;
            resolve(&source, args.platform.as_ref().unwrap_or(&stored))?
        }
    };
    let config = &image.config;
    let layers = image.layers.iter().map(|layer| {
        let blob = &layer.blob;
        json!({"digest": blob.digest.to_string(), "bytes": blob.size, "mediaType": blob.media_type})
    });
    env.printer.json(&json!({
        "name": args.image,
        "digest": image.manifest.digest.to_string(),
        "platform": format!("{}/{}", config.os, config.architecture),
        "created": config.created,
        "labels": config.config.labels,
        "layers": layers.collect::<Vec<_>>(),
    }))
}

fn resolve(source: &dyn BlobSource, platform: &Platform) -> Result<Image> {
    Image::resolve(source, platform).map_err(failure)
}
