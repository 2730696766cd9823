//! The contents of a directory's files.

use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;

use rustix::fs::{Mode, OFlags, SeekFrom, open, seek};
use rustix::io::Errno;

use super::walk::Directory;
use crate::error::{Error, Problem, Result};
use crate::layer::{BodySink, Entry, Kind, Visit, display};
use crate::watch::Watch;

/// Bytes per read.
const BUFFER: usize = 256 << 10;
/// Bytes of a file that must not be stored where it is before its holes are looked for.
const SPARSE: u64 = 64 << 10;

impl Directory {
    /// Whether a file of this size has holes worth looking for.
    pub(crate) fn is_sparse(size: u64, allocated: u64) -> bool {
        size.saturating_sub(allocated) > SPARSE
    }

    /// These entries, with the contents of their files in the sink.
    pub(crate) fn read(
        &self,
        range: Range<usize>,
        watch: &Watch<'_>,
        sink: &mut dyn BodySink,
    ) -> Result<Vec<Entry>> {
        let mut entries = self.entries[range.clone()].to_vec();
        let mut buffer = vec![0; BUFFER];
        for (number, entry) in entries.iter_mut().enumerate() {
            let Kind::File(body) = &mut entry.kind else {
                continue;
            };
            if watch.cancelled() {
                return Err(Error::Cancelled);
            }
            if sink.begin(number, &entry.path, body.size) == Visit::Skip {
                continue;
            }
            let path = self.path(&entry.path);
            let mut reading = Reading {
                watch,
                sink,
                buffer: &mut buffer,
            };
            let sparse = Directory::is_sparse(body.size, self.allocated[range.start + number]);
            let read = match body.size {
                0 => Ok(()),
                size => {
                    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                    let file = open(&path, flags, Mode::empty());
                    let file = file.map_err(|errno| Error::file("open", &path)(errno.into()))?;
                    let file = File::from(file);
                    if sparse {
                        reading.sparse(&file, size)
                    } else {
                        reading.run(&file, size)
                    }
                }
            };
            let written = read.and_then(|()| sink.finish().map_err(Problem::Disk));
            *body = written.map_err(|problem| {
                watch.or_cancelled(match problem {
                    Problem::Damaged(error) => Error::file("read", &path)(error),
                    source => Error::Inode {
                        path: display(&entry.path),
                        source,
                    },
                })
            })?;
        }
        Ok(entries)
    }
}

struct Reading<'a> {
    watch: &'a Watch<'a>,
    sink: &'a mut dyn BodySink,
    buffer: &'a mut [u8],
}

impl Reading<'_> {
    /// The next bytes, wherever the file stands.
    fn run(&mut self, mut file: &File, mut length: u64) -> Result<(), Problem> {
        while length > 0 {
            self.watch.check()?;
            let most = usize::try_from(length).map_or(BUFFER, |length| length.min(BUFFER));
            let count = match file.read(&mut self.buffer[..most]) {
                Ok(0) => return Err(Problem::Damaged(io::ErrorKind::UnexpectedEof.into())),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            self.sink
                .data(&self.buffer[..count])
                .map_err(Problem::Disk)?;
            self.watch.add(count as u64);
            length -= count as u64;
        }
        Ok(())
    }

    /// Only what the file system says is data.
    fn sparse(&mut self, file: &File, size: u64) -> Result<(), Problem> {
        let mut position = 0;
        while position < size {
            let data = match seek(file, SeekFrom::Data(position)) {
                Ok(data) => data.min(size),
                Err(Errno::NXIO) => size,
                Err(errno) => return Err(io::Error::from(errno).into()),
            };
            self.sink.hole(data - position).map_err(Problem::Disk)?;
            self.watch.add(data - position);
            position = data;
            if data < size {
                let hole = seek(file, SeekFrom::Hole(data)).map_err(io::Error::from)?;
                let hole = hole.min(size);
                seek(file, SeekFrom::Start(data)).map_err(io::Error::from)?;
                self.run(file, hole - data)?;
                position = hole;
            }
        }
        Ok(())
    }
}
