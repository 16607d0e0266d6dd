//! Networks on the host's own interfaces: containers' links there, and the interfaces that are made for them.
//!
//! A link refuses the address of one that is still dying, and a namespace dies in the kernel's own time. So the namespace
//! of a container that is on such a network is held, and its links in there are deleted when it has ended.

use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use knarr_net::{Family, Lan, LanKind, LanRoute, LinkName, Parent};
use knarr_runtime::Kind;

use super::{Attached, Network, NetworkRecord, unavailable};
use crate::link::Part;
use crate::protocol::{Failure, InterfaceRequest, LanRequest, ParentRequest, WaysOut};

impl Network {
    /// Have the interface that a network is on.
    pub fn make_parent(&self, parent: &ParentRequest) -> Result<(), Failure> {
        Ok(knarr_net::ensure_parent(&self.engine, &parent.parent()?)?)
    }

    /// Remove an interface where it was made here. No network may be on it.
    pub fn remove_parent(&self, name: &str) -> Result<(), Failure> {
        Ok(knarr_net::remove_parent(
            &self.engine,
            &LinkName::parse(name)?,
        )?)
    }

    /// A link of a container, which has it from now on.
    pub(super) fn plug_lan(
        &self,
        namespace: BorrowedFd<'_>,
        interface: &InterfaceRequest,
        lan: &LanRequest,
        ways_out: WaysOut<'_>,
    ) -> Result<Attached, Failure> {
        self.make_parent(&lan.parent)?;
        let mut routes = Vec::new();
        for family in interface.families_out(ways_out) {
            routes.extend(lan.route(family)?);
        }
        let index = knarr_net::plug_lan(
            &lan.lan()?,
            namespace,
            &interface.link_name()?,
            &interface.interface(ways_out)?,
            &routes,
        )?;
        Ok(Attached {
            interface: interface.clone(),
            link: String::new(),
            index,
        })
    }
}

impl LanRequest {
    /// As the net crate takes it.
    pub fn lan(&self) -> Result<Lan, Failure> {
        Ok(Lan {
            parent: LinkName::parse(&self.parent.name)?,
            kind: self.kind()?,
            mtu: self.mtu,
        })
    }

    /// The default route of a family that a container has where this network is its way out.
    pub fn route(&self, family: Family) -> Result<Option<LanRoute>, Failure> {
        if self.internal {
            return Ok(None);
        }
        if self.kind()?.is_routed() {
            return Ok(Some(LanRoute::Link(family)));
        }
        let gateway = match family {
            Family::V4 => self.gateway.map(IpAddr::V4),
            Family::V6 => self.gateway6.map(IpAddr::V6),
        };
        Ok(gateway.map(LanRoute::Gateway))
    }

    fn kind(&self) -> Result<LanKind, Failure> {
        match self.driver.as_str() {
            "macvlan" => Ok(LanKind::Macvlan(self.mode.parse()?)),
            "ipvlan" => Ok(LanKind::Ipvlan(
                self.mode.parse()?,
                self.flag.as_deref().unwrap_or("bridge").parse()?,
            )),
            other => Err(Failure::new(
                Kind::InvalidArgument,
                format!("the network driver {other:?} is neither macvlan nor ipvlan"),
            )),
        }
    }
}

impl ParentRequest {
    fn parent(&self) -> Result<Parent, Failure> {
        Ok(Parent {
            name: LinkName::parse(&self.name)?,
            dummy: self.dummy,
        })
    }
}

/// A copy of the namespace to hold, where the container has links in there that must not outlive it.
pub(super) fn held(
    record: &NetworkRecord,
    namespace: impl AsFd,
) -> Result<Option<(Part, OwnedFd)>, Failure> {
    if !record.has_lan() {
        return Ok(None);
    }
    let copy = namespace.as_fd().try_clone_to_owned();
    let copy = copy.map_err(|error| unavailable(&error))?;
    Ok(Some((Part::Namespace, copy)))
}

/// Delete a container's links on the host's interfaces. All of them, whatever becomes of one.
pub(super) fn unplug_all(namespace: BorrowedFd<'_>, record: &NetworkRecord) -> Result<(), Failure> {
    let mut result = Ok(());
    for attached in &record.interfaces {
        if attached.interface.lan.is_some()
            && let Err(error) = knarr_net::unplug_lan(namespace, attached.index)
        {
            result = Err(error.into());
        }
    }
    result
}
