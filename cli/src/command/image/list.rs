//! `knest image list`.

use super::{Env, size, store};
use crate::failure::Result;
use crate::image::failure;
use crate::ui::{Output, Table};
use knest_rootfs::Image;
use serde_json::{Value, json};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(super) fn run(_: Args, env: &Env) -> Result<()> {
    let store = store(env)?;
    let mut table = Table::new(&["NAME", "DIGEST", "PLATFORM", "SIZE"]);
    let mut all = vec![];
    for named in store.list().map_err(failure)? {
        let source = store.resolve(&named.name).map_err(failure)?;
        let platform = named.platform();
        let image = Image::resolve(&source, &platform).map_err(failure)?;
        let bytes: u64 = image.blobs().map(|blob| blob.size).sum();
        let (digest, platform) = (named.digest().to_string(), platform.to_string());
        let short = digest.chars().take(19).collect();
        table.row(vec![
            named.name.clone(),
            short,
            platform.clone(),
            size(bytes),
        ]);
        all.push(json!({
            "name": named.name, "digest": digest, "platform": platform, "bytes": bytes,
            "labels": image.config.config.labels,
        }));
    }
    match env.printer.output {
        Output::Json => env.printer.json(&Value::Array(all)),
        Output::Table if all.is_empty() => {
            env.printer.note(
                "The image store is empty. Fill it: make images, knest image pull, or knest image load",
            );
            Ok(())
        }
        Output::Table => env.printer.answer(&table.render()),
    }
}
