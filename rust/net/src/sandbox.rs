//! Network namespaces of containers.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use knarr_sys::net::{NetlinkFamily, enter_network, unshare_network};

use crate::address::{Cidr, Mac};
use crate::error::{Error, Result};
use crate::ipv6;
use crate::names::LinkName;
use crate::netlink::{Batch, Socket};
use crate::resolver::{self, Resolver};
use crate::route::{self, By};

/// What Docker gives every container a namespace of its own with: low ports and ping for everyone.
const SYSCTLS: [(&str, &str); 2] = [
    ("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0"),
    ("/proc/sys/net/ipv4/ping_group_range", "0 2147483647"),
];

/// What a container's link is given.
#[derive(Clone, Debug)]
pub struct Interface {
    /// Its addresses and prefixes, at most one of a family.
    pub addresses: Vec<Cidr>,
    /// The next hops of its default routes, at most one of a family; those of a family without one lead elsewhere.
    pub gateways: Vec<IpAddr>,
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
    resolver: Option<Resolver>,
    link: Option<Link>,
}

/// A sandbox's `eth0`.
#[derive(Debug)]
struct Link {
    /// The host's side.
    host: LinkName,
    /// Index of `eth0` inside.
    index: u32,
    mac: Mac,
    /// A socket into the namespace, opened while the making thread was there, so that configuring
    /// needs no setns. It keeps the namespace alive: gone once `eth0` is configured.
    inside: Option<Socket>,
}

/// A new namespace, and what has been opened in it.
#[derive(Debug)]
pub(crate) struct Fresh {
    pub(crate) namespace: OwnedFd,
    route: Socket,
    resolver: Option<Resolver>,
}

/// A new namespace with `lo` up, and a resolver if it is to have one; `ipv6` is whether its links have IPv6, None for
/// whatever the kernel says. The calling thread visits it and returns to `home`; if it cannot
/// return, that is the error, and the thread must not do anything else.
pub(crate) fn new_namespace(
    home: BorrowedFd<'_>,
    resolver: bool,
    ipv6: Option<bool>,
) -> Result<Fresh> {
    unshare_network().map_err(|cause| Error::system("create a network namespace", cause))?;
    let made = furnish(resolver, ipv6);
    enter_network(home)
        .map_err(|cause| Error::system("return to the host's network namespace", cause))?;
    made
}

/// The calling thread's network namespace.
pub(crate) fn current_namespace() -> Result<OwnedFd> {
    let path = "/proc/thread-self/ns/net";
    fs::File::open(path)
        .map(OwnedFd::from)
        .map_err(|cause| Error::system(format!("open {path}"), cause))
}

fn furnish(resolver: bool, ipv6: Option<bool>) -> Result<Fresh> {
    let namespace = current_namespace()?;
    let mut route = Socket::open(NetlinkFamily::Route)?;
    let mut batch = Batch::new();
    route::set_up(&mut batch, By::Index(route::LOOPBACK));
    route.run(batch)?;
    for (path, value) in SYSCTLS {
        match fs::write(path, value) {
            // Inside another container /proc/sys is read-only: these are conveniences, go without.
            Err(cause)
                if matches!(
                    cause.kind(),
                    io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::NotFound
                ) => {}
            other => other.map_err(|cause| Error::system(format!("write {path}"), cause))?,
        }
    }
    if let Some(on) = ipv6 {
        ipv6::set_default(on)?;
    }
    let resolver = if resolver {
        Some(resolver::open()?)
    } else {
        None
    };
    Ok(Fresh {
        namespace,
        route,
        resolver,
    })
}

impl Sandbox {
    pub(crate) fn bare(namespace: OwnedFd) -> Self {
        Self {
            namespace,
            resolver: None,
            link: None,
        }
    }

