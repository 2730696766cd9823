//! The NoCloud seed: a small FAT volume labelled `CIDATA`, from which a guest's first boot takes
//! its identity. What the files say is not known here.
//!
//! ```text
//! /user-data       a script or cloud-config
//! /meta-data       instance-id, local-hostname
//! /network-config  optional
//! ```
//! Equal input gives equal bytes: the times are fixed and the volume ID comes from the content.

use std::io::{self, Cursor, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use fatfs::{
    Date, DateTime, FileSystem, FormatVolumeOptions, FsOptions, Time, TimeProvider, format_volume,
};

use crate::digest::Digest;
use crate::error::{Error, Result};

/// The label that cloud-init and our images look for.
pub const LABEL: &str = "CIDATA";
const PADDED_LABEL: [u8; 11] = *b"CIDATA     ";
/// Smallest volume: FAT12, and sizes are rounded up to it.
const MEBIBYTE: usize = 1 << 20;
/// Largest content in bytes; a seed is a few kilobytes.
const LIMIT: usize = 64 * MEBIBYTE;

/// What goes into the volume.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Seed {
    /// Run or applied once per instance.
    pub user_data: Vec<u8>,
    /// Identity.
    pub meta_data: Vec<u8>,
    /// Addresses; without it the guest asks DHCP.
    pub network_config: Option<Vec<u8>>,
}

/// User-data holds keys and tokens, so only sizes are shown.
impl std::fmt::Debug for Seed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Seed")
            .field("user_data", &self.user_data.len())
            .field("meta_data", &self.meta_data.len())
            .field(
                "network_config",
                &self.network_config.as_ref().map(Vec::len),
            )
            .finish()
    }
}

impl Seed {
    fn files(&self) -> impl Iterator<Item = (&'static str, &[u8])> {
        let network = self
            .network_config
            .as_deref()
            .map(|bytes| ("network-config", bytes));
        [
            ("user-data", &*self.user_data),
            ("meta-data", &*self.meta_data),
        ]
        .into_iter()
        .chain(network)
    }

    /// The volume's bytes, in whole MiB.
    ///
    /// # Errors
    /// [`Error::TooLong`] beyond 64 MiB of content.
    pub fn render(&self) -> Result<Vec<u8>> {
        let content: usize = self.files().map(|(_, bytes)| bytes.len()).sum();
        if content > LIMIT {
            let (size, limit) = (content as u64, LIMIT as u64);
            return Err(Error::TooLong {
                what: "seed".into(),
                size,
                limit,
            });
        }
        // Beyond the content: two tables, the root directory, and a cluster's slack per file.
        let size = (content + content / 16 + MEBIBYTE / 2).next_multiple_of(MEBIBYTE);
        self.format(size)
            .map_err(|error| Error::malformed("seed", error))
    }

    fn format(&self, size: usize) -> io::Result<Vec<u8>> {
        let mut volume = Cursor::new(vec![0; size]);
        let options = FormatVolumeOptions::new()
            .volume_id(self.volume_id())
            .volume_label(PADDED_LABEL);
        format_volume(&mut volume, options)?;
        let options = FsOptions::new()
            .time_provider(&FixedTime)
            .update_accessed_date(false);
        let filesystem = FileSystem::new(&mut volume, options)?;
        for (name, bytes) in self.files() {
            filesystem.root_dir().create_file(name)?.write_all(bytes)?;
        }
        filesystem.unmount()?;
        Ok(volume.into_inner())
    }

    fn volume_id(&self) -> u32 {
        let mut bytes = Vec::new();
        for (name, content) in self.files() {
            bytes.extend_from_slice(name.as_bytes());
            bytes.extend_from_slice(Digest::of(content).as_bytes());
        }
        let [a, b, c, d, ..] = *Digest::of(&bytes).as_bytes();
        u32::from_le_bytes([a, b, c, d])
    }

    /// Writes the volume as a file of mode 0600, replacing one that is there.
    ///
    /// # Errors
    /// [`Error::File`], [`Error::TooLong`].
    pub fn write(&self, path: &Path) -> Result<()> {
        let bytes = self.render()?;
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let write = || -> io::Result<()> {
            let mut file = tempfile::Builder::new()
                .permissions(std::fs::Permissions::from_mode(0o600))
                .tempfile_in(directory)?;
            file.write_all(&bytes)?;
            file.as_file().sync_all()?;
            file.persist(path)?;
            Ok(())
        };
        write().map_err(Error::file("write", path))
    }
}

/// 1 January 1980, the first moment that FAT knows.
#[derive(Debug)]
struct FixedTime;

impl TimeProvider for FixedTime {
    fn get_current_date(&self) -> Date {
        Date {
            year: 1980,
            month: 1,
            day: 1,
        }
    }

    fn get_current_date_time(&self) -> DateTime {
        let time = Time {
            hour: 0,
            min: 0,
            sec: 0,
            millis: 0,
        };
        DateTime {
            date: self.get_current_date(),
            time,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn seed() -> Seed {
        Seed {
            user_data: b"#!/bin/sh\necho hello\n".repeat(1000),
            meta_data: b"instance-id: a\nlocal-hostname: a\n".to_vec(),
            network_config: Some(b"version: 2\n".to_vec()),
        }
    }

    /// Label, label in the root directory, files.
    type Contents = (String, Option<String>, Vec<(String, Vec<u8>)>);

    fn contents(volume: Vec<u8>) -> Contents {
        let filesystem = FileSystem::new(Cursor::new(volume), FsOptions::new()).unwrap();
        let files = filesystem
            .root_dir()
            .iter()
            .map(|entry| {
                let entry = entry.unwrap();
                let mut bytes = Vec::new();
                entry.to_file().read_to_end(&mut bytes).unwrap();
                (entry.file_name(), bytes)
            })
            .collect();
        let root = filesystem.read_volume_label_from_root_dir().unwrap();
        (filesystem.volume_label(), root, files)
    }

    #[test]
    fn the_volume_holds_the_files_under_the_label() {
        let (label, root_label, files) = contents(seed().render().unwrap());
        assert_eq!(
            (label.as_str(), root_label.as_deref()),
            (LABEL, Some(LABEL))
        );
        let names: Vec<_> = files.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["user-data", "meta-data", "network-config"]);
        assert_eq!(files[0].1, seed().user_data);
        let (_, _, files) = contents(
            Seed {
                network_config: None,
                ..seed()
            }
            .render()
            .unwrap(),
        );
        assert_eq!(files.len(), 2);
    }

    #[test]
    fn equal_input_gives_equal_bytes() {
        assert_eq!(seed().render().unwrap(), seed().render().unwrap());
        let other = Seed {
            meta_data: b"instance-id: b\n".to_vec(),
            ..seed()
        };
        assert_ne!(seed().render().unwrap(), other.render().unwrap());
    }

    #[test]
    fn sizes_from_nothing_to_much() {
        for size in [0, 1, 500_000, MEBIBYTE, 5 * MEBIBYTE, 40 * MEBIBYTE] {
            let seed = Seed {
                user_data: vec![b'x'; size],
                ..Seed::default()
            };
            let (_, _, files) = contents(seed.render().unwrap());
            assert_eq!(files[0].1.len(), size);
        }
        let huge = Seed {
            user_data: vec![0; LIMIT + 1],
            ..Seed::default()
        };
        assert!(matches!(huge.render(), Err(Error::TooLong { .. })));
    }

    #[test]
    fn the_file_is_private_and_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("seed.img");
        seed().write(&path).unwrap();
        seed().write(&path).unwrap();
        let metadata = std::fs::metadata(&path).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
