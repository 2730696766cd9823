//! Input that nobody wrote: whatever comes over the socket or out of the event file, nothing panics.

use knest_vmm::capability::Version;
use knest_vmm::config::VmConfig;
use knest_vmm::error::ApiError;
use knest_vmm::event::Parser;
use knest_vmm::info::{self, VmCounters, VmInfo, VmmPing};
use proptest::prelude::*;

/// Pieces of an event stream and things that are not.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..40),
        Just(br#"{"timestamp":{"secs":1,"nanos":5},"source":"vm","event":"rebooted"}"#.to_vec()),
        Just(b"\n\n".to_vec()),
        Just(b"\n{".to_vec()),
        Just(br#"{"properties":{"a":[[[{}]]]}}"#.to_vec()),
        Just(br#"{"timestamp":{"secs":18446744073709551615,"nanos":4294967295}}"#.to_vec()),
    ]
}

/// Any JSON, a little like an answer.
fn json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<u64>().prop_map(Into::into),
        "[a-zA-Z:/]{0,12}".prop_map(Into::into),
    ];
    let key = prop_oneof![
        Just("config".to_owned()),
        Just("state".to_owned()),
        Just("net".to_owned()),
        Just("disks".to_owned()),
        Just("payload".to_owned()),
        Just("serial".to_owned()),
        Just("mode".to_owned()),
        Just("file".to_owned()),
        "[a-z_]{1,8}",
    ];
    leaf.prop_recursive(5, 64, 8, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
            proptest::collection::btree_map(key.clone(), inner, 0..6)
                .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn the_event_stream_is_cut_anywhere(pieces in proptest::collection::vec(piece(), 0..30)) {
        let stream = pieces.concat();
        let whole = Parser::default().push(&stream);
        let mut parser = Parser::default();
        let bytewise: Vec<_> = stream.iter().flat_map(|byte| parser.push(&[*byte])).collect();
        prop_assert_eq!(bytewise, whole);
    }

    #[test]
    fn error_bodies_are_read(status in any::<u16>(), body in proptest::collection::vec(any::<u8>(), 0..300)) {
        let error = ApiError::parse(status, &body);
        prop_assert!(!error.chain.is_empty());
        let _kind = error.kind();
    }

    #[test]
    fn error_chains_survive(status in 400u16..600, chain in proptest::collection::vec("[ -~]{1,40}", 1..6)) {
        let body = serde_json::to_vec(&chain).unwrap();
        prop_assert_eq!(ApiError::parse(status, &body).chain, chain);
    }

    #[test]
    fn answers_are_read_or_refused(value in json()) {
        let body = value.to_string();
        drop(info::decode::<VmInfo>(body.as_bytes()));
        drop(info::decode::<VmmPing>(body.as_bytes()));
        drop(info::decode::<VmCounters>(body.as_bytes()));
        if let Ok(config) = info::decode::<VmConfig>(body.as_bytes()) {
            // What was read can be written, and read again as the same.
            let again = serde_json::to_vec(&config).unwrap();
            prop_assert_eq!(info::decode::<VmConfig>(&again).unwrap(), config.clone());
            drop(knest_vmm::validate::problems(&config));
        }
    }

    #[test]
    fn bytes_are_read_or_refused(body in proptest::collection::vec(any::<u8>(), 0..300)) {
        drop(info::decode::<VmInfo>(&body));
        drop(String::from_utf8_lossy(&body).parse::<Version>());
    }
}
