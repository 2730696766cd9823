//! What goes over the socket, byte for byte where it matters.

#![expect(clippy::unwrap_used, reason = "a failure here is the test's failure")]

use knest_vmm::config::*;
use knest_vmm::device::*;
use knest_vmm::info::{self, VmInfo, VmState};
use knest_vmm::migration::*;
use knest_vmm::request::{self, Body, Method, Request, Resize};
use serde_json::{Value, json};

fn body(request: &Request) -> Value {
    match &request.body {
        Body::Json(json) => serde_json::from_slice(json).unwrap(),
        Body::Empty => Value::Null,
        Body::Unencodable(reason) => panic!("{reason}"),
    }
}

#[test]
fn every_endpoint_of_v53_has_its_request() {
    let slot = PciSlot::named("x");
    let requests = [
        request::vmm_ping(),
        request::vm_info(),
        request::vm_counters(),
        request::vmm_shutdown(),
        request::vm_create(&VmConfig::default()),
        request::vm_boot(),
        request::vm_delete(),
        request::vm_shutdown(),
        request::vm_reboot(),
        request::vm_pause(),
        request::vm_resume(),
        request::vm_power_button(),
        request::vm_nmi(),
        request::vm_resize(Resize {
            vcpus: Some(2),
            ..Resize::default()
        }),
        request::vm_resize_disk("x", 1),
        request::vm_resize_zone("x", 1),
        request::vm_add_device(&DeviceConfig {
            pci: slot,
            ..DeviceConfig::default()
        }),
        request::vm_add_disk(&DiskConfig::raw("/d")),
        request::vm_add_fs(&FsConfig::default()),
        request::vm_add_generic_vhost_user(&GenericVhostUserConfig::default()),
        request::vm_add_net(&NetConfig::default()),
        request::vm_add_pmem(&PmemConfig::default()),
        request::vm_add_vdpa(&VdpaConfig::default()),
        request::vm_add_vsock(&VsockConfig::default()),
        request::vm_add_user_device(&UserDeviceConfig::default()),
        request::vm_remove_device("x"),
        request::vm_snapshot("file:///s"),
        request::vm_restore(&RestoreConfig::default()),
        request::vm_coredump("file:///c"),
        request::vm_send_migration(&SendMigration::default()),
        request::vm_receive_migration(&ReceiveMigration::default()),
    ];
    let names = "vmm.ping vm.info vm.counters vmm.shutdown vm.create vm.boot vm.delete vm.shutdown \
                 vm.reboot vm.pause vm.resume vm.power-button vm.nmi vm.resize vm.resize-disk \
                 vm.resize-zone vm.add-device vm.add-disk vm.add-fs vm.add-generic-vhost-user \
                 vm.add-net vm.add-pmem vm.add-vdpa vm.add-vsock vm.add-user-device \
                 vm.remove-device vm.snapshot vm.restore vm.coredump vm.send-migration \
                 vm.receive-migration";
    let names: Vec<&str> = names.split_whitespace().collect();
    assert_eq!(
        requests
            .iter()
            .map(|request| request.name)
            .collect::<Vec<_>>(),
        names
    );
    for (index, request) in requests.iter().enumerate() {
        let method = if index < 3 { Method::Get } else { Method::Put };
        assert_eq!(request.method, method, "{}", request.name);
        assert_eq!(request.path(), format!("/api/v1/{}", request.name));
    }
}

#[test]
fn a_machine_is_written_in_few_words() {
    let config = VmConfig {
        cpus: Some(CpusConfig::fixed(2)),
        memory: Some(MemoryConfig::of(1 << 30)),
        payload: Some(Payload::kernel("/k", "console=ttyS0")),
        disks: vec![
            DiskConfig::qcow2("/root"),
            DiskConfig::raw("/seed").read_only(),
        ],
        net: vec![NetConfig::tap("tap0", "02:00:00:00:00:01")],
        serial: Some(SerialConfig::Tty),
        console: Some(ConsoleConfig::pty()),
        debug_console: Some(DebugConsoleConfig::default()),
        ..VmConfig::default()
    };
    assert_eq!(
        body(&request::vm_create(&config)),
        json!({
            "cpus": { "boot_vcpus": 2, "max_vcpus": 2 },
            "memory": { "size": 1 << 30 },
            "payload": { "kernel": "/k", "cmdline": "console=ttyS0" },
            "disks": [
                { "path": "/root", "image_type": "Qcow2", "backing_files": true },
                { "path": "/seed", "image_type": "Raw", "readonly": true },
            ],
            "net": [{ "tap": "tap0", "mac": "02:00:00:00:00:01" }],
            "serial": { "mode": "Tty" },
            "console": { "mode": "Pty" },
            "debug_console": { "mode": "Off" },
        })
    );
}