    /// With an `eth0` that another socket has put there: bring it up, without an address yet but its own of IPv6's.
    pub(crate) fn linked(
        mut fresh: Fresh,
        host: LinkName,
        peer: &LinkName,
        hush: bool,
    ) -> Result<Self> {
        let (index, mac) = bring_up(&mut fresh.route, peer, hush)?;
        Ok(Self {
            namespace: fresh.namespace,
            resolver: fresh.resolver,
            link: Some(Link {
                host,
                index,
                mac,
                inside: Some(fresh.route),
            }),
        })
    }

    /// The namespace, for setns.
    #[must_use]
    pub fn namespace(&self) -> BorrowedFd<'_> {
        self.namespace.as_fd()
    }

    /// The sockets of its resolver, where the bridge it is on has one. Once only. With what is not taken, the resolver
    /// ends.
    pub fn take_resolver(&mut self) -> Option<Resolver> {
        self.resolver.take()
    }

    /// Give up everything but the namespace.
    #[must_use]
    pub fn into_namespace(self) -> OwnedFd {
        self.namespace
    }

    /// The host's side of the veth pair, if there is one: what `Host::sweep` calls live.
    #[must_use]
    pub fn link(&self) -> Option<&LinkName> {
        self.link.as_ref().map(|link| &link.host)
    }

    /// Give `eth0` its addresses, default routes and MAC address. Once only.
    pub fn configure(&mut self, interface: &Interface) -> Result<()> {
        let unlinked = || Error::Invalid {
            what: "sandbox",
            value: interface
                .addresses
                .first()
                .map_or_else(String::new, Cidr::to_string),
            expected: "one with an interface that has no address yet",
        };
        let link = self.link.as_mut().ok_or_else(unlinked)?;
        let mut inside = link.inside.take().ok_or_else(unlinked)?;
        configure(&mut inside, (link.index, link.mac), interface)
    }
}

/// Bring a container's link up, without an address yet: its index and its MAC address. `hush`: it gives itself none.
pub(crate) fn bring_up(inside: &mut Socket, name: &LinkName, hush: bool) -> Result<(u32, Mac)> {
    let missing = || Error::malformed(format!("look up {name} in a container's network namespace"));
    let link = route::link(inside, By::Name(name))?.ok_or_else(missing)?;
    let mut batch = Batch::new();
    if hush {
        route::no_own_ipv6(&mut batch, By::Index(link.index));
    }
    route::announce_addresses(&mut batch, link.index);
    route::set_up(&mut batch, By::Index(link.index));
    inside.run(batch)?;
    Ok((link.index, Mac::new(link.mac.ok_or_else(missing)?)?))
}

/// Give a container's link that is up its addresses, default routes and MAC address.
///
/// A MAC address of its own is announced to the bridge, so that nobody sends to whoever had the address before.
/// One that goes with the address is what everybody remembers already, and every port of the bridge would be
/// asked to hear it: a start would cost the more, the more containers there are.
pub(crate) fn configure(
    inside: &mut Socket,
    (index, own): (u32, Mac),
    interface: &Interface,
) -> Result<()> {
    let mut batch = Batch::new();
    let mac = interface.mac.unwrap_or(own);
    let usual = interface.is_usual(mac);
    if usual {
        route::set_mac(&mut batch, index, mac);
    }
    for address in &interface.addresses {
        route::add_address(&mut batch, index, *address);
    }
    for gateway in &interface.gateways {
        route::add_default_route(&mut batch, Some(index), *gateway);
    }
    if !usual {
        // Last, and even if it is the one that it has: this is what makes the kernel announce it.
        route::set_mac(&mut batch, index, mac);
    }
    inside.run(batch)
}

impl Interface {
    /// Whether whoever has had one of the addresses before had this MAC address too: it goes with the first of them,
    /// and the others have the same place in their networks.
    fn is_usual(&self, mac: Mac) -> bool {
        let Some((first, others)) = self.addresses.split_first() else {
            return false;
        };
        mac == Mac::of(first.address()) && others.iter().all(|other| other.place() == first.place())
    }
}
