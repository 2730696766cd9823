//! `knest vm` with a Linux guest, in the lab: an image to a shell on its console, and what a user then
//! does to the VM. The test runs twice: here it boots the lab with itself as the command, and there it
//! does the work.
#![expect(clippy::expect_used, reason = "a failure here is the test's failure")]

use std::path::Path;
use std::time::Duration;

use fs_err as fs;
use knest_tests::env::program;
use knest_tests::{Console, Env, Snapshot, Steps, images, lab, need, wait};
use knest_vmm::virtiofsd::{Share, Virtiofsd, flavor};
use serde_json::{Value, json};

const NAME: &str = "demo";
const IMAGE: &str = "test.local/shell:v1";
const BOOT: Duration = Duration::from_secs(400);
const POLL: Duration = Duration::from_millis(100);

/// The guest's first program: a shell on /dev/console, which is hvc0.
const INIT: &str = r#"#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev 2>/dev/null
mount -t virtiofs files /mnt && echo "mounted $(cat /mnt/hello)"
export PS1='guest# '
echo "consoles: $(cat /sys/class/tty/console/active)"
exec setsid -c sh -i
"#;

#[test]
fn an_image_to_a_shell_on_the_console() {
    let test = "an_image_to_a_shell_on_the_console";
    if !lab::inside() {
        need!(Lab, Images);
        return lab::run_this_test(test, Duration::from_secs(500));
    }
    let steps = Steps::of("vm in the lab");
    let env = Env::new();
    let shared = env.home().join("shared");
    fs::create_dir(&shared).expect("a directory");
    fs::write(shared.join("hello"), "from the host").expect("a file");
    steps.step("an image and a kernel into the store", || {
        prepare(&env);
    });
    let snapshot = Snapshot::take(&[env.root()]);
    let share = format!("{}:files", shared.display());
    let cmdline = "console=ttyS0 console=hvc0 root=/dev/vda rw quiet init=/init";
    let run = [
        "vm",
        "run",
        IMAGE,
        "--name",
        NAME,
        "--rm",
        "--detach",
        "--cpus",
        "1",
        "--max-cpus",
        "2",
        "--memory",
        "256Mi",
        "--max-memory",
        "512Mi",
        "--root-size",
        "64Mi",
        "--share",
        &share,
        "--cmdline",
        cmdline,
    ];
    steps.step("run", || env.succeed(&run));
    let mut console = steps.step("a prompt on the console", || {
        let console = Console::join(&env, NAME);
        console.until("mounted from the host");
        console.until("consoles: ttyS0 hvc0");
        console.until("guest# ");
        console
    });
    // A second reader sees the same.
    let other = Console::join(&env, NAME);
    other.until("guest# ");
    steps.step("the share, both ways", || {
        console.types("echo from the guest >/mnt/answer; sync; echo $((40 + 2))");
        console.until("\n42");
        other.until("\n42");
        let answer = fs::read_to_string(shared.join("answer")).expect("the guest's file");
        assert_eq!(answer, "from the guest\n");
    });
    steps.step("a disk, plugged into the running guest", || {
        let disk = env.home().join("disk");
        fs::write(&disk, vec![0; 1 << 20]).expect("a disk");
        let body = format!(
            r#"{{"id": "extra", "path": "{}", "image_type": "Raw"}}"#,
            disk.display()
        );
        let added = env.succeed(&["vm", "api", NAME, "PUT", "vm.add-disk", &body]);
        assert!(added.contains("\"bdf\""), "{added}");
        console.types(
            "while ! [ -b /dev/vdb ]; do sleep 1; done; echo size $(cat /sys/block/vdb/size)",
        );
        console.until("\nsize 2048");
    });
    steps.step("a CPU and memory, plugged into the running guest", || {
        let body = r#"{"desired_vcpus": 2, "desired_ram": 536870912}"#;
        env.succeed(&["vm", "api", NAME, "PUT", "vm.resize", body]);
        console.types("cd /sys/devices/system; until [ -e cpu/cpu1 ]; do sleep 1; done; echo 1 >cpu/cpu1/online");
        console.types("for m in memory/memory*/state; do echo online >$m 2>/dev/null; done");
        console.types("echo has $(nproc) CPUs, $(($(sed -n 's/^MemTotal: *\\([0-9]*\\) kB/\\1/p' /proc/meminfo) >> 18))");
        console.until("\nhas 2 CPUs, 1");
    });
    let late = steps.step("a share, plugged into the running guest", || {
        let late = Late::serve(&env);
        let body = json!({"id": "late", "tag": "late", "socket": late.socket()}).to_string();
        let added = env.succeed(&["vm", "api", NAME, "PUT", "vm.add-fs", &body]);
        assert!(added.contains("\"bdf\""), "{added}");
        console.types("mkdir -p /late; until mount -t virtiofs late /late; do sleep 1; done 2>/dev/null; cat /late/hello");
        console.until("\nlater");
        late
    });
    steps.step("reboot, with the shares", || {
        env.succeed(&["vm", "reboot", NAME]);
        wait::until("the shell again", BOOT, POLL, || {
            let seen = console.seen();
            let boots = seen.matches("mounted from the host").count();
            if boots == 2 { Ok(()) } else { Err(seen) }
        });
    });
    steps.step("the guest's own power-off", || {
        wait::until("a prompt", BOOT, POLL, || {
            let seen = console.seen();
            let last = seen.rsplit("consoles: ").next().unwrap_or_default();
            if last.contains("guest# ") {
                Ok(())
            } else {
                Err(seen)
            }
        });
        console.types("sync; poweroff -f");
        assert!(console.ends(), "knest vm console");
        assert!(other.ends(), "the other knest vm console");
    });
    late.stop();
    wait::until("--rm", Duration::from_secs(30), POLL, || {
        let directory = env.state().join("knest/vms").join(NAME);
        if directory.exists() {
            Err("it is there")
        } else {
            Ok(())
        }
    });
    let (home, cache, data) = (env.home(), env.cache(), env.data());
    let state = env.state();
    let allowed: [&Path; 4] = [&home, &cache, &data, &state];
    snapshot.assert_nothing_left(Duration::from_secs(30), &allowed);
}

