//! What a container has of networks, as its `state.json` keeps it: from it a successor withdraws everything.

use std::net::IpAddr;

use knarr_dns::Membership;
use knarr_net::{Bridge, Cidr, Family, Interface, LinkName, Publish};
use serde::{Deserialize, Serialize};

use super::egress::reach;
use crate::protocol::{BridgeRequest, EgressRule, Failure, InterfaceRequest, Port, WaysOut};

/// As `WaysOut` has them.
pub const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

/// What has to be withdrawn when a container ends.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(default)]
pub struct NetworkRecord {
    /// Its interfaces on bridges.
    pub interfaces: Vec<Attached>,
    /// The network that has its default route and its published ports.
    pub way_out: Option<String>,
    /// The same of IPv6.
    pub way_out6: Option<String>,
    /// Its published ports.
    pub ports: Vec<Port>,
    /// Whom its questions for other names are passed to; none for the host's servers.
    pub dns: Vec<IpAddr>,
    /// What it may reach beyond its networks; None for whatever there is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub egress: Option<Vec<EgressRule>>,
}

/// An interface that there is.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
pub struct Attached {
    /// What was asked for.
    pub interface: InterfaceRequest,
    /// The host's side of its veth pair; empty for one on an interface of the host's.
    pub link: String,
    /// For one on an interface of the host's: its index inside.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub index: u32,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde's form
fn is_zero(index: &u32) -> bool {
    *index == 0
}

impl NetworkRecord {
    /// Its interface on a network.
    pub fn on(&self, network: &str) -> Option<&Attached> {
        self.interfaces
            .iter()
            .find(|attached| attached.interface.network == network)
    }

    /// The networks of its default routes.
    pub fn ways_out(&self) -> WaysOut<'_> {
        [self.way_out.as_deref(), self.way_out6.as_deref()]
    }

    /// The addresses that its ports are published to: none where it is reached at its own.
    pub fn published(&self) -> Result<Vec<IpAddr>, Failure> {
        let mut found = Vec::new();
        for (family, network) in FAMILIES.into_iter().zip(self.ways_out()) {
            let attached = network.and_then(|network| self.on(network));
            if let Some(attached) = attached.filter(|one| one.interface.bridge.is_some()) {
                let addresses = attached.interface.addresses()?;
                found.extend(
                    addresses
                        .into_iter()
                        .filter(|one| Family::of(*one) == family),
                );
            }
        }
        Ok(found)
    }

    /// Whether it has a link on an interface of the host's.
    pub fn has_lan(&self) -> bool {
        self.interfaces
            .iter()
            .any(|attached| attached.interface.lan.is_some())
    }

    /// Whether an interface has to wait until nothing is left of what this has had: on an interface of the host's any link
    /// may have had the address, and an address that was limited must not be given on before it is not.
    pub fn delays(&self, interface: &InterfaceRequest) -> bool {
        let same = |one: &Attached| {
            let Attached { interface: own, .. } = one;
            own.address.is_some() && own.address == interface.address
                || own.address6.is_some() && own.address6 == interface.address6
        };
        interface.lan.is_some() && self.has_lan()
            || self.egress.is_some() && self.interfaces.iter().any(same)
    }

    /// Its place in the networks whose containers find one another by name; empty where there is no such network.
    pub fn memberships(&self) -> Result<Vec<Membership>, Failure> {
        if !self.has_resolver() {
            return Ok(Vec::new());
        }
        self.interfaces
            .iter()
            .map(|attached| {
                let interface = &attached.interface;
                Ok(Membership {
                    network: interface.network.clone(),
                    network_name: interface.network_name.clone(),
                    addresses: interface.addresses()?,
                    names: interface.names.clone(),
                    links: interface.links.clone(),
                    external: !interface.internal(),
                    sole: false,
                })
            })
            .collect()
    }

    /// Whether the engine answers its questions for names: of one with an allow-list it does on every network.
    pub fn has_resolver(&self) -> bool {
        let mut interfaces = self.interfaces.iter();
        self.egress.is_some() || interfaces.any(|attached| attached.interface.resolver())
    }
}

