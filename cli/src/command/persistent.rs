//! The flags of `knest create` for machines that keep their disk and their address.

use super::place::Home;
use crate::cluster::pool::Pool;
use crate::cluster::record::Record;
use crate::cluster::spec::{AccessMode, HostCni, PersistentSpec, VolumeMode};
use crate::failure::Result;
use crate::provider::virtink::{Wishes, resolve};

const HEADING: &str = "Machines that keep disk and address";

/// The flags.
#[derive(Debug, clap::Args)]
pub(super) struct Flags {
    /// Keep every machine's disk and address wherever on the host cluster it runs next
    #[arg(long, requires = "machine_addresses", help_heading = HEADING)]
    persistent: bool,
    /// The machines' addresses: single ones, ranges like 10.244.0.100-10.244.0.110, CIDRs
    #[arg(
        long,
        value_name = "ADDRESSES",
        requires = "persistent",
        help_heading = HEADING
    )]
    machine_addresses: Option<Pool>,
    /// What gives the host cluster's pods their addresses [default: found]
    #[arg(
        long,
        value_enum,
        value_name = "CNI",
        requires = "persistent",
        help_heading = HEADING
    )]
    host_cluster_cni: Option<HostCni>,
    /// What the host cluster makes disks of [default: its own default]
    #[arg(
        long,
        value_name = "CLASS",
        requires = "persistent",
        help_heading = HEADING
    )]
    storage_class: Option<String>,
    /// From how many of the host's nodes a disk can be used [default: ReadWriteOnce]
    #[arg(
        long,
        value_enum,
        value_name = "MODE",
        ignore_case = true,
        requires = "persistent",
        help_heading = HEADING
    )]
    access_mode: Option<AccessMode>,
    /// Whether a disk is a file on its volume or the volume itself [default: Filesystem]
    #[arg(
        long,
        value_enum,
        value_name = "MODE",
        ignore_case = true,
        requires = "persistent",
        help_heading = HEADING
    )]
    volume_mode: Option<VolumeMode>,
}

impl Flags {
    /// The flag that only provider virtink has, if it is given: the others need it.
    pub(super) fn flag(&self) -> Option<&'static str> {
        self.persistent.then_some("--persistent")
    }

    /// What they come to on a host. What was found there once stays when a creation goes on.
    pub(super) async fn resolve(
        &self,
        home: &Home,
        known: Option<&Record>,
    ) -> Result<Option<PersistentSpec>> {
        let (Home::Virtink(virtink), Some(addresses)) = (home, self.machine_addresses.clone())
        else {
            return Ok(None);
        };
        let known = known.and_then(|record| record.spec.provider.persistent());
        let class = || known.and_then(|spec| spec.storage_class.clone());
        let wishes = Wishes {
            host_cni: self
                .host_cluster_cni
                .or_else(|| known.map(|spec| spec.host_cni)),
            addresses,
            storage_class: self.storage_class.clone().or_else(class),
            access_mode: self.access_mode.unwrap_or(AccessMode::ReadWriteOnce),
            volume_mode: self.volume_mode.unwrap_or(VolumeMode::Filesystem),
        };
        resolve(virtink.host(), wishes).await.map(Some)
    }
}