#[test]
fn a_node_image_to_a_login_and_its_power_button() {
    let test = "a_node_image_to_a_login_and_its_power_button";
    if !lab::inside() {
        need!(Lab, Images, Full);
        return lab::run_this_test(test, Duration::from_secs(580));
    }
    let steps = Steps::of("vm of the node image, in the lab");
    // The machine's own cache: emulated, making this disk takes minutes.
    let env = Env::new().with_variable("KNEST_CACHE_DIR", images::cache());
    images::link(&env);
    let snapshot = Snapshot::take(&[env.root()]);
    let list = env.succeed(&["image", "list", "-o", "json"]);
    let list: Value = serde_json::from_str(&list).expect("JSON");
    let names = list.as_array().into_iter().flatten();
    let mut names = names.filter_map(|image| image["name"].as_str());
    let image = names.find(|name| name.starts_with("knest.dev/node:"));
    let image = image.expect("the node image");
    let cmdline = "console=ttyS0 console=hvc0 root=/dev/vda rw quiet";
    let run = [
        "vm",
        "run",
        image,
        "--name",
        NAME,
        "--detach",
        "--cmdline",
        cmdline,
    ];
    steps.step("run", || {
        env.succeed(&[&run[..], &["--net", "user"]].concat())
    });
    steps.step("a login on the console", || {
        let mut console = Console::join(&env, NAME);
        console.until("root@demo:");
        console.types("ip -br -4 address show scope global");
        // Coloured, so the prefix stands apart.
        console.until("10.64.0.10");
    });
    steps.step("its power button", || {
        let stopped = env.succeed(&["vm", "stop", NAME, "--timeout", "3m", "-o", "json"]);
        assert!(stopped.contains("its power button"), "{stopped}");
    });
    env.succeed(&["vm", "remove", NAME]);
    let (home, data) = (env.home(), env.data());
    let state = env.state();
    let allowed: [&Path; 3] = [&home, &data, &state];
    snapshot.assert_nothing_left(Duration::from_secs(30), &allowed);
}

/// A directory that nobody shared with the VM when it started, served by knest-vmm.
struct Late {
    runtime: tokio::runtime::Runtime,
    daemon: Virtiofsd,
}

impl Late {
    fn serve(env: &Env) -> Self {
        let directory = env.home().join("late");
        fs::create_dir(&directory).expect("a directory");
        fs::write(directory.join("hello"), "later\n").expect("a file");
        let program = program("virtiofsd").expect("virtiofsd, which the lab needs");
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let daemon = runtime.block_on(async {
            let flavor = flavor(&program, BOOT).await.expect("its kind");
            let socket = env.home().join("late.sock");
            Virtiofsd::start(Share::new(program, flavor, directory, socket))
        });
        Self {
            runtime,
            daemon: daemon.expect("a daemon"),
        }
    }

    fn socket(&self) -> &Path {
        &self.daemon.share().socket
    }

    fn stop(self) {
        let stopped = self.runtime.block_on(self.daemon.stop());
        stopped.expect("the daemon's end");
    }
}

/// An image with a shell and nothing else, and the machine's kernel, in a store of the test's.
fn prepare(env: &Env) {
    let directory = env.root().join("tmp");
    let archive = images::shell(&directory, IMAGE, INIT);
    let archive = archive.to_str().expect("a path in UTF-8");
    env.succeed(&["image", "load", archive]);
    images::load_kernel(env);
    fs::remove_dir_all(&directory).expect("what is no longer needed");
    fs::create_dir(directory).expect("a directory");
}
