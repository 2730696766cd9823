//! Devices that come and go. Each call refuses beforehand what the running version would drop, and is
//! remembered, so that a machine created anew after a refused boot is the same one.

use std::os::fd::BorrowedFd;

use super::Vm;
use crate::config::VmConfig;
use crate::device::{
    DeviceConfig, DiskConfig, FsConfig, GenericVhostUserConfig, NetBackend, NetConfig, PciSlot,
    PmemConfig, UserDeviceConfig, VdpaConfig, VsockConfig,
};
use crate::error::{Error, Result};
use crate::info::PciDeviceInfo;
use crate::request::{self, Request};
use crate::validate::{Problem, settle};

/// Adds one device of a list of the configuration: checked alone, sent, noted.
macro_rules! add {
    ($vm:expr, $field:ident, $device:expr, $request:expr) => {{
        let note = |config: &mut VmConfig| config.$field.push($device.clone());
        let mut alone = VmConfig::default();
        note(&mut alone);
        $vm.hypervisor().capabilities().check(&alone)?;
        let added = $vm.add(&$request).await?;
        $vm.note_config(note);
        Ok(added)
    }};
}

impl Vm {
    /// Adds any device by its request, which is neither checked nor remembered here; the answer is its
    /// PCI address when the VM runs.
    ///
    /// # Errors
    /// As [`Vm::call`].
    pub async fn add(&self, request: &Request) -> Result<Option<PciDeviceInfo>> {
        let result = self.client().add(request).await;
        self.or_death(result).await
    }

    /// Adds a disk.
    ///
    /// # Errors
    /// As [`Vm::call`], and [`Error::Unsupported`].
    pub async fn add_disk(&self, disk: &DiskConfig) -> Result<Option<PciDeviceInfo>> {
        add!(self, disks, disk, request::vm_add_disk(disk))
    }

    /// Adds a shared directory. Its virtiofsd must be listening.
    ///
    /// # Errors
    /// As [`Vm::call`], and [`Error::Unsupported`].
    pub async fn add_fs(&self, fs: &FsConfig) -> Result<Option<PciDeviceInfo>> {
        add!(self, fs, fs, request::vm_add_fs(fs))
    }

    /// Adds a device behind a vhost-user socket (v52), which must be listening.
    ///
    /// # Errors
    /// As [`Vm::call`], and [`Error::Unsupported`].
    pub async fn add_generic_vhost_user(
        &self,
        device: &GenericVhostUserConfig,
    ) -> Result<Option<PciDeviceInfo>> {
        let request = request::vm_add_generic_vhost_user(device);
        add!(self, generic_vhost_user, device, request)
    }

    /// Adds a file as persistent memory.
    ///
    /// # Errors
    /// As [`Vm::call`], and [`Error::Unsupported`].
    pub async fn add_pmem(&self, pmem: &PmemConfig) -> Result<Option<PciDeviceInfo>> {
        add!(self, pmem, pmem, request::vm_add_pmem(pmem))
    }

    /// Adds a VFIO device by its path.
    ///
    /// # Errors
    /// As [`Vm::call`], and [`Error::Unsupported`].
    pub async fn add_device(&self, device: &DeviceConfig) -> Result<Option<PciDeviceInfo>> {
        add!(self, devices, device, request::vm_add_device(device))
    }

    /// Adds a vfio-user device. Its socket must be listening.
    ///
    /// # Errors
    /// As [`Vm::call`], and [`Error::Unsupported`].
    pub async fn add_user_device(
        &self,
        device: &UserDeviceConfig,
    ) -> Result<Option<PciDeviceInfo>> {
        let request = request::vm_add_user_device(device);
        add!(self, user_devices, device, request)
    }

    /// Adds a vDPA device.
    ///
    /// # Errors
    /// As [`Vm::call`], and [`Error::Unsupported`].
    pub async fn add_vdpa(&self, device: &VdpaConfig) -> Result<Option<PciDeviceInfo>> {
        add!(self, vdpa, device, request::vm_add_vdpa(device))
    }

