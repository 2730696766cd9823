//! One layer: a packed tar file, read once from front to back into entries and bodies.
//!
//! ```text
//! blob ─▶ [stream] inflate, hash ─▶ [tar] headers, PAX, GNU, sparse ─▶ [read] entries ─▶ merge
//!                                                                       └──── bodies ──▶ BodySink
//! ```
//! Nothing here knows of other layers or of a file system: a whiteout is just an entry, and a body
//! goes to whoever wants it.

mod entry;
mod estimate;
mod pax;
mod raw;
mod read;
mod stream;
pub(crate) mod tar;

pub(crate) use entry::{Body, Entry, Extent, Kind, Metadata, Time, Xattr, display, normalise};
pub(crate) use estimate::estimate;
pub(crate) use read::{BodySink, Limits, NoBodies, Visit, read};
