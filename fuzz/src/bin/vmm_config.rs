//! JSON as Cloud Hypervisor's answers and error bodies hold it. What is read as a machine is written as
//! the same machine, and can be judged.
#![no_main]

use knest_vmm::capability::{Capabilities, Version};
use knest_vmm::config::VmConfig;
use knest_vmm::error::ApiError;
use knest_vmm::info::{self, VmCounters, VmInfo, VmmPing};
use knest_vmm::validate;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    if let Ok(config) = info::decode::<VmConfig>(body) {
        // A path that is no UTF-8 can't come out of JSON.
        let again = serde_json::to_vec(&config).expect("written");
        let read = info::decode::<VmConfig>(&again).expect("read again");
        assert_eq!(read, config);
        drop(validate::problems(&config));
        for major in [42, 53] {
            let features = Default::default();
            let version = Version::major(major);
            drop(Capabilities { version, features }.missing(&config));
        }
    }
    drop(info::decode::<VmInfo>(body));
    drop(info::decode::<VmCounters>(body));
    if let Ok(ping) = info::decode::<VmmPing>(body) {
        drop(Capabilities::of(&ping));
    }
    let error = ApiError::parse(500, body);
    assert!(!error.chain.is_empty());
    let _kind = error.kind();
});