    /// Adds a vsock, the only one.
    ///
    /// # Errors
    /// As [`Vm::call`], and [`Error::Unsupported`].
    pub async fn add_vsock(&self, vsock: &VsockConfig) -> Result<Option<PciDeviceInfo>> {
        let alone = VmConfig {
            vsock: Some(vsock.clone()),
            ..VmConfig::default()
        };
        self.hypervisor().capabilities().check(&alone)?;
        let added = self.add(&request::vm_add_vsock(vsock)).await?;
        self.note_config(|config| config.vsock = Some(vsock.clone()));
        Ok(added)
    }

    /// Adds a network interface on a TAP device that exists by name, or one that Cloud Hypervisor makes.
    ///
    /// # Errors
    /// As [`Vm::call`], and [`Error::Unsupported`].
    pub async fn add_net(&self, net: &NetConfig) -> Result<Option<PciDeviceInfo>> {
        add!(self, net, net, request::vm_add_net(net))
    }

    /// Adds a network interface on open TAP descriptors, one a queue pair, and looks whether they
    /// arrived: without them Cloud Hypervisor makes a TAP device of its own and says nothing.
    /// `net.pci.id` must be set. A machine created anew after a refused boot is without it.
    ///
    /// # Errors
    /// As [`Vm::call`]; [`Error::Invalid`] without an id or descriptors; [`Error::Lost`] when the
    /// interface has other descriptors than were sent.
    pub async fn add_net_fds(&self, mut net: NetConfig, fds: &[BorrowedFd<'_>]) -> Result<()> {
        // The numbers are Cloud Hypervisor's to give; what counts is how many there are.
        net.backend = NetBackend::Fds(vec![-1; fds.len()]);
        net.num_queues = Some(fds.len() * 2);
        let Some(id) = net.pci.id.clone().filter(|_| !fds.is_empty()) else {
            return settle(vec![Problem {
                field: "net".to_owned(),
                reason: "needs an id and at least one descriptor".to_owned(),
            }]);
        };
        let alone = VmConfig {
            net: vec![net.clone()],
            ..VmConfig::default()
        };
        self.hypervisor().capabilities().check(&alone)?;
        let request = request::vm_add_net(&net);
        let result = self.client().call_with_fds(&request, fds).await;
        self.or_death(result).await?;
        self.check_descriptors("vm.add-net", &[(id, fds.len())])
            .await
            .map(drop)
    }

    /// Looks whether each interface has as many descriptors as it was sent; returns the configuration
    /// that Cloud Hypervisor reports.
    pub(super) async fn check_descriptors(
        &self,
        call: &'static str,
        sent: &[(String, usize)],
    ) -> Result<VmConfig> {
        let config = self.info().await?.config;
        for (id, sent) in sent {
            let net = config
                .net
                .iter()
                .find(|net| net.pci.id.as_deref() == Some(id));
            let found = match net.map(|net| &net.backend) {
                Some(NetBackend::Fds(fds)) => fds.len(),
                _ => 0,
            };
            if found != *sent {
                let (device, sent) = (id.clone(), *sent);
                return Err(Error::Lost {
                    call,
                    device,
                    sent,
                    found,
                });
            }
        }
        Ok(config)
    }

    /// Removes a device. A running guest lets go later: then comes
    /// [`crate::event::EventKind::DeviceRemoved`].
    ///
    /// # Errors
    /// As [`Vm::call`].
    pub async fn remove_device(&self, id: &str) -> Result<()> {
        self.call(&request::vm_remove_device(id)).await?;
        let other = |slot: &PciSlot| slot.id.as_deref() != Some(id);
        self.note_config(|config| {
            config.disks.retain(|device| other(&device.pci));
            config.fs.retain(|device| other(&device.pci));
            config.net.retain(|device| other(&device.pci));
            config.pmem.retain(|device| other(&device.pci));
            config.devices.retain(|device| other(&device.pci));
            config.user_devices.retain(|device| other(&device.pci));
            config.vdpa.retain(|device| other(&device.pci));
            config
                .generic_vhost_user
                .retain(|device| other(&device.pci));
            config.vsock = config.vsock.take().filter(|vsock| other(&vsock.pci));
        });
        Ok(())
    }
}
