//! `knest image inspect`.

use super::{Env, failure, store};
use crate::failure::Result;
use knest_rootfs::{Image, Platform};
use serde_json::json;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The image's name
    name: String,
}

pub(super) fn run(args: Args, env: &Env) -> Result<()> {
    let source = store(env)?.resolve(&args.name).map_err(failure)?;
    let image = Image::resolve(&source, &Platform::host()).map_err(failure)?;
    let config = &image.config;
    let layers = image.layers.iter().map(|layer| {
        let blob = &layer.blob;
        json!({"digest": blob.digest.to_string(), "bytes": blob.size, "mediaType": blob.media_type})
    });
    env.printer.json(&json!({
        "name": args.name,
        "digest": image.manifest.digest.to_string(),
        "platform": format!("{}/{}", config.os, config.architecture),
        "created": config.created,
        "labels": config.config.labels,
        "layers": layers.collect::<Vec<_>>(),
    }))
}
