//! Network namespaces of containers.

use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::address::{Cidr, Mac};
use crate::error::Result;
use crate::names::LinkName;

/// What a container's `eth0` is given.
#[derive(Clone, Copy, Debug)]
pub struct Interface {
    /// Its address and prefix.
    pub address: Cidr,
    /// The next hop of its default route.
    pub gateway: Option<IpAddr>,
    /// Its MAC address; None to keep the kernel's random one.
    pub mac: Option<Mac>,
}

/// A network namespace with `lo` up, made for one container and never used again.
///
/// Nothing but the descriptor (and then the container's processes) keeps it alive: when the last
/// goes, the kernel removes the namespace and its veth pair, so a crash leaves nothing behind.
#[derive(Debug)]
pub struct Sandbox {
    namespace: OwnedFd,
    link: Option<LinkName>,
}

impl Sandbox {
    /// The namespace, for setns.
    #[must_use]
    pub fn namespace(&self) -> BorrowedFd<'_> {
        self.namespace.as_fd()
    }

    /// Give up everything but the namespace.
    #[must_use]
    pub fn into_namespace(self) -> OwnedFd {
        self.namespace
    }

    /// The host's side of the veth pair, if there is one: what `Host::sweep` calls live.
    #[must_use]
    pub fn link(&self) -> Option<&LinkName> {
        self.link.as_ref()
    }

    /// Give `eth0` its address, default route and MAC address, and announce them to the bridge.
    pub fn configure(&mut self, _interface: &Interface) -> Result<()> {
        todo!()
    }
}
