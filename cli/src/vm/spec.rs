//! What a VM should be: the arguments that say so, and `vm.json`, which they come to. Pure, except that
//! a disk is looked at for its format.

use crate::cluster::name::VmName;
use crate::failure::{Context, Failure, Result};
use crate::provider::local::DiskFormat;
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use std::io::Read;
use std::net::Ipv4Addr;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use time::OffsetDateTime;

/// The layout's version.
pub(crate) const VERSION: u32 = 1;

/// Cloud Hypervisor takes at most this many bytes of a tag.
const TAG_MAX: usize = 36;

/// `vm.json`. Relative paths are of files in the VM's own directory, which all its processes work in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct VmSpec {
    pub(crate) version: u32,
    pub(crate) name: VmName,
    #[serde(with = "time::serde::timestamp")]
    pub(crate) created: OffsetDateTime,
    /// The image or disk as its user named it.
    pub(crate) source: Option<String>,
    pub(crate) kernel: PathBuf,
    pub(crate) initramfs: Option<PathBuf>,
    pub(crate) cmdline: String,
    pub(crate) cpus: u32,
    /// What a resize may come to; `cpus` where unset.
    #[serde(default)]
    pub(crate) max_cpus: Option<u32>,
    /// Bytes.
    pub(crate) memory: u64,
    /// What a resize may come to, in bytes; `memory` where unset.
    #[serde(default)]
    pub(crate) max_memory: Option<u64>,
    /// In the order in which the guest finds them.
    pub(crate) disks: Vec<DiskSpec>,
    pub(crate) net: Option<NetSpec>,
    pub(crate) shares: Vec<ShareSpec>,
    /// Bytes of serial log that are kept.
    pub(crate) log_size: u64,
    /// It goes with everything when it ends.
    pub(crate) remove: bool,
}

/// A disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DiskSpec {
    pub(crate) path: PathBuf,
    pub(crate) format: DiskFormat,
    pub(crate) read_only: bool,
    /// The header may name a file below this one. Only in what knest made: anybody else's header could
    /// name any file of this user's.
    pub(crate) backing: bool,
}

/// Its network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub(crate) enum NetSpec {
    /// A TAP that is there and whose network is its owner's affair.
    Tap { tap: String, mac: String },
    /// A namespace of its own with a way out.
    User {
        range: Ipv4Net,
        address: Ipv4Addr,
        mac: String,
    },
}

/// A shared directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ShareSpec {
    pub(crate) directory: PathBuf,
    pub(crate) tag: String,
    pub(crate) read_only: bool,
}

/// `FILE[,ro]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DiskArg {
    path: PathBuf,
    read_only: bool,
}

impl FromStr for DiskArg {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (path, read_only) = match text.strip_suffix(",ro") {
            Some(path) => (path, true),
            None => (text, false),
        };
        match path {
            "" => Err("a disk is FILE or FILE,ro".into()),
            path => Ok(Self {
                path: path.into(),
                read_only,
            }),
        }
    }
}

impl DiskArg {
    pub(crate) fn writable(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            read_only: false,
        }
    }

    /// The disk, if it is one.
    pub(crate) fn resolve(&self) -> Result<DiskSpec> {
        let name = self.path.display();
        let path = absolute("the disk", &self.path)?;
        let meta = fs_err::metadata(&path).map_err(|e| Failure::usage("the disk").because(e))?;
        if !meta.is_file() && !meta.file_type().is_block_device() {
            return Err(Failure::usage(format!(
                "the disk {name} is neither a file nor a block device"
            )));
        }
        let mut options = fs_err::OpenOptions::new();
        options.read(true).write(!self.read_only);
        let mut file = options.open(&path).map_err(|error| {
            let failure = Failure::usage("the disk").because(error);
            match self.read_only {
                true => failure,
                false => failure.hint(format!("to use it without writing: {name},ro")),
            }
        })?;
        let mut magic = [0; 4];
        // A file shorter than that is raw too.
        let format = match file.read_exact(&mut magic) {
            Ok(()) if magic == *b"QFI\xfb" => DiskFormat::Qcow2,
            _ => DiskFormat::Raw,
        };
        Ok(DiskSpec {
            path,
            format,
            read_only: self.read_only,
            backing: false,
        })
    }
}

