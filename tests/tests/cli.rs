//! Bad input: a clear error on standard error, the right exit code, and nothing left behind. Runs
//! without images, KVM or a VMM, since every one of these is found before any is looked for.
#![expect(clippy::expect_used, reason = "a failure here is the test's failure")]

use std::os::unix::fs::FileExt;
use std::time::Duration;

use fs_err as fs;
use knest_rootfs::Digest;
use knest_tests::{Env, Snapshot, hosted, images, need};

/// What has ended takes no longer to be gone.
const SOON: Duration = Duration::from_secs(20);

/// What the error has to name, and the arguments.
const REFUSED: &[(&str, &[&str])] = &[
    // names
    ("Demo", &["create", "Demo"]),
    ("-demo", &["create", "--", "-demo"]),
    ("a_b", &["create", "a_b"]),
    ("../demo", &["create", "../demo"]),
    ("x.y", &["delete", "x.y"]),
    // versions
    ("1.37", &["create", "--kubernetes-version", "1.37"]),
    ("latest", &["create", "--kubernetes-version", "latest"]),
    ("v1.24.0", &["create", "--kubernetes-version", "v1.24.0"]),
    // ranges: malformed, too small, overlapping
    (
        "10.0.0.0/33",
        &["create", "--pod-network-cidr", "10.0.0.0/33"],
    ),
    (
        "10.0.0.1/16",
        &["create", "--pod-network-cidr", "10.0.0.1/16"],
    ),
    ("pods", &["create", "--service-cidr", "pods"]),
    (
        "10.244.0.0/30",
        &["create", "--pod-network-cidr", "10.244.0.0/30"],
    ),
    (
        "10.96.0.0/31",
        &["create", "--service-cidr", "10.96.0.0/31"],
    ),
    (
        "overlap",
        &["create", "--pod-network-cidr", "10.112.0.0/14"],
    ),
    ("overlap", &["create", "--service-cidr", "10.244.128.0/20"]),
    ("overlap", &["create", "--node-cidr", "10.244.7.0/24"]),
    // quantities and counts
    ("2 GB", &["create", "--worker-machine-memory-size", "2 GB"]),
    (
        "-1Gi",
        &["create", "--control-plane-machine-memory-size=-1Gi"],
    ),
    (
        "64Mi",
        &["create", "--control-plane-machine-memory-size", "64Mi"],
    ),
    ("1Mi", &["create", "--worker-machine-rootfs-size", "1Mi"]),
    (
        "2 control-plane",
        &["create", "--control-plane-machine-count", "2"],
    ),
    (
        "0 control-plane",
        &["create", "--control-plane-machine-count", "0"],
    ),
    ("0 CPU", &["create", "--worker-machine-cpu-cores", "0"]),
    ("many", &["create", "--worker-machine-count", "many"]),
    (
        "4000000001",
        &["create", "--worker-machine-count", "4000000000"],
    ),
    // disks that are ready
    (
        "sha256:12",
        &[
            "create",
            "--worker-machine-rootfs-image",
            "file:/disk@sha256:12",
        ],
    ),
    (
        "/PATH/TO/DISK",
        &["create", "--worker-machine-rootfs-image", "file:"],
    ),
    // the rest
    ("bochs", &["create", "--vmm", "bochs"]),
    ("forever", &["create", "--timeout", "forever"]),
    ("--no-such-flag", &["create", "--no-such-flag"]),
    ("there is no cluster", &["kubeconfig", "nowhere"]),
    (
        "there is no cluster",
        &["scale", "nowhere", "--worker-machine-count", "1"],
    ),
    ("frobnicate", &["frobnicate"]),
];

