//! Reads what a disk is made of, several parts at once, and puts the bodies onto the disk.

use std::collections::HashSet;
use std::num::NonZero;
use std::ops::Range;

use super::disk::NewDisk;
use super::merged::Survivors;
use crate::digest::Digest;
use crate::error::{Error, Problem, Result};
use crate::ext4::{Geometry, Stage};
use crate::layer::{BodySink, Entry, display};
use crate::merge::Layers;
use crate::parallel::each;
use crate::watch::Watch;

/// What a disk is made of. Parts are merged in their order, and read in any.
pub(crate) trait Parts: Sync {
    fn count(&self) -> usize;

    /// Blocks that a part's bodies seem to take.
    fn wanted(&self, part: usize) -> u64;

    /// How long reading a part takes, in any unit: the longest are begun first.
    fn cost(&self, part: usize) -> u64;

    /// The layer that a part is, for messages.
    fn layer(&self, part: usize) -> Option<Digest>;

    /// Reads a part: its entries in a fixed order, the bodies to the sink. `again` is the second
    /// attempt.
    fn read(&self, part: usize, again: bool, sink: &mut dyn BodySink) -> Result<Vec<Entry>>;
}

/// All parts, read.
pub(crate) struct Staged {
    pub(crate) layers: Layers,
    /// Whether every body has its place.
    pub(crate) complete: bool,
    /// Where bodies were written.
    pub(crate) filled: Vec<Range<u32>>,
}

/// One part's outcome; the ranges are missing when its region was too small.
type Outcome = Result<(Vec<Entry>, Option<Vec<Range<u32>>>)>;

/// How to read parts.
pub(crate) struct Stager<'a> {
    pub(crate) parts: &'a dyn Parts,
    pub(crate) disk: &'a NewDisk,
    pub(crate) geometry: &'a Geometry,
    pub(crate) threads: usize,
    pub(crate) watch: &'a Watch<'a>,
}

impl Stager<'_> {
    /// Reads all parts and writes their bodies, or only those that survived a first attempt.
    pub(crate) fn stage(&self, wanted: &[u64], survivors: Option<&Survivors>) -> Result<Staged> {
        if survivors.is_some() {
            self.watch.again();
        }
        self.disk.clear(self.geometry.size)?;
        let regions = self.geometry.share(wanted);
        let mut order: Vec<usize> = (0..regions.len()).collect();
        order.sort_by_key(|&part| std::cmp::Reverse(self.parts.cost(part)));
        let parts = each(self.threads, &order, |part| {
            self.part(part, regions[part].clone(), survivors)
                .inspect_err(|_| self.watch.abort())
        })?;
        let mut staged = Staged {
            layers: Layers::default(),
            complete: true,
            filled: Vec::new(),
        };
        for (part, (entries, filled)) in parts.into_iter().enumerate() {
            staged.layers.push(self.parts.layer(part), entries);
            staged.complete &= filled.is_some();
            staged.filled.extend(filled.into_iter().flatten());
        }
        Ok(staged)
    }

    fn part(&self, part: usize, region: Vec<Range<u32>>, survivors: Option<&Survivors>) -> Outcome {
        let only: Option<&HashSet<usize>> = survivors.map(|survivors| &survivors.entries[part]);
        let keep = |entry: usize| only.is_none_or(|only| only.contains(&entry));
        let mut stage = Stage::new(&self.disk.file, region, Some(&keep));
        let entries = self.parts.read(part, only.is_some(), &mut stage)?;
        let filled = stage.close().map_err(|error| {
            let path = entries.last().map(|entry| display(&entry.path));
            let (path, source) = (path.unwrap_or_default(), Problem::Disk(error));
            match self.parts.layer(part) {
                Some(layer) => Error::Layer {
                    layer,
                    path,
                    source,
                },
                None => Error::Inode { path, source },
            }
        })?;
        Ok((entries, filled))
    }
}

/// Threads to use: as many as are asked for, else one per processor.
pub(crate) fn threads(wanted: Option<NonZero<usize>>) -> usize {
    let processors = || std::thread::available_parallelism().map_or(1, NonZero::get);
    wanted.map_or_else(processors, NonZero::get)
}
