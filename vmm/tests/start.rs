//! Programs that are not, or don't behave like, Cloud Hypervisor.
#![expect(clippy::unwrap_used, reason = "a failure here is the test's failure")]

mod support;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use knest_vmm::error::{Error, Kind};
use knest_vmm::hypervisor::{Hypervisor, Launch, version};
use knest_vmm::process::ExitReason;
use knest_vmm::testing::{Reply, Stub};

/// A shell script in a directory of its own. Written by another process: a file that this one has
/// open for writing while it forks elsewhere can't be executed.
fn script(text: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("program");
    let status = std::process::Command::new("sh")
        .args([
            "-c",
            "printf '%s' \"$2\" > \"$1\" && chmod 755 \"$1\"",
            "sh",
        ])
        .arg(&path)
        .arg(format!("#!/bin/sh\n{text}\n"))
        .status()
        .unwrap();
    assert!(status.success());
    (dir, path)
}

async fn start(binary: &Path, dir: &Path) -> Error {
    let mut launch = Launch::new(binary, dir);
    launch.ready_within = Duration::from_millis(300);
    Hypervisor::spawn(launch).await.unwrap_err()
}

#[tokio::test]
async fn a_missing_program_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let error = start(Path::new("/nowhere/cloud-hypervisor"), dir.path()).await;
    let Error::Spawn { argv, source } = error else {
        panic!("{error:?}")
    };
    assert_eq!(argv[0], "/nowhere/cloud-hypervisor");
    assert_eq!(source.kind(), std::io::ErrorKind::NotFound);
}

#[tokio::test]
async fn a_file_that_is_no_program_is_refused() {
    let (dir, path) = script("exit 0");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let error = start(&path, dir.path()).await;
    assert!(matches!(error, Error::Spawn { .. }), "{error:?}");
    assert_eq!(error.kind(), Kind::Io);
}

#[tokio::test]
async fn a_program_that_ends_at_once_tells_why() {
    let (dir, path) = script("echo 'no such option' >&2; exit 2");
    let error = start(&path, dir.path()).await;
    let Error::Died { death } = error else {
        panic!("{error:?}")
    };
    assert_eq!(death.exit, ExitReason::Code(2));
    assert_eq!(death.stderr_tail, "no such option");
}

#[tokio::test]
async fn a_silent_program_is_killed_in_time() {
    let (dir, path) = script("echo $$ > \"${0%/*}/pid\"; exec sleep 1000");
    let error = start(&path, dir.path()).await;
    let Error::NotReady { pid, .. } = error else {
        panic!("{error:?}")
    };
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
}

#[tokio::test]
async fn a_start_that_is_abandoned_leaves_no_process() {
    let (dir, path) = script("echo $$ > \"${0%/*}/pid\"; exec sleep 1000");
    let launch = Launch::new(&path, dir.path());
    let start = tokio::time::timeout(Duration::from_millis(300), Hypervisor::spawn(launch));
    start.await.unwrap_err();
    let pid = std::fs::read_to_string(dir.path().join("pid")).unwrap();
    let gone = || async {
        let there = Path::new(&format!("/proc/{}", pid.trim())).exists();
        Ok(if there {
            knest_vmm::wait::Seen::NotYet("still there")
        } else {
            knest_vmm::wait::Seen::Done(())
        })
    };
    let (limit, interval) = (Duration::from_secs(5), Duration::from_millis(5));
    knest_vmm::wait::wait_until("its end", limit, interval, gone)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_program_inherits_a_clean_place() {
    // Its descriptors, its session, its environment and its stdin, told to its stderr.
    let (dir, path) = script(
        "ls /proc/$$/fd >&2; cut -d' ' -f6 /proc/$$/stat >&2; echo \"backtrace=$RUST_BACKTRACE\" >&2
         echo \"pid=$$\" >&2; readlink /proc/$$/fd/0 >&2; exit 3",
    );
    let leak = std::fs::File::open("/dev/null").unwrap();
    rustix::io::fcntl_setfd(&leak, rustix::io::FdFlags::empty()).unwrap();
    let Error::Died { death } = start(&path, dir.path()).await else {
        panic!()
    };
    let lines: Vec<&str> = death.stderr_tail.lines().collect();
    let session = lines.iter().position(|line| line.len() > 2).unwrap();
    // From 10 on they are the shell's own.
    let mut inherited = lines[..session].iter().map(|fd| fd.parse::<i32>().unwrap());
    assert!(inherited.all(|fd| !(3..10).contains(&fd)), "{lines:?}");
    assert_eq!(
        format!("pid={}", lines[session]),
        lines[session + 2],
        "{lines:?}"
    );
    assert_eq!(lines[session + 1], "backtrace=");
    assert_eq!(lines[session + 3], "/dev/null");
}

#[tokio::test]
async fn versions_are_asked_with_a_deadline() {
    let limit = Duration::from_millis(300);
    let (_dir, path) = script("echo cloud-hypervisor v51.1; echo more");
    assert_eq!(version(&path, limit).await.unwrap().to_string(), "v51.1");
    let (_dir, path) = script("exec sleep 1000");
    assert!(matches!(
        version(&path, limit).await,
        Err(Error::Deadline { .. })
    ));
    let (_dir, path) = script("echo nonsense; echo broken >&2; exit 1");
    let error = version(&path, limit).await.unwrap_err();
    assert!(error.to_string().contains("broken"), "{error}");
    assert!(matches!(
        version(Path::new("/nowhere"), limit).await,
        Err(Error::Spawn { .. })
    ));
}

/// Not a test of its own: a program that answers like the Cloud Hypervisor of a version.
#[tokio::test]
async fn pretender() {
    let variable = |name: &str| std::env::var(format!("KNEST_TEST_PRETENDER_{name}"));
    let (Ok(socket), Ok(version)) = (variable("SOCKET"), variable("VERSION")) else {
        return;
    };
    let _stub = Stub::listen(Path::new(&socket), move |_| Reply::ping(&version)).unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
}

#[tokio::test]
async fn a_wrong_version_is_refused_and_ended() {
    let this = std::env::current_exe().unwrap();
    for version in ["41.0.0", "v0.0", "fifty-three", ""] {
        let (dir, path) = script(&format!(
            "export KNEST_TEST_PRETENDER_VERSION='{version}' \
             KNEST_TEST_PRETENDER_SOCKET=\"${{2#path=}}\"
             exec '{}' --exact pretender",
            this.display()
        ));
        let mut launch = Launch::new(&path, dir.path());
        launch.ready_within = Duration::from_secs(20);
        let socket = launch.files.api_socket.clone();
        let error = Hypervisor::spawn(launch).await.unwrap_err();
        let told = match version {
            "41.0.0" | "v0.0" => matches!(error, Error::Unsupported { .. }),
            _ => error.to_string().contains("version"),
        };
        assert!(told, "{version}: {error:?}");
        assert!(!socket.exists(), "{version}");
        assert_eq!(
            support::processes_of(dir.path()),
            Vec::<i32>::new(),
            "{version}"
        );
    }
}

#[tokio::test]
async fn too_old_a_version_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let files = knest_vmm::hypervisor::Files::in_dir(dir.path());
    let _stub = Stub::listen(&files.api_socket, |_| Reply::ping("41.0.0")).unwrap();
    let error = Hypervisor::attach_socket(files, Default::default())
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Unsupported { .. }), "{error:?}");
}
