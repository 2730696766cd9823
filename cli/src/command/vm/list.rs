//! `knest vm list`.

use super::Env;
use crate::cluster::quantity::Quantity;
use crate::command::list::age;
use crate::failure::Result;
use crate::ui::{Output, Table};
use crate::vm::{self, Status, VmDir};
use futures::future::join_all;
use serde_json::Value;
use time::OffsetDateTime;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(super) async fn run(_: Args, env: &Env) -> Result<()> {
    let dirs = vm::list(&env.paths)?;
    let looks = join_all(dirs.iter().map(look)).await;
    let found: Vec<Status> = looks
        .into_iter()
        .filter_map(Result::transpose)
        .collect::<Result<_>>()?;
    if env.printer.output == Output::Json {
        let all = found.iter().map(super::info::json).collect();
        return env.printer.json(&Value::Array(all));
    }
    if found.is_empty() {
        env.printer
            .note("There are no VMs. Make one: knest vm run IMAGE");
        return Ok(());
    }
    let mut table = Table::new(&["NAME", "STATE", "CPUS", "MEMORY", "FROM", "PID", "AGE"]);
    for status in &found {
        let spec = &status.spec;
        table.row(vec![
            spec.name.to_string(),
            status.state.to_string(),
            spec.cpus.to_string(),
            Quantity::of(spec.memory).to_string(),
            spec.source
                .clone()
                .unwrap_or_else(|| spec.kernel.display().to_string()),
            status.pid.map_or_else(|| "-".into(), |pid| pid.to_string()),
            age(OffsetDateTime::now_utc() - spec.created),
        ]);
    }
    env.printer.answer(&table.render())
}

/// A look, which also gives a VM a supervisor that lost its own.
async fn look(dir: &VmDir) -> Result<Option<Status>> {
    vm::keep_supervised(dir).await;
    Status::of(dir).await
}
