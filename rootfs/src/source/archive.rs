//! An archive file: an `oci-archive` (a layout in a tar) or a `docker-archive` (`docker save`),
//! told apart by content. It is indexed once and never unpacked.
//!
//! A docker-archive has no manifest of its own, so one is made of its `manifest.json`: the same
//! archive always gives the same one.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use fs_err::File;

use super::layout::parse_index;
use super::section::section;
use super::select::{Selected, select};
use super::{Blob, BlobSource};
use crate::digest::{Digest, HashingReader};
use crate::document::{Config, Descriptor, Manifest, media};
use crate::error::{Error, Problem, Result};
use crate::image::DOCUMENT_LIMIT;
use crate::layer::tar::{HeaderKind, Input, TarReader};
use crate::layer::{display, normalise};

/// Most members of an archive: blobs and their directories.
const MEMBER_LIMIT: usize = 100_000;

/// One image of an archive file.
#[derive(Debug)]
pub struct Archive {
    file: File,
    root: Descriptor,
    blobs: HashMap<Digest, Place>,
}

#[derive(Clone, Debug)]
enum Place {
    File { offset: u64, size: u64 },
    Memory(Vec<u8>),
}

impl Archive {
    /// Opens the archive's image of that name (for a docker-archive a full `repository:tag`);
    /// without a name, its only image.
    ///
    /// # Errors
    /// [`Error::File`], [`Error::Malformed`], [`Error::NoImage`], [`Error::Ambiguous`].
    pub fn open(path: impl Into<PathBuf>, name: Option<&str>) -> Result<Archive> {
        let path = path.into();
        let file = File::open(&path).map_err(Error::file("open", &path))?;
        let members = Members::read(&file)?;
        let origin = path.display().to_string();
        let (root, blobs) = if let Some(&member) = members.files.get(&b"index.json"[..]) {
            oci(&file, &members, member, name, &origin)?
        } else if let Some(&member) = members.files.get(&b"manifest.json"[..]) {
            docker(&file, &members, member, name, &origin)?
        } else {
            let reason = "it holds neither index.json nor manifest.json";
            return Err(Error::malformed(format!("image archive {origin}"), reason));
        };
        Ok(Archive { file, root, blobs })
    }
}

impl BlobSource for Archive {
    fn root(&self) -> &Descriptor {
        &self.root
    }

    fn open(&self, blob: &Descriptor) -> Result<Box<dyn Blob + '_>> {
        match self.blobs.get(&blob.digest) {
            Some(Place::Memory(bytes)) => Ok(Box::new(Cursor::new(bytes))),
            Some(&Place::File { offset, size }) => {
                Ok(Box::new(section(self.file.file(), offset, size)))
            }
            None => Err(Error::MissingBlob {
                digest: blob.digest,
                origin: self.to_string(),
            }),
        }
    }
}

impl fmt::Display for Archive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.file.path().display().fmt(f)
    }
}

/// Where the archive's files are: offset and size in bytes.
struct Members {
    files: BTreeMap<Box<[u8]>, (u64, u64)>,
    /// Old `docker save` writes a layer that two images share once, and links to it.
    links: BTreeMap<Box<[u8]>, Box<[u8]>>,
}

impl Members {
    fn read(file: &File) -> Result<Members> {
        let mut members = Members {
            files: BTreeMap::new(),
            links: BTreeMap::new(),
        };
        let mut path = Vec::new();
        let what = format!("image archive {}", file.path().display());
        members.fill(file, &mut path).map_err(|problem| {
            let place = if path.is_empty() {
                String::new()
            } else {
                display(&path) + ": "
            };
            // A stream that is no tar file at all fails its first checksum.
            Error::malformed(what, format!("{place}{problem}"))
        })?;
        Ok(members)
    }

    fn fill(&mut self, file: &File, path: &mut Vec<u8>) -> Result<(), Problem> {
        let mut reader = TarReader::new(FileInput(BufReader::new(file)));
        while let Some(header) = reader.next(path)? {
            let name = normalise(&header.path)?;
            match header.kind {
                HeaderKind::File if header.segments.is_none() => {
                    self.files
                        .insert(name, (reader.position(), reader.remaining()));
                }
                HeaderKind::Symlink => {
                    let parent = name
                        .iter()
                        .rposition(|&byte| byte == b'/')
                        .unwrap_or_default();
                    self.links
                        .insert(name.clone(), resolve(&name[..parent], &header.link));
                }
                HeaderKind::HardLink => {
                    self.links.insert(name, normalise(&header.link)?);
                }
                _ => {}
            }
            if self.files.len() + self.links.len() > MEMBER_LIMIT {
                return Err(Problem::Header("too many members for an image archive"));
            }
        }
        Ok(())
    }

    fn find(&self, name: &str) -> Option<(u64, u64)> {
        let name = normalise(name.as_bytes()).ok()?;
        let target = self.links.get(&name).unwrap_or(&name);
        self.files.get(target).copied()
    }
}

/// A relative link such as `../<id>/layer.tar`, seen from a directory.
fn resolve(directory: &[u8], target: &[u8]) -> Box<[u8]> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in directory
        .split(|&byte| byte == b'/')
        .chain(target.split(|&byte| byte == b'/'))
    {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()),
            _ => parts.push(part),
        }
    }
    parts.join(&b'/').into()
}

type Parts = (Descriptor, HashMap<Digest, Place>);

