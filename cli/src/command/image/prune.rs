//! `knest image prune`.

use super::{Env, long, size, store};
use crate::cluster::quantity::Quantity;
use crate::failure::Result;
use crate::image::failure;
use crate::ui::Output;
use knest_rootfs::Cache;
use serde_json::json;
use std::time::{Duration, SystemTime};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Images that have a name stay, and so do disks that machines read from.\n\n\
    Examples:\n  knest image prune --older-than 7d\n  knest image prune --keep 20Gi"
)]
pub(crate) struct Args {
    /// How long a disk or a broken-off download was of no use to be deleted
    #[arg(long, default_value = "7d", value_name = "DURATION", value_parser = super::super::duration)]
    older_than: Duration,
    /// How much the disks may take together; what was used least recently goes first
    #[arg(long, value_name = "QUANTITY")]
    keep: Option<Quantity>,
}

pub(super) async fn run(args: Args, env: &Env) -> Result<()> {
    let (store, disks) = (store(env)?, env.paths.disks());
    let before = SystemTime::now()
        .checked_sub(args.older_than)
        .unwrap_or(SystemTime::UNIX_EPOCH);
    let most = args.keep.map_or(u64::MAX, Quantity::bytes);
    let (blobs, disks) = long(env, "Deleting what nothing needs", move |task| {
        let blobs = store.prune(before, Some(&task.cancel)).map_err(failure)?;
        let cache = Cache::open(disks).map_err(failure)?;
        let disks = cache.prune(before, most).map_err(failure)?;
        Ok((blobs, disks))
    })
    .await?;
    let bytes = blobs.bytes + disks.iter().map(|disk| disk.allocated).sum::<u64>();
    match env.printer.output {
        Output::Json => env.printer.json(&json!({
            "bytes": bytes, "blobs": blobs.files,
            "disks": disks.iter().map(|disk| disk.path.display().to_string()).collect::<Vec<_>>(),
        })),
        Output::Table => env.printer.answer(&format!(
            "{} freed: {} blobs, {} disks\n",
            size(bytes),
            blobs.files,
            disks.len()
        )),
    }
}
