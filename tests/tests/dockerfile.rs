//! A user's own image by Docker's tool chain, in the form that Virtink runs: it boots as an image of
//! knest's store, and from the disk that its entrypoint writes. The test runs twice: here it builds the
//! image and boots the lab with itself as the command, and there it boots both.
#![expect(clippy::expect_used, reason = "a failure here is the test's failure")]

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use fs_err as fs;
use knest_tests::{Console, Env, Steps, images, lab, need, wait};
use serde_json::Value;

/// Two stages, of which the second is the base for Virtink.
const DOCKERFILE: &str = "\
FROM test.local/shell:v1 AS build
COPY random /etc/random
RUN chmod 640 /etc/random
FROM knest.dev/container-rootfs-base:latest
COPY --from=build / /rootfs
";
const SHELL: &str = "test.local/shell:v1";
const BASE: &str = "knest.dev/container-rootfs-base:latest";
const USERS: &str = "test.local/users:v1";

const INIT: &str = r#"#!/bin/sh
mount -t proc proc /proc
mount -t devtmpfs dev /dev 2>/dev/null
export PS1='guest# '
exec setsid -c sh -i
"#;
const RUN: [&str; 10] = [
    "--name",
    "demo",
    "--rm",
    "--detach",
    "--cpus",
    "1",
    "--memory",
    "256Mi",
    "--cmdline",
    "console=ttyS0 console=hvc0 root=/dev/vda rw quiet init=/init",
];

#[test]
fn a_users_dockerfile_boots_as_an_image_and_by_its_entrypoint() {
    let steps = Steps::of("a user's Dockerfile");
    let (archive, disk) = ("KNEST_TEST_ARCHIVE", "KNEST_TEST_DISK");
    if lab::inside() {
        let path = |name| PathBuf::from(std::env::var_os(name).expect(name));
        return boot_both(&steps, &path(archive), &path(disk));
    }
    need!(Lab, Images, Root, Full);
    let env = Env::new();
    let made = build(&steps, &env.root().join("tmp"));
    lab::run_this_test_with(
        "a_users_dockerfile_boots_as_an_image_and_by_its_entrypoint",
        Duration::from_secs(500),
        &[(archive, &made.archive), (disk, &made.disk)],
    );
}

/// What is built outside of the lab.
struct Made {
    /// The image.
    archive: PathBuf,
    /// What its entrypoint wrote.
    disk: PathBuf,
}

/// Builds the image by the engine that is there, and runs its entrypoint as Virtink does.
fn build(steps: &Steps, directory: &Path) -> Made {
    let (context, built) = (directory.join("context"), directory.join("built"));
    for path in [&context, &built] {
        fs::create_dir(path).expect("a directory");
    }
    let random = format!("{:032x}\n", random());
    for path in [context.join("random"), built.join("random")] {
        fs::write(path, &random).expect("a file");
    }
    let dockerfile = context.join("Dockerfile");
    fs::write(&dockerfile, DOCKERFILE).expect("a file");
    let base = steps.step("its base", || {
        let mut build = Command::new(images::script("build.sh"));
        let said = output(build.arg("container-rootfs-base").env("KNEST", ""));
        let (_, archive) = said.trim().split_once(' ').expect("a name and an archive");
        PathBuf::from(archive)
    });
    let shell = images::shell(directory, SHELL, INIT);
    steps.step("the image", || {
        let mut build = Command::new(images::script("engine.sh"));
        build.arg(&built).arg(USERS);
        for (name, archive) in [(SHELL, shell), (BASE, base)] {
            build.arg("-a").arg(format!("{name}={}", archive.display()));
        }
        output(build.args(["--", "--file"]).arg(dockerfile).arg(context));
    });
    let archive = built.join("image.tar");
    let disk = steps.step("its entrypoint", || run_entrypoint(&archive, directory));
    Made { archive, disk }
}

/// With the path of a disk in a volume and that disk's size, in a chroot of what is in the archive:
/// that is all that a container would add here.
fn run_entrypoint(archive: &Path, directory: &Path) -> PathBuf {
    let (parts, root) = (directory.join("parts"), directory.join("container"));
    let volume = root.join("mnt/root");
    for path in [&parts, &volume] {
        fs::create_dir_all(path).expect("a directory");
    }
    let unpack = |archive: &Path, to: &Path| {
        let mut tar = Command::new("tar");
        output(tar.arg("-xf").arg(archive).arg("-C").arg(to));
    };
    unpack(archive, &parts);
    let read = |name: &str| -> Value {
        let text = fs::read(parts.join(name)).expect("a document of the archive");
        serde_json::from_slice(&text).expect("JSON")
    };
    let words = |list: &Value| -> Vec<String> {
        serde_json::from_value(list.clone()).expect("a list of words")
    };
    let manifest = &read("manifest.json")[0];
    for layer in words(&manifest["Layers"]) {
        unpack(&parts.join(layer), &root);
    }
    let config = read(manifest["Config"].as_str().expect("a configuration"));
    let mut container = Command::new("chroot");
    container
        .arg(&root)
        .args(words(&config["config"]["Entrypoint"]));
    output(container.args(["/mnt/root/rootfs.raw", "67108864"]));
    volume.join("rootfs.raw")
}

fn boot_both(steps: &Steps, archive: &Path, disk: &Path) {
    let random = fs::read_to_string(archive.with_file_name("random"));
    let random = random.expect("what is in the image");
    let text = |path: &Path| path.to_str().expect("a path in UTF-8").to_owned();
    let env = Env::new();
    images::load_kernel(&env);
    env.succeed(&["image", "load", "--name", USERS, &text(archive)]);
    let boot = |what: &[&str]| {
        env.succeed(&[&["vm", "run"], what, &RUN[..]].concat());
        let mut console = Console::join(&env, "demo");
        console.until("guest# ");
        console.types("cat /etc/random; ls /rootfs");
        console.until(random.trim());
        console.until("/rootfs: No such file");
        console.types("poweroff -f");
        assert!(console.ends(), "knest vm console");
        let vm = env.state().join("knest/vms/demo");
        let (limit, poll) = (Duration::from_secs(30), Duration::from_millis(100));
        wait::until("--rm", limit, poll, || match vm.exists() {
            true => Err("it is there"),
            false => Ok(()),
        });
    };
    steps.step("boots as an image", || {
        boot(&[USERS, "--root-size", "64Mi"]);
    });
    steps.step("boots by its entrypoint", || boot(&[&text(disk)]));
}

/// What it prints; it has to succeed.
fn output(command: &mut Command) -> String {
    let output = command.output().expect("a program of this machine");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{command:?}: {stdout}{stderr}");
    stdout
}

fn random() -> u128 {
    let mut bytes = [0; 16];
    let mut source = fs::File::open("/dev/urandom").expect("the kernel's random bytes");
    source.read_exact(&mut bytes).expect("random bytes");
    u128::from_ne_bytes(bytes)
}
