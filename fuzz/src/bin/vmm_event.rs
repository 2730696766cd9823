//! The event stream: any bytes in any pieces. The first byte says how large the pieces are; the events
//! must not depend on it, and what is kept of garbage is bounded.
#![no_main]

use knest_vmm::event::Parser;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((size, stream)) = input.split_first() else {
        return;
    };
    let mut whole = Parser::default();
    let expected = whole.push(stream);
    let mut parser = Parser::default();
    let events: Vec<_> = stream
        .chunks(usize::from(*size).max(1))
        .flat_map(|piece| parser.push(piece))
        .collect();
    assert_eq!(events, expected, "cut in pieces of {size}");
    assert!(parser.skipped() <= stream.len() as u64);
});
