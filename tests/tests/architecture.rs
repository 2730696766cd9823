//! The invariants of `docs/architecture.md` that a search can hold: who may name what.

#![expect(clippy::unwrap_used, reason = "a failure here is the test's failure")]

use std::fs;
use std::path::{Path, PathBuf};

/// Every line of the Rust files below a directory of the repository, without comments and without
/// what follows a file's `mod tests`, as `path:number: text`.
fn code(below: &str) -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut files = Vec::new();
    walk(&root.join(below), &mut files);
    assert!(!files.is_empty(), "no Rust file below {below}");
    let mut lines = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let name = file.strip_prefix(&root).unwrap().display().to_string();
        for (number, line) in text.lines().enumerate() {
            if line.trim_start().starts_with("mod tests") {
                break;
            }
            let line = line.split("//").next().unwrap_or_default();
            lines.push(format!("{name}:{}: {line}", number + 1));
        }
    }
    lines
}

fn walk(path: &Path, into: &mut Vec<PathBuf>) {
    if path.extension().is_some_and(|extension| extension == "rs") {
        into.push(path.to_owned());
    }
    let Ok(entries) = fs::read_dir(path) else {
        return;
    };
    for entry in entries {
        walk(&entry.unwrap().path(), into);
    }
}

/// Fails with every line below `place` that has one of `words` in it.
fn forbid(place: &str, words: &[&str], because: &str) {
    let found: Vec<String> = code(place)
        .into_iter()
        .filter(|line| {
            let text = line
                .splitn(3, ':')
                .nth(2)
                .unwrap_or_default()
                .to_lowercase();
            words.iter().any(|word| text.contains(word))
        })
        .collect();
    assert!(found.is_empty(), "{because}:\n{}", found.join("\n"));
}

#[test]
fn vmm_never_names_kubernetes() {
    let words = [
        "kubernetes",
        "kubelet",
        "kubeadm",
        "kubeconfig",
        "knest_rootfs",
    ];
    forbid("vmm/src", &words, "the vmm crate knows machines only");
}

#[test]
fn rootfs_never_names_machines_or_kubernetes() {
    let words = [
        "kubernetes",
        "kubelet",
        "kubeadm",
        "hypervisor",
        "qemu",
        "knest_vmm",
    ];
    forbid(
        "rootfs/src",
        &words,
        "the rootfs crate knows images and disks only",
    );
}

#[test]
fn steps_never_see_a_vmm() {
    let words = ["knest_vmm", "provider::local", "hypervisor", "qemu"];
    forbid(
        "cli/src/step",
        &words,
        "steps see the provider and the guest's API only",
    );
}

#[test]
fn the_inner_ring_of_the_binary_does_no_steps() {
    let words = ["crate::step", "crate::command", "crate::provider"];
    forbid(
        "cli/src/cluster",
        &words,
        "what a cluster is does not depend on how it is made",
    );
}

#[test]
fn libraries_neither_print_nor_exit_nor_read_the_environment() {
    // A child may get all of the environment, unread: `env::vars_os`.
    let reads = ["env::var(", "env::var_os(", "env::vars("];
    let rest = ["println!", "print!(", "process::exit(", "dbg!("];
    let words = [&reads[..], &rest].concat();
    for place in ["vmm/src", "rootfs/src"] {
        forbid(place, &words, "only the binary does that");
    }
}

#[test]
fn nothing_is_left_undone_in_the_sources() {
    for place in ["vmm/src", "rootfs/src", "cli/src"] {
        forbid(place, &["todo!(", "unimplemented!("], "finished work only");
    }
}
