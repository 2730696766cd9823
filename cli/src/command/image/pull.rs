//! `knest image pull`.

use super::{Env, RegistryArgs, long, store};
use crate::failure::Result;
use crate::image::{self, Origin};
use crate::ui::Output;
use knest_rootfs::Platform;
use serde_json::json;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Credentials are those of docker, podman and skopeo login. Mirrors, plain HTTP \
    and authorities may also stand in ~/.config/knest/registries.yaml.\n\nExamples:\n  \
    knest image pull knest.dev/node:v1.37.2\n  \
    knest image pull --mirror docker.io=mirror.example alpine"
)]
pub(crate) struct Args {
    /// An image in a registry, such as knest.dev/node:v1.37.2
    reference: String,
    /// Which of its images, as os/architecture [default: this machine's]
    #[arg(long)]
    platform: Option<Platform>,
    #[command(flatten)]
    registry: RegistryArgs,
}

pub(super) async fn run(args: Args, env: &Env) -> Result<()> {
    let Origin::Registry(reference) = Origin::parse(&args.reference)? else {
        let platform = args.platform;
        return super::load::load(args.reference, None, platform, env).await;
    };
    let registries = args.registry.registries(env)?;
    let (store, name) = (store(env)?, reference.to_string());
    let platform = args.platform.unwrap_or_else(Platform::host);
    let pulled = long(env, &format!("Pulling {name}"), move |task| {
        image::pull(&store, &reference, &platform, &registries, task)
    })
    .await?;
    let digest = pulled.digest().to_string();
    match env.printer.output {
        Output::Json => env.printer.json(&json!({"name": name, "digest": digest})),
        Output::Table => env.printer.answer(&format!("{name} {digest}\n")),
    }
}
