//! What a bridge network is.

use crate::address::Cidr;
use crate::names::LinkName;

/// A bridge on the host: the first hop of its containers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bridge {
    /// The link's name.
    pub name: LinkName,
    /// The bridge's own address, which is its containers' gateway, with the network's prefix.
    pub gateway: Cidr,
    /// Its and its containers' MTU; None for that of the host's default route, at most 1500.
    pub mtu: Option<u32>,
}

/// A bridge that exists, as `Host::ensure` found or made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BridgeLink {
    pub(crate) name: LinkName,
    pub(crate) index: u32,
    pub(crate) mtu: u32,
}

impl BridgeLink {
    /// The link's name.
    #[must_use]
    pub fn name(&self) -> &LinkName {
        &self.name
    }
}
