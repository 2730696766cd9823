//! `knest image load`.

use super::{Env, failure, store};
use crate::failure::{Failure, Result};
use crate::ui::Outcome;
use crate::{interrupt, ui};
use knest_rootfs::{BlobSource, Platform, REF_NAME, Wishes, source};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "SOURCE is the file or directory, or says what it is: oci:DIR[:TAG], \
    oci-archive:FILE, docker-archive:FILE."
)]
pub(crate) struct Args {
    /// An OCI or Docker archive, or an OCI layout directory
    source: String,
    /// The name that it gets [default: the one that it carries]
    #[arg(long)]
    name: Option<String>,
}

pub(super) async fn run(args: Args, env: &Env) -> Result<()> {
    let (store, cancel) = (store(env)?, interrupt::token()?);
    let source = source::open(&args.source).map_err(failure)?;
    let name = match args.name {
        Some(name) => name,
        None => carried(source.as_ref())?,
    };
    crate::cluster::spec::check_reference(&name)?;
    let (title, began) = (format!("Loading {name}"), Instant::now());
    let reporter: Arc<dyn ui::Reporter> =
        ui::reporter(env.printer.output, env.printer.quiet).into();
    reporter.started(&title);
    let stop = Arc::new(AtomicBool::new(false));
    let work = tokio::task::spawn_blocking({
        let (stop, reporter, name) = (Arc::clone(&stop), Arc::clone(&reporter), name.clone());
        move || {
            let tell = |p: knest_rootfs::Progress| reporter.bytes(p.done, p.total);
            let wishes = Wishes {
                cancel: Some(&stop),
                progress: Some(&tell),
            };
            store.load(source.as_ref(), &name, &Platform::host(), wishes)
        }
    });
    tokio::pin!(work);
    let done = tokio::select! {
        done = &mut work => done,
        // The work looks at the flag often; waiting for it leaves no half-written file.
        () = cancel.cancelled() => {
            stop.store(true, Ordering::Relaxed);
            work.await
        }
    };
    let loaded = done
        .map_err(|e| Failure::internal("loading").because(e))?
        .map_err(failure);
    let outcome = if loaded.is_ok() {
        Outcome::Done
    } else {
        Outcome::Failed
    };
    reporter.finished(&title, outcome, began.elapsed());
    loaded.map(drop)
}

/// The name in the source's own annotations.
fn carried(source: &dyn BlobSource) -> Result<String> {
    source
        .root()
        .annotations
        .get(REF_NAME)
        .cloned()
        .ok_or_else(|| {
            Failure::usage(format!("{source} does not say what its image is called"))
                .hint("name it: --name knest.dev/node:v1.37.2")
        })
}
