//! The address where a container asks for names: 127.0.0.11, port 53, udp and tcp, as with Docker.
//!
//! Whoever answers is outside, and holds two sockets that were opened inside. They have ports of their own, so that port
//! 53 is left to the container's programs, and rules in the container's namespace (`nft::resolver`) make the one look
//! like the other.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use knarr_sys::net::NetlinkFamily;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, getsockname, listen, socket_with};

use crate::error::{Error, Result};
use crate::netlink::Socket;
use crate::nft;
use crate::ports::Protocol;
use crate::visit::inside;

/// Docker's address for it.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);
const BACKLOG: i32 = 128;

/// What a container sends to 127.0.0.11:53, and the way for the answers, which seem to come from there.
///
/// Both sockets are nonblocking and close-on-exec. They keep the namespace alive: to be closed when the container ends.
#[derive(Debug)]
pub struct Resolver {
    /// Questions come and answers go here.
    pub udp: OwnedFd,
    /// A listening socket.
    pub tcp: OwnedFd,
}

/// A resolver for a namespace that is in use. One that is there already is replaced: its sockets get nothing more. That
/// takes the kernel some 20 ms, where the first takes a quarter of one.
pub fn resolver(namespace: BorrowedFd<'_>) -> Result<Resolver> {
    inside(namespace, open)
}

/// In the calling thread's namespace, whose `lo` is up.
pub(crate) fn open() -> Result<Resolver> {
    let resolver = Resolver {
        udp: bound(Protocol::Udp)?,
        tcp: bound(Protocol::Tcp)?,
    };
    listen(&resolver.tcp, BACKLOG)
        .map_err(|errno| Error::system(format!("listen on {ADDRESS}"), errno))?;
    let redirects = [
        (Protocol::Udp, port_of(resolver.udp.as_fd())?),
        (Protocol::Tcp, port_of(resolver.tcp.as_fd())?),
    ];
    let mut netfilter = Socket::open(NetlinkFamily::Netfilter)?;
    nft::redirect_resolver(&mut netfilter, ADDRESS, redirects)?;
    Ok(resolver)
}

/// A socket on a port that the kernel chooses.
fn bound(protocol: Protocol) -> Result<OwnedFd> {
    let kind = if protocol == Protocol::Udp {
        SocketType::DGRAM
    } else {
        SocketType::STREAM
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let failed = |errno| Error::system(format!("open a {protocol} socket on {ADDRESS}"), errno);
    let socket = socket_with(AddressFamily::INET, kind, flags, None).map_err(failed)?;
    bind(&socket, &SocketAddrV4::new(ADDRESS, 0)).map_err(failed)?;
    Ok(socket)
}

fn port_of(socket: BorrowedFd<'_>) -> Result<u16> {
    let doing = "ask for the port of a socket";
    let name = getsockname(socket).map_err(|errno| Error::system(doing, errno))?;
    SocketAddr::try_from(name)
        .map(|name| name.port())
        .map_err(|_| Error::malformed(doing))
}
