//! `knest image load`.

use super::{Env, long, store};
use crate::failure::{Failure, Result};
use crate::image::{self, failure};
use knest_rootfs::{Platform, REF_NAME, source};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "SOURCE is the file or directory, or says what it is: oci:DIR[:TAG], \
    oci-archive:FILE[:TAG], docker-archive:FILE[:NAME], or dir:DIR, a plain directory, which becomes \
    an image of one layer."
)]
pub(crate) struct Args {
    /// An OCI or Docker archive, an OCI layout directory, or a plain directory
    source: String,
    /// The name that it gets [default: the one that it carries]
    #[arg(long)]
    name: Option<String>,
    /// Which of its images, as os/architecture [default: this machine's]
    #[arg(long)]
    platform: Option<Platform>,
}

pub(super) async fn run(args: Args, env: &Env) -> Result<()> {
    load(args.source, args.name, args.platform, env).await
}

/// Copies what lies on this machine into the store.
pub(super) async fn load(
    place: String,
    name: Option<String>,
    platform: Option<Platform>,
    env: &Env,
) -> Result<()> {
    let store = store(env)?;
    let name = match name {
        Some(name) => name,
        None => carried(&place)?,
    };
    crate::cluster::spec::check_reference(&name)?;
    let title = format!("Loading {name}");
    let platform = platform.unwrap_or_else(Platform::host);
    let scratch = env.paths.cache.clone();
    long(env, &title, move |task| {
        let source = image::local(&place, &platform, &scratch, task)?;
        let loaded = store.load(source.as_ref(), &name, &platform, task.wishes());
        loaded.map(drop).map_err(failure)
    })
    .await
}

/// The name in the source's own annotations; a directory has none.
fn carried(place: &str) -> Result<String> {
    let name = if place.starts_with(image::DIRECTORY) {
        None
    } else {
        let source = source::open(place).map_err(failure)?;
        source.root().annotations.get(REF_NAME).cloned()
    };
    name.ok_or_else(|| {
        Failure::usage(format!("{place} does not say what its image is called"))
            .hint("name it: --name knest.dev/node:v1.37.2")
    })
}
