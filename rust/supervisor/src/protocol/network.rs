//! Networks: a container's at its start, and what changes while it runs.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use super::name::Id;

/// How a container is connected.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum NetworkMode {
    /// A namespace with a loopback interface only.
    None,
    /// The host's namespace.
    Host,
    /// Another container's namespace.
    Container,
    /// Bridges of the engine.
    Bridge,
}

/// A container's network. Which fields there are depends on the mode.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkRequest {
    /// Which kind.
    pub mode: NetworkMode,
    /// With `container`: which.
    #[serde(default)]
    pub container: Option<Id>,
    /// With `bridge`: the container's interfaces; the first is eth0.
    #[serde(default)]
    pub interfaces: Vec<InterfaceRequest>,
    /// With `bridge`: the network whose bridge is the default route, and whose address is published.
    #[serde(default)]
    pub way_out: Option<String>,
    /// The same of IPv6.
    #[serde(default)]
    pub way_out6: Option<String>,
    /// With `bridge`: published ports.
    #[serde(default)]
    pub ports: Vec<Port>,
    /// With `bridge`: servers that names beyond the networks are asked of; none for the host's.
    #[serde(default)]
    pub dns: Vec<IpAddr>,
    /// With `bridge`: what the container may reach beyond its own networks; None for whatever there is.
    #[serde(default)]
    pub egress: Option<Vec<EgressRule>>,
}

/// What may be reached: a network or a name, of all ports or of some.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct EgressRule {
    /// Addresses with their prefix.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// Or a name in lower case; `*.` before it stands for all names below it. One of both.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `tcp`, `udp` or `sctp`; None for each of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// The first and the last port; None for every packet, also of protocols without ports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ports: Option<(u16, u16)>,
}

/// The networks that a container's default routes lead to: that of IPv4, and that of IPv6.
pub type WaysOut<'a> = [Option<&'a str>; 2];

impl NetworkRequest {
    /// The networks of its default routes.
    pub fn ways_out(&self) -> WaysOut<'_> {
        [self.way_out.as_deref(), self.way_out6.as_deref()]
    }
}

/// A network's bridge.
#[allow(clippy::struct_excessive_bools)] // each is a fact of its own, as on the wire
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct BridgeRequest {
    /// The interface's name.
    pub name: String,
    /// Its own address with the network's prefix; None for a network of IPv6 only.
    #[serde(default)]
    pub address: Option<String>,
    /// The same of IPv6; None for a network of IPv4 only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address6: Option<String>,
    /// Bytes; None for that of the host's way out.
    #[serde(default)]
    pub mtu: Option<u32>,
    /// Whether there is no way out of it.
    #[serde(default)]
    pub internal: bool,
    /// Whether its containers cannot reach one another.
    #[serde(default)]
    pub isolated: bool,
    /// Whether its containers go out with the host's address.
    #[serde(default = "yes")]
    pub masquerade: bool,
    /// Whether the engine answers its containers' questions for names.
    #[serde(default)]
    pub resolver: bool,
    /// What its containers may reach by way of it beyond the network itself; None for whatever there is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress: Option<Vec<EgressRule>>,
}

/// A network on an interface of the host's.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct LanRequest {
    /// `macvlan` or `ipvlan`.
    pub driver: String,
    /// The interface.
    pub parent: ParentRequest,
    /// Docker's `macvlan_mode` or `ipvlan_mode`.
    pub mode: String,
    /// With `ipvlan`: Docker's `ipvlan_flag`.
    #[serde(default)]
    pub flag: Option<String>,
    /// Bytes; None for the parent's.
    #[serde(default)]
    pub mtu: Option<u32>,
    /// The next hop of its containers' default route; None for no such route, but where the mode has one without.
    #[serde(default)]
    pub gateway: Option<Ipv4Addr>,
    /// The same of IPv6.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway6: Option<Ipv6Addr>,
    /// Whether there is no way out of it.
    #[serde(default)]
    pub internal: bool,
}

/// An interface of the host's that networks are on. Also the fields of `make_parent`.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct ParentRequest {
    /// Its name.
    pub name: String,
    /// Whether it leads nowhere, and is made where it is missing.
    #[serde(default)]
    pub dummy: bool,
}

