//! `knest image` from outside: to a real registry and back, disks, building, pruning.
#![expect(clippy::expect_used, reason = "a failure here is the test's failure")]

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use fs_err as fs;
use knest_rootfs::source::{Layout, Memory};
use knest_rootfs::{BlobSource, Compression, Image, Platform, Store, Wishes};
use knest_tests::registry::{Guard, USER};
use knest_tests::{Env, Registry, env, need};
use serde_json::Value;

/// A tar file of one file.
fn tar(directory: &Path, name: &str, content: &str) -> Vec<u8> {
    fs::create_dir_all(directory).expect("a directory");
    fs::write(directory.join(name), content).expect("a file");
    let mut tar = Command::new("tar");
    let output = tar
        .args(["-cf", "-", "-C"])
        .arg(directory)
        .arg(name)
        .output();
    output.expect("tar runs").stdout
}

struct Bench {
    env: Env,
}

impl Bench {
    /// A home whose store has the image `test/image:v1`.
    fn new() -> Bench {
        let bench = Bench { env: Env::new() };
        let work = bench.env.root().join("work");
        let layers = [
            (
                tar(&work, "one", &"some text ".repeat(50_000)),
                Compression::Gzip,
            ),
            (tar(&work, "two", "a little more"), Compression::Zstd),
        ];
        let image = Memory::from_layers(&Platform::host(), layers).expect("an image");
        let store = Store::open(bench.store()).expect("a store");
        store
            .load(
                &image,
                "test/image:v1",
                &Platform::host(),
                Wishes::default(),
            )
            .expect("the image is stored");
        bench
    }

    fn store(&self) -> PathBuf {
        self.env.data().join("knest/images")
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut knest = self.env.knest(["image"]);
        knest.args(arguments).output().expect("knest starts")
    }

    fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {error}");
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    /// What it says when it ends with this code.
    fn fails(&self, code: i32, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {error}");
        error
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let text = self.ok(&[&["-o", "json"], arguments].concat());
        serde_json::from_str(&text).expect("JSON")
    }

    fn names(&self) -> Vec<String> {
        let list = self.json(&["list"]);
        let names = list.as_array().into_iter().flatten();
        names
            .filter_map(|image| Some(image["name"].as_str()?.to_owned()))
            .collect()
    }

    fn config(&self, text: &str) {
        let directory = self.env.home().join(".config/knest");
        fs::create_dir_all(&directory).expect("the configuration's directory");
        fs::write(directory.join("registries.yaml"), text).expect("the configuration");
    }
}

/// Another machine's view: an empty home.
fn elsewhere() -> Bench {
    Bench { env: Env::new() }
}

#[test]
fn to_a_registry_and_back() {
    need!(Registry);
    let (here, there) = (Bench::new(), elsewhere());
    let registry = Registry::start(here.env.root(), Guard::Open);
    let name = format!("{}/team/image:v1", registry.address);
    let plain = ["--plain-http", &registry.address];

    let error = here.fails(3, &["push", "test/image:v1", &name]);
    assert!(error.contains("--plain-http"), "{error}");
    let pushed = here.json(&[&["push", "test/image:v1", &name], &plain[..]].concat());
    assert_eq!(
        (&pushed["sent"], &pushed["present"]),
        (&3.into(), &0.into()),
        "{pushed}"
    );
    let again = here.json(&[&["push", "test/image:v1", &name], &plain[..]].concat());
    assert_eq!(
        (&again["sent"], &again["present"]),
        (&0.into(), &3.into()),
        "{again}"
    );

    let pulled = there.json(&[&["pull", &name], &plain[..]].concat());
    assert_eq!(pulled["digest"], pushed["digest"]);
    assert_eq!(there.names(), [name.as_str()]);
    let by_digest = format!(
        "{}/team/image@{}",
        registry.address,
        pushed["digest"].as_str().unwrap_or_default()
    );
    there.config(&format!("plainHttp: ['{}']\n", registry.address));
    there.ok(&["pull", &by_digest]);
    let seen = there.json(&["inspect", "--remote", &name]);
    assert_eq!(seen["digest"], pushed["digest"]);
    assert_eq!(seen["layers"].as_array().map(Vec::len), Some(2));
    blobs_are_equal(&here.store(), "test/image:v1", &there.store(), &name);

    let error = there.fails(2, &["pull", &format!("{}/no/such:v1", registry.address)]);
    assert!(
        error.contains("/no/such:v1") && error.contains("404"),
        "{error}"
    );
    there.ok(&["remove", &name, &by_digest]);
    let left = fs::read_dir(there.store().join("blobs/sha256"))
        .expect("blobs")
        .count();
    assert_eq!(left, 0);
    skopeo_agrees(&here, &there, &registry, &name);
}