#[test]
fn what_cannot_be_met_as_put_is_refused_and_named() {
    let env = Env::new();
    let snapshot = Snapshot::take(&[env.root()]);
    let mut wrong = Vec::new();
    for (named, arguments) in REFUSED {
        let output = env.knest(*arguments).output().expect("knest starts");
        let error = String::from_utf8_lossy(&output.stderr);
        if output.status.code() != Some(2) || !error.contains(named) || !output.stdout.is_empty() {
            wrong.push(format!(
                "knest {}: {}: {error}",
                arguments.join(" "),
                output.status
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    nothing_left(&env, &snapshot);
}

#[test]
fn an_image_that_is_not_there_is_named_and_nothing_is_made() {
    let env = Env::new();
    let snapshot = Snapshot::take(&[env.root()]);
    let arguments = [
        "create",
        "--vmm",
        "qemu",
        "--worker-machine-rootfs-image",
        "127.0.0.1:1/no/image:v1", // where nobody listens
    ];
    let with_worker = [&arguments[..], &["--worker-machine-count", "1"]].concat();
    let output = env.knest(with_worker).output().expect("knest starts");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(
        matches!(output.status.code(), Some(2 | 3)),
        "{}: {error}",
        output.status
    );
    assert!(error.contains("image"), "{error}");
    nothing_left(&env, &snapshot);
}

#[test]
fn what_the_host_cannot_give_is_found_before_anything_is_made() {
    need!(Cluster);
    let env = Env::new()
        .with_variable("KNEST_CACHE_DIR", images::cache())
        .with_variable("KNEST_CLOUD_HYPERVISOR", "/nonexistent/cloud-hypervisor");
    images::link(&env);
    let archive = file(&env, "gz", 0, b"\x1f\x8b");
    let disk = file(&env, "disk", 1080, b"\x53\xef");
    let snapshot = Snapshot::take(&[env.root()]);
    let qemu = ["create", "--vmm", "qemu"];
    let root = "--control-plane-machine-rootfs-image";
    let cases: [(i32, &str, &[&str]); 8] = [
        (3, "--vmm qemu", &["create"]),
        (2, "compressed with gzip", &[root, &archive]),
        (2, "no regular file", &[root, "file:/dev/null"]),
        (3, "/nowhere", &[root, "file:/nowhere"]),
        (
            2,
            "--control-plane-machine-rootfs-size",
            &[root, &disk, "--control-plane-machine-rootfs-size", "2Gi"],
        ),
        (
            3,
            "memory",
            &["--control-plane-machine-memory-size", "900Gi"],
        ),
        (
            3,
            "lacks sbin/init, usr/bin/kubelet",
            &[
                "--control-plane-machine-rootfs-image",
                "knest.dev/kernel:latest",
            ],
        ),
        (
            3,
            "vmlinux",
            &[
                "--control-plane-machine-kernel-image",
                "knest.dev/node:v1.37.2",
            ],
        ),
    ];
    for (code, named, arguments) in cases {
        let arguments = match arguments {
            ["create"] => arguments.to_vec(),
            flags => [&qemu[..], flags].concat(),
        };
        let output = env.knest(&arguments).output().expect("knest starts");
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {error}");
        assert!(error.contains(named), "{arguments:?}: {error}");
    }
    nothing_left(&env, &snapshot);
}

/// A ready disk's bytes are checked before a machine has them.
#[tokio::test]
async fn a_ready_disk_is_checked_and_taken_over() {
    need!(Cluster);
    let env = Env::new();
    images::link(&env);
    let mut disk = vec![7; 3 << 20];
    disk[1080..1082].copy_from_slice(b"\x53\xef");
    let path = env.home().join("disk");
    fs::write(&path, &disk).expect("a disk");
    let snapshot = Snapshot::take(&[env.root()]);
    let create = |disk: &[u8]| {
        let digest = Digest::of(disk);
        let root = format!("file:{}@{digest}", path.display());
        let flags = [
            "create",
            "--vmm",
            "qemu",
            "--control-plane-machine-rootfs-image",
        ];
        let flags = flags.into_iter().map(str::to_owned);
        flags.chain([root]).collect::<Vec<_>>()
    };
    let output = env.knest(create(b"")).output().expect("knest starts");
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{error}");
    let found = format!("digest is {}", Digest::of(&disk));
    assert!(error.contains(&found), "{error}");

    let arguments = create(&disk);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let knest = hosted::begin(&env, &arguments);
    let said = hosted::interrupt_at(knest, "Making a bootstrap token").await;
    let disks = fs::read_dir(env.cache().join("knest/disks")).expect("disks");
    let mut disks = disks.map(|entry| entry.expect("a disk").path());
    let copy = disks.find(|path| path.extension().is_some_and(|e| e == "raw"));
    let copy = fs::File::open(copy.expect(&said)).expect("a disk");
    assert_eq!(copy.metadata().expect("its size").len(), 8 << 30);
    let mut begin = vec![0; disk.len()];
    copy.file().read_exact_at(&mut begin, 0).expect("its bytes");
    assert!(begin == disk, "the same bytes");
    snapshot.assert_nothing_left(SOON, &[&env.cache(), &env.state().join("knest")]);
}

/// A file of 3 GiB, nearly all of it holes, with these bytes at this place; as a node's root.
fn file(env: &Env, name: &str, at: u64, bytes: &[u8]) -> String {
    let path = env.home().join(name);
    let file = fs::File::create(&path).expect("a file");
    file.set_len(3 << 30).expect("its size");
    file.file().write_all_at(bytes, at).expect("its bytes");
    format!("file:{}", path.display())
}

#[test]
fn deleting_what_is_not_there_is_no_error() {
    let env = Env::new();
    let snapshot = Snapshot::take(&[env.root()]);
    for _ in 0..2 {
        let output = env
            .knest(["delete", "nowhere"])
            .output()
            .expect("knest starts");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    nothing_left(&env, &snapshot);
}

#[test]
fn errors_for_programs_are_json() {
    let env = Env::new();
    let output = env
        .knest(["kubeconfig", "nowhere", "-o", "json"])
        .output()
        .expect("knest starts");
    let error: serde_json::Value = serde_json::from_slice(&output.stderr).expect("JSON");
    assert_eq!(error["error"]["kind"], "Usage", "{error}");
}

/// Directories that hold no cluster and an image store without images do not count.
fn nothing_left(env: &Env, snapshot: &Snapshot) {
    let mut found = snapshot.since();
    found
        .files
        .retain(|path| !path.is_dir() && !path.starts_with(env.data()));
    let state = env.state().join("knest");
    assert!(found.files.is_empty(), "{found:?} in {}", state.display());
    let clusters: Vec<_> = state
        .join("clusters")
        .read_dir()
        .into_iter()
        .flatten()
        .collect();
    assert!(clusters.is_empty(), "{clusters:?}");
    assert!(
        found.processes.is_empty() && found.namespaces.is_empty(),
        "{found:?}"
    );
}

#[test]
fn help_fits_a_terminal_and_names_every_verb() {
    let env = Env::new();
    let output = env.knest(["--help"]).output().expect("knest starts");
    let text = String::from_utf8_lossy(&output.stdout);
    for verb in [
        "create",
        "delete",
        "list",
        "scale",
        "kubeconfig",
        "doctor",
        "setup",
        "image",
        "vm",
    ] {
        assert!(text.contains(&format!("\n  {verb} ")), "{verb}: {text}");
    }
    assert!(
        text.lines().all(|line| line.chars().count() <= 100),
        "{text}"
    );
}

#[test]
fn the_doctor_says_of_everything_what_it_is_and_what_would_help() {
    let env = Env::new();
    let snapshot = Snapshot::take(&[env.root()]);
    let doctor = |path: Option<&str>| {
        let mut command = env.knest(["doctor", "-o", "json"]);
        if let Some(path) = path {
            command
                .env("PATH", path)
                .env_remove("KNEST_CLOUD_HYPERVISOR");
        }
        command.output().expect("knest starts")
    };
    for path in [None, Some("/nowhere")] {
        let output = doctor(path);
        let answer: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let checks = answer["checks"].as_array().expect("lines");
        assert!(checks.len() > 10, "{answer}");
        for check in checks {
            let well = check["grade"] == "ok";
            let remedies = check["remedies"].as_array().map_or(0, Vec::len);
            assert!(
                well || check["grade"] == "warning" || check["grade"] == "failure",
                "{check}"
            );
            assert_eq!(well, remedies == 0, "{check}");
        }
        let usable = answer["recommendedVmm"].is_string();
        let code = output.status.code();
        assert_eq!(code, Some(if usable { 0 } else { 3 }), "{answer}");
        // Without any VMM there is none to use.
        assert!(path.is_none() || !usable, "{answer}");
    }
    let mut command = env.knest(["doctor"]);
    command
        .env("PATH", "/nowhere")
        .env_remove("KNEST_CLOUD_HYPERVISOR");
    let output = command.output().expect("knest starts");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("no cluster can run here"), "{error}");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        text.contains("cloud-hypervisor: knest setup fetches it\n"),
        "{text}"
    );
    nothing_left(&env, &snapshot);
}
