//! Network namespaces and netlink sockets.
//!
//! The messages are `knarr-net`'s business; here are only the calls that need unsafe code. All of
//! it concerns the calling thread or one descriptor, and nothing is global.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

/// Which kernel subsystem a netlink socket talks to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetlinkFamily {
    /// rtnetlink: links, addresses, routes.
    Route,
    /// nfnetlink: nftables and connection tracking.
    Netfilter,
    /// Queries about sockets.
    SocketDiagnostics,
}

/// A netlink socket into the calling thread's network namespace, close-on-exec.
///
/// The kernel's own words come with its errors (`NETLINK_EXT_ACK`), and acknowledgements don't
/// repeat the request (`NETLINK_CAP_ACK`). The socket keeps its namespace alive until it is closed.
pub fn netlink_socket(family: NetlinkFamily) -> io::Result<OwnedFd> {
    let protocol = match family {
        NetlinkFamily::Route => libc::NETLINK_ROUTE,
        NetlinkFamily::Netfilter => libc::NETLINK_NETFILTER,
        NetlinkFamily::SocketDiagnostics => libc::NETLINK_SOCK_DIAG,
    };
    // SAFETY: socket() takes no pointers.
    let raw = unsafe {
        libc::socket(
            libc::AF_NETLINK,
            libc::SOCK_RAW | libc::SOCK_CLOEXEC,
            protocol,
        )
    };
    let socket = owned(raw)?;
    set_flag(&socket, libc::SOL_NETLINK, libc::NETLINK_EXT_ACK)?;
    set_flag(&socket, libc::SOL_NETLINK, libc::NETLINK_CAP_ACK)?;
    Ok(socket)
}

/// Move the calling thread, and no other, into a new network namespace.
pub fn unshare_network() -> io::Result<()> {
    // SAFETY: unshare() takes no pointers. CLONE_NEWNET changes the calling thread's namespace
    // only; descriptors that are open keep theirs.
    if unsafe { libc::unshare(libc::CLONE_NEWNET) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Move the calling thread, and no other, into the network namespace of a descriptor.
pub fn enter_network(namespace: impl AsFd) -> io::Result<()> {
    // SAFETY: the descriptor is borrowed and open; setns() takes no pointers.
    if unsafe { libc::setns(namespace.as_fd().as_raw_fd(), libc::CLONE_NEWNET) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

fn owned(raw: libc::c_int) -> io::Result<OwnedFd> {
    if raw < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just gave us this descriptor, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

fn set_flag(socket: &OwnedFd, level: libc::c_int, option: libc::c_int) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the value is a live c_int, passed with its size.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw const on).cast(),
            u32::try_from(size_of::<libc::c_int>()).unwrap_or_default(),
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
