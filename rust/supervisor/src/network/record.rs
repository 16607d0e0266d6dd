//! What a container has of networks, as its `state.json` keeps it: from it a successor withdraws everything.

use std::net::IpAddr;

use knarr_dns::Membership;
use knarr_net::{Bridge, Cidr, Interface, LinkName, Publish};
use serde::{Deserialize, Serialize};

use crate::protocol::{BridgeRequest, Failure, InterfaceRequest, Port};

/// What has to be withdrawn when a container ends.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(default)]
pub struct NetworkRecord {
    /// Its interfaces on bridges.
    pub interfaces: Vec<Attached>,
    /// The network that has its default route and its published ports.
    pub way_out: Option<String>,
    /// Its published ports.
    pub ports: Vec<Port>,
    /// Whom its questions for other names are passed to; none for the host's servers.
    pub dns: Vec<IpAddr>,
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

    /// The address that its ports are published to.
    pub fn published(&self) -> Result<Option<IpAddr>, Failure> {
        let Some(attached) = self.way_out.as_deref().and_then(|network| self.on(network)) else {
            return Ok(None);
        };
        if attached.interface.bridge.is_none() {
            return Ok(None); // it is reached at its own address
        }
        Ok(Some(attached.interface.cidr()?.address()))
    }

    /// Whether it has a link on an interface of the host's.
    pub fn has_lan(&self) -> bool {
        self.interfaces
            .iter()
            .any(|attached| attached.interface.lan.is_some())
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
                    addresses: vec![interface.cidr()?.address()],
                    names: interface.names.clone(),
                    links: interface.links.clone(),
                    external: !interface.internal(),
                    sole: false,
                })
            })
            .collect()
    }

    /// Whether the engine answers its questions for names.
    pub fn has_resolver(&self) -> bool {
        self.interfaces
            .iter()
            .any(|attached| attached.interface.resolver())
    }
}

impl InterfaceRequest {
    /// Its address.
    pub fn cidr(&self) -> Result<Cidr, Failure> {
        Ok(self.address.parse()?)
    }

    /// What is configured inside, with the default route where it is the way out.
    pub fn interface(&self, way_out: Option<&str>) -> Result<Interface, Failure> {
        let gateway = match &self.bridge {
            Some(bridge) if way_out == Some(self.network.as_str()) && !bridge.internal => {
                Some(bridge.bridge()?.gateway.address())
            }
            _ => None,
        };
        Ok(Interface {
            address: self.cidr()?,
            gateway,
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

impl BridgeRequest {
    /// As the net crate takes it.
    pub fn bridge(&self) -> Result<Bridge, Failure> {
        Ok(Bridge {
            name: LinkName::parse(&self.name)?,
            gateway: self.address.parse()?,
            mtu: self.mtu,
            internal: self.internal,
            isolated: self.isolated,
            masquerade: self.masquerade,
            resolver: self.resolver,
        })
    }
}

impl Port {
    /// As the net crate takes it.
    pub fn publish(&self) -> Result<Publish, Failure> {
        let Self {
            host_ip,
            host_port,
            host_port_last,
            container_port,
            ..
        } = *self;
        Ok(Publish {
            protocol: self.protocol.parse()?,
            host_ip,
            host_port,
            host_port_last,
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
            container_port,
        } = *publish;
        Self {
            protocol: protocol.to_string(),
            host_ip,
            host_port,
            host_port_last,
            container_port,
        }
    }
}