fn blobs_are_equal(one: &Path, name: &str, two: &Path, other: &str) {
    let open = |store: &Path, name| Layout::open(store, Some(name)).expect("the image");
    let (one, two) = (open(one, name), open(two, other));
    let image = Image::resolve(&one, &Platform::host()).expect("its documents");
    for blob in image.blobs() {
        let read = |source: &dyn BlobSource| {
            let mut bytes = Vec::new();
            let mut reader = source.open(blob).expect("a blob");
            std::io::Read::read_to_end(&mut reader, &mut bytes).expect("its bytes");
            bytes
        };
        assert!(read(&one) == read(&two), "{}", blob.digest);
    }
}

/// Another client reads what knest pushed, and knest what it pushed.
fn skopeo_agrees(here: &Bench, there: &Bench, registry: &Registry, name: &str) {
    let Some(skopeo) = env::program("skopeo") else {
        knest_tests::need::partly("to_a_registry_and_back", "skopeo is not installed");
        return;
    };
    let copy = format!("{}/team/copy:v2", registry.address);
    let mut command = here.env.command(skopeo);
    command.args([
        "copy",
        "--quiet",
        "--src-tls-verify=false",
        "--dest-tls-verify=false",
    ]);
    command.args([format!("docker://{name}"), format!("docker://{copy}")]);
    let output = command.output().expect("skopeo starts");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    there.ok(&["pull", &copy]);
    blobs_are_equal(&here.store(), "test/image:v1", &there.store(), &copy);
}

