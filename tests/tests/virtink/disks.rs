//! Disks of persistent machines, filled by a program that really runs: as a ContainerRootfs image's
//! does, it is told a path and a size.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use fs_err as fs;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use knest_tests::hosted::{interrupt, kill_at};
use knest_tests::player::{Guests, Machine, Nothing, State, Task};
use knest_tests::{Hosted, need, wait};
use kube::ResourceExt;

const LIMIT: Duration = Duration::from_secs(60);
const INTERVAL: Duration = Duration::from_millis(100);

const CREATE: [&str; 7] = [
    "create",
    "demo",
    "--pod-network-cidr",
    "10.245.0.0/16",
    "--persistent",
    "--machine-addresses",
    "10.244.0.100-10.244.0.110",
];

/// Says that it has begun, waits until it may go on, and makes a file system, or refuses to.
const PROGRAM: &str = r#"#!/bin/sh
PATH=$PATH:/usr/sbin:/sbin
echo "$2" >> "${0%/*}/begun"
until [ -e "${0%/*}/go" ]; do sleep 0.1; done
if [ -e "${0%/*}/full" ]; then echo "no space left on device" >&2; exit 1; fi
truncate -s "$2" "$1" && mkfs.ext4 -q -F "$1"
"#;

/// The directory that a program and what steers it are in.
#[derive(Clone)]
struct Control(PathBuf);

impl Control {
    fn new(scene: &Path) -> Self {
        let control = Self(scene.join("program"));
        fs::create_dir_all(&control.0).expect("a directory");
        fs::write(control.0.join("fill"), PROGRAM).expect("a program");
        let may_run = std::fs::Permissions::from_mode(0o755);
        fs::set_permissions(control.0.join("fill"), may_run).expect("a program");
        control
    }

    fn set(&self, what: &str) {
        fs::write(self.0.join(what), "").expect("a file");
    }

    fn unset(&self, what: &str) {
        fs::remove_file(self.0.join(what)).expect("a file");
    }

    /// The sizes that the program was told, one for each time that it began.
    fn begun(&self) -> Vec<String> {
        let text = fs::read_to_string(self.0.join("begun")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Waits until it has begun so often.
    async fn has_begun(&self, times: usize) {
        wait::until_async("the program's begin", LIMIT, INTERVAL, async || {
            let begun = self.begun();
            if begun.len() == times {
                Ok(())
            } else {
                Err(begun)
            }
        })
        .await;
    }
}

/// Machines that do nothing, on disks that the program fills.
struct Filled {
    machines: Nothing,
    program: PathBuf,
    running: BTreeMap<String, Child>,
}

impl Guests for Filled {
    fn start(&mut self, machine: Machine) -> Result<(), String> {
        match machine.disk.join("disk.img").is_file() {
            true => self.machines.start(machine),
            false => Err("it has no disk".to_owned()),
        }
    }

    fn state(&mut self, pod: &str) -> State {
        self.machines.state(pod)
    }

    fn press_power_button(&mut self, pod: &str) {
        self.machines.press_power_button(pod);
    }

    fn stop(&mut self, pod: &str) {
        self.machines.stop(pod);
        if let Some(mut child) = self.running.remove(pod) {
            drop(child.kill());
            drop(child.wait());
        }
    }

    fn begin(&mut self, task: Task) -> Result<(), String> {
        let mut program = Command::new(&self.program);
        program.args(&task.arguments).stderr(Stdio::piped());
        let child = program.spawn().map_err(|error| error.to_string())?;
        self.running.insert(task.pod, child);
        Ok(())
    }

    fn ended(&mut self, pod: &str) -> Option<Result<(), String>> {
        let child = self.running.get_mut(pod)?;
        if let Ok(None) = child.try_wait() {
            return None;
        }
        let output = self.running.remove(pod)?.wait_with_output();
        Some(match output {
            Ok(output) if output.status.success() => Ok(()),
            Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
            Err(error) => Err(error.to_string()),
        })
    }
}

/// A host with Calico and room for a few disks, and what steers the program that fills them.
async fn scene() -> (Hosted, Control) {
    let mut scene = Hosted::start(Nothing::default()).await;
    scene.host.define_calico("10.244.0.0/16", &[]).await;
    scene.host.add_storage("directories", 4).await;
    let control = Control::new(scene.env.root());
    let guests = Filled {
        machines: Nothing::default(),
        program: control.0.join("fill"),
        running: BTreeMap::new(),
    };
    scene.play(guests);
    (scene, control)
}

/// Whoever waits for it, it is filled once, to the size of the machine's disk.
#[tokio::test]
async fn a_disk_is_filled_once() {
    need!(Host);
    let (scene, control) = scene().await;
    let create = [&CREATE[..], &["--control-plane-machine-rootfs-size", "2Gi"]].concat();
    let retain = [&create[..], &["--retain"]].concat();
    assert!(kill_at(scene.begin(&retain), "Making the root disks").await);
    let waits = scene.begin(&retain);
    control.has_begun(1).await;
    drop(interrupt(waits).await);
    control.set("go");
    let mut knest = scene.begin(&create);
    scene.running("default", 1, &mut knest).await;
    assert_eq!(control.begun(), [(2_u64 << 30).to_string()]);

    let claims = scene.api::<PersistentVolumeClaim>("default");
    let claim = claims.get("demo-control-plane-1-root").await;
    let claim = claim.expect("a claim");
    let directory = scene.host.directory().join("pods");
    let disk = directory.join(claim.uid().expect("a UID")).join("disk.img");
    assert_eq!(fs::metadata(disk).expect("a disk").len(), 2 << 30);
    drop(interrupt(knest).await);
    scene.nothing_left("default").await;
}

/// What the program says against it is told at once, and with the next try it may be well.
#[tokio::test]
async fn a_disk_that_can_not_be_filled() {
    need!(Host);
    let (scene, control) = scene().await;
    control.set("go");
    control.set("full");
    let said = scene.ends(3, &CREATE);
    let why = "the disk of demo-control-plane-1 could not be filled: no space left on device";
    assert!(said.contains(why), "{said}");
    assert_eq!(control.begun().len(), 1);
    scene.nothing_left("default").await;

    let retain = [&CREATE[..], &["--retain"]].concat();
    drop(scene.ends(3, &retain));
    let left = scene.left("default").await;
    let job = left.iter().any(|l| l.starts_with("Job"));
    assert!(job, "what failed can be looked at: {left:?}");
    control.unset("full");
    let mut knest = scene.begin(&CREATE);
    scene.running("default", 1, &mut knest).await;
    assert_eq!(control.begun().len(), 3);
    drop(interrupt(knest).await);
    scene.nothing_left("default").await;
}
