//! Reads a disk without a kernel, through `debugfs`: names, inodes, contents, and attributes' names.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::Path;
use std::process::Command;

use knest_rootfs::Digest;

use super::{Bytes, Found, Kind, Listing, lacks, met};

/// Files larger than this are not compared by content.
const LARGE: u64 = 1 << 30;

/// The listing, attributes without their values. `None` where there is no debugfs.
pub fn listing(disk: &Path) -> Option<Listing> {
    if !met("fsck", lacks("debugfs")) {
        return None;
    }
    let mut paths: BTreeMap<Bytes, u32> = BTreeMap::from([(Bytes::new(), 2)]);
    let mut level = vec![(Bytes::new(), 2)];
    while !level.is_empty() {
        let commands = level.iter().map(|(_, inode)| format!("ls -p <{inode}>"));
        let outputs = run(disk, commands);
        let mut next = Vec::new();
        for ((parent, _), output) in level.iter().zip(outputs) {
            for (name, inode, mode) in output.split(|&byte| byte == b'\n').filter_map(entry) {
                let slash: &[u8] = if parent.is_empty() { b"" } else { b"/" };
                let path = [parent, slash, &name].concat();
                paths.insert(path.clone(), inode);
                if mode & 0o170_000 == 0o040_000 {
                    next.push((path, inode));
                }
            }
        }
        level = next;
    }
    let inodes: BTreeSet<u32> = paths.values().copied().collect();
    let outputs = run(disk, inodes.iter().map(|inode| format!("stat <{inode}>")));
    let stats: BTreeMap<_, _> = inodes
        .into_iter()
        .zip(
            outputs
                .iter()
                .map(|output| String::from_utf8_lossy(output).into_owned()),
        )
        .collect();
    let contents = tempfile::tempdir().unwrap();
    let content = |inode: u32| contents.path().join(inode.to_string());
    let small = stats.iter().filter(|(_, stat)| {
        let kind = after(stat, "Type:");
        (kind == "regular" || kind == "symlink") && (1..=LARGE).contains(&number(stat, "Size:"))
    });
    run(
        disk,
        small.map(|(&inode, _)| format!("dump <{inode}> {}", content(inode).display())),
    );
    let mut names: BTreeMap<u32, BTreeSet<Bytes>> = BTreeMap::new();
    for (path, &inode) in &paths {
        names.entry(inode).or_default().insert(path.clone());
    }
    let listing = paths.iter().map(|(path, inode)| {
        let names = names[inode].clone();
        (path.clone(), found(&stats[inode], &content(*inode), names))
    });
    Some(listing.collect())
}

/// Forgets the values that [`listing`] cannot read.
pub fn without_values(listing: &Listing) -> Listing {
    let mut listing = listing.clone();
    for found in listing.values_mut() {
        for value in found.xattrs.values_mut() {
            value.clear();
        }
    }
    listing
}

/// The output of each command.
fn run(disk: &Path, commands: impl Iterator<Item = String>) -> Vec<Bytes> {
    let mut script = tempfile::NamedTempFile::new().unwrap();
    for command in commands {
        writeln!(script, "{command}").unwrap();
    }
    let output = Command::new("debugfs")
        .arg("-f")
        .args([script.path(), disk])
        .output()
        .unwrap();
    let mut outputs: Vec<Bytes> = Vec::new();
    for line in output.stdout.split_inclusive(|&byte| byte == b'\n') {
        if line.starts_with(b"debugfs: ") {
            outputs.push(Bytes::new());
        } else if let Some(last) = outputs.last_mut() {
            last.extend_from_slice(line);
        }
    }
    outputs
}

/// `/inode/mode/uid/gid/name/size/`
fn entry(line: &[u8]) -> Option<(Bytes, u32, u32)> {
    let fields: Vec<_> = line.split(|&byte| byte == b'/').collect();
    let text = |index: usize| std::str::from_utf8(fields.get(index)?).ok();
    let name = fields.get(5)?.to_vec();
    let inode = text(1)?.parse().ok()?;
    let mode = u32::from_str_radix(text(2)?, 8).ok()?;
    (name != b"." && name != b"..").then_some((name, inode, mode))
}

/// The word behind a label.
fn after<'a>(stat: &'a str, label: &str) -> &'a str {
    let start = stat
        .find(label)
        .unwrap_or_else(|| panic!("no {label} in {stat}"))
        + label.len();
    stat[start..].split_whitespace().next().unwrap()
}

fn number(stat: &str, label: &str) -> u64 {
    after(stat, label).parse().unwrap()
}

/// debugfs prints these signed.
fn owner(text: &str) -> u32 {
    (text.parse::<i64>().unwrap() & 0xffff_ffff)
        .try_into()
        .unwrap()
}

fn found(stat: &str, content: &Path, names: BTreeSet<Bytes>) -> Found {
    let after = |label| after(stat, label);
    let number = |label| number(stat, label);
    let device = || {
        let text = after("Device major/minor number:");
        let (major, minor) = text.split_once(':').unwrap();
        (major.parse().unwrap(), minor.parse().unwrap())
    };
    let size = number("Size:");
    let kind = match after("Type:") {
        "directory" => Kind::Directory,
        "regular" if size > LARGE => Kind::File(size, "large, not hashed".into()),
        "regular" => Kind::File(
            size,
            Digest::of(&std::fs::read(content).unwrap_or_default()).to_string(),
        ),
        "symlink" => Kind::Symlink(match stat.split_once("Fast link dest: \"") {
            Some((_, rest)) => rest.split_once('"').unwrap().0.as_bytes().to_vec(),
            None => std::fs::read(content).unwrap(),
        }),
        "character" => Kind::CharDevice(device().0, device().1),
        "block" => Kind::BlockDevice(device().0, device().1),
        "FIFO" => Kind::Fifo,
        other => panic!("type {other} in {stat}"),
    };
    let links = number("Links:");
    if kind != Kind::Directory {
        assert_eq!(links, names.len() as u64, "{stat}");
    }
    let (seconds, extra) = after(" mtime: 0x").split_once(':').unwrap();
    let hex = |text: &str| i64::from_str_radix(text, 16).unwrap();
    let low = i64::from(u32::from_str_radix(seconds, 16).unwrap().cast_signed());
    let xattrs = stat
        .split_once("Extended attributes:\n")
        .map_or("", |(_, rest)| rest);
    let xattrs = xattrs.lines().take_while(|line| line.starts_with("  "));
    Found {
        mode: u32::from_str_radix(after("Mode:"), 8).unwrap() & 0o7777,
        uid: owner(after("User:")),
        gid: owner(after("Group:")),
        mtime: (
            low + ((hex(extra) & 3) << 32),
            u32::try_from(hex(extra) >> 2).unwrap(),
        ),
        xattrs: xattrs
            .filter_map(|line| line.trim_start().split([' ', '(']).next())
            .map(|name| (name.as_bytes().to_vec(), Bytes::new()))
            .collect(),
        names: if kind == Kind::Directory {
            BTreeSet::new()
        } else {
            names
        },
        kind,
    }
}