#[test]
fn who_the_user_is() {
    need!(Registry);
    let bench = Bench::new();
    let registry = Registry::start(bench.env.root(), Guard::Password);
    let name = format!("{}/private:v1", registry.address);
    bench.config(&format!("plainHttp: ['{}']\n", registry.address));
    let error = bench.fails(2, &["push", "test/image:v1", &name]);
    assert!(
        error.contains("there are none for it") && error.contains("login"),
        "{error}"
    );

    // A helper, which both files may name.
    let programs = bench.env.root().join("bin");
    fs::create_dir_all(&programs).expect("a directory of programs");
    let helper = programs.join("docker-credential-test");
    let (user, password) = USER;
    let script = format!(
        "#!/bin/sh\nread -r server\n[ \"$1 $server\" = \"get {}\" ] || {{ echo credentials not found; exit 1; }}\n\
         echo '{{\"ServerURL\":\"x\",\"Username\":\"{user}\",\"Secret\":\"{password}\"}}'\n",
        registry.address
    );
    fs::write(&helper, script).expect("a helper");
    fs::set_permissions(&helper, PermissionsExt::from_mode(0o755)).expect("it is executable");
    let docker = bench.env.home().join(".docker");
    fs::create_dir_all(&docker).expect("Docker's directory");
    let named = format!(r#"{{"credHelpers": {{"{}": "test"}}}}"#, registry.address);
    fs::write(docker.join("config.json"), named).expect("Docker's file");
    let path = std::env::var("PATH").unwrap_or_default();
    let env = bench
        .env
        .with_variable("PATH", format!("{}:{path}", programs.display()));
    let bench = Bench { env };
    bench.ok(&["push", "test/image:v1", &name]);
    bench.ok(&["pull", &name]);

    let wrong = r#"{"auths": {"HOST": {"username": "knest", "password": "wrong"}}}"#;
    let wrong = wrong.replace("HOST", &registry.address);
    fs::write(docker.join("config.json"), wrong).expect("Docker's file");
    let error = bench.fails(2, &["pull", &name]);
    assert!(
        error.contains("does not accept") && !error.contains("wrong"),
        "{error}"
    );
}

#[test]
fn whom_the_user_trusts() {
    need!(Registry);
    let bench = Bench::new();
    let registry = Registry::start(bench.env.root(), Guard::Tls);
    let name = format!("{}/image:v1", registry.address);
    let error = bench.fails(3, &["push", "test/image:v1", &name]);
    assert!(error.contains("certificate"), "{error}");
    let authority = registry.authority().display().to_string();
    bench.ok(&["push", "--registry-ca", &authority, "test/image:v1", &name]);
    bench.config(&format!("authorities: ['{authority}']\n"));
    bench.ok(&["pull", &name]);
    // A mirror for what the registry's own name can't be asked for here.
    let mirror = format!("no.such.invalid={}", registry.address);
    bench.ok(&["pull", "--mirror", &mirror, "no.such.invalid/image:v1"]);
}

#[test]
fn disks_of_images() {
    need!(Registry, Fsck);
    let (here, there) = (Bench::new(), elsewhere());
    let registry = Registry::start(here.env.root(), Guard::Open);
    let name = format!("{}/image:v1", registry.address);
    here.config(&format!("plainHttp: ['{}']\n", registry.address));
    there.config(&format!("plainHttp: ['{}']\n", registry.address));
    here.ok(&["push", "test/image:v1", &name]);
    let disk = |bench: &Bench, file: &str| bench.env.home().join(file).display().to_string();
    // Made while it is pulled, and kept.
    let (one, two) = (disk(&there, "one.raw"), disk(&here, "two.raw"));
    there.ok(&["export", &name, "--disk", &one, "--size", "64Mi"]);
    assert_eq!(there.names(), [name]);
    here.ok(&["export", "test/image:v1", "--disk", &two, "--size", "64Mi"]);
    let read = |path: &str| fs::read(path).expect("a disk");
    assert!(read(&one) == read(&two), "one image, one disk");
    let fsck = Command::new(env::program("e2fsck").expect("e2fsck"))
        .args(["-fn", &one])
        .output();
    assert!(fsck.expect("e2fsck runs").status.success());
    let writable = fs::metadata(&one).expect("the disk").permissions().mode() & 0o200;
    assert_ne!(writable, 0);

    let error = here.fails(
        2,
        &["export", "test/image:v1", "--disk", &two, "--size", "1Mi"],
    );
    assert!(error.contains("--size"), "{error}");
    assert!(read(&one) == read(&two), "what was there stays");
    let Some(qemu_img) = env::program("qemu-img") else {
        return knest_tests::need::partly("disks_of_images", "qemu-img is not installed");
    };
    let (qcow2, back) = (disk(&here, "three.qcow2"), disk(&here, "back.raw"));
    here.ok(&[
        "export",
        "test/image:v1",
        "--disk",
        &qcow2,
        "--size",
        "64Mi",
        "--format",
        "qcow2",
    ]);
    for arguments in [
        &["check", &qcow2][..],
        &["convert", "-O", "raw", &qcow2, &back],
    ] {
        let output = Command::new(&qemu_img)
            .args(arguments)
            .output()
            .expect("qemu-img runs");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    assert!(read(&back) == read(&two), "the same disk in another format");
}

#[test]
fn roots_that_are_no_images_and_images_that_carry_roots() {
    need!(Fsck);
    let bench = elsewhere();
    let root = bench.env.home().join("carrier/rootfs");
    fs::create_dir_all(root.join("sbin")).expect("directories");
    fs::write(root.join("sbin/init"), "what boots").expect("a file");
    let root = root.display().to_string();
    // As a Dockerfile does that copies everything to /rootfs of a base with a program of its own.
    let mut carrier = Command::new("tar");
    carrier
        .args(["-cf", "-", "-C"])
        .arg(bench.env.home().join("carrier"))
        .arg(".");
    let tar = carrier.output().expect("tar runs").stdout;
    let layers = [
        (tar, Compression::Gzip),
        (
            self::tar(&bench.env.home().join("base"), "entrypoint", "copies"),
            Compression::None,
        ),
    ];
    let image = Memory::from_layers(&Platform::host(), layers).expect("an image");
    let store = Store::open(bench.store()).expect("a store");
    store
        .load(&image, "carrier:v1", &Platform::host(), Wishes::default())
        .expect("the image is stored");
    for (name, file) in [
        (&*format!("dir:{root}"), "one.raw"),
        ("carrier:v1", "two.raw"),
    ] {
        let disk = bench.env.home().join(file).display().to_string();
        bench.ok(&["export", name, "--disk", &disk, "--size", "64Mi"]);
        let program = |name: &str| Command::new(env::program(name).expect("e2fsprogs"));
        let fsck = program("e2fsck").args(["-fn", &disk]).output();
        assert!(fsck.expect("e2fsck runs").status.success(), "{name}");
        let shown = program("debugfs")
            .args(["-R", "cat /sbin/init", &disk])
            .output()
            .expect("debugfs runs");
        assert_eq!(shown.stdout, b"what boots", "{name}");
        let listed = program("debugfs")
            .args(["-R", "ls -p /", &disk])
            .output()
            .expect("debugfs runs");
        let listed = String::from_utf8_lossy(&listed.stdout);
        assert!(
            !listed.contains("entrypoint") && !listed.contains("rootfs"),
            "{name}: {listed}"
        );
    }
}

/// Wherever an image lies, each verb that reads one takes it from there.
#[test]
fn one_image_in_every_form() {
    need!(Registry);
    let (here, there) = (Bench::new(), elsewhere());
    let registry = Registry::start(here.env.root(), Guard::Open);
    let plain = format!("plainHttp: ['{}']\n", registry.address);
    here.config(&plain);
    there.config(&plain);
    let layout = here.store();
    let archive = here.env.root().join("image.tar");
    let packed = Command::new("tar")
        .arg("-cf")
        .arg(&archive)
        .arg("-C")
        .arg(&layout)
        .arg(".")
        .status();
    assert!(packed.expect("tar runs").success());
    let root = here.env.root().join("root");
    fs::create_dir_all(root.join("sbin")).expect("directories");
    fs::write(root.join("sbin/init"), "what boots").expect("a file");
    let forms = [
        format!("oci:{}:test/image:v1", layout.display()),
        format!("oci-archive:{}", archive.display()),
        archive.display().to_string(),
        format!("dir:{}", root.display()),
    ];
    for (number, form) in forms.iter().enumerate() {
        let name = format!("{}/form:v{number}", registry.address);
        let seen = there.json(&["inspect", form]);
        let pushed = there.json(&["push", form, &name]);
        assert_eq!(pushed["digest"], seen["digest"], "{form}");
        there.ok(&["load", form, "--name", "loaded:v1"]);
        let loaded = there.json(&["inspect", "loaded:v1"]);
        assert_eq!(loaded["digest"], seen["digest"], "{form}");
        let disks = [form.as_str(), "loaded:v1"].map(|image| {
            let disk = there.env.root().join("disk").display().to_string();
            there.ok(&["export", image, "--disk", &disk, "--size", "64Mi"]);
            fs::read(disk).expect("a disk")
        });
        // A directory's disk is made without an image, and has an identity of its own.
        assert!(disks[0] == disks[1] || form.starts_with("dir:"), "{form}");
    }
    // Only what carries a name goes by it.
    there.ok(&["pull", &forms[0]]);
    assert_eq!(there.names(), ["loaded:v1", "test/image:v1"]);
    let error = there.fails(2, &["push", &forms[0]]);
    assert!(error.contains("what the image is to be called"), "{error}");
}

/// What `create` finds wrong with the images afterwards is not this test's business.
#[test]
fn what_nodes_are_made_of_is_pulled() {
    need!(Registry);
    let (here, there) = (Bench::new(), elsewhere());
    let registry = Registry::start(here.env.root(), Guard::Open);
    let name = format!("{}/image:v1", registry.address);
    let plain = format!("plainHttp: ['{}']\n", registry.address);
    here.config(&plain);
    there.config(&plain);
    here.ok(&["push", "test/image:v1", &name]);
    let arguments = [
        "create",
        "demo",
        "--vmm",
        "qemu",
        "--image",
        &name,
        "--control-plane-machine-kernel-image",
        &name,
    ];
    let output = there.env.knest(arguments).output().expect("knest starts");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{error}");
    assert!(error.contains(&format!("Pulling {name}")), "{error}");
    assert_eq!(there.names(), [name]);
}

#[test]
fn what_nothing_needs_is_deleted() {
    let bench = Bench::new();
    let (blobs, partial) = (
        bench.store().join("blobs/sha256"),
        bench.store().join("partial"),
    );
    let hex = "0".repeat(64);
    for place in [&blobs, &partial] {
        fs::create_dir_all(place).expect("a directory");
        fs::write(place.join(&hex), "left over").expect("a file");
    }
    let before = fs::read_dir(&blobs).expect("blobs").count();
    let pruned = bench.json(&["prune"]);
    assert_eq!(
        (&pruned["blobs"], &pruned["bytes"]),
        (&1.into(), &9.into()),
        "{pruned}"
    );
    assert!(partial.join(&hex).exists(), "somebody may go on with it");
    let old = std::time::SystemTime::now() - std::time::Duration::from_secs(100);
    let file = fs::OpenOptions::new().write(true).open(partial.join(&hex));
    file.expect("it opens")
        .file()
        .set_modified(old)
        .expect("its time");
    bench.ok(&["prune", "--older-than", "90s"]);
    assert!(!partial.join(&hex).exists());
    assert_eq!(fs::read_dir(&blobs).expect("blobs").count(), before - 1);
    assert_eq!(bench.names(), ["test/image:v1"], "what has a name stays");
}

#[test]
fn the_users_own_engine_builds() {
    let bench = elsewhere();
    let context = bench.env.home().join("context");
    fs::create_dir_all(&context).expect("the context");
    fs::write(
        context.join("Dockerfile"),
        "FROM scratch\nARG WHAT\nCOPY file /\nLABEL what=$WHAT\n",
    )
    .expect("a Dockerfile");
    fs::write(context.join("file"), "its content").expect("a file");
    let context = context.display().to_string();
    let arguments = ["build", "-t", "mine:v1", "--build-arg", "WHAT=it", &context];
    let output = bench.run(&arguments);
    let error = String::from_utf8_lossy(&output.stderr);
    if error.contains("no container engine answers") {
        assert_eq!(output.status.code(), Some(3), "{error}");
        for engine in ["docker: ", "podman: ", "buildah: "] {
            assert!(error.contains(engine), "{error}");
        }
        knest_tests::need::skip("the_users_own_engine_builds", "no container engine answers");
        return;
    }
    assert!(output.status.success(), "{error}");
    assert!(error.contains("COPY file"), "the log is shown: {error}");
    assert_eq!(bench.names(), ["mine:v1"]);
    assert_eq!(bench.json(&["inspect", "mine:v1"])["labels"]["what"], "it");

    fs::write(
        Path::new(&context).join("Dockerfile"),
        "FROM scratch\nCOPY nothing-there /\n",
    )
    .expect("a Dockerfile");
    let error = bench.fails(3, &arguments);
    assert!(
        error.contains("  | ") && error.contains("nothing-there"),
        "{error}"
    );
    assert_eq!(bench.names(), ["mine:v1"]);
}

#[test]
fn what_cannot_be_met_as_put_is_refused() {
    let bench = elsewhere();
    let cases: [(&str, &[&str]); 11] = [
        ("is no image", &["pull", "Not An Image"]),
        ("MIRROR", &["pull", "--mirror", "x", "a"]),
        ("no image named", &["remove", "nothing"]),
        ("no image named", &["push", "nothing"]),
        ("--remote", &["inspect", "nothing"]),
        ("no directory", &["build", "-t", "a", "/nonexistent"]),
        ("neither Dockerfile", &["build", "-t", "a", "/"]),
        ("not a duration", &["prune", "--older-than", "long"]),
        ("cannot open", &["load", "--name", "a", "/nonexistent"]),
        ("cannot open", &["load", "--name", "a", "dir:/nonexistent"]),
        ("--name", &["load", "dir:/"]),
    ];
    for (words, arguments) in cases {
        let output = bench.run(arguments);
        let error = String::from_utf8_lossy(&output.stderr);
        let known = matches!(output.status.code(), Some(2 | 3));
        let named = error.to_lowercase().contains(&words.to_lowercase());
        assert!(known && named, "{arguments:?}: {}: {error}", output.status);
    }
    bench.config("plainhttp: [a]\n");
    let error = bench.fails(2, &["pull", "a.invalid/b"]);
    assert!(
        error.contains("registries.yaml") && error.contains("plainhttp"),
        "{error}"
    );
}
