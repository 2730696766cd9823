//! `knest vm info`.

use super::{Env, Named};
use crate::cluster::quantity::Quantity;
use crate::failure::{Failure, Result};
use crate::provider::local::DiskFormat;
use crate::ui::{Output, Table};
use crate::vm::{self, NetSpec, Status, VmDir, VmSpec};
use serde_json::{Value, json};
use std::path::Path;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    vm: Named,
}

pub(super) async fn run(args: Args, env: &Env) -> Result<()> {
    let dir = vm::existing(&env.paths, &args.vm.name)?;
    vm::keep_supervised(&dir).await;
    let gone = || Failure::usage(format!("VM {} has just been removed", dir.name));
    let status = Status::of(&dir).await?.ok_or_else(gone)?;
    match env.printer.output {
        Output::Json => {
            let mut value = json(&status);
            value["directory"] = json!(dir.path());
            value["vmInfo"] = json!(status.info);
            env.printer.json(&value)
        }
        Output::Table => env.printer.answer(&text(&status, &dir)),
    }
}

/// What `list` says too.
pub(super) fn json(status: &Status) -> Value {
    let mut value = json!(status.spec);
    value["state"] = json!(status.state.to_string());
    value["reason"] = json!(status.reason);
    value["pid"] = json!(status.pid);
    value["supervisor"] = json!(status.supervisor);
    value["reboots"] = json!(status.history.reboots);
    value["panics"] = json!(status.history.panics);
    value
}

fn text(status: &Status, dir: &VmDir) -> String {
    let spec = &status.spec;
    let mut table = Table::new(&[]);
    let mut row = |name: &str, value: String| table.row(vec![name.into(), value]);
    row("Name", spec.name.to_string());
    let state = status
        .reason
        .as_ref()
        .map(|reason| format!("{} ({reason})", status.state));
    row("State", state.unwrap_or_else(|| status.state.to_string()));
    row("Process", number(status.pid));
    row("Supervisor", number(status.supervisor));
    if let Some(source) = &spec.source {
        row("From", source.clone());
    }
    row("Kernel", spec.kernel.display().to_string());
    if let Some(initramfs) = &spec.initramfs {
        row("Initramfs", initramfs.display().to_string());
    }
    row("Command line", spec.cmdline.clone());
    row("CPUs", spec.cpus.to_string());
    row("Memory", Quantity::of(spec.memory).to_string());
    row("Reboots", status.history.reboots.to_string());
    if status.history.panics > 0 {
        row("Panics", status.history.panics.to_string());
    }
    for line in disks(spec, dir.path()) {
        row("Disk", line);
    }
    row("Network", net(spec.net.as_ref()));
    for share in &spec.shares {
        let how = if share.read_only { ", read-only" } else { "" };
        row(
            "Share",
            format!("{} as {}{how}", share.directory.display(), share.tag),
        );
    }
    row("Serial log", dir.serial_log().display().to_string());
    row("Directory", dir.path().display().to_string());
    table.render().trim_start().to_owned()
}

fn number(pid: Option<u32>) -> String {
    pid.map_or_else(|| "-".into(), |pid| pid.to_string())
}

fn disks(spec: &VmSpec, directory: &Path) -> Vec<String> {
    let line = |disk: &crate::vm::DiskSpec| {
        let format = match disk.format {
            DiskFormat::Raw => "raw",
            DiskFormat::Qcow2 => "qcow2",
        };
        let how = if disk.read_only { ", read-only" } else { "" };
        format!("{} ({format}{how})", directory.join(&disk.path).display())
    };
    spec.disks.iter().map(line).collect()
}

fn net(net: Option<&NetSpec>) -> String {
    match net {
        None => "none".into(),
        Some(NetSpec::Tap { tap, mac }) => format!("TAP {tap}, {mac}"),
        Some(NetSpec::User {
            range,
            address,
            mac,
        }) => {
            format!("its own, {address}/{}, {mac}", range.prefix_len())
        }
    }
}
