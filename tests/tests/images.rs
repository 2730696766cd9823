//! Images that can't be built, and images that can't boot: each is named with what is wrong with it,
//! and nothing is left behind.
#![expect(clippy::expect_used, reason = "a failure here is the test's failure")]

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output};

use fs_err as fs;
use knest_tests::env::program;
use knest_tests::registry::{Guard, Registry};
use knest_tests::{Env, Snapshot, Steps, images, need};
use serde_json::Value;

const NODE: [&str; 4] = [
    "sbin/init",
    "usr/bin/kubelet",
    "usr/bin/kubeadm",
    "usr/bin/containerd",
];

#[test]
fn versions_that_there_are_no_images_of_are_refused() {
    let cases = [
        ("v1.34.9", "v1.35, v1.36 and v1.37 are"),
        ("v1.99.0", "docs/versions.md"),
        ("1.37", "is not a Kubernetes version like v1.37.2"),
        ("latest", "is not a Kubernetes version"),
    ];
    for (version, named) in cases {
        let output = Command::new(images::script("build.sh"))
            .env("KNEST_KUBERNETES_VERSION", version)
            .output()
            .expect("the script");
        fails_with(&output, &[version, named]);
    }
}

#[test]
fn without_an_engine_those_that_were_looked_for_are_named() {
    let env = Env::new();
    let bin = env.root().join("bin");
    fs::create_dir(&bin).expect("a directory");
    for name in ["bash", "dirname", "timeout"] {
        symlink(
            program(name).expect("a program of every system"),
            bin.join(name),
        )
        .expect("a link");
    }
    let output = env
        .command(images::script("engine.sh"))
        .env("PATH", &bin)
        .args([env.home().as_path(), Path::new("test.local/image:v1")])
        .args(["--", "."])
        .output()
        .expect("the script");
    fails_with(&output, &["docker", "podman", "buildah"]);
}

#[test]
fn a_step_that_fails_is_told_by_the_last_lines_of_its_log() {
    let env = Env::new();
    let script = r#"set -euo pipefail; . "$1"; fill() { seq 100; echo the reason; exit 3; }; cached kind 0 fill"#;
    let output = env
        .command("bash")
        .args(["-c", script, "bash"])
        .arg(images::script("lib.sh"))
        .output()
        .expect("bash");
    let error = fails_with(&output, &["kind: failed", "    kind: 1\n"]);
    assert!(error.ends_with("97\n98\n99\n100\nthe reason\n"), "{error}");
    let builds = env.cache().join("knest/build");
    let mut left: Vec<_> = fs::read_dir(&builds)
        .expect("the builds")
        .map(|entry| entry.expect("an entry").file_name())
        .collect();
    left.sort();
    assert_eq!(left, [".kind.lock", ".kind.log"]);
}

#[test]
fn a_node_image_that_lacks_something_is_named_before_a_vm_starts() {
    need!(Cluster);
    let env = with_kernel();
    for missing in NODE {
        let root = NODE.into_iter().filter(|name| *name != missing);
        let files: Vec<_> = root.map(|name| (name, b"".as_slice())).collect();
        load(&env, "test.local/node:v1", &files);
        refused(
            &env,
            &["--image", "test.local/node:v1"],
            &["can't be a node", &format!("lacks {missing}\n")],
        );
    }
}

#[test]
fn a_kernel_that_no_vmm_boots_is_named_before_a_vm_starts() {
    need!(Cluster);
    let env = with_kernel();
    let mut compressed = vec![0; 0x400];
    compressed[0x202..0x206].copy_from_slice(b"HdrS");
    // 64 bits, little-endian, and then the machine.
    let mut other = b"\x7fELF\x02\x01".to_vec();
    other.resize(120, 0);
    let mut plain = other.clone();
    (other[18], plain[18]) = (183, 62);
    let cases: [(&str, &[u8], &str); 5] = [
        ("vmlinux", &compressed, "a bzImage"),
        ("vmlinux", &other, "another machine (aarch64)"),
        ("vmlinux", &plain, "without a PVH entry"),
        ("vmlinux", b"#!/bin/sh\n", "no ELF file"),
        ("boot/vmlinuz", &plain, "no file \"vmlinux\""),
    ];
    for (path, content, named) in cases {
        load(&env, "test.local/kernel:v1", &[(path, content)]);
        let flag = "--control-plane-machine-kernel-image";
        refused(
            &env,
            &[flag, "test.local/kernel:v1"],
            &["test.local/kernel:v1", named],
        );
    }
}

