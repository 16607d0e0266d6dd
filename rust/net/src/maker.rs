//! Making sandboxes, one after another, from one thread.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use knarr_sys::net::NetlinkFamily;
use rustix::rand::{GetRandomFlags, getrandom};

use crate::bridge::BridgeLink;
use crate::error::{Error, Result};
use crate::ipv6::{self, has_ipv6};
use crate::names::{EngineId, LinkName};
use crate::netlink::{Batch, Socket};
use crate::route::{self, By, Veth};
use crate::sandbox::{Interface, Sandbox, bring_up, configure, current_namespace, new_namespace};
use crate::visit::enter;

/// IPv6 needs this of a link; below it the kernel has no IPv6 on the link at all.
const IPV6_MTU_MIN: u32 = 1280;
/// How often a name that somebody has is stepped over.
const NAME_ATTEMPTS: u32 = 8;
const EEXIST: i32 = 17;

/// Numbers for links' names: none is given twice by one process, and two processes begin apart.
#[derive(Clone, Debug)]
pub(crate) struct Numbers(Arc<AtomicU64>);

impl Numbers {
    pub(crate) fn new() -> Result<Self> {
        let mut bytes = [0; 8];
        getrandom(&mut bytes, GetRandomFlags::empty())
            .map_err(|errno| Error::system("get random bytes", errno))?;
        Ok(Self(Arc::new(AtomicU64::new(u64::from_ne_bytes(bytes)))))
    }

    fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}

/// A thread's tools for making sandboxes.
#[derive(Debug)]
pub(crate) struct Maker {
    engine: EngineId,
    numbers: Numbers,
    /// The namespace that the maker was opened in, and a socket into it.
    home: OwnedFd,
    route: Socket,
    peer: LinkName,
    ipv6: bool,
}

impl Maker {
    /// In the calling thread's network namespace.
    pub(crate) fn open(engine: &EngineId, numbers: Numbers) -> Result<Self> {
        Ok(Self {
            engine: engine.clone(),
            numbers,
            home: current_namespace()?,
            route: Socket::open(NetlinkFamily::Route)?,
            peer: LinkName::parse("eth0")?,
            ipv6: has_ipv6(),
        })
    }

    /// Bare, or on a bridge. After an error the thread must make no more: it may be in the wrong namespace.
    pub(crate) fn make(&mut self, bridge: Option<&BridgeLink>) -> Result<Sandbox> {
        match bridge {
            None => self.bare(),
            Some(bridge) => self.linked(bridge),
        }
    }

    fn bare(&mut self) -> Result<Sandbox> {
        // A link that it may be given later has switches of its own.
        let fresh = new_namespace(self.home.as_fd(), false, None)?;
        Ok(Sandbox::bare(fresh.namespace))
    }

    /// With `eth0`, whose other side is a port of that bridge.
    fn linked(&mut self, bridge: &BridgeLink) -> Result<Sandbox> {
        let ipv6 = self.ipv6.then_some(bridge.ipv6);
        let fresh = new_namespace(self.home.as_fd(), bridge.resolver, ipv6)?;
        let peer = self.peer.clone();
        let host = self.pair(fresh.namespace.as_fd(), bridge, &peer)?;
        let hush = self.may_have_ipv6(bridge);
        set_up_port(&mut self.route, &host, bridge, hush)?;
        Sandbox::linked(fresh, host, &peer, hush && !bridge.ipv6)
    }

    /// One more link of a namespace that is in use, ready to be used, or none at all. The thread goes to that
    /// namespace, and must do nothing else.
    pub(crate) fn plug(
        mut self,
        namespace: BorrowedFd<'_>,
        bridge: &BridgeLink,
        name: &LinkName,
        interface: &Interface,
        prepare: impl FnOnce(&LinkName) -> Result<()>,
    ) -> Result<LinkName> {
        enter(namespace)?;
        let mut inside = Socket::open(NetlinkFamily::Route)?;
        // The kernel says the same of a name that is taken here as of one on the host.
        if route::link(&mut inside, By::Name(name))?.is_some() {
            return Err(Error::Occupied {
                link: name.to_string(),
                wanted: "free for one more network of the container",
            });
        }
        let host = self.pair(namespace, bridge, name)?;
        let hush = self.may_have_ipv6(bridge);
        let done = prepare(&host)
            .and_then(|()| set_up_port(&mut self.route, &host, bridge, hush))
            .and_then(|()| self.switch_ipv6(bridge, name))
            .and_then(|()| bring_up(&mut inside, name, hush && !bridge.ipv6))
            .and_then(|link| configure(&mut inside, link, interface));
        if let Err(error) = done {
            // Why it was to be deleted is what the caller should know; a sweep deletes what stays.
            let _ = route::delete_link(&mut self.route, &host);
            return Err(error);
        }
        Ok(host)
    }

    /// A veth pair with a new name: one end a port of the bridge, the other in the namespace.
    fn pair(
        &mut self,
        namespace: BorrowedFd<'_>,
        bridge: &BridgeLink,
        peer: &LinkName,
    ) -> Result<LinkName> {
        let mut attempts = 0;
        loop {
            let host = self.engine.veth(self.numbers.next());
            let mut batch = Batch::new();
            let veth = Veth {
                host: &host,
                bridge_index: bridge.index,
                namespace,
                peer,
                mtu: bridge.mtu,
            };
            route::create_veth(&mut batch, &veth);
            match self.route.run(batch) {
                Err(error) if error.errno() == Some(EEXIST) && attempts < NAME_ATTEMPTS => {
                    attempts += 1;
                }
                other => return other.map(|()| host),
            }
        }
    }

    /// A namespace that is in use has switches for the network that it was made for.
    fn switch_ipv6(&self, bridge: &BridgeLink, link: &LinkName) -> Result<()> {
        if self.may_have_ipv6(bridge) {
            ipv6::set_link(link, bridge.ipv6)?;
        }
        Ok(())
    }

    fn may_have_ipv6(&self, bridge: &BridgeLink) -> bool {
        self.ipv6 && bridge.mtu >= IPV6_MTU_MIN
    }
}

/// `hush`: the port itself is to have no address.
fn set_up_port(route: &mut Socket, port: &LinkName, bridge: &BridgeLink, hush: bool) -> Result<()> {
    let mut batch = Batch::new();
    route::set_port(&mut batch, port, bridge.isolated);
    if hush {
        route::no_own_ipv6(&mut batch, By::Name(port));
    }
    route::set_up(&mut batch, By::Name(port));
    route.run(batch)
}
