//! `knest image push`.

use super::{Env, RegistryArgs, long, store};
use crate::failure::{Failure, Result};
use crate::image::{self, Origin, failure};
use crate::ui::Output;
use knest_rootfs::source::registry;
use knest_rootfs::{BlobSource, Image, Platform};
use serde_json::json;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "What the registry has already is not sent again.\n\nExamples:\n  \
    knest image push registry.example/team/node:v1\n  \
    knest image push knest.dev/node:v1.37.2 registry.example/team/node:v1.37.2\n  \
    knest image push oci-archive:node.tar registry.example/team/node:v1"
)]
pub(crate) struct Args {
    /// An image of the store's, or where one lies: as for `knest image load`
    name: String,
    /// What it is to be called there [default: the same]
    destination: Option<String>,
    /// Which of its images, as os/architecture [default: the store's, or this machine's]
    #[arg(long)]
    platform: Option<Platform>,
    #[command(flatten)]
    registry: RegistryArgs,
}

pub(super) async fn run(args: Args, env: &Env) -> Result<()> {
    let destination = args.destination.as_ref().unwrap_or(&args.name);
    let Origin::Registry(reference) = Origin::parse(destination)? else {
        return Err(
            Failure::usage(format!("{destination} is no name in a registry"))
                .hint("say behind it what the image is to be called there"),
        );
    };
    let store = store(env)?;
    let stored = image::stored(&store, &args.name)?;
    if stored.is_none() && matches!(Origin::parse(&args.name)?, Origin::Registry(_)) {
        return Err(image::missing(&store, &args.name));
    }
    let platform = match args.platform {
        Some(platform) => platform,
        None => image::platform(&store, &args.name)?,
    };
    let (place, scratch) = (args.name.clone(), env.paths.cache.clone());
    let registries = args.registry.registries(env)?;
    let name = reference.to_string();
    let pushed = long(env, &format!("Pushing {name}"), move |task| {
        let source: Box<dyn BlobSource> = match stored {
            Some(layout) => Box::new(layout),
            None => image::local(&place, &platform, &scratch, task)?,
        };
        let image = Image::resolve(source.as_ref(), &platform).map_err(failure)?;
        let options = registries.options(&task.cancel);
        registry::push(source.as_ref(), &image, &reference, &options, task.wishes())
            .map_err(failure)
    })
    .await?;
    let digest = pushed.digest.to_string();
    match env.printer.output {
        Output::Json => env.printer.json(&json!({
            "name": name, "digest": digest, "sent": pushed.sent, "present": pushed.present,
        })),
        Output::Table => env.printer.answer(&format!("{name} {digest}\n")),
    }
}
