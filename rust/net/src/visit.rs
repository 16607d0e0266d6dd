//! Work in network namespaces that are in use: those of running containers.
//!
//! A namespace belongs to a thread, so each visit is made by a thread that does nothing else and ends there. The
//! caller's never leaves its own: it could not be trusted after a return that failed.

use std::net::IpAddr;
use std::os::fd::BorrowedFd;
use std::thread;

use knarr_sys::net::{NetlinkFamily, enter_network};

use crate::address::Family;
use crate::error::{Error, Result};
use crate::netlink::{Batch, Socket};
use crate::route;

/// Replace the default route of a family in a namespace, or remove it; none is fine. The gateway must be in a network of
/// one of the namespace's links.
pub fn set_default_route(
    namespace: BorrowedFd<'_>,
    family: Family,
    gateway: Option<IpAddr>,
) -> Result<()> {
    inside(namespace, || {
        let mut socket = Socket::open(NetlinkFamily::Route)?;
        let Some(gateway) = gateway else {
            return route::delete_default_route(&mut socket, family);
        };
        let mut batch = Batch::new();
        route::add_default_route(&mut batch, None, gateway);
        socket.run(batch)
    })
}

/// Do something on a thread in that namespace.
pub(crate) fn inside<T: Send>(
    namespace: BorrowedFd<'_>,
    work: impl FnOnce() -> Result<T> + Send,
) -> Result<T> {
    aside(|| {
        enter(namespace)?;
        work()
    })
}

/// Do something on a thread that may end in whichever namespace it likes. It begins in the caller's.
pub(crate) fn aside<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new()
            .name("knarr-net".to_owned())
            .spawn_scoped(scope, work);
        let thread = thread.map_err(|cause| Error::system("start a thread", cause))?;
        thread
            .join()
            .map_err(|_| Error::malformed("work in a network namespace"))?
    })
}

/// Go to a container's namespace, for good.
pub(crate) fn enter(namespace: BorrowedFd<'_>) -> Result<()> {
    enter_network(namespace)
        .map_err(|cause| Error::system("enter a container's network namespace", cause))
}
