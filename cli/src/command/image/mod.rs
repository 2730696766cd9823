//! `knest image`: the local image store, one file a verb.

mod build;
mod export;
mod inspect;
mod list;
mod load;
mod prune;
mod pull;
mod push;
mod remove;

use super::Env;
use super::place::Home;
use crate::cluster::record::{NodeState, Record};
use crate::cluster::references;
use crate::failure::{Failure, Result};
use crate::image::{Origin, Registries};
use crate::ui::{reporter, step};
use crate::work::{self, Task};
use crate::{image, interrupt};
use clap::Subcommand;
use knest_rootfs::{Platform, Store};
use std::path::PathBuf;

/// What can be done with images.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Copy an image from a registry into the store
    Pull(pull::Args),
    /// Copy an image of the store's to a registry
    Push(push::Args),
    /// Copy an image into the store from an archive or a directory
    Load(load::Args),
    /// List the store's images
    List(list::Args),
    /// Build an image with this machine's container engine, into the store
    Build(build::Args),
    /// Make a bootable disk of an image
    Export(export::Args),
    /// Print what an image says of itself
    Inspect(inspect::Args),
    /// Forget images, and delete what no other image needs
    Remove(remove::Args),
    /// Delete what nothing needs: blobs, broken-off downloads, disks that were not used for long
    Prune(prune::Args),
}

pub(super) async fn run(verb: Verb, env: &Env) -> Result<()> {
    match verb {
        Verb::Pull(args) => pull::run(args, env).await,
        Verb::Push(args) => push::run(args, env).await,
        Verb::Load(args) => load::run(args, env).await,
        Verb::List(args) => list::run(args, env),
        Verb::Build(args) => build::run(args, env).await,
        Verb::Export(args) => export::run(args, env).await,
        Verb::Inspect(args) => inspect::run(args, env).await,
        Verb::Remove(args) => remove::run(args, env),
        Verb::Prune(args) => prune::run(args, env).await,
    }
}

fn store(env: &Env) -> Result<Store> {
    image::store(&env.paths)
}

/// How registries are spoken to, beside what the user's `registries.yaml` says.
#[derive(Debug, Default, clap::Args)]
struct RegistryArgs {
    /// Speak plain HTTP to this registry
    #[arg(long, value_name = "HOST[:PORT]")]
    plain_http: Vec<String>,
    /// Look here first for what is asked of a registry
    #[arg(long, value_name = "REGISTRY=PLACE", value_parser = mirror)]
    mirror: Vec<(String, String)>,
    /// Trust the authorities in this PEM file too
    #[arg(long, value_name = "FILE")]
    registry_ca: Vec<PathBuf>,
}

fn mirror(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((registry, place)) if !registry.is_empty() && !place.is_empty() => {
            Ok((registry.to_owned(), place.to_owned()))
        }
        _ => Err("it looks like docker.io=mirror.example".to_owned()),
    }
}

impl RegistryArgs {
    /// The file's settings and the flags'.
    fn registries(&self, env: &Env) -> Result<Registries> {
        let mut registries = Registries::read(&env.paths)?;
        registries
            .plain_http
            .extend(self.plain_http.iter().cloned());
        registries
            .authorities
            .extend(self.registry_ca.iter().cloned());
        for (registry, place) in self.mirror.iter().rev() {
            let places = registries.mirrors.entry(registry.clone()).or_default();
            places.insert(0, place.clone());
        }
        Ok(registries)
    }
}

/// Runs long work where it may block, with its progress shown, until it ends or the user stops it.
async fn long<T: Send + 'static>(
    env: &Env,
    title: &str,
    act: impl FnOnce(&Task) -> Result<T> + Send + 'static,
) -> Result<T> {
    let cancel = interrupt::token()?;
    let reporter = reporter(env.printer.output, env.printer.quiet);
    let work = async {
        tokio::select! {
            done = work::blocking(Some(reporter.as_ref()), act) => done,
            // The work looks at its flag often, and the runtime's end waits for it.
            () = cancel.cancelled() => Err(Failure::interrupted()),
        }
    };
    step(reporter.as_ref(), title, work).await
}

/// Sees to the images of machines to come: pulls what this machine's store does not have, or asks whether
/// the host's nodes, which pull for themselves, can have them.
pub(super) async fn fetch_for(record: &Record, home: &Home, env: &Env) -> Result<()> {
    if record.in_state(NodeState::Wanted).next().is_none() {
        return Ok(());
    }
    match home {
        Home::Local(_) => fetch_missing(record.spec.images(), env).await,
        Home::Virtink(virtink) => {
            for note in virtink.check_images(record).await? {
                env.printer.note(&note);
            }
            Ok(())
        }
    }
}

/// Pulls those of these images that the store does not have. knest's own are built, not pulled,
/// unless a repository was named for them.
pub(super) async fn fetch_missing<'a>(
    names: impl IntoIterator<Item = &'a str>,
    env: &Env,
) -> Result<()> {
    let store = store(env)?;
    for name in names {
        let own = name.starts_with(&format!("{}/", references::REPOSITORY));
        if own || image::stored(&store, name)?.is_some() {
            continue;
        }
        let Origin::Registry(reference) = Origin::parse(name)? else {
            continue;
        };
        let registries = Registries::read(&env.paths)?;
        let (into, platform) = (store.clone(), Platform::host());
        long(env, &format!("Pulling {reference}"), move |task| {
            image::pull(&into, &reference, &platform, &registries, task)
        })
        .await
        .map_err(|failure| failure.hint(references::how_to_get(name)))?;
    }
    Ok(())
}

/// Bytes for people.
fn size(bytes: u64) -> String {
    match bytes {
        0..1_048_576 => format!("{} KiB", bytes.div_ceil(1024)),
        _ => format!("{} MiB", bytes.div_ceil(1_048_576)),
    }
}
