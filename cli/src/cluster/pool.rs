//! The addresses that a user sets aside for machines, and which node gets which: a node keeps the
//! one that it has for as long as it is in its cluster's record, and no two nodes have the same.
//! Pure; knows neither who else takes addresses nor where that is written down. IPv4 only.

use super::address::{AddressError, mac_for, parse_cidr};
use super::record::NodeRecord;
use crate::failure::Failure;
use ipnet::{Ipv4AddrRange, Ipv4Net, Ipv4Subnets};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

/// More than any cluster can use; every one of them is looked at.
const MOST: u64 = 1 << 16;

/// From its first to its last address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    first: Ipv4Addr,
    last: Ipv4Addr,
}

/// Addresses as `10.0.0.5,10.0.0.100-10.0.0.110,10.0.1.0/24`: ascending, none twice. A CIDR's
/// network and broadcast addresses are not among them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Pool {
    spans: Vec<Span>,
}

/// Why addresses are refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum PoolError {
    #[error("{0:?} is no address, no range like 10.0.0.100-10.0.0.110, and no CIDR")]
    Malformed(String),
    #[error("the range {0:?} lacks an end: write FIRST-LAST")]
    Open(String),
    #[error("the range {first}-{last} ends before it begins: write {last}-{first}")]
    Backwards { first: Ipv4Addr, last: Ipv4Addr },
    #[error("{0:?} is not of IPv4, which is all that is supported")]
    OtherFamily(String),
    #[error(transparent)]
    Cidr(AddressError),
    #[error("{0} and {1} overlap")]
    Overlap(String, String),
    #[error("{0} addresses are more than {MOST}")]
    TooMany(u64),
    #[error("of the {all} machine addresses none is left")]
    Exhausted { all: u64 },
}

impl From<PoolError> for Failure {
    fn from(error: PoolError) -> Self {
        Self::usage(error.to_string())
    }
}

impl Span {
    fn parse(text: &str) -> Result<Self, PoolError> {
        let address = |part: &str| match part.trim().parse::<IpAddr>() {
            Ok(IpAddr::V4(address)) => Ok(address),
            Ok(IpAddr::V6(_)) => Err(PoolError::OtherFamily(text.into())),
            Err(_) if part.trim().is_empty() => Err(PoolError::Open(text.into())),
            Err(_) => Err(PoolError::Malformed(text.into())),
        };
        if text.is_empty() {
            return Err(PoolError::Malformed(text.into()));
        }
        if text.contains('/') {
            return match parse_cidr(text) {
                Ok(net) => Ok(Self::of(net)),
                Err(AddressError::Malformed(_)) => Err(PoolError::Malformed(text.into())),
                Err(AddressError::Ipv6(_)) => Err(PoolError::OtherFamily(text.into())),
                Err(other) => Err(PoolError::Cidr(other)),
            };
        }
        let (first, last) = match text.split_once('-') {
            Some((first, last)) => (address(first)?, address(last)?),
            None => (address(text)?, address(text)?),
        };
        match first <= last {
            true => Ok(Self { first, last }),
            false => Err(PoolError::Backwards { first, last }),
        }
    }

    /// What machines can have of a network: in a /31 and a /32 everything.
    fn of(net: Ipv4Net) -> Self {
        let inner = u32::from(net.prefix_len() < 31);
        Self {
            first: Ipv4Addr::from_bits(net.network().to_bits() + inner),
            last: Ipv4Addr::from_bits(net.broadcast().to_bits() - inner),
        }
    }

    fn len(self) -> u64 {
        u64::from(self.last.to_bits() - self.first.to_bits()) + 1
    }

    fn contains(self, address: Ipv4Addr) -> bool {
        (self.first..=self.last).contains(&address)
    }
}

impl FromStr for Pool {
    type Err = PoolError;

    fn from_str(text: &str) -> Result<Self, PoolError> {
        let parts = text.split(',').map(|part| Span::parse(part.trim()));
        let mut spans = parts.collect::<Result<Vec<_>, _>>()?;
        spans.sort_by_key(|span| span.first);
        let mut merged: Vec<Span> = vec![];
        for span in spans {
            match merged.last_mut() {
                Some(before) if before.last >= span.first => {
                    return Err(PoolError::Overlap(before.to_string(), span.to_string()));
                }
                // Written in two ways, the same addresses are the same pool.
                Some(before) if before.last.to_bits() + 1 == span.first.to_bits() => {
                    before.last = span.last;
                }
                _ => merged.push(span),
            }
        }
        let pool = Self { spans: merged };
        match pool.len() {
            0..=MOST => Ok(pool),
            many => Err(PoolError::TooMany(many)),
        }
    }
}

impl TryFrom<String> for Pool {
    type Error = PoolError;
    fn try_from(text: String) -> Result<Self, PoolError> {
        text.parse()
    }
}

impl From<Pool> for String {
    fn from(pool: Pool) -> Self {
        pool.to_string()
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.first == self.last {
            true => write!(f, "{}", self.first),
            false => write!(f, "{}-{}", self.first, self.last),
        }
    }
}

impl fmt::Display for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let spans: Vec<String> = self.spans.iter().map(Span::to_string).collect();
        f.write_str(&spans.join(","))
    }
}

impl Pool {
    /// How many addresses there are.
    pub(crate) fn len(&self) -> u64 {
        self.spans.iter().map(|span| span.len()).sum()
    }

    /// How many of them are not taken.
    pub(crate) fn free(&self, taken: &BTreeSet<Ipv4Addr>) -> u64 {
        let ours = |address: &&Ipv4Addr| self.spans.iter().any(|span| span.contains(**address));
        let taken = u64::try_from(taken.iter().filter(ours).count()).unwrap_or(u64::MAX);
        self.len().saturating_sub(taken)
    }

    /// All of them, ascending.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Ipv4Addr> {
        let spans = self.spans.iter();
        spans.flat_map(|span| Ipv4AddrRange::new(span.first, span.last))
    }

    /// The same as networks, as few as can be.
    pub(crate) fn nets(&self) -> impl Iterator<Item = Ipv4Net> {
        let spans = self.spans.iter();
        spans.flat_map(|span| Ipv4Subnets::new(span.first, span.last, 0))
    }

    /// Gives every node that has no address the lowest one that neither another node has nor
    /// `taken` names; all of them, or none.
    pub(crate) fn assign(
        &self,
        nodes: &mut [NodeRecord],
        taken: &BTreeSet<Ipv4Addr>,
    ) -> Result<(), PoolError> {
        let given: BTreeSet<Ipv4Addr> = nodes.iter().filter_map(|n| n.address).collect();
        let wanting: Vec<&mut NodeRecord> =
            nodes.iter_mut().filter(|n| n.address.is_none()).collect();
        let free = self.iter();
        let free = free.filter(|a| !given.contains(a) && !taken.contains(a));
        let chosen: Vec<Ipv4Addr> = free.take(wanting.len()).collect();
        if chosen.len() < wanting.len() {
            return Err(PoolError::Exhausted { all: self.len() });
        }
        for (node, address) in wanting.into_iter().zip(chosen) {
            node.address = Some(address);
            node.mac = mac_for(address);
        }
        Ok(())
    }
}

/// Takes its address from a node.
pub(crate) fn release(node: &mut NodeRecord) {
    node.address = None;
    node.mac.clear();
}

#[cfg(test)]
mod tests;