fn oci(
    file: &File,
    members: &Members,
    index: (u64, u64),
    name: Option<&str>,
    origin: &str,
) -> Result<Parts> {
    let what = format!("{origin}:index.json");
    let bytes = document(file, index, &what)?;
    let index = parse_index(&bytes, &what)?;
    let Selected { root, document } = select(&index, &bytes, name, origin)?;
    let mut blobs: HashMap<_, _> = members
        .files
        .iter()
        .filter_map(|(name, &(offset, size))| {
            let hex = name.strip_prefix(b"blobs/sha256/")?;
            let digest = format!("sha256:{}", std::str::from_utf8(hex).ok()?)
                .parse()
                .ok()?;
            Some((digest, Place::File { offset, size }))
        })
        .collect();
    blobs.extend(document.map(|(digest, bytes)| (digest, Place::Memory(bytes))));
    Ok((root, blobs))
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

fn docker(
    file: &File,
    members: &Members,
    list: (u64, u64),
    name: Option<&str>,
    origin: &str,
) -> Result<Parts> {
    let what = format!("{origin}:manifest.json");
    let bytes = document(file, list, &what)?;
    let images: Vec<Saved> =
        serde_json::from_slice(&bytes).map_err(|error| Error::malformed(&what, error))?;
    let saved = choose(&images, name, origin)?;
    let find = |member: &str| {
        let place = members.find(member);
        place.ok_or_else(|| Error::malformed(&what, format!("{member:?} is not in the archive")))
    };
    let place = find(&saved.config)?;
    let config_bytes = document(file, place, &saved.config)?;
    let config: Config = serde_json::from_slice(&config_bytes)
        .map_err(|error| Error::malformed(format!("{origin}:{}", saved.config), error))?;
    if config.rootfs.diff_ids.len() != saved.layers.len() {
        return Err(Error::malformed(
            &what,
            "its layers are not those of the config",
        ));
    }
    let mut blobs = HashMap::new();
    let mut layers = Vec::new();
    for (member, &diff_id) in saved.layers.iter().zip(&config.rootfs.diff_ids) {
        let (offset, size) = find(member)?;
        let (media_type, digest) = identify(file, offset, size, diff_id)?;
        blobs.insert(digest, Place::File { offset, size });
        layers.push(descriptor(media_type, digest, size));
    }
    let config = descriptor(
        media::CONFIG,
        Digest::of(&config_bytes),
        config_bytes.len() as u64,
    );
    blobs.insert(config.digest, Place::Memory(config_bytes));
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(media::MANIFEST.into()),
        config,
        layers,
    };
    let bytes = serde_json::to_vec(&manifest).map_err(|error| Error::malformed(&what, error))?;
    let root = descriptor(media::MANIFEST, Digest::of(&bytes), bytes.len() as u64);
    blobs.insert(root.digest, Place::Memory(bytes));
    Ok((root, blobs))
}

fn choose<'a>(images: &'a [Saved], name: Option<&str>, origin: &str) -> Result<&'a Saved> {
    let tags = |image: &'a Saved| image.repo_tags.iter().flatten().map(String::as_str);
    let available = || images.iter().flat_map(tags).map(str::to_owned).collect();
    match (name, images) {
        (None, [only]) => Ok(only),
        (None, []) => Err(Error::malformed(
            format!("{origin}:manifest.json"),
            "it lists no image",
        )),
        (None, _) => Err(Error::Ambiguous {
            origin: origin.into(),
            available: available(),
        }),
        (Some(name), _) => images
            .iter()
            .find(|image| tags(image).any(|tag| tag == name))
            .ok_or_else(|| Error::NoImage {
                name: name.into(),
                origin: origin.into(),
                available: available(),
            }),
    }
}

/// A plain tar's address is its diff ID (which reading it verifies); a packed one has to be hashed.
fn identify(
    file: &File,
    offset: u64,
    size: u64,
    diff_id: Digest,
) -> Result<(&'static str, Digest)> {
    let reading = || Error::file("read", file.path());
    let mut magic = [0; 4];
    let length = usize::try_from(size).map_or(4, |size| size.min(4));
    file.file()
        .read_exact_at(&mut magic[..length], offset)
        .map_err(|error| reading()(error))?;
    let media_type = match magic {
        [0x1f, 0x8b, ..] => media::LAYER_GZIP,
        [0x28, 0xb5, 0x2f, 0xfd] => media::LAYER_ZSTD,
        _ => return Ok((media::LAYER, diff_id)),
    };
    let mut reader = HashingReader::new(section(file.file(), offset, size));
    io::copy(&mut reader, &mut io::sink()).map_err(|error| reading()(error))?;
    Ok((media_type, reader.digest()))
}

fn descriptor(media_type: &str, digest: Digest, size: u64) -> Descriptor {
    Descriptor {
        media_type: media_type.into(),
        digest,
        size,
        platform: None,
        annotations: BTreeMap::new(),
    }
}

fn document(file: &File, (offset, size): (u64, u64), what: &str) -> Result<Vec<u8>> {
    if size > DOCUMENT_LIMIT {
        return Err(Error::TooLong {
            what: what.into(),
            size,
            limit: DOCUMENT_LIMIT,
        });
    }
    let mut bytes = vec![0; usize::try_from(size).unwrap_or_default()];
    file.file()
        .read_exact_at(&mut bytes, offset)
        .map_err(Error::file("read", Path::new(what)))?;
    Ok(bytes)
}

struct FileInput<'a>(BufReader<&'a File>);

impl Read for FileInput<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl BufRead for FileInput<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.0.fill_buf()
    }

    fn consume(&mut self, bytes: usize) {
        self.0.consume(bytes);
    }
}

impl Input for FileInput<'_> {
    /// A seek beyond the end shows in the next read, or else the last body is cut: verifying its
    /// digest finds that.
    fn skip(&mut self, bytes: u64) -> io::Result<()> {
        let bytes = i64::try_from(bytes).map_err(|_| io::ErrorKind::UnexpectedEof)?;
        self.0.seek_relative(bytes)
    }
}
