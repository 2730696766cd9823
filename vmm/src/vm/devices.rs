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

    /// Adds a device that `note` adds to a configuration too: checked alone, sent, noted.
    async fn add_noted(
        &self,
        request: &Request,
        note: impl Fn(&mut VmConfig),
    ) -> Result<Option<PciDeviceInfo>> {
        self.check_alone(&note)?;
        let added = self.add(request).await?;
        self.note_config(note);
        Ok(added)
    }

    /// Refuses what the running version would drop of a device.
    fn check_alone(&self, note: impl Fn(&mut VmConfig)) -> Result<()> {
        let mut alone = VmConfig::default();
        note(&mut alone);
        self.hypervisor().capabilities().check(&alone)
    }

    /// Adds a disk.
    ///
    /// # Errors
    /// As [`Vm::call`], and [`Error::Unsupported`].
    pub async fn add_disk(&self, disk: &DiskConfig) -> Result<Option<PciDeviceInfo>> {
        self.add_noted(&request::vm_add_disk(disk), |config| {
            config.disks.push(disk.clone());
        })
        .await
    }

    /// Adds a shared directory. Its virtiofsd must be listening.
    ///
    /// # Errors
    /// As [`Vm::call`], and [`Error::Unsupported`].
    pub async fn add_fs(&self, fs: &FsConfig) -> Result<Option<PciDeviceInfo>> {
        self.add_noted(&request::vm_add_fs(fs), |config| {
            config.fs.push(fs.clone());
        })
        .await
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
        self.add_noted(&request, |config| {
            config.generic_vhost_user.push(device.clone());
        })
        .await
    }

    /// Adds a file as persistent memory.
    ///
    /// # Errors
    /// As [`Vm::call`], and [`Error::Unsupported`].
    pub async fn add_pmem(&self, pmem: &PmemConfig) -> Result<Option<PciDeviceInfo>> {
        self.add_noted(&request::vm_add_pmem(pmem), |config| {
            config.pmem.push(pmem.clone());
        })
        .await
    }

    /// Adds a VFIO device by its path.
    ///
    /// # Errors
    /// As [`Vm::call`], and [`Error::Unsupported`].
    pub async fn add_device(&self, device: &DeviceConfig) -> Result<Option<PciDeviceInfo>> {
        self.add_noted(&request::vm_add_device(device), |config| {
            config.devices.push(device.clone());
        })
        .await
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
        self.add_noted(&request, |config| {
            config.user_devices.push(device.clone());
        })
        .await
    }

    /// Adds a vDPA device.
    ///
    /// # Errors
    /// As [`Vm::call`], and [`Error::Unsupported`].
    pub async fn add_vdpa(&self, device: &VdpaConfig) -> Result<Option<PciDeviceInfo>> {
        self.add_noted(&request::vm_add_vdpa(device), |config| {
            config.vdpa.push(device.clone());
        })
        .await
    }

    /// Adds a vsock, the only one.
    ///
    /// # Errors
    /// As [`Vm::call`], and [`Error::Unsupported`].
    pub async fn add_vsock(&self, vsock: &VsockConfig) -> Result<Option<PciDeviceInfo>> {
        let request = request::vm_add_vsock(vsock);
        self.add_noted(&request, |config| config.vsock = Some(vsock.clone()))
            .await
    }

    /// Adds a network interface on a TAP device that exists by name, or one that Cloud Hypervisor makes.
    ///
    /// # Errors
    /// As [`Vm::call`], and [`Error::Unsupported`].
    pub async fn add_net(&self, net: &NetConfig) -> Result<Option<PciDeviceInfo>> {
        self.add_noted(&request::vm_add_net(net), |config| {
            config.net.push(net.clone());
        })
        .await
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
        self.check_alone(|config| {
            config.net.push(net.clone());
        })?;
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
