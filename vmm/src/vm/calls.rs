//! Calls on a machine that is there: its power, its size, its counters.

use super::Vm;
use crate::error::Result;
use crate::info::VmCounters;
use crate::request::{self, Resize};

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
    /// As [`crate::client::Client::query`], and [`crate::Error::Died`].
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
    /// As [`Vm::call`], and [`crate::Error::Unsupported`].
    pub async fn resize_disk(&self, id: &str, size: u64) -> Result<()> {
        let capabilities = self.hypervisor().capabilities();
        capabilities.check_call("vm.resize-disk")?;
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

    /// Writes the guest's memory and registers to the file of `file:///path` as an ELF core. Running or
    /// paused; builds with the feature `guest_debug`.
    ///
    /// # Errors
    /// As [`Vm::call`], and [`crate::Error::Unsupported`].
    pub async fn coredump(&self, destination_url: &str) -> Result<()> {
        let capabilities = self.hypervisor().capabilities();
        capabilities.check_call("vm.coredump")?;
        let call = request::vm_coredump(destination_url);
        self.call(&call).await.map(drop)
    }
}
