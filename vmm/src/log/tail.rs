//! The end of a log. It holds whatever a guest wrote, so only a bounded part is read, and it need not
//! be text.

use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

/// The last lines of the file at `path`: at most `lines`, out of at most the last 16 KiB. Control
/// characters other than line feed and tab are dropped. Empty when there is no file.
#[must_use]
pub fn tail(path: &Path, lines: usize) -> String {
    const WINDOW: u64 = 16 * 1024;
    let Ok(mut file) = fs_err::File::open(path) else {
        return String::new();
    };
    let length = file.metadata().map_or(0, |meta| meta.len());
    let start = length.saturating_sub(WINDOW);
    let mut bytes = Vec::new();
    if file.seek(SeekFrom::Start(start)).is_err()
        || file.take(WINDOW).read_to_end(&mut bytes).is_err()
    {
        return String::new();
    }
    last_lines(&bytes, lines)
}

fn last_lines(bytes: &[u8], lines: usize) -> String {
    let text: String = String::from_utf8_lossy(bytes)
        .chars()
        .filter(|c| !c.is_control() || matches!(c, '\n' | '\t'))
        .collect();
    let text = text.trim_end();
    let all: Vec<&str> = text.lines().collect();
    let from = all.len().saturating_sub(lines);
    all.get(from..).unwrap_or_default().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_the_last_lines_without_control_characters() {
        assert_eq!(last_lines(b"a\r\nb\x1b[0m\r\nc\n\n", 2), "b[0m\nc");
        assert_eq!(last_lines(b"", 3), "");
        assert_eq!(last_lines(b"\xff", 3), "\u{fffd}");
    }

    #[test]
    fn reads_a_bounded_part() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        fs_err::write(&path, "x".repeat(1 << 20)).unwrap();
        assert!(tail(&path, 5).len() <= 16 * 1024);
        assert_eq!(tail(&dir.path().join("none"), 5), "");
    }
}
