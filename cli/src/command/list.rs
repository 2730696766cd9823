//! `knest list`.

use super::{Env, place};
use crate::cluster::guest::Guest;
use crate::cluster::name::ClusterName;
use crate::cluster::record::{NodeState, Record};
use crate::failure::{Failure, Result};
use crate::provider::{MachineState, Provider};
use crate::ui::{Output, Table};
use futures::future::join_all;
use serde_json::{Value, json};
use std::time::Duration;
use time::OffsetDateTime;

/// A cluster that does not answer is no reason to keep the others waiting.
const LOOK: Duration = Duration::from_secs(5);
/// How long a host cluster may take.
const HOST: Duration = Duration::from_secs(10);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Look into every namespace of host clusters
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    all_namespaces: bool,
    #[command(flatten)]
    place: place::Where,
}

/// One line of the answer.
struct Row {
    record: Record,
    /// Where it is, in a word.
    place: String,
    /// By node name: what its machine does, whether the API calls it Ready.
    nodes: Vec<(String, &'static str, Option<bool>)>,
}

pub(crate) async fn run(args: Args, env: &Env) -> Result<()> {
    let mut rows: Vec<Row> = vec![];
    let homes = match args.all_namespaces {
        true => place::everywhere(&args.place, env).await?,
        false => place::all(&args.place, env).await?,
    };
    for home in homes {
        let provider = home.provider();
        let names = match names(&home).await {
            Ok(names) => names,
            // A host that is away hides its own clusters, not the others'.
            Err(failure) if matches!(home, place::Home::Virtink(_)) => {
                let place = provider.place();
                env.printer.note(&format!("note: {place}: {failure}"));
                continue;
            }
            Err(failure) => return Err(failure),
        };
        let looks = names.iter().map(|name| look(provider, &home, name));
        let found = join_all(looks).await.into_iter();
        rows.extend(found.collect::<Result<Vec<_>>>()?.into_iter().flatten());
    }
    match env.printer.output {
        Output::Json => env
            .printer
            .json(&Value::Array(rows.iter().map(Row::json).collect())),
        Output::Table if rows.is_empty() => {
            env.printer
                .note("There are no clusters. Make one: knest create");
            Ok(())
        }
        Output::Table => {
            let mut table = Table::new(&[
                "NAME", "PHASE", "VERSION", "NODES", "READY", "API", "AGE", "WHERE",
            ]);
            rows.iter().for_each(|row| table.row(row.cells()));
            env.printer.answer(&table.render())
        }
    }
}

/// The clusters of a place; a host that does not answer is not waited for as long as a change is.
async fn names(home: &place::Home) -> Result<Vec<ClusterName>> {
    let names = home.provider().names();
    match home {
        place::Home::Local(_) => names.await,
        place::Home::Virtink(_) => tokio::time::timeout(HOST, names)
            .await
            .unwrap_or_else(|_| Err(Failure::host(format!("no answer in {} s", HOST.as_secs())))),
    }
}

async fn look(
    provider: &dyn Provider,
    home: &place::Home,
    name: &ClusterName,
) -> Result<Option<Row>> {
    // Deleted since its name was listed.
    let Some(record) = provider.load(name).await? else {
        return Ok(None);
    };
    let machines = tokio::time::timeout(LOOK, provider.machines(name)).await;
    let machines = machines.ok().and_then(Result::ok).unwrap_or_default();
    let seen = match Guest::of(&record).await {
        Ok(guest) => tokio::time::timeout(LOOK, guest.nodes())
            .await
            .ok()
            .and_then(Result::ok),
        // It is not far enough to have an API.
        Err(_) => None,
    };
    let nodes = record.nodes.iter().map(|node| {
        let machine = machines
            .iter()
            .find(|m| m.name == node.name)
            .map(|m| &m.state);
        let machine = match machine {
            Some(MachineState::Running) => "running",
            Some(MachineState::Stopped { .. }) => "stopped",
            Some(MachineState::Lost { .. }) => "lost",
            None if node.state == NodeState::Wanted => "wanted",
            None => "unknown",
        };
        let api = seen
            .as_ref()
            .map(|all| all.iter().any(|s| s.name == node.name.as_str() && s.ready));
        (node.name.to_string(), machine, api)
    });
    Ok(Some(Row {
        nodes: nodes.collect(),
        place: home.word(),
        record,
    }))
}

impl Row {
    fn endpoint(&self) -> String {
        self.record
            .endpoint
            .as_ref()
            .map_or_else(String::new, |e| format!("https://{}", e.outside))
    }

    fn cells(&self) -> Vec<String> {
        let known = self.nodes.iter().all(|n| n.2.is_some()) && !self.nodes.is_empty();
        let ready = self.nodes.iter().filter(|n| n.2 == Some(true)).count();
        vec![
            self.record.spec.name.to_string(),
            format!("{:?}", self.record.phase),
            self.record.spec.kubernetes_version.to_string(),
            self.nodes.len().to_string(),
            if known { ready.to_string() } else { "?".into() },
            self.endpoint(),
            age(OffsetDateTime::now_utc() - self.record.created),
            self.place.clone(),
        ]
    }

    fn json(&self) -> Value {
        let record = &self.record;
        let nodes = record
            .nodes
            .iter()
            .zip(&self.nodes)
            .map(|(node, (_, machine, ready))| {
                json!({
                    "name": node.name, "role": node.role, "state": node.state,
                    "address": node.address, "machine": machine, "ready": ready,
                })
            });
        json!({
            "name": record.spec.name, "phase": record.phase, "spec": record.spec,
            "place": self.place, "created": record.created.unix_timestamp(), "api": self.endpoint(),
            "kubeconfig": record.kubeconfig, "nodes": nodes.collect::<Vec<_>>(),
        })
    }
}

/// The two leading units, as kubectl shows ages.
pub(super) fn age(age: time::Duration) -> String {
    let seconds = age.whole_seconds().max(0);
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86400),
    }
}