/// A container's place in one network.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct InterfaceRequest {
    /// Its name inside: eth0, eth1 ...
    pub name: String,
    /// Where its other end is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bridge: Option<BridgeRequest>,
    /// Or what it is a link on. One of both.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lan: Option<LanRequest>,
    /// The container's address with its prefix; None on a network of IPv6 only.
    #[serde(default)]
    pub address: Option<String>,
    /// The same of IPv6; None on a network of IPv4 only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address6: Option<String>,
    /// The container's MAC address.
    #[serde(default)]
    pub mac: Option<String>,
    /// The network's ID.
    #[serde(default)]
    pub network: String,
    /// The network's name.
    #[serde(default)]
    pub network_name: String,
    /// What the container is called there; the first is its own name.
    #[serde(default)]
    pub names: Vec<String>,
    /// What the container alone calls others there: their names by its own words.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub links: BTreeMap<String, String>,
}

/// A published port.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
#[allow(clippy::struct_field_names)] // the protocol's names
pub struct Port {
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
    /// The host's address.
    pub host_ip: IpAddr,
    /// The host's port; 0 to let us choose.
    pub host_port: u16,
    /// The last of a range that begins there, of which the first free one is taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_port_last: Option<u16>,
    /// Whether its host port is to be that of the one before it, which differs in the address only.
    #[serde(default, skip_serializing_if = "is_false")]
    pub same_port: bool,
    /// The container's port.
    pub container_port: u16,
}

/// Fields of `connect`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Connect {
    /// Which container.
    pub container: Id,
    /// What it gets. One that it has already changes nothing.
    pub interface: InterfaceRequest,
    /// The network that has its default route from now on.
    pub way_out: Option<String>,
    /// The same of IPv6.
    #[serde(default)]
    pub way_out6: Option<String>,
    /// As at its start, for a container that has had no network with names before.
    #[serde(default)]
    pub dns: Vec<IpAddr>,
    /// As at its start, for the ways out that it has from now on: those are published that are not yet.
    #[serde(default)]
    pub ports: Vec<Port>,
}

/// Fields of `disconnect`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Disconnect {
    /// Which container.
    pub container: Id,
    /// The network's ID. One that it is not on changes nothing.
    pub network: String,
    /// The network that has its default route from now on.
    pub way_out: Option<String>,
    /// The same of IPv6.
    #[serde(default)]
    pub way_out6: Option<String>,
}

/// Fields of `names`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Names {
    /// Which container.
    pub container: Id,
    /// What it is called, by the network's ID.
    pub names: BTreeMap<String, Vec<String>>,
}

/// Fields of `remove_network`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemoveNetwork {
    /// The interface's name.
    pub bridge: String,
}

/// Fields of `balance`: an entry as it is from now on.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct BalanceRequest {
    /// What it is called here, and in the rules' comments.
    pub entry: String,
    /// What containers of the network find it by.
    pub name: String,
    /// The network's ID.
    pub network: String,
    /// The network's name.
    pub network_name: String,
    /// The network's bridge.
    pub bridge: BridgeRequest,
    /// Its addresses, in the network's subnets: one of each family that the network has.
    pub addresses: Vec<IpAddr>,
    /// Its ports.
    pub ports: Vec<EntryPort>,
    /// The containers behind it, and their addresses. One that does not run any more is left out.
    pub members: BTreeMap<Id, Vec<IpAddr>>,
}

/// A port of an entry.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct EntryPort {
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
    /// The containers' port, which is the entry's as well.
    pub container_port: u16,
    /// Where it is published; none for all of the host's addresses, of the families that the entry has.
    #[serde(default)]
    pub host_ip: Option<IpAddr>,
    /// The host's port, 0 to let us choose; none where it is not published.
    #[serde(default)]
    pub host_port: Option<u16>,
}

/// Fields of `unbalance`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unbalance {
    /// Which entry. One that is not there changes nothing.
    pub entry: String,
}

/// Fields of `remove_parent`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemoveParent {
    /// The interface's name.
    pub name: String,
}

const fn yes() -> bool {
    true
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
const fn is_false(value: &bool) -> bool {
    !*value
}
