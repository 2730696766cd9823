//! Log files whose writer holds them open for appending and never looks back.
//!
//! ```text
//! offset              0          8 M        16 M       24 M     size
//! serial.log          ░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░▓▓▓▓▓▓▓▓▓│◄─ the writer appends
//! serial.log.…8388608            ▓▓▓▓▓▓▓▓▓▓▓
//! serial.log.…16777216                      ▓▓▓▓▓▓▓▓▓▓▓            ░ hole   ▓ bytes
//! ```
//! A log is one stream of bytes, and a byte keeps its offset for ever. [`Rotation`] copies the oldest
//! bytes into files named by the offset at which they begin, then punches a hole where they were: the
//! file is never renamed and never truncated, because that would change what its writer has open. A
//! rotation that is killed between copy and hole leaves bytes twice, which the names tell. [`Reader`]
//! follows the stream over all of it.

mod copies;
mod reader;
mod rotate;
mod tail;

pub use reader::Reader;
pub use rotate::Rotation;
pub use tail::tail;