impl InterfaceRequest {
    /// Its addresses, with their prefixes.
    fn cidrs(&self) -> Result<Vec<Cidr>, Failure> {
        cidrs([&self.address, &self.address6])
    }

    /// Its addresses.
    pub fn addresses(&self) -> Result<Vec<IpAddr>, Failure> {
        Ok(self.cidrs()?.iter().map(Cidr::address).collect())
    }

    /// The families whose default routes lead there.
    pub fn families_out(&self, ways_out: WaysOut<'_>) -> impl Iterator<Item = Family> {
        let leads_here = move |(_, network): &(Family, Option<&str>)| {
            *network == Some(self.network.as_str()) && !self.internal()
        };
        let families = FAMILIES.into_iter().zip(ways_out);
        families.filter(leads_here).map(|(family, _)| family)
    }

    /// What is configured inside, with the default routes by way of a bridge.
    pub fn interface(&self, ways_out: WaysOut<'_>) -> Result<Interface, Failure> {
        let mut gateways = Vec::new();
        if let Some(bridge) = &self.bridge {
            let bridge = bridge.bridge()?;
            gateways.extend(
                self.families_out(ways_out)
                    .filter_map(|family| bridge.gateway(family)),
            );
        }
        Ok(Interface {
            addresses: self.cidrs()?,
            gateways,
            mac: self.mac.as_deref().map(str::parse).transpose()?,
        })
    }

    /// Whether its network has no way out.
    pub fn internal(&self) -> bool {
        match (&self.bridge, &self.lan) {
            (Some(bridge), _) => bridge.internal,
            (None, Some(lan)) => lan.internal,
            (None, None) => true,
        }
    }

    /// Whether the engine answers for names there. On the host's interfaces it does: users make these networks.
    pub fn resolver(&self) -> bool {
        self.bridge
            .as_ref()
            .map_or(self.lan.is_some(), |bridge| bridge.resolver)
    }

    /// Its name.
    pub fn link_name(&self) -> Result<LinkName, Failure> {
        Ok(LinkName::parse(&self.name)?)
    }
}

fn cidrs(given: [&Option<String>; 2]) -> Result<Vec<Cidr>, Failure> {
    given
        .into_iter()
        .flatten()
        .map(|text| Ok(text.parse()?))
        .collect()
}

impl BridgeRequest {
    /// As the net crate takes it.
    pub fn bridge(&self) -> Result<Bridge, Failure> {
        Ok(Bridge {
            name: LinkName::parse(&self.name)?,
            gateways: cidrs([&self.address, &self.address6])?,
            mtu: self.mtu,
            internal: self.internal,
            isolated: self.isolated,
            masquerade: self.masquerade,
            resolver: self.resolver,
            reach: self.egress.as_deref().map(reach).transpose()?,
        })
    }
}

impl Port {
    /// Whether this, which is published, is what was asked for by that.
    pub fn is_of(&self, asked: &Self) -> bool {
        let last = asked.host_port_last.unwrap_or(asked.host_port);
        self.protocol == asked.protocol
            && self.container_port == asked.container_port
            && self.host_ip == asked.host_ip
            && (asked.host_port == 0 || (asked.host_port..=last).contains(&self.host_port))
    }

    /// As the net crate takes it.
    pub fn publish(&self) -> Result<Publish, Failure> {
        let Self {
            host_ip,
            host_port,
            host_port_last,
            same_port,
            container_port,
            ..
        } = *self;
        Ok(Publish {
            protocol: self.protocol.parse()?,
            host_ip,
            host_port,
            host_port_last,
            same_port,
            container_port,
        })
    }
}

impl From<&Publish> for Port {
    fn from(publish: &Publish) -> Self {
        let Publish {
            protocol,
            host_ip,
            host_port,
            host_port_last,
            same_port,
            container_port,
        } = *publish;
        Self {
            protocol: protocol.to_string(),
            host_ip,
            host_port,
            host_port_last,
            same_port,
            container_port,
        }
    }
}
