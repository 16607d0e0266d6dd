//! Containers' links on an interface of the host's.

use std::net::IpAddr;
use std::os::fd::BorrowedFd;

use knarr_sys::net::NetlinkFamily;

use super::{Lan, LanKind, MacvlanMode, request};
use crate::address::{Cidr, Family};
use crate::error::{Error, Result};
use crate::ipv6;
use crate::names::LinkName;
use crate::netlink::{Batch, Socket};
use crate::route::{self, By};
use crate::sandbox::Interface;
use crate::visit::{aside, enter, inside};

/// The name that a link is born with. The kernel looks for names that are taken in the namespace of whoever asks, which
/// has an `eth0` more often than not. Nobody else uses this one.
const NEW: &str = "knarr-new";
const EBUSY: i32 = 16;
const EEXIST: i32 = 17;
const ENODEV: i32 = 19;
const EINVAL: i32 = 22;
const EOPNOTSUPP: i32 = 95;
const EADDRINUSE: i32 = 98;

/// A default route of the namespace that a link gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LanRoute {
    /// To a next hop on the wire.
    Gateway(IpAddr),
    /// Of that family, to the link itself: who is there, it finds out.
    Link(Family),
}

/// One more link of a namespace, a running container's or a fresh sandbox's, with its addresses, up and announced on the wire;
/// or none at all. The gateways of `interface` are not looked at: `routes` are what it gets. The result is the link's index inside, which it keeps
/// whatever the container calls it.
pub fn plug_lan(
    lan: &Lan,
    namespace: BorrowedFd<'_>,
    name: &LinkName,
    interface: &Interface,
    routes: &[LanRoute],
) -> Result<u32> {
    aside(|| {
        let mut host = Socket::open(NetlinkFamily::Route)?;
        let parent = route::link(&mut host, By::Name(&lan.parent))?;
        let parent = parent.ok_or_else(|| missing(lan))?.index;
        enter(namespace)?;
        let mut inside = Socket::open(NetlinkFamily::Route)?;
        if route::link(&mut inside, By::Name(name))?.is_some() {
            return Err(Error::Occupied {
                link: name.to_string(),
                wanted: "free for one more network of the container",
            });
        }
        let index = create(&mut host, &mut inside, lan, parent, namespace)?;
        let settled = settle(&mut inside, lan, index, name, interface, routes)
            .map_err(|error| explain(lan, error));
        if settled.is_err() {
            // Why it was to be deleted is what the caller should know; it is down, and goes with the namespace.
            let _ = request::delete(&mut inside, index);
        }
        settled.map(|()| index)
    })
}

/// Delete a link that was plugged, and the routes through it. One that has gone is fine.
pub fn unplug_lan(namespace: BorrowedFd<'_>, index: u32) -> Result<()> {
    inside(namespace, || {
        request::delete(&mut Socket::open(NetlinkFamily::Route)?, index)
    })
}

/// Replace the default route of a family in a namespace by one to a link.
pub fn set_link_route(namespace: BorrowedFd<'_>, index: u32, family: Family) -> Result<()> {
    inside(namespace, || {
        let mut batch = Batch::new();
        request::add_link_route(&mut batch, index, family);
        Socket::open(NetlinkFamily::Route)?.run(batch)
    })
}

fn create(
    host: &mut Socket,
    inside: &mut Socket,
    lan: &Lan,
    parent: u32,
    namespace: BorrowedFd<'_>,
) -> Result<u32> {
    let name = LinkName::parse(NEW)?;
    let mut attempt = || {
        let mut batch = Batch::new();
        request::create(&mut batch, lan, &name, parent, namespace);
        host.run(batch)
    };
    let made = match attempt() {
        // One that was killed has left it.
        Err(error) if error.errno() == Some(EEXIST) => {
            route::delete_link(inside, &name)?;
            attempt()
        }
        other => other,
    };
    made.map_err(|error| explain(lan, error))?;
    let link = route::link(inside, By::Name(&name))?;
    Ok(link
        .ok_or_else(|| Error::malformed("look up a new link"))?
        .index)
}

fn settle(
    inside: &mut Socket,
    lan: &Lan,
    index: u32,
    name: &LinkName,
    interface: &Interface,
    routes: &[LanRoute],
) -> Result<()> {
    let mut batch = Batch::new();
    request::rename(&mut batch, index, name);
    inside.run(batch)?;
    // The calling thread is in the container's namespace. Routers of the wire would give the link addresses of their own.
    let mut addresses = interface.addresses.iter().map(Cidr::address);
    ipv6::set_link(name, addresses.any(|address| address.is_ipv6()))?;
    let mut batch = Batch::new();
    if let (LanKind::Macvlan(_), Some(mac)) = (lan.kind, interface.mac) {
        route::set_mac(&mut batch, index, mac);
    }
    route::announce_addresses(&mut batch, index);
    for address in &interface.addresses {
        route::add_address(&mut batch, index, *address);
    }
    // Only now: coming up is what makes the kernel announce the address.
    route::set_up(&mut batch, By::Index(index));
    for route in routes {
        match *route {
            LanRoute::Gateway(gateway) => {
                route::add_default_route(&mut batch, Some(index), gateway);
            }
            LanRoute::Link(family) => request::add_link_route(&mut batch, index, family),
        }
    }
    inside.run(batch)
}

fn missing(lan: &Lan) -> Error {
    Error::NoParent {
        parent: lan.parent.to_string(),
    }
}

fn explain(lan: &Lan, error: Error) -> Error {
    let busy = |why| Error::ParentBusy {
        kind: lan.kind.name(),
        parent: lan.parent.to_string(),
        why,
    };
    match (error.errno(), lan.kind) {
        (Some(ENODEV), _) => missing(lan),
        (Some(EADDRINUSE), _) => {
            busy("another link on the interface has that address or MAC address; give another one")
        }
        (Some(EBUSY), _) => busy(
            "the interface is part of a bridge or a bond, or carries links of the other kind (macvlan, ipvlan); give \
             another parent, or take it out of there",
        ),
        (Some(EINVAL), LanKind::Macvlan(MacvlanMode::Passthru)) => busy(
            "the interface carries a link already, and mode passthru is for one container; stop the other one, or use \
             mode bridge",
        ),
        (Some(EINVAL), LanKind::Macvlan(_)) => busy(
            "a container has the interface in mode passthru, or the MTU is above the interface's; stop that container, \
             or give a smaller MTU",
        ),
        (Some(EOPNOTSUPP), kind) => Error::Unsupported {
            what: format!(
                "the network driver {}: this kernel has no such links",
                kind.name()
            ),
            remedy: "load the kernel module of that name, or use a bridge network",
        },
        _ => error,
    }
}