/// `user` or `tap=NAME[,mac=MAC]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NetArg {
    User,
    Tap { tap: String, mac: Option<String> },
}

impl FromStr for NetArg {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "a network is `user`, tap=NAME or tap=NAME,mac=02:…".to_owned();
        if text == "user" {
            return Ok(Self::User);
        }
        let rest = text.strip_prefix("tap=").ok_or_else(wrong)?;
        let (tap, mac) = match rest.split_once(",mac=") {
            Some((tap, mac)) => (tap, Some(mac)),
            None => (rest, None),
        };
        let legal = |c: u8| c.is_ascii_graphic() && !b"/,".contains(&c);
        if tap.is_empty() || tap.len() > 15 || !tap.bytes().all(legal) {
            return Err(format!("{tap:?} is not an interface's name"));
        }
        if mac.is_some_and(|mac| !is_unicast_mac(mac)) {
            return Err(format!(
                "{rest:?}: that is no MAC address of a single machine"
            ));
        }
        Ok(Self::Tap {
            tap: tap.into(),
            mac: mac.map(str::to_owned),
        })
    }
}

fn is_unicast_mac(text: &str) -> bool {
    let mut octets = vec![];
    for part in text.split(':') {
        match (part.len(), u8::from_str_radix(part, 16)) {
            (2, Ok(octet)) => octets.push(octet),
            _ => return false,
        }
    }
    octets.len() == 6 && octets[0] & 1 == 0 && octets.iter().any(|o| *o != 0)
}

/// `HOST:TAG[:ro]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ShareArg {
    directory: PathBuf,
    tag: String,
    read_only: bool,
}

impl FromStr for ShareArg {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (rest, read_only) = match text.strip_suffix(":ro") {
            // `DIR:ro` shares it under that tag.
            Some(rest) if rest.contains(':') => (rest, true),
            _ => (text, false),
        };
        let wrong = || "a share is DIRECTORY:TAG or DIRECTORY:TAG:ro".to_owned();
        let (directory, tag) = rest.rsplit_once(':').ok_or_else(wrong)?;
        if directory.is_empty() || tag.is_empty() {
            return Err(wrong());
        }
        if tag.len() > TAG_MAX || !tag.bytes().all(|c| c.is_ascii_graphic()) {
            return Err(format!(
                "{tag:?} is no tag: at most {TAG_MAX} letters, digits and signs"
            ));
        }
        Ok(Self {
            directory: directory.into(),
            tag: tag.into(),
            read_only,
        })
    }
}

impl ShareArg {
    /// The share, if its directory is one.
    pub(crate) fn resolve(&self) -> Result<ShareSpec> {
        let directory = absolute("the shared directory", &self.directory)?;
        if !directory.is_dir() {
            return Err(Failure::usage(format!(
                "{} is not a directory, so it can't be shared",
                self.directory.display()
            )));
        }
        Ok(ShareSpec {
            directory,
            tag: self.tag.clone(),
            read_only: self.read_only,
        })
    }
}

/// A file of the user's as the VM's processes, which work elsewhere, find it.
pub(crate) fn absolute(what: &str, path: &Path) -> Result<PathBuf> {
    let found = fs_err::canonicalize(path);
    found.map_err(|error| Failure::usage(what.to_owned()).because(error))
}

/// A file that is to be read.
pub(crate) fn readable(what: &str, path: &Path) -> Result<PathBuf> {
    let found = absolute(what, path)?;
    let file =
        fs_err::File::open(&found).map_err(|e| Failure::usage(what.to_owned()).because(e))?;
    match file.metadata().host(what)?.is_file() {
        true => Ok(found),
        false => Err(Failure::usage(format!(
            "{what}: {} is no file",
            path.display()
        ))),
    }
}

