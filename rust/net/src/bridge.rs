//! What a bridge network is.

use std::net::IpAddr;

use crate::address::{Cidr, Family};
use crate::names::LinkName;
use crate::reach::Reach;

/// A bridge on the host: the first hop of its containers.
///
/// Containers of different bridges do not reach one another directly, only on published ports.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "they are Docker's options of a network, and any goes with any"
)]
pub struct Bridge {
    /// The link's name.
    pub name: LinkName,
    /// The bridge's own addresses, which are its containers' gateways, with their networks' prefixes: at most one of a
    /// family. Without one of a family its containers have none of it.
    pub gateways: Vec<Cidr>,
    /// Its and its containers' MTU; None for that of the host's default route, at most 1500.
    pub mtu: Option<u32>,
    /// Nothing is forwarded between its containers and any other interface of the host, neither out nor in, published
    /// ports included. Among themselves, and with the host itself, they talk.
    pub internal: bool,
    /// Containers appear to other hosts under the host's address. Without it they keep their own, to which the other
    /// hosts need a route.
    pub masquerade: bool,
    /// Its containers do not reach one another, except on published ports: Docker's `enable_icc=false`. A change concerns
    /// links that are made after it.
    pub isolated: bool,
    /// Sandboxes for it are made with a [`Resolver`](crate::Resolver).
    pub resolver: bool,
    /// What its containers reach by way of it beyond the network itself; None: whatever there is.
    pub reach: Option<Vec<Reach>>,
}

impl Bridge {
    /// A network as most are: open to the world and within, hidden behind the host's address, without a
    /// resolver.
    #[must_use]
    pub fn new(name: LinkName, gateway: Cidr) -> Self {
        Self {
            name,
            gateways: vec![gateway],
            mtu: None,
            internal: false,
            masquerade: true,
            isolated: false,
            resolver: false,
            reach: None,
        }
    }

    /// Its own address of a family.
    #[must_use]
    pub fn gateway(&self, family: Family) -> Option<IpAddr> {
        let mut addresses = self.gateways.iter().map(Cidr::address);
        addresses.find(|address| Family::of(*address) == family)
    }

    /// Whether it has IPv6.
    #[must_use]
    pub fn has_ipv6(&self) -> bool {
        self.gateway(Family::V6).is_some()
    }
}

/// A bridge that exists, as `Host::ensure` found or made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BridgeLink {
    pub(crate) name: LinkName,
    pub(crate) index: u32,
    pub(crate) mtu: u32,
    /// Its ports do not reach one another.
    pub(crate) isolated: bool,
    /// Sandboxes are made with a resolver.
    pub(crate) resolver: bool,
    /// Sandboxes have IPv6 on their link.
    pub(crate) ipv6: bool,
}

impl BridgeLink {
    /// The link's name.
    #[must_use]
    pub fn name(&self) -> &LinkName {
        &self.name
    }
}
