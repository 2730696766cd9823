//! A VM's calls, typed: each refuses beforehand what the running version would drop.

use std::os::fd::BorrowedFd;

use super::Vm;
use crate::device::{DiskConfig, FsConfig, NetBackend, NetConfig, PciSlot, VsockConfig};
use crate::error::{Error, Result};
use crate::info::{PciDeviceInfo, VmCounters};
use crate::migration::RestoreConfig;
use crate::request::{self, Request, Resize};

impl Vm {
    /// Lets the vCPUs stand still. Running only.
    ///
    /// # Errors
    /// As [`Vm::call`].
    pub async fn pause(&self) -> Result<()> {
        self.call(&request::vm_pause()).await.map(drop)
    }

    /// Lets the vCPUs run again. Paused only.
    ///
    /// # Errors
    /// As [`Vm::call`].
    pub async fn resume(&self) -> Result<()> {
        self.call(&request::vm_resume()).await.map(drop)
    }

    /// Resets the machine. Running or paused.
    ///
    /// # Errors
    /// As [`Vm::call`].
    pub async fn reboot(&self) -> Result<()> {
        self.call(&request::vm_reboot()).await.map(drop)
    }

    /// Presses the power button. Running only. What follows is the guest's business: one that
    /// listens powers off, and then the process ends with exit code 0.
    ///
    /// # Errors
    /// As [`Vm::call`].
    pub async fn power_button(&self) -> Result<()> {
        self.call(&request::vm_power_button()).await.map(drop)
    }

    /// Pulls the plug; the process stays, and the machine can be booted again. Running or paused.
    ///
    /// # Errors
    /// As [`Vm::call`].
    pub async fn power_off(&self) -> Result<()> {
        self.call(&request::vm_shutdown()).await.map(drop)
    }

    /// Injects a non-maskable interrupt. Running only.
    ///
    /// # Errors
    /// As [`Vm::call`].
    pub async fn nmi(&self) -> Result<()> {
        self.call(&request::vm_nmi()).await.map(drop)
    }

    /// Counters of its devices. Running or paused.
    ///
    /// # Errors
    /// As [`crate::client::Client::query`], and [`Error::Died`].
    pub async fn counters(&self) -> Result<VmCounters> {
        let result = self.client().counters().await;
        self.or_death(result).await
    }

    /// Changes vCPUs, memory or balloon. The guest follows later.
    ///
    /// # Errors
    /// As [`Vm::call`]; kind `Busy` while the guest still gives back vCPUs.
    pub async fn resize(&self, resize: Resize) -> Result<()> {
        self.call(&request::vm_resize(resize)).await.map(drop)
    }

    /// Changes a disk's size in bytes (v50). Running or paused.
    ///
    /// # Errors
    /// As [`Vm::call`], and [`Error::Unsupported`].
    pub async fn resize_disk(&self, id: &str, size: u64) -> Result<()> {
        self.hypervisor()
            .capabilities()
            .check_call("vm.resize-disk")?;
        self.call(&request::vm_resize_disk(id, size))
            .await
            .map(drop)
    }

    /// Changes a memory zone's size in bytes.
    ///
    /// # Errors
    /// As [`Vm::call`].
    pub async fn resize_zone(&self, id: &str, ram: u64) -> Result<()> {
        self.call(&request::vm_resize_zone(id, ram)).await.map(drop)
    }

    /// Adds any device by its request, which only Cloud Hypervisor remembers; the answer is its PCI address when the VM runs.
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
        self.hypervisor().capabilities().check_disk(disk)?;
        let added = self.add(&request::vm_add_disk(disk)).await?;
        self.note_config(|config| config.disks.push(disk.clone()));
        Ok(added)
    }

    /// Adds a shared directory. Its virtiofsd must be listening.
    ///
    /// # Errors
    /// As [`Vm::call`].
    pub async fn add_fs(&self, fs: &FsConfig) -> Result<Option<PciDeviceInfo>> {
        let added = self.add(&request::vm_add_fs(fs)).await?;
        self.note_config(|config| config.fs.push(fs.clone()));
        Ok(added)
    }

    /// Adds a vsock.
    ///
    /// # Errors
    /// As [`Vm::call`].
    pub async fn add_vsock(&self, vsock: &VsockConfig) -> Result<Option<PciDeviceInfo>> {
        let added = self.add(&request::vm_add_vsock(vsock)).await?;
        self.note_config(|config| config.vsock = Some(vsock.clone()));
        Ok(added)
    }

    /// Adds a network interface on a TAP device that exists by name.
    ///
    /// # Errors
    /// As [`Vm::call`].
    pub async fn add_net(&self, net: &NetConfig) -> Result<Option<PciDeviceInfo>> {
        let added = self.add(&request::vm_add_net(net)).await?;
        self.note_config(|config| config.net.push(net.clone()));
        Ok(added)
    }

    /// Adds a network interface on open TAP descriptors, one a queue pair, and looks whether they
    /// arrived: without them Cloud Hypervisor makes a TAP device of its own and says nothing.
    /// `net.pci.id` must be set.
    ///
    /// # Errors
    /// As [`Vm::call`]; [`Error::Deadline`] when the interface has other descriptors than were sent.
    pub async fn add_net_fds(&self, mut net: NetConfig, fds: &[BorrowedFd<'_>]) -> Result<()> {
        // The numbers are Cloud Hypervisor's to give; what counts is how many there are.
        net.backend = NetBackend::Fds(vec![-1; fds.len()]);
        net.num_queues = Some(fds.len() * 2);
        let id = net.pci.id.clone();
        let result = self
            .client()
            .call_with_fds(&request::vm_add_net(&net), fds)
            .await;
        self.or_death(result).await?;
        let info = self.info().await?;
        let found = info.config.net.iter().find(|net| net.pci.id == id);
        match found.map(|net| &net.backend) {
            Some(NetBackend::Fds(there)) if there.len() == fds.len() => Ok(()),
            other => Err(Error::Deadline {
                what: "the interface's descriptors in vm.info",
                waited: std::time::Duration::ZERO,
                last: format!("{other:?}"),
            }),
        }
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
            config.disks.retain(|disk| other(&disk.pci));
            config.fs.retain(|fs| other(&fs.pci));
            config.net.retain(|net| other(&net.pci));
            config.vsock = config.vsock.take().filter(|vsock| other(&vsock.pci));
        });
        Ok(())
    }

    /// Writes the VM's state into the directory of `file:///dir`. Paused only.
    ///
    /// # Errors
    /// As [`Vm::call`]; always where [`crate::preflight::Report::can_snapshot`] is false.
    pub async fn snapshot(&self, destination_url: &str) -> Result<()> {
        self.call(&request::vm_snapshot(destination_url))
            .await
            .map(drop)
    }

    /// Fills an empty VM ([`Vm::empty`]) from a snapshot. It is paused afterwards unless
    /// `resume`.
    ///
    /// # Errors
    /// As [`Vm::call`].
    pub async fn restore(&self, restore: &RestoreConfig) -> Result<()> {
        self.call(&request::vm_restore(restore)).await.map(drop)
    }
}
