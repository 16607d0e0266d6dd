//! Making sandboxes, one after another, from one thread.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use knarr_sys::net::NetlinkFamily;
use rustix::rand::{GetRandomFlags, getrandom};

use crate::bridge::BridgeLink;
use crate::error::{Error, Result};
use crate::names::{EngineId, LinkName};
use crate::netlink::{Batch, Socket};
use crate::route::{self, By, Veth};
use crate::sandbox::{Sandbox, current_namespace, new_namespace};

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
        new_namespace(self.home.as_fd()).map(|(namespace, _)| Sandbox::bare(namespace))
    }

    /// With `eth0`, whose other side is a port of that bridge.
    fn linked(&mut self, bridge: &BridgeLink) -> Result<Sandbox> {
        let (namespace, inside) = new_namespace(self.home.as_fd())?;
        let ipv6 = self.ipv6 && bridge.mtu >= IPV6_MTU_MIN;
        let mut attempts = 0;
        let host = loop {
            let host = self.engine.veth(self.numbers.next());
            let veth = Veth {
                host: &host,
                bridge_index: bridge.index,
                namespace: namespace.as_fd(),
                peer: &self.peer,
                mtu: bridge.mtu,
            };
            match join(&mut self.route, &veth, bridge.isolated, ipv6) {
                Err(error) if error.errno() == Some(EEXIST) && attempts < NAME_ATTEMPTS => {
                    attempts += 1;
                }
                other => break other.map(|()| host)?,
            }
        };
        Sandbox::linked(namespace, inside, host, &self.peer, ipv6)
    }
}

fn join(route: &mut Socket, veth: &Veth<'_>, isolated: bool, ipv6: bool) -> Result<()> {
    let mut batch = Batch::new();
    route::create_veth(&mut batch, veth);
    route.run(batch)?;
    let mut batch = Batch::new();
    route::set_port(&mut batch, veth.host, isolated);
    if ipv6 {
        route::no_own_ipv6(&mut batch, By::Name(veth.host));
    }
    route::set_up(&mut batch, By::Name(veth.host));
    route.run(batch)
}

/// Whether the kernel has IPv6 at all.
pub(crate) fn has_ipv6() -> bool {
    Path::new("/proc/sys/net/ipv6").exists()
}
