//! Blocks that must read as zeros although something was written there.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

use super::bitmap::Bitmap;
use super::plan::Plan;
use super::types::{BLOCK, INODES_PER_BLOCK};

/// Bytes per write where the kernel cannot do it.
const ZEROS: usize = 1 << 20;

/// Gives back what was written into `filled` and belongs to no file.
pub(crate) fn punch(file: &File, data: &Bitmap, filled: &[Range<u32>]) -> io::Result<()> {
    for range in filled {
        let mut from = range.start;
        while let Some(free) = data.free_run(from) {
            let free = free.start..free.end.min(range.end);
            if free.start >= range.end {
                break;
            }
            zero(file, FallocateFlags::PUNCH_HOLE, free.clone())?;
            from = free.end;
        }
    }
    Ok(())
}

/// Blanks what a disk of unknown content must not show: the journal and the inode tables. All else
/// that is not written is free, or said to be unused.
pub(crate) fn clear(file: &File, plan: &Plan) -> io::Result<()> {
    zero(
        file,
        FallocateFlags::ZERO_RANGE,
        plan.geometry.journal.clone(),
    )?;
    let blocks = plan.inodes_per_group / INODES_PER_BLOCK;
    let mut tables: Vec<Range<u32>> = Vec::new();
    for &start in &plan.inode_tables {
        match tables.last_mut() {
            Some(last) if last.end == start => last.end += blocks,
            _ => tables.push(start..start + blocks),
        }
    }
    tables
        .into_iter()
        .try_for_each(|table| zero(file, FallocateFlags::ZERO_RANGE, table))
}

fn zero(file: &File, how: FallocateFlags, blocks: Range<u32>) -> io::Result<()> {
    let mut offset = u64::from(blocks.start) * BLOCK;
    let end = u64::from(blocks.end) * BLOCK;
    match fallocate(file, how | FallocateFlags::KEEP_SIZE, offset, end - offset) {
        Ok(()) => return Ok(()),
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => {}
        Err(errno) => return Err(errno.into()),
    }
    let zeros = vec![0; ZEROS];
    while offset < end {
        let length = usize::try_from(end - offset).map_or(ZEROS, |left| left.min(ZEROS));
        file.write_all_at(&zeros[..length], offset)?;
        offset += length as u64;
    }
    Ok(())
}
