//! Bytes → events. Takes any cut of the stream and survives any garbage in it.

use super::Event;
use super::kind::Wire;

/// An object larger than this is none of Cloud Hypervisor's and is dropped.
const LARGEST: usize = 1 << 20;

/// A streaming parser: give it bytes as they come.
#[derive(Debug, Default)]
pub struct Parser {
    rest: Vec<u8>,
    /// After garbage: nothing counts until a line begins an object.
    lost: bool,
    skipped: u64,
}

impl Parser {
    /// Takes more of the stream and returns the events that are complete.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<Event> {
        self.rest.extend_from_slice(bytes);
        let mut events = Vec::new();
        let mut done = 0;
        while let Some(rest) = self.rest.get(done..).filter(|rest| !rest.is_empty()) {
            if self.lost {
                let (garbage, found) = resync(rest);
                self.skipped += garbage as u64;
                done += garbage;
                self.lost = !found;
                if !found {
                    break;
                }
                continue;
            }
            let mut stream = serde_json::Deserializer::from_slice(rest).into_iter::<Wire>();
            match stream.next() {
                // White space only.
                None => done = self.rest.len(),
                Some(Ok(wire)) => {
                    done += stream.byte_offset();
                    events.push(Event::from(wire));
                }
                Some(Err(error)) if may_go_on(&error, rest) && rest.len() <= LARGEST => break,
                Some(Err(_)) => self.lost = true,
            }
        }
        self.rest.drain(..done);
        events
    }

    /// Bytes that belonged to no event.
    #[must_use]
    pub fn skipped(&self) -> u64 {
        self.skipped
    }
}

/// Whether what is wrong with `bytes` is that there are no more yet. serde_json says so of most that is
/// cut, but not of a number like `1.` in a field that nobody reads; so whatever it stumbles over at the
/// very end gets another byte.
fn may_go_on(error: &serde_json::Error, bytes: &[u8]) -> bool {
    let lines = bytes.split(|byte| *byte == b'\n').count();
    let last = bytes
        .rsplit(|byte| *byte == b'\n')
        .next()
        .map_or(0, <[u8]>::len);
    error.is_eof() || (error.line() == lines && error.column() >= last)
}

/// How far to go to the next line that begins an object, and whether it has come. A line feed at the
/// end stays: the next byte may begin one.
fn resync(bytes: &[u8]) -> (usize, bool) {
    match bytes.windows(2).position(|pair| pair == b"\n{") {
        Some(newline) => (newline + 1, true),
        None => (
            bytes.len() - usize::from(bytes.last() == Some(&b'\n')),
            false,
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::event::EventKind;

    const STREAM: &str = r#"{
  "timestamp": { "secs": 1, "nanos": 122283 },
  "source": "vm",
  "event": "booted",
  "properties": null
}

{
  "timestamp": { "secs": 2, "nanos": 0 },
  "source": "vm",
  "event": "device-removed",
  "properties": { "id": "disk1", "bdf": "0000:00:05.0" }
}

{
  "timestamp": { "secs": 3, "nanos": 0 },
  "source": "vm",
  "event": "teleported",
  "properties": { "where": 7 }
}

"#;

    #[test]
    fn any_cut_gives_the_same_events() {
        let whole = Parser::default().push(STREAM.as_bytes());
        assert_eq!(whole.len(), 3);
        assert_eq!(whole[0].kind, EventKind::Booted);
        assert_eq!(whole[0].at, Duration::new(1, 122_283));
        let told: Vec<_> = whole
            .iter()
            .map(|e| format!("{} {:?}", e.kind.name(), e.kind.properties()))
            .collect();
        let expected = [
            "booted {}",
            r#"device-removed {"bdf": "0000:00:05.0", "id": "disk1"}"#,
            r#"teleported {"where": "7"}"#,
        ];
        assert_eq!(told, expected);
        for size in 1..STREAM.len() {
            let mut parser = Parser::default();
            let parts: Vec<Event> = STREAM
                .as_bytes()
                .chunks(size)
                .flat_map(|part| parser.push(part))
                .collect();
            assert_eq!(parts, whole, "cut in {size}s");
            assert_eq!(parser.skipped(), 0);
        }
    }

    #[test]
    fn a_number_is_cut_anywhere() {
        let stream = b"{\"event\":\"x\",\"load\":[1.5, -2e-7]}";
        let mut parser = Parser::default();
        let events = stream.iter().flat_map(|byte| parser.push(&[*byte]));
        assert_eq!(events.count(), 1);
    }

    #[test]
    fn goes_on_after_garbage() {
        let mut parser = Parser::default();
        let mut events = parser.push(b"\x00\x01 not json }}}\n");
        events.extend(parser.push(b"{\"event\": [1]}\n"));
        events.extend(parser.push(STREAM.as_bytes()));
        assert_eq!(events.len(), 3);
        assert!(parser.skipped() > 0);
    }

    #[test]
    fn an_endless_object_is_dropped() {
        let mut parser = Parser::default();
        parser.push(b"{\"event\": \"");
        for _ in 0..20 {
            parser.push(&[b'x'; 100_000]);
        }
        assert!(parser.rest.len() <= LARGEST + 100_000);
        let nested = b"{\"properties\":".repeat(500);
        let mut parser = Parser::default();
        parser.push(&nested);
        assert_eq!(parser.push(format!("\n{STREAM}").as_bytes()).len(), 3);
    }
}
