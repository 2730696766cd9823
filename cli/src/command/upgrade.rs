//! `knest upgrade`.

use super::{Env, image, place};
use crate::cluster::name::ClusterName;
use crate::cluster::record::{NodeState, Record};
use crate::cluster::references;
use crate::cluster::spec::Role;
use crate::cluster::version::{Version, check_upgrade};
use crate::failure::{Failure, Result};
use crate::step::{self, OnFailure};
use crate::{interrupt, ui};
use std::time::Duration;
use tokio::time::Instant;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Nodes are replaced one at a time, control planes first: a new one joins, then an old \
    one is drained and removed. An upgrade that stopped goes on when it is run again.\n\n\
    Example:\n  knest upgrade demo --kubernetes-version v1.37.2"
)]
pub(crate) struct Args {
    /// The cluster's name
    name: ClusterName,
    /// The Kubernetes version to go to: one minor version up at most
    #[arg(long)]
    kubernetes_version: Version,
    /// Root image of all nodes [default: the one that they have, in the new version]
    #[arg(long, value_name = "IMAGE")]
    image: Option<String>,
    /// Root image of control-plane nodes [default: that of all nodes]
    #[arg(long, value_name = "IMAGE")]
    control_plane_machine_rootfs_image: Option<String>,
    /// Root image of worker nodes [default: that of all nodes]
    #[arg(long, value_name = "IMAGE")]
    worker_machine_rootfs_image: Option<String>,
    #[command(flatten)]
    place: place::Where,
    /// How long it may take
    #[arg(long, default_value = "1h", value_name = "DURATION", value_parser = super::duration)]
    timeout: Duration,
}

pub(crate) async fn run(args: Args, env: &Env) -> Result<()> {
    let cancel = interrupt::token()?;
    let home = place::find(&args.name, &args.place, env).await?;
    let provider = home.provider();
    let (_lock, mut record) = super::locked(provider, &args.name).await?;
    super::complete(&record)?;
    let from = record.spec.kubernetes_version;
    args.target(&mut record)?;
    if from == args.kubernetes_version && !record.upgrading() {
        let name = &args.name;
        env.printer
            .note(&format!("Cluster {name} runs {from} already."));
        return Ok(());
    }
    step::mark_lost(&mut record, &provider.machines(&args.name).await?)?;
    if record.in_state(NodeState::Lost).next().is_some() {
        return Err(
            Failure::usage(format!("cluster {} has lost nodes", args.name))
                .hint(format!("replace them first: knest scale {}", args.name)),
        );
    }
    step::begin_upgrade(&mut record, provider)?;
    record.spec.check()?;
    image::fetch_for(&record, &home, env).await?;
    let reporter = ui::reporter(env.printer.output, env.printer.quiet);
    let plan = step::upgrade_plan(&record);
    let mut cx = step::Context {
        provider,
        reporter: reporter.as_ref(),
        record,
        deadline: Instant::now() + args.timeout,
    };
    step::execute(&plan, &mut cx, &cancel, OnFailure::Keep).await?;
    env.printer.note(&format!(
        "Cluster {} runs {}.",
        args.name, args.kubernetes_version
    ));
    Ok(())
}

impl Args {
    /// Writes the version and its images into the record, in memory, if it may go there.
    fn target(&self, record: &mut Record) -> Result<()> {
        let (from, to) = (record.spec.kubernetes_version, self.kubernetes_version);
        if from != to {
            super::of_one_version(record)?;
            if record.nodes.iter().any(|n| n.state != NodeState::Ready) {
                return Err(Failure::usage(format!(
                    "the last scale of cluster {} has not ended",
                    self.name
                ))
                .hint(format!("finish that first: knest scale {}", self.name)));
            }
        }
        check_upgrade(from, to).map_err(|e| Failure::usage(e.to_string()))?;
        for (role, asked) in [
            (Role::ControlPlane, &self.control_plane_machine_rootfs_image),
            (Role::Worker, &self.worker_machine_rootfs_image),
        ] {
            let image = &mut record.spec.machine_mut(role).rootfs_image;
            *image = match asked.as_ref().or(self.image.as_ref()) {
                Some(asked) => asked.clone(),
                None if from == to => continue,
                None => references::successor(image, from, to).ok_or_else(|| {
                    Failure::usage(format!(
                        "the {role} nodes are of image {image}, and which one has {to} is not known"
                    ))
                    .hint(format!("name it with --{role}-machine-rootfs-image"))
                })?,
            };
        }
        record.spec.kubernetes_version = to;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::fixture;

    fn record() -> Record {
        let mut record = fixture::record(1, 1);
        for node in &mut record.nodes {
            node.state = NodeState::Ready;
        }
        for role in [Role::ControlPlane, Role::Worker] {
            let image = references::node("r.example", record.spec.kubernetes_version);
            record.spec.machine_mut(role).rootfs_image = image;
        }
        record
    }

    fn args(version: &str) -> Args {
        Args {
            name: "demo".parse().unwrap(),
            kubernetes_version: version.parse().unwrap(),
            image: None,
            control_plane_machine_rootfs_image: None,
            worker_machine_rootfs_image: None,
            place: place::Where::default(),
            timeout: Duration::from_secs(1),
        }
    }

    #[test]
    fn the_record_tells_old_nodes_from_the_version_to_come() {
        let mut record = record();
        args("v1.38.0").target(&mut record).unwrap();
        assert!(record.upgrading());
        assert_eq!(record.spec.worker.rootfs_image, "r.example/node:v1.38.0");
        // Again, to go on; but nowhere else meanwhile.
        args("v1.38.0").target(&mut record).unwrap();
        let refused = args("v1.38.1").target(&mut record).unwrap_err();
        assert!(refused.to_string().contains("has not ended"), "{refused}");
    }

    #[test]
    fn what_can_not_be_is_refused_and_nothing_changed() {
        for (version, why) in [
            ("v1.36.0", "older version"),
            ("v1.39.0", "one minor version"),
        ] {
            let mut same = record();
            let refused = args(version).target(&mut same).unwrap_err();
            assert!(refused.to_string().contains(why), "{refused}");
            assert_eq!(same, record());
        }
        let mut other = record();
        other.spec.worker.rootfs_image = "example.org/node:mine".into();
        let refused = args("v1.38.0").target(&mut other).unwrap_err().render();
        assert!(
            refused.contains("--worker-machine-rootfs-image"),
            "{refused}"
        );
        let mut unsettled = record();
        unsettled.nodes[1].state = NodeState::Leaving;
        assert!(args("v1.38.0").target(&mut unsettled).is_err());
    }
}
