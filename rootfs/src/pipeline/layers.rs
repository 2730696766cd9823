//! The parts of an image: its layers, oldest first.

use super::parts::Parts;
use crate::digest::Digest;
use crate::error::Result;
use crate::ext4::BLOCK;
use crate::image::Image;
use crate::layer::{self, BodySink, Entry, Limits};
use crate::source::BlobSource;
use crate::watch::Watch;

/// An image that is being read.
pub(crate) struct ImageLayers<'a> {
    pub(crate) source: &'a dyn BlobSource,
    pub(crate) image: &'a Image,
    pub(crate) verify_diff_ids: bool,
    pub(crate) watch: &'a Watch<'a>,
    /// Of the first attempt, and of the second.
    pub(crate) limits: [Limits; 2],
}

impl Parts for ImageLayers<'_> {
    fn count(&self) -> usize {
        self.image.layers.len()
    }

    /// The tar's blocks, with room for the tails of its files.
    fn wanted(&self, part: usize) -> u64 {
        let tar = layer::estimate(self.source, &self.image.layers[part]);
        let blocks = tar.div_ceil(BLOCK);
        blocks + blocks / 32 + 64
    }

    fn cost(&self, part: usize) -> u64 {
        self.image.layers[part].blob.size
    }

    fn layer(&self, part: usize) -> Option<Digest> {
        Some(self.image.layers[part].blob.digest)
    }

    fn read(&self, part: usize, again: bool, sink: &mut dyn BodySink) -> Result<Vec<Entry>> {
        let verify = self.verify_diff_ids && !again;
        let limits = &self.limits[usize::from(again)];
        let layer = &self.image.layers[part];
        layer::read(self.source, layer, verify, self.watch, limits, sink)
    }
}
