//! A plain directory as a source: everything below it, in one fixed order, with its contents.
//!
//! ```text
//! [list] one directory ─▶ [walk] level by level, names in order ─▶ entries ─▶ merge
//!                                                                  [read] contents ─▶ BodySink
//! ```
//! What it finds is told in the same terms as a layer's entries, so nothing behind it knows the
//! difference. [pack] writes them as a layer, for an image of the directory.

mod header;
mod list;
mod pack;
mod read;
mod walk;

pub(crate) use walk::Directory;