/// A VM to try things with.
#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    pub(crate) fn spec() -> VmSpec {
        VmSpec {
            version: VERSION,
            name: "demo".parse().unwrap(),
            created: OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap(),
            source: Some("knest.dev/node:v1.37.2".into()),
            kernel: "/c/kernels/abc/vmlinux".into(),
            initramfs: None,
            cmdline: "console=hvc0".into(),
            cpus: 2,
            max_cpus: None,
            memory: 1 << 30,
            max_memory: None,
            disks: vec![
                DiskSpec {
                    path: "disk.qcow2".into(),
                    format: DiskFormat::Qcow2,
                    read_only: false,
                    backing: true,
                },
                DiskSpec {
                    path: "/srv/data.img".into(),
                    format: DiskFormat::Raw,
                    read_only: true,
                    backing: false,
                },
            ],
            net: Some(NetSpec::User {
                range: "10.64.0.0/24".parse().unwrap(),
                address: Ipv4Addr::new(10, 64, 0, 10),
                mac: "02:6b:0a:40:00:0a".into(),
            }),
            shares: vec![ShareSpec {
                directory: "/srv".into(),
                tag: "srv".into(),
                read_only: false,
            }],
            log_size: 16 << 20,
            remove: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments() {
        let share = |text: &str| text.parse::<ShareArg>();
        let one = share("/a:b:c").unwrap();
        assert_eq!(
            (one.directory.as_path(), one.tag.as_str()),
            (Path::new("/a:b"), "c")
        );
        assert!(share("/a:b:ro").unwrap().read_only);
        assert_eq!(share("/a:ro").unwrap().tag, "ro");
        for bad in [
            "",
            "/a",
            ":tag",
            "/a:",
            "/a:b c",
            &format!("/a:{}", "x".repeat(37)),
        ] {
            assert!(share(bad).is_err(), "{bad}");
        }
        let net = |text: &str| text.parse::<NetArg>();
        assert_eq!(net("user"), Ok(NetArg::User));
        let mac = Some("02:00:00:00:00:01".to_owned());
        let tap = "tap0".to_owned();
        assert_eq!(
            net("tap=tap0,mac=02:00:00:00:00:01"),
            Ok(NetArg::Tap { tap, mac })
        );
        for bad in [
            "",
            "tap",
            "tap=",
            "tap=a/b",
            "tap=sixteen-letters-",
            "tap=a,mac=01:00:00:00:00:01",
            "tap=a,mac=2:0:0:0:0:1",
            "tap=a,mac=",
            "bridge=br0",
        ] {
            assert!(net(bad).is_err(), "{bad}");
        }
        let disk: DiskArg = "a,b,ro".parse().unwrap();
        assert!(disk.read_only && disk.path == Path::new("a,b"));
        assert!(",ro".parse::<DiskArg>().is_err());
    }

    #[test]
    fn a_disk_is_what_its_first_bytes_say() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("d");
        for (bytes, format) in [
            (&b"QFI\xfb...."[..], DiskFormat::Qcow2),
            (b"QFI", DiskFormat::Raw),
            (b"", DiskFormat::Raw),
        ] {
            fs_err::write(&path, bytes).unwrap();
            let disk = DiskArg::writable(&path).resolve().unwrap();
            assert_eq!((disk.format, disk.backing), (format, false));
        }
        for bad in [
            root.path(),
            Path::new("/nonexistent"),
            Path::new("/dev/null"),
        ] {
            assert!(
                DiskArg::writable(bad).resolve().is_err(),
                "{}",
                bad.display()
            );
        }
    }

    #[test]
    fn a_description_survives_its_file() {
        let text = serde_json::to_string(&testing::spec()).unwrap();
        assert_eq!(
            serde_json::from_str::<VmSpec>(&text).unwrap(),
            testing::spec()
        );
    }
}