/// What `make images PUSH=REGISTRY/REPOSITORY` leaves there is all that a host cluster with Virtink pulls.
#[test]
fn a_registry_gets_what_a_host_cluster_pulls() {
    need!(Registry, Images, Full);
    let Some(skopeo) = program("skopeo") else {
        return need::skip(
            "a_registry_gets_what_a_host_cluster_pulls",
            "not found: skopeo",
        );
    };
    let (env, steps) = (Env::new(), Steps::of("push"));
    let registry = Registry::start(&env.root().join("tmp"), Guard::Open);
    let repository = format!("{}/knest", registry.address);
    steps.step("build and push", || {
        let built = Command::new(images::script("build.sh"))
            .arg("virtink")
            .env("KNEST_PUSH", &repository)
            .env("KNEST_PUSH_FLAGS", "--dest-tls-verify=false")
            .env_remove("KNEST_KUBERNETES_VERSION")
            .output();
        succeeds(&built.expect("the script"));
    });
    let inspect = |name: &str, more: &[&str]| -> Value {
        let image = format!("docker://{repository}/{name}");
        let output = Command::new(&skopeo)
            .args(["inspect", "--tls-verify=false", &image])
            .args(more)
            .output();
        let output = output.expect("skopeo");
        succeeds(&output);
        serde_json::from_slice(&output.stdout).expect("skopeo's JSON")
    };
    let node = format!("node:{}", images::versions()[0]);
    for (name, label, value) in [
        ("kernel:latest", "dev.knest.role", "kernel"),
        ("launcher:latest", "dev.knest.role", "launcher"),
        (
            "kernel-base:latest",
            "org.opencontainers.image.licenses",
            "Apache-2.0",
        ),
        ("container-rootfs-base:latest", "dev.knest.root", "/rootfs"),
        (&node, "dev.knest.root", "/rootfs"),
    ] {
        let image = inspect(name, &[]);
        assert_eq!(image["Labels"][label], value, "{name}: {image}");
    }
    // As it travels: the bar is what its download may cost.
    let layers = inspect(&node, &["--raw"])["layers"].take();
    let sizes = layers.as_array().into_iter().flatten();
    let bytes: u64 = sizes.filter_map(|layer| layer["size"].as_u64()).sum();
    assert!((1 << 20..350 << 20).contains(&bytes), "{bytes}: {layers}");
}

/// An environment with a store of its own that has the machine's kernel.
fn with_kernel() -> Env {
    let env = Env::new();
    images::load_kernel(&env);
    env
}

/// Loads an image of these files.
fn load(env: &Env, name: &str, files: &[(&str, &[u8])]) {
    let directory = tempfile::tempdir().expect("a directory");
    let root = directory.path().join("root");
    for (path, content) in files {
        let path = root.join(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        fs::write(path, content).expect("a file");
    }
    let archive = images::pack(&root, name);
    env.succeed(&["image", "load", archive.to_str().expect("a path in UTF-8")]);
}

fn refused(env: &Env, flags: &[&str], named: &[&str]) {
    let snapshot = Snapshot::take(&[&env.state(), &env.home()]);
    let output = env.knest(["create", "--vmm", "qemu"]).args(flags).output();
    let output = output.expect("knest starts");
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{flags:?}: {error}");
    for words in named {
        assert!(error.contains(words), "{flags:?}: {words:?}: {error}");
    }
    let found = snapshot.since();
    assert!(found.files.iter().all(|path| path.is_dir()), "{found:?}");
    assert!(found.processes.is_empty(), "{found:?}");
}

fn fails_with(output: &Output, named: &[&str]) -> String {
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    let said = format!("{}{error}", String::from_utf8_lossy(&output.stdout));
    assert!(!output.status.success(), "{said}");
    for words in named {
        assert!(said.contains(words), "{words:?}: {said}");
    }
    error
}

fn succeeds(output: &Output) {
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
}