#[test]
fn old_names_are_sent_and_both_are_read() {
    let platform = PlatformConfig {
        uuid: Some("u".into()),
        serial_number: Some("s".into()),
        ..PlatformConfig::default()
    };
    let config = VmConfig {
        platform: Some(platform.clone()),
        ..VmConfig::default()
    };
    let sent = body(&request::vm_create(&config));
    assert_eq!(
        sent["platform"],
        json!({ "uuid": "u", "serial_number": "s" })
    );
    for names in [
        ("uuid", "serial_number"),
        ("system_uuid", "system_serial_number"),
    ] {
        let answer = json!({ "platform": { names.0: "u", names.1: "s" } }).to_string();
        let read: VmConfig = info::decode(answer.as_bytes()).unwrap();
        assert_eq!(read.platform.unwrap(), platform);
    }
}

#[test]
fn migration_urls_have_one_colon_form() {
    let send = SendMigration {
        destination_url: MigrationUrl::Tcp("10.0.0.1:4000".into()),
        timeout_strategy: Some(TimeoutStrategy::Ignore),
        ..SendMigration::default()
    };
    assert_eq!(
        body(&request::vm_send_migration(&send)),
        json!({ "destination_url": "tcp:10.0.0.1:4000", "timeout_strategy": "Ignore" })
    );
    let receive = ReceiveMigration {
        receiver_url: MigrationUrl::Unix("/run/m".into()),
        ..ReceiveMigration::default()
    };
    assert_eq!(
        body(&request::vm_receive_migration(&receive)),
        json!({ "receiver_url": "unix:/run/m" })
    );
}

#[test]
fn answers_of_old_and_new_versions_are_read() {
    // v52 and before: nulls everywhere, and a flag on each device.
    let old = json!({
        "state": "Created", "memory_actual_size": 536870912, "device_tree": null,
        "config": {
            "cpus": { "boot_vcpus": 1, "max_vcpus": 1, "topology": null, "affinity": null },
            "disks": null, "net": [{ "tap": null, "fds": null, "iommu": false, "mac": "02::" }],
            "serial": { "file": null, "mode": "Null", "iommu": false, "socket": null },
            "console": { "file": "/dev/pts/3", "mode": "Pty", "iommu": false, "socket": null },
            "payload": { "firmware": null, "kernel": "/k", "cmdline": null, "initramfs": null },
        }
    });
    let old: VmInfo = info::decode(old.to_string().as_bytes()).unwrap();
    assert_eq!(old.config.serial, Some(SerialConfig::Null));
    let console = old.config.console.unwrap().mode;
    assert_eq!(
        console,
        ConsoleMode::Pty {
            file: Some("/dev/pts/3".into())
        }
    );
    assert!(matches!(old.config.payload, Some(Payload::Kernel { .. })));

    let new = json!({
        "state": "Teleporting", "brand": "new",
        "config": {
            "serial": { "mode": "Hologram" },
            "disks": [{ "image_type": "Zip", "lock_granularity": "Bit" }],
        }
    });
    let new: VmInfo = info::decode(new.to_string().as_bytes()).unwrap();
    assert_eq!(new.state, VmState::Unknown);
    assert_eq!(new.config.serial, Some(SerialConfig::Unknown));
    assert_eq!(new.config.disks[0].image_type, Some(ImageType::Unknown));
}

#[test]
fn an_unused_counter_is_no_error() {
    let answer = br#"{"_disk0":{"read_latency_min":18446744073709551615}}"#;
    let counters: info::VmCounters = info::decode(answer).unwrap();
    assert_eq!(counters["_disk0"]["read_latency_min"], u64::MAX);
}
