//! Interfaces inside the namespace, over netlink. Every function finds its work done or does it.

use super::{BRIDGE, gateway};
use crate::failure::{Context, Failure, Result};
use crate::provider::local::sys;
use futures::TryStreamExt;
use ipnet::Ipv4Net;
use rtnetlink::packet_route::link::{LinkAttribute, LinkMessage};
use rtnetlink::{Handle, LinkBridge, LinkUnspec};

/// The links of this process's network namespace.
#[derive(Clone, Debug)]
pub(crate) struct Links {
    handle: Handle,
}

impl Links {
    /// Opens netlink; needs a tokio runtime.
    pub(crate) fn open() -> Result<Self> {
        let (connection, handle, _) = rtnetlink::new_connection().host("opening netlink")?;
        tokio::spawn(connection);
        Ok(Self { handle })
    }

    /// Every link by name.
    pub(crate) async fn names(&self) -> Result<Vec<String>> {
        let links: Vec<LinkMessage> = self
            .handle
            .link()
            .get()
            .execute()
            .try_collect()
            .await
            .host("listing interfaces")?;
        Ok(links.iter().filter_map(name).map(str::to_owned).collect())
    }

    async fn index(&self, wanted: &str) -> Result<Option<u32>> {
        let links: Vec<LinkMessage> = self
            .handle
            .link()
            .get()
            .execute()
            .try_collect()
            .await
            .host("listing interfaces")?;
        Ok(links
            .iter()
            .find(|l| name(l) == Some(wanted))
            .map(|l| l.header.index))
    }

    async fn existing(&self, name: &str) -> Result<u32> {
        self.index(name)
            .await?
            .ok_or_else(|| Failure::host(format!("interface {name} is not there after all")))
    }

    /// The loopback up, and the bridge up with its address.
    pub(crate) async fn ensure_bridge(&self, range: Ipv4Net) -> Result<()> {
        let what = || format!("making the bridge {BRIDGE}");
        let loopback = LinkUnspec::new_with_index(self.existing("lo").await?)
            .up()
            .build();
        self.handle
            .link()
            .set(loopback)
            .execute()
            .await
            .host("setting the loopback up")?;
        if self.index(BRIDGE).await?.is_none() {
            let bridge = LinkBridge::new(BRIDGE).build();
            self.handle
                .link()
                .add(bridge)
                .execute()
                .await
                .host(what())?;
        }
        let index = self.existing(BRIDGE).await?;
        let address = self.handle.address();
        let request = address
            .add(index, gateway(range).into(), range.prefix_len())
            .replace();
        request.execute().await.host(what())?;
        let up = LinkUnspec::new_with_index(index).up().build();
        self.handle.link().set(up).execute().await.host(what())
    }

    /// A TAP of this name, up, on the bridge.
    pub(crate) async fn ensure_tap(&self, name: &str) -> Result<()> {
        let what = || format!("making the TAP {name}");
        if self.index(name).await?.is_none() {
            sys::persistent_tap(name).host(what())?;
        }
        let bridge = self.existing(BRIDGE).await?;
        let index = self.existing(name).await?;
        let port = LinkUnspec::new_with_index(index)
            .controller(bridge)
            .up()
            .build();
        self.handle.link().set(port).execute().await.host(what())
    }

    /// Removes a link; an absent one is no error.
    pub(crate) async fn remove(&self, name: &str) -> Result<()> {
        let Some(index) = self.index(name).await? else {
            return Ok(());
        };
        self.handle
            .link()
            .del(index)
            .execute()
            .await
            .host(format!("removing {name}"))
    }
}

fn name(link: &LinkMessage) -> Option<&str> {
    link.attributes.iter().find_map(|a| match a {
        LinkAttribute::IfName(name) => Some(name.as_str()),
        _ => None,
    })
}
