//! The host's interfaces that networks are on: those that are there, and those that are made.

use std::sync::{Mutex, PoisonError};

use knarr_sys::net::NetlinkFamily;

use super::request;
use crate::error::{Error, Result};
use crate::names::{EngineId, LinkName};
use crate::netlink::{Batch, Socket};
use crate::route::{self, By, Link};

const EEXIST: i32 = 17;
const EOPNOTSUPP: i32 = 95;
/// What 12 bits hold, but for the two that mean something else (IEEE 802.1Q).
const VLAN_IDS: std::ops::RangeInclusive<u16> = 1..=4094;

/// One at a time within this process: two that make the same interface would each take the other's for a stranger's.
static MAKING: Mutex<()> = Mutex::new(());

/// The interface that a network is on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parent {
    /// Its name: one that is there, or `eth0.10` for a VLAN of one that is there.
    pub name: LinkName,
    /// It leads nowhere, and is made under that name where it is missing.
    pub dummy: bool,
}

/// Have an interface, in the calling thread's network namespace. Idempotent. What is made is up, and bears the engine's mark
/// from the same system call on: so no kill leaves one without it.
pub fn ensure_parent(engine: &EngineId, parent: &Parent) -> Result<()> {
    let _one_at_a_time = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
    let mut socket = Socket::open(NetlinkFamily::Route)?;
    let name = &parent.name;
    if let Some(link) = route::link(&mut socket, By::Name(name))? {
        if link.up || !is_ours(engine, &link) {
            return Ok(());
        }
        let mut batch = Batch::new();
        request::enable(&mut batch, name);
        return socket.run(batch);
    }
    let mut batch = Batch::new();
    if parent.dummy {
        request::create_dummy(&mut batch, name);
    } else {
        let missing = || Error::NoParent {
            parent: name.to_string(),
        };
        let (base, id) = vlan(name).ok_or_else(missing)?;
        let base = route::link(&mut socket, By::Name(&base))?.ok_or_else(missing)?;
        request::create_vlan(&mut batch, name, base.index, id);
    }
    request::set_alias(&mut batch, name, &engine.mark());
    request::enable(&mut batch, name);
    match socket.run(batch) {
        Ok(()) => Ok(()),
        Err(error) if error.errno() == Some(EEXIST) => {
            // Somebody has made it in this very moment: it is not ours.
            let mut batch = Batch::new();
            request::set_alias(&mut batch, name, "");
            socket.run(batch)
        }
        Err(error) if error.errno() == Some(EOPNOTSUPP) => Err(Error::Unsupported {
            what: format!("{name}: this kernel's kind of interface for it ({error})"),
            remedy: "load the kernel module dummy (for networks without a parent) or 8021q (for VLANs), or name a \
                     parent that is there",
        }),
        Err(error) => {
            // Why it is not to be had is what the caller should know.
            let _ = remove(&mut socket, engine, name);
            Err(error)
        }
    }
}

/// Remove an interface if this engine has made it, with all links on it.
pub fn remove_parent(engine: &EngineId, name: &LinkName) -> Result<()> {
    let _one_at_a_time = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
    remove(&mut Socket::open(NetlinkFamily::Route)?, engine, name)
}

/// Whether there is an interface that this engine has made.
pub fn has_parents(engine: &EngineId) -> Result<bool> {
    let links = route::links(&mut Socket::open(NetlinkFamily::Route)?)?;
    Ok(links.iter().any(|link| is_ours(engine, link)))
}

/// Remove all interfaces that this engine has made.
pub fn remove_parents(engine: &EngineId) -> Result<()> {
    let mut socket = Socket::open(NetlinkFamily::Route)?;
    for link in route::links(&mut socket)? {
        if is_ours(engine, &link) {
            request::delete(&mut socket, link.index)?;
        }
    }
    Ok(())
}

fn remove(socket: &mut Socket, engine: &EngineId, name: &LinkName) -> Result<()> {
    match route::link(socket, By::Name(name))? {
        Some(link) if is_ours(engine, &link) => request::delete(socket, link.index),
        _ => Ok(()),
    }
}

fn is_ours(engine: &EngineId, link: &Link) -> bool {
    link.alias.as_deref() == Some(&engine.mark())
}

/// The interface and the VLAN's ID of a name such as `eth0.10`.
fn vlan(name: &LinkName) -> Option<(LinkName, u16)> {
    let (base, id) = name.as_str().split_once('.')?;
    let id = id.parse().ok().filter(|id| VLAN_IDS.contains(id))?;
    Some((LinkName::parse(base).ok()?, id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_vlans() {
        let read =
            |text| vlan(&LinkName::parse(text).unwrap()).map(|(base, id)| (base.to_string(), id));
        assert_eq!(read("eth0.10"), Some(("eth0".to_owned(), 10)));
        assert_eq!(read("eth0.4094"), Some(("eth0".to_owned(), 4094)));
        for bad in [
            "eth0",
            "eth0.",
            ".10",
            "eth0.0",
            "eth0.4095",
            "eth0.x",
            "eth0.1.2",
        ] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
