//! HTTP answers of whatever serves the API socket: read, refused or cut off, on both of the client's
//! ways, and without waiting for bytes that can't come.
#![no_main]

use knest_vmm::testing::read_answer;
use libfuzzer_sys::fuzz_target;

thread_local! {
    static RUNTIME: tokio::runtime::Runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
}

fuzz_target!(|answer: &[u8]| {
    for read in RUNTIME.with(|runtime| runtime.block_on(read_answer(answer))) {
        if let Some(Ok((_, body))) = read {
            assert!(body.len() <= answer.len(), "more was read than sent");
        }
    }
});
