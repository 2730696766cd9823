//! A machine's state on its way to a file or to another process. All of it fails where
//! [`crate::preflight::Report::can_snapshot`] says no.

use std::os::fd::BorrowedFd;

use super::Vm;
use crate::error::Result;
use crate::migration::{ReceiveMigration, RestoreConfig, SendMigration};
use crate::request;
use crate::validate::{receive_problems, restore_problems, send_problems, settle};

impl Vm {
    /// Writes the VM's state into the directory of `file:///dir`. Paused only.
    ///
    /// # Errors
    /// As [`Vm::call`].
    pub async fn snapshot(&self, destination_url: &str) -> Result<()> {
        let call = request::vm_snapshot(destination_url);
        self.call(&call).await.map(drop)
    }

    /// Fills an empty VM ([`Vm::empty`]) from a snapshot. It is paused afterwards unless `resume`.
    /// `fds` are the TAP descriptors of the interfaces that had some, in the order of
    /// `restore.net_fds`, and it is looked whether they arrived.
    ///
    /// # Errors
    /// As [`Vm::call`]; [`crate::Error::Invalid`] and [`crate::Error::Unsupported`] before anything is
    /// sent; [`crate::Error::Lost`] when an interface has other descriptors than were sent.
    pub async fn restore(&self, restore: &RestoreConfig, fds: &[BorrowedFd<'_>]) -> Result<()> {
        settle(restore_problems(restore, fds.len()))?;
        self.hypervisor().capabilities().check_restore(restore)?;
        let request = request::vm_restore(restore);
        let client = self.client();
        let result = if fds.is_empty() {
            client.call(&request).await
        } else {
            client.call_with_fds(&request, fds).await
        };
        self.or_death(result).await?;
        let sent = restore.net_fds.iter();
        let sent: Vec<_> = sent.map(|net| (net.id.clone(), net.num_fds)).collect();
        let config = self.check_descriptors("vm.restore", &sent).await?;
        self.arrived(config);
        Ok(())
    }

    /// Sends a running or paused VM to the process that waits at `destination_url`. From v53 on it
    /// returns at once, and [`crate::event::EventKind`]'s migration events tell the rest; before, it
    /// returns when it is done. On success this process ends with exit code 0, on failure the VM goes
    /// on here.
    ///
    /// # Errors
    /// As [`Vm::call`]; [`crate::Error::Invalid`] and [`crate::Error::Unsupported`] before anything is
    /// sent.
    pub async fn send_migration(&self, migration: &SendMigration) -> Result<()> {
        settle(send_problems(migration))?;
        self.hypervisor().capabilities().check_send(migration)?;
        let call = request::vm_send_migration(migration);
        self.call(&call).await.map(drop)
    }

    /// Waits for a VM to arrive at `receiver_url`, in an empty or created VM, which it replaces. Until
    /// then this process answers nothing and takes no SIGTERM: only [`Vm::kill`] ends the waiting, or a
    /// connection to the address that closes.
    ///
    /// # Errors
    /// As [`Vm::send_migration`].
    pub async fn receive_migration(&self, migration: &ReceiveMigration) -> Result<()> {
        settle(receive_problems(migration))?;
        self.hypervisor().capabilities().check_receive(migration)?;
        let call = request::vm_receive_migration(migration);
        self.call(&call).await?;
        self.arrived(self.info().await?.config);
        Ok(())
    }
}
