//! `vm.json` as Cloud Hypervisor is asked for it. Pure.

use super::spec::{DiskSpec, NetSpec, VmSpec};
use crate::provider::local::DiskFormat;
use crate::provider::local::network::tap_name;
use knest_vmm::config::{ConsoleConfig, CpusConfig, MemoryConfig, Payload, SerialConfig, VmConfig};
use knest_vmm::device::{DiskConfig, FsConfig, NetConfig};
use std::path::PathBuf;

/// Where the listener of a share's virtiofsd is.
pub(super) fn share_socket(index: usize) -> PathBuf {
    format!("share-{index}.sock").into()
}

/// The machine's configuration.
pub(super) fn render(spec: &VmSpec) -> VmConfig {
    let shares = spec.shares.iter().enumerate();
    VmConfig {
        cpus: Some(CpusConfig {
            max_vcpus: spec.max_cpus.unwrap_or(spec.cpus),
            ..CpusConfig::fixed(spec.cpus)
        }),
        memory: Some(MemoryConfig {
            hotplug_size: room(spec),
            // virtiofsd reads and writes the guest's memory.
            shared: !spec.shares.is_empty(),
            ..MemoryConfig::of(spec.memory)
        }),
        payload: Some(Payload::Kernel {
            kernel: spec.kernel.clone(),
            cmdline: Some(spec.cmdline.clone()),
            initramfs: spec.initramfs.clone(),
            fw_cfg: None,
        }),
        disks: spec.disks.iter().map(disk).collect(),
        net: spec.net.iter().map(net).collect(),
        fs: shares
            .map(|(index, share)| FsConfig {
                tag: share.tag.clone(),
                socket: share_socket(index),
                ..FsConfig::default()
            })
            .collect(),
        // Onto the VMM's standard output, which appends to the serial log over every reboot.
        serial: Some(SerialConfig::Tty),
        console: Some(ConsoleConfig::pty()),
        pvpanic: true,
        ..VmConfig::default()
    }
}

/// What may be plugged; none, to Cloud Hypervisor, is not 0.
fn room(spec: &VmSpec) -> Option<u64> {
    let room = spec.max_memory?.saturating_sub(spec.memory);
    (room > 0).then_some(room)
}

fn disk(disk: &DiskSpec) -> DiskConfig {
    let config = match disk.format {
        DiskFormat::Raw => DiskConfig::raw(&disk.path),
        DiskFormat::Qcow2 => DiskConfig {
            backing_files: disk.backing,
            ..DiskConfig::qcow2(&disk.path)
        },
    };
    match disk.read_only {
        true => config.read_only(),
        false => config,
    }
}

fn net(net: &NetSpec) -> NetConfig {
    match net {
        NetSpec::Tap { tap, mac } => NetConfig::tap(tap, mac),
        NetSpec::User { address, mac, .. } => NetConfig::tap(tap_name(*address), mac),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::spec::testing::spec;

    #[test]
    fn a_vm_as_cloud_hypervisor_is_asked_for_it() {
        let config = render(&spec());
        assert_eq!(knest_vmm::validate::problems(&config), []);
        insta::assert_snapshot!(serde_json::to_string_pretty(&config).unwrap());
    }

    #[test]
    fn room_to_grow() {
        let spec = VmSpec {
            max_cpus: Some(8),
            max_memory: Some(3 << 30),
            ..spec()
        };
        let config = render(&spec);
        assert_eq!(knest_vmm::validate::problems(&config), []);
        let (cpus, memory) = (config.cpus.unwrap(), config.memory.unwrap());
        assert_eq!((cpus.boot_vcpus, cpus.max_vcpus), (2, 8));
        assert_eq!((memory.size, memory.hotplug_size), (1 << 30, Some(2 << 30)));
    }
}
