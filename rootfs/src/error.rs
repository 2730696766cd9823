//! Everything that can go wrong between an image reference and a finished disk, with its evidence.

use std::io;
use std::path::PathBuf;

use crate::digest::Digest;
use crate::image::{Platform, ROOT_LABEL};

/// Result with this crate's error.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an image could not be read or a disk not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(
    clippy::error_impl_error,
    reason = "the crate's one error, read as knest_rootfs::Error"
)]
pub enum Error {
    /// A file operation on this machine failed.
    #[error("cannot {doing} {}", path.display())]
    File {
        /// The verb, e.g. `open`.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// A blob's bytes could not be read.
    #[error("cannot read blob {digest} of {origin}")]
    Blob {
        /// The blob.
        digest: Digest,
        /// The image source, as the user named it.
        origin: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The source does not hold the blob that a manifest names.
    #[error("{origin} lacks blob {digest}")]
    MissingBlob {
        /// The blob.
        digest: Digest,
        /// The image source, as the user named it.
        origin: String,
    },
    /// Bytes differ from their name.
    #[error("{what}: digest is {found}, expected {expected}")]
    DigestMismatch {
        /// What was hashed, e.g. `blob` or `diff id of layer sha256:…`.
        what: String,
        /// What the manifest or config says.
        expected: Digest,
        /// What the bytes are.
        found: Digest,
    },
    /// A blob is longer or shorter than its descriptor says.
    #[error("blob {digest} has {found} bytes, its descriptor says {expected}")]
    SizeMismatch {
        /// The blob.
        digest: Digest,
        /// Bytes promised.
        expected: u64,
        /// Bytes read; one more than promised when reading stopped early.
        found: u64,
    },
    /// Not `[REGISTRY/]REPOSITORY[:TAG][@DIGEST]`.
    #[error("malformed image reference {0:?}, expected [REGISTRY/]REPOSITORY[:TAG][@DIGEST]")]
    MalformedReference(String),
    /// A registry did not do what it was asked.
    #[cfg(feature = "registry")]
    #[error("cannot {doing} of {reference}")]
    Registry {
        /// The image.
        reference: String,
        /// Verb and object, with the digest of what is not the whole image.
        doing: String,
        /// Why.
        #[source]
        source: crate::source::registry::RegistryProblem,
    },
    /// Not `sha256:` and 64 lower-case hexadecimal digits.
    #[error("malformed or unsupported digest {0:?}, expected sha256:<64 hex digits>")]
    MalformedDigest(String),
    /// A platform is not `os/architecture[/variant]`.
    #[error("malformed platform {0:?}, expected os/architecture[/variant]")]
    MalformedPlatform(String),
    /// A document (index, manifest, config, archive directory) is not what it should be.
    #[error("malformed {what}: {reason}")]
    Malformed {
        /// The document.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A document or file is larger than this crate accepts.
    #[error("{what} has {size} bytes, the limit is {limit}")]
    TooLong {
        /// The document or file.
        what: String,
        /// Its size in bytes.
        size: u64,
        /// The most that is accepted.
        limit: u64,
    },
    /// A media type that cannot be turned into a file system.
    #[error("{what} has the unsupported media type {media_type:?}")]
    MediaType {
        /// What carries it.
        what: String,
        /// The type.
        media_type: String,
    },
    /// The image exists, but not for this platform.
    #[error("no image for platform {wanted}; there is {}", list(available))]
    NoPlatform {
        /// The platform asked for.
        wanted: Platform,
        /// Those that exist.
        available: Vec<String>,
    },
    /// No image of that name in a layout, archive or store.
    #[error("no image named {name:?} in {origin}; there is {}", list(available))]
    NoImage {
        /// The name asked for.
        name: String,
        /// Where it was sought.
        origin: String,
        /// The names that exist.
        available: Vec<String>,
    },
    /// A name is needed because the source holds several images.
    #[error("{origin} holds several images, name one of {}", list(available))]
    Ambiguous {
        /// The layout or archive.
        origin: String,
        /// The names that exist.
        available: Vec<String>,
    },
    /// The content of a layer breaks a rule.
    #[error("layer {layer}: {path:?}")]
    Layer {
        /// The layer's blob.
        layer: Digest,
        /// The path inside the image, with non-UTF-8 bytes replaced; empty before the first entry.
        path: String,
        /// The rule.
        #[source]
        source: Problem,
    },
    /// An inode of the merged image cannot be stored in ext4.
    #[error("{path:?}")]
    Inode {
        /// The path inside the image.
        path: String,
        /// Why.
        #[source]
        source: Problem,
    },
    /// A file that is to be a disk as it is, and can't be.
    #[error("{} is {what}", path.display())]
    NotReady {
        /// The file.
        path: PathBuf,
        /// What it is instead.
        what: String,
    },
    /// The image does not fit.
    #[error("the image does not fit a disk of {size} bytes; {needed} bytes would do")]
    TooSmall {
        /// The size asked for.
        size: u64,
        /// A size with which the same build succeeds.
        needed: u64,
    },
    /// A disk larger than this format can address.
    #[error("a disk of {size} bytes is larger than the {limit} bytes that can be addressed")]
    TooLarge {
        /// The size asked for.
        size: u64,
        /// The largest possible.
        limit: u64,
    },
    /// A base disk that clones read from.
    #[error("{} is in use by {}", disk.display(), by.display())]
    InUse {
        /// The base.
        disk: PathBuf,
        /// One of its clones.
        by: PathBuf,
    },
    /// The image lacks a file that was asked for.
    #[error("the image has no file {0:?}")]
    NoSuchFile(String),
    /// The image says that one of its directories is the root, and has no such directory.
    #[error("label {ROOT_LABEL} of the image says {0:?}, and the image has no such directory")]
    NoRoot(String),
    /// The caller asked to stop.
    #[error("cancelled")]
    Cancelled,
}

/// The rule that a path inside an image broke.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// The compressed or archived bytes end early or are damaged.
    #[error("the archive is damaged")]
    Damaged(#[from] io::Error),
    /// The file's content could not be written to the disk.
    #[error("cannot write it to the disk")]
    Disk(#[source] io::Error),
    /// A tar header or extension record that makes no sense.
    #[error("malformed tar entry: {0}")]
    Header(&'static str),
    /// A kind of entry that no file system has.
    #[error("unsupported tar entry type {0:?}")]
    EntryType(char),
    /// `..` in a name.
    #[error("the name leads out of the image")]
    Escapes,
    /// A name that ext4 or Linux cannot hold.
    #[error("the name is too long or holds a zero byte")]
    Name,
    /// A parent of the entry is a file or a symlink that leads nowhere.
    #[error("a parent of it is not a directory")]
    Parent,
    /// A hard link whose target does not exist.
    #[error("hard link to {0:?}, which does not exist")]
    LinkToNowhere(String),
    /// A hard link to a directory.
    #[error("hard link to {0:?}, which is a directory")]
    LinkToDirectory(String),
    /// More hard links than ext4 can count.
    #[error("more than 65000 hard links to one file")]
    TooManyLinks,
    /// A symlink target that Linux cannot hold.
    #[error("symlink target of {0} bytes, 1 to 4095 are possible")]
    SymlinkTarget(usize),
    /// A file larger than ext4 can hold.
    #[error("file of {0} bytes is larger than ext4 can hold")]
    FileTooLarge(u64),
    /// Extended attributes beyond what one inode and one block can hold.
    #[error("extended attributes of {0} bytes do not fit into an ext4 inode and one block")]
    Xattrs(usize),
    /// An access control list that is not in the kernel's format.
    #[error("malformed POSIX access control list")]
    Acl,
    /// Something of a directory that would mean something else in a layer, or nothing.
    #[error("a layer cannot hold {0}")]
    Unpackable(&'static str),
    /// More entries than a disk may reasonably need.
    #[error("more than {0} entries or {1} bytes of names and attributes")]
    TooManyEntries(u64, u64),
    /// `/lost+found` is not a directory.
    #[error("must be a directory in ext4")]
    LostAndFound,
}

impl Error {
    /// Why a registry did not do what it was asked, if it was that.
    #[cfg(feature = "registry")]
    #[must_use]
    pub fn registry(&self) -> Option<&crate::source::registry::RegistryProblem> {
        match self {
            Error::Registry { source, .. } => Some(source),
            Error::Blob { source, .. } => source.get_ref()?.downcast_ref(),
            _ => None,
        }
    }

    pub(crate) fn file(
        doing: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Error {
        let path = path.into();
        move |source| Error::File {
            doing,
            path,
            source,
        }
    }

    pub(crate) fn malformed(what: impl Into<String>, reason: impl ToString) -> Error {
        Error::Malformed {
            what: what.into(),
            reason: reason.to_string(),
        }
    }
}

fn list(names: &[String]) -> String {
    if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(", ")
    }
}
