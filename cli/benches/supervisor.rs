//! What each VM of `knest vm` costs beside its Cloud Hypervisor: the memory of its supervisor, under the
//! real Cloud Hypervisor with guests of a few bytes: `cargo bench -p knest`. Ends with an error when it is
//! more than it may be.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a bench fails loudly and prints its table"
)]

#[expect(
    dead_code,
    reason = "shared with knest-vmm's tests, which use all of its guests"
)]
#[path = "../../vmm/tests/support/guest.rs"]
mod guest;

use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use fs_err as fs;
use guest::{Guest, elf};
use serde_json::Value;

const WHAT: &str = "memory of a VM's supervisor";
/// So many that what they share shows as shared.
const VMS: usize = 10;
/// What a supervisor may have for itself.
const MOST: u64 = 1 << 20;

fn main() -> ExitCode {
    // Asked by `cargo test`, which runs benches too: not now.
    if !std::env::args().any(|arg| arg == "--bench") {
        return ExitCode::SUCCESS;
    }
    let root = tempfile::Builder::new().prefix("kn-").tempdir().unwrap();
    let bench = Bench(root.path());
    let doctor = bench.knest(&["doctor", "-o", "json"]);
    let checks = doctor["checks"].as_array().unwrap().iter();
    let needed = ["vm-size", "cloud-hypervisor"];
    let there = checks
        .filter(|check| check["grade"] == "ok" && needed.iter().any(|name| check["name"] == *name));
    if there.count() < needed.len() {
        println!("{WHAT:36} skipped: no KVM, or no Cloud Hypervisor");
        return ExitCode::SUCCESS;
    }
    let names: Vec<String> = (0..VMS).map(|number| format!("vm-{number}")).collect();
    let mut memory = bench.measure(&names);
    memory.sort_unstable_by_key(|memory| memory.own);
    let Memory { own, part } = memory.swap_remove(VMS / 2);
    let verdict = if own <= MOST { "holds" } else { "MISSED" };
    println!(
        "{WHAT:36} {:>6} KiB  (at most {} KiB): {verdict}; {} KiB with its part of what {VMS} of them share",
        own >> 10,
        MOST >> 10,
        part >> 10,
    );
    if own <= MOST {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// A directory for all that knest keeps.
struct Bench<'a>(&'a Path);

impl Bench<'_> {
    /// `knest ARGUMENTS…` and its answer, if that is JSON.
    fn knest(&self, arguments: &[&str]) -> Value {
        let mut command = Command::new(env!("CARGO_BIN_EXE_knest"));
        for (name, below) in [
            ("HOME", "home"),
            ("XDG_STATE_HOME", "state"),
            ("XDG_DATA_HOME", "data"),
        ] {
            command.env(name, self.0.join(below));
        }
        let output = command
            .args(arguments)
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output();
        serde_json::from_slice(&output.unwrap().stdout).unwrap_or_default()
    }

    fn measure(&self, names: &[String]) -> Vec<Memory> {
        let kernel = self.0.join("guest");
        fs::write(&kernel, elf(Guest::Spin)).unwrap();
        let kernel = kernel.to_str().unwrap();
        let run = [
            "vm", "run", "--kernel", kernel, "--memory", "64Mi", "--cpus", "1",
        ];
        for name in names {
            self.knest(&[&run[..], &["--detach", "--name", name]].concat());
            // Looked at and rebooted, as VMs are.
            self.knest(&["vm", "info", name]);
            self.knest(&["vm", "reboot", name]);
        }
        let memory = names.iter().map(|name| {
            let info = self.knest(&["vm", "info", name, "-o", "json"]);
            info["supervisor"].as_i64().map(Memory::of)
        });
        let memory: Vec<_> = memory.collect();
        for name in names {
            self.knest(&["vm", "remove", "--force", name]);
        }
        memory.into_iter().map(Option::unwrap).collect()
    }
}

/// Bytes of one process.
struct Memory {
    /// Pages that no other process has.
    own: u64,
    /// These, and its part of the others (the kernel's "proportional set size").
    part: u64,
}

impl Memory {
    fn of(pid: i64) -> Self {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
            kib.unwrap().parse::<u64>().unwrap() << 10
        };
        Self {
            own: field("Private_Clean:") + field("Private_Dirty:"),
            part: field("Pss:"),
        }
    }
}
