//! Networks on one of the host's own interfaces (macvlan, ipvlan): containers are on the host's wire, as machines of
//! their own.
//!
//! Nothing of the host stands in between: no bridge, no NAT, no published ports. A container's link is born in its
//! namespace and dies with that. A link on the same parent refuses the address of one that is still dying, so ends are not
//! left to the kernel's own time: whoever holds the namespace deletes the links in it ([`unplug_lan`]).
//!
//! The parent is somebody else's, or made here: a VLAN of an interface, or a dummy for networks without a way out. What
//! is made here bears the engine's mark as its alias, and nothing else is ever removed.

mod link;
mod parent;
mod request;

use std::str::FromStr;

use crate::error::{Error, Result};
use crate::names::LinkName;

pub use link::{LanRoute, plug_lan, set_link_route, unplug_lan};
pub use parent::{Parent, ensure_parent, has_parents, remove_parent, remove_parents};

/// A network on an interface of the host's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lan {
    /// The interface.
    pub parent: LinkName,
    /// How containers share it.
    pub kind: LanKind,
    /// The MTU of its containers' links; None for the parent's, which it cannot exceed.
    pub mtu: Option<u32>,
}

/// How containers share an interface. One interface carries links of one kind only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LanKind {
    /// Each has a MAC address of its own.
    Macvlan(MacvlanMode),
    /// All have the interface's MAC address.
    Ipvlan(IpvlanMode, IpvlanFlag),
}

/// Whom a macvlan link talks to besides the wire (`linux/if_link.h`, `macvlan_mode`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MacvlanMode {
    /// None of the other links.
    Private,
    /// The others by way of a switch that sends back what comes from them.
    Vepa,
    /// The others directly.
    Bridge,
    /// There are no others: it has the interface to itself.
    Passthru,
}

/// At which layer an ipvlan interface shares out what comes in (`linux/if_link.h`, `ipvlan_mode`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IpvlanMode {
    /// As a switch does.
    L2,
    /// As a router does: no ARP, no multicast.
    L3,
    /// The same, and what passes meets the host's firewall.
    L3s,
}

/// Whom an ipvlan link talks to besides the wire (`IPVLAN_F_PRIVATE`, `IPVLAN_F_VEPA`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IpvlanFlag {
    /// The other links directly.
    Bridge,
    /// None of them.
    Private,
    /// The others by way of a switch that sends back what comes from them.
    Vepa,
}

impl LanKind {
    /// The kernel's word for it, and Docker's.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Macvlan(_) => "macvlan",
            Self::Ipvlan(..) => "ipvlan",
        }
    }

    /// Whether containers send everything to the link itself, without a next hop.
    #[must_use]
    pub fn is_routed(self) -> bool {
        matches!(self, Self::Ipvlan(IpvlanMode::L3 | IpvlanMode::L3s, _))
    }
}

impl FromStr for MacvlanMode {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Ok(match text {
            "private" => Self::Private,
            "vepa" => Self::Vepa,
            "bridge" => Self::Bridge,
            "passthru" => Self::Passthru,
            _ => {
                return Err(invalid(
                    "macvlan mode",
                    text,
                    "bridge, private, vepa or passthru",
                ));
            }
        })
    }
}

impl FromStr for IpvlanMode {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Ok(match text {
            "l2" => Self::L2,
            "l3" => Self::L3,
            "l3s" => Self::L3s,
            _ => return Err(invalid("ipvlan mode", text, "l2, l3 or l3s")),
        })
    }
}

impl FromStr for IpvlanFlag {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Ok(match text {
            "bridge" => Self::Bridge,
            "private" => Self::Private,
            "vepa" => Self::Vepa,
            _ => return Err(invalid("ipvlan flag", text, "bridge, private or vepa")),
        })
    }
}

fn invalid(what: &'static str, value: &str, expected: &'static str) -> Error {
    Error::Invalid {
        what,
        value: value.to_owned(),
        expected,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_dockers_words() {
        assert_eq!(
            "passthru".parse::<MacvlanMode>().unwrap(),
            MacvlanMode::Passthru
        );
        assert_eq!("l3s".parse::<IpvlanMode>().unwrap(), IpvlanMode::L3s);
        assert_eq!("vepa".parse::<IpvlanFlag>().unwrap(), IpvlanFlag::Vepa);
        for bad in ["", "Bridge", "L2", "l4"] {
            assert!(bad.parse::<MacvlanMode>().is_err(), "{bad:?} was accepted");
            assert!(bad.parse::<IpvlanMode>().is_err(), "{bad:?} was accepted");
            assert!(bad.parse::<IpvlanFlag>().is_err(), "{bad:?} was accepted");
        }
    }
}
