//! Interfaces inside the namespace, over netlink. Every function finds its work done or does it.

use super::{BRIDGE, gateway};
use crate::failure::{Context, Failure, Result};
use crate::provider::local::sys;
use futures::TryStreamExt;
use ipnet::Ipv4Net;
use nix::libc;
use rtnetlink::packet_route::link::{LinkAttribute, LinkMessage};
use rtnetlink::{Handle, LinkBridge, LinkUnspec};
use std::sync::Arc;
use tokio::sync::Mutex;

/// The links of this process's network namespace.
#[derive(Clone, Debug)]
pub(crate) struct Links {
    handle: Handle,
    listing: Arc<Mutex<()>>,
}

impl Links {
    /// Opens netlink; needs a tokio runtime.
    pub(crate) fn open() -> Result<Self> {
        let (connection, handle, _) = rtnetlink::new_connection().host("opening netlink")?;
        tokio::spawn(connection);
        Ok(Self {
            handle,
            listing: Arc::default(),
        })
    }

    /// Every link by name.
    pub(crate) async fn names(&self) -> Result<Vec<String>> {
        // The kernel lists for one asker at a time on a socket, and refuses a second one.
        let _one = self.listing.lock().await;
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
        let mut found = self
            .handle
            .link()
            .get()
            .match_name(wanted.to_owned())
            .execute();
        match found.try_next().await {
            Ok(link) => Ok(link.map(|l| l.header.index)),
            Err(rtnetlink::Error::NetlinkError(error)) if error.raw_code() == -libc::ENODEV => {
                Ok(None)
            }
            Err(error) => Err(error).host(format!("looking for interface {wanted}")),
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::local::network::namespace;
    use futures::future::join_all;

    /// On a thread of its own, whose end takes the namespace away.
    fn inside(test: impl AsyncFnOnce() + Send + 'static) {
        let thread = std::thread::spawn(move || {
            if !rustix::process::geteuid().is_root() {
                eprintln!("skipped: needs root to give one thread a namespace of its own");
                return;
            }
            namespace::create().unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.unwrap().block_on(test());
        });
        thread.join().unwrap();
    }

    #[test]
    fn links_are_made_once_found_again_and_removed() {
        inside(async || {
            let links = Links::open().unwrap();
            let range = "10.4.0.0/24".parse().unwrap();
            for _ in 0..2 {
                links.ensure_bridge(range).await.unwrap();
                let taps = (0..8).map(|n| format!("tap{n}"));
                let made = taps.map(|tap| async {
                    let tap = tap;
                    links.ensure_tap(&tap).await
                });
                for result in join_all(made).await {
                    result.unwrap();
                }
            }
            let listed = join_all((0..4).map(|_| links.names())).await;
            for names in listed {
                assert_eq!(names.unwrap().len(), 10, "lo, the bridge, eight TAPs");
            }
            links.remove("tap0").await.unwrap();
            links.remove("tap0").await.unwrap();
            assert!(!links.names().await.unwrap().contains(&"tap0".to_owned()));
            assert!(links.ensure_tap("a-name-too-long-for-one").await.is_err());
        });
    }
}
