//! The elements of an engine's sets: its bridges, and the ports it publishes.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use super::limited::link_key;
use super::sets::{
    BRIDGES, FORWARDS, FORWARDS_ANY, FORWARDS6, FORWARDS6_ANY, INTERNAL, LIMITED_BRIDGES,
    LOOPBACK6, PATHS, ROUTED, SUBNETS, SUBNETS6,
};
use super::{
    DELETE_ELEMENT, ELEMENT_KEY, FAMILY_INET, GET_ELEMENT, NEW_ELEMENT, NFTA_DATA_VALUE,
    NFTA_LIST_ELEM, Transaction,
};
use super::{is_missing, message, put_value};
use crate::address::{Cidr, Family, next, octets};
use crate::bridge::Bridge;
use crate::error::Result;
use crate::names::{EngineId, LinkName};
use crate::netlink::{Body, CREATE, Socket, attributes, u64_be};
use crate::ports::{Protocol, Publish};

const LIST_TABLE: u16 = 1;
pub(super) const LIST_SET: u16 = 2;
const LIST_ELEMENTS: u16 = 3;
pub(super) const ELEMENT_DATA: u16 = 2;
const ELEMENT_FLAGS: u16 = 3;
const ELEMENT_EXPIRATION: u16 = 5;
const ELEMENT_USERDATA: u16 = 6;
pub(super) const ELEMENT_KEY_END: u16 = 10;
const FLAG_INTERVAL_END: u32 = 1;
const COMMENT: u8 = 0;
/// The kernel's limit for a comment with its NUL, its type and its length (`NFT_USERDATA_MAXLEN`).
const COMMENT_MAX: usize = 253;

/// Elements in one request: far below the 64 KiB that an attribute can have.
pub(super) const CHUNK: usize = 200;

/// A host port that leads to a container: one element of a map, with its owner as the comment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Forward {
    pub(crate) protocol: Protocol,
    /// None: all the host's addresses of the family.
    pub(crate) host_ip: Option<IpAddr>,
    pub(crate) host_port: u16,
    /// Of the same family.
    pub(crate) to: (IpAddr, u16),
    /// The bridge's own address there: whom the container sees where the host asks from `::1`.
    pub(crate) by: IpAddr,
    pub(crate) owner: String,
}

impl Forward {
    fn set(&self) -> &'static str {
        match (Family::of(self.to.0), self.host_ip) {
            (Family::V4, Some(_)) => FORWARDS,
            (Family::V4, None) => FORWARDS_ANY,
            (Family::V6, Some(_)) => FORWARDS6,
            (Family::V6, None) => FORWARDS6_ANY,
        }
    }

    /// `protocol . address . port` or `protocol . port`, each part in 4 bytes or a multiple.
    fn key(&self) -> Vec<u8> {
        port_key(self.protocol, self.host_ip, self.host_port)
    }

    fn data(&self) -> Vec<u8> {
        let mut data = octets(self.to.0);
        data.extend(self.to.1.to_be_bytes());
        data.extend([0, 0]);
        data
    }

    /// Its key among the ports that the host asks from `::1`, if it is one.
    fn loopback_key(&self) -> Option<Vec<u8>> {
        let on_loopback = self.host_ip.is_none_or(|host| host.is_loopback());
        (self.to.0.is_ipv6() && on_loopback).then(|| port_key(self.protocol, None, self.host_port))
    }

    /// Whether publishing that port too would need the same host port.
    pub(crate) fn conflicts(&self, port: &Publish) -> bool {
        self.protocol == port.protocol
            && self.host_port == port.host_port
            && Family::of(self.to.0) == Family::of(port.host_ip)
            && (port.host_ip.is_unspecified() || self.host_ip.is_none_or(|own| port.host_ip == own))
    }

    /// Whether it is another one under the same key.
    pub(crate) fn replaces(&self, old: &Self) -> bool {
        self.set() == old.set() && self.key() == old.key() && self.to != old.to
    }

    fn parse(set: &str, element: &Element) -> Option<Self> {
        let family = if [FORWARDS, FORWARDS_ANY].contains(&set) {
            Family::V4
        } else {
            Family::V6
        };
        let (protocol, rest) = element.key.split_first_chunk::<4>()?;
        let (host_ip, port) = if [FORWARDS, FORWARDS6].contains(&set) {
            let (address, port) = family.split(rest)?;
            (Some(address), port)
        } else {
            (None, rest)
        };
        let (to, to_port) = family.split(&element.data)?;
        Some(Self {
            protocol: Protocol::of_number(protocol[0])?,
            host_ip,
            host_port: u16::from_be_bytes(*port.first_chunk()?),
            to: (to, u16::from_be_bytes(*to_port.first_chunk()?)),
            by: to, // not told there, and not needed to withdraw it
            owner: element.comment.clone(),
        })
    }
}

pub(super) fn port_key(protocol: Protocol, host: Option<IpAddr>, port: u16) -> Vec<u8> {
    let mut key = vec![protocol.number(), 0, 0, 0];
    key.extend(host.into_iter().flat_map(octets));
    key.extend(port.to_be_bytes());
    key.extend([0, 0]);
    key
}

pub(crate) fn add_forwards<'a>(
    transaction: &mut Transaction,
    forwards: impl IntoIterator<Item = &'a Forward>,
) {
    change_forwards(transaction, forwards, NEW_ELEMENT, CREATE, "publish");
}

/// All must exist: one that does not fails the transaction.
pub(crate) fn delete_forwards<'a>(
    transaction: &mut Transaction,
    forwards: impl IntoIterator<Item = &'a Forward>,
) {
    change_forwards(transaction, forwards, DELETE_ELEMENT, 0, "withdraw");
}

fn change_forwards<'a>(
    transaction: &mut Transaction,
    forwards: impl IntoIterator<Item = &'a Forward>,
    kind: u16,
    flags: u16,
    verb: &str,
) {
    let mut by_set: BTreeMap<&str, Vec<&Forward>> = BTreeMap::new();
    for forward in forwards {
        by_set.entry(forward.set()).or_default().push(forward);
    }
    let mut loopback = Vec::new();
    for chunk in by_set.values().flat_map(|all| all.chunks(CHUNK)) {
        let doing = format!("{verb} the ports of container {}", chunk[0].owner);
        change(transaction, doing, kind, flags, chunk[0].set(), |list| {
            for forward in chunk {
                list.nest(NFTA_LIST_ELEM, |body| {
                    put_value(body, ELEMENT_KEY, &forward.key());
                    if kind == NEW_ELEMENT {
                        put_value(body, ELEMENT_DATA, &forward.data());
                        put_comment(body, &forward.owner);
                    }
                });
            }
        });
        loopback.extend(
            chunk
                .iter()
                .filter_map(|forward| Some((*forward, forward.loopback_key()?))),
        );
    }
    for chunk in loopback.chunks(CHUNK) {
        let doing = format!("{verb} the ports of container {} on ::1", chunk[0].0.owner);
        change(transaction, doing, kind, flags, LOOPBACK6, |list| {
            for (forward, key) in chunk {
                list.nest(NFTA_LIST_ELEM, |body| {
                    put_value(body, ELEMENT_KEY, key);
                    if kind == NEW_ELEMENT {
                        put_value(body, ELEMENT_DATA, &octets(forward.by));
                        put_comment(body, &forward.owner);
                    }
                });
            }
        });
    }
}

/// The published ports that are in the kernel's table; none where there is no table.
pub(crate) fn forwards(socket: &mut Socket, engine: &EngineId) -> Result<Vec<Forward>> {
    let mut found = Vec::new();
    for set in [FORWARDS, FORWARDS_ANY, FORWARDS6, FORWARDS6_ANY] {
        found.extend(
            elements(socket, engine, set)?
                .iter()
                .filter_map(|element| Forward::parse(set, element)),
        );
    }
    Ok(found)
}

/// All that is said of a bridge, and nothing that was said of an earlier one of its name but its networks.
pub(crate) fn add_bridge(transaction: &mut Transaction, bridge: &Bridge) {
    let member = |set: &str| match set {
        PATHS => !bridge.isolated,
        INTERNAL => bridge.internal,
        ROUTED => !bridge.masquerade,
        LIMITED_BRIDGES => bridge.reach.is_some(),
        _ => true,
    };
    put_bridge(transaction, &bridge.name, member);
    for gateway in &bridge.gateways {
        change_subnet(
            transaction,
            *gateway,
            bridge.name.as_str(),
            NEW_ELEMENT,
            CREATE,
        );
    }
}

/// Whatever is said of it, if anything is, but its networks.
pub(crate) fn delete_bridge(transaction: &mut Transaction, name: &LinkName) {
    put_bridge(transaction, name, |_| false);
}

/// The bridges that the kernel's table knows; none where there is no table.
pub(crate) fn bridges(socket: &mut Socket, engine: &EngineId) -> Result<Vec<LinkName>> {
    let name = |element: &Element| LinkName::parse(&crate::netlink::text(&element.key)?).ok();
    Ok(elements(socket, engine, BRIDGES)?
        .iter()
        .filter_map(name)
        .collect())
}

/// Take networks out of the sets of subnets; they must be in them.
pub(crate) fn delete_subnets(transaction: &mut Transaction, networks: &[Cidr]) {
    for network in networks {
        change_subnet(transaction, *network, "", DELETE_ELEMENT, 0);
    }
}

/// The networks that are in the sets of subnets for that bridge.
pub(crate) fn subnets_of(
    socket: &mut Socket,
    engine: &EngineId,
    bridge: &LinkName,
) -> Result<Vec<Cidr>> {
    let of_bridge = |element: &Element| {
        let (name, network) = element.comment.split_once(' ')?;
        (name == bridge.as_str())
            .then(|| network.parse::<Cidr>().ok())
            .flatten()
    };
    let mut found = Vec::new();
    for set in [SUBNETS, SUBNETS6] {
        found.extend(elements(socket, engine, set)?.iter().filter_map(of_bridge));
    }
    Ok(found)
}

/// Have a bridge in those sets, and in no other. An element is added before it is deleted, as to delete what is not
/// there fails the transaction, and to add what is there does not.
fn put_bridge(transaction: &mut Transaction, name: &LinkName, member: impl Fn(&str) -> bool) {
    let doing = format!("set up NAT for the bridge {name}");
    let link = link_key(name);
    for set in [BRIDGES, PATHS, INTERNAL, ROUTED, LIMITED_BRIDGES] {
        let key = link.repeat(if set == PATHS { 2 } else { 1 });
        let changes = [(NEW_ELEMENT, CREATE), (DELETE_ELEMENT, 0)];
        for (kind, flags) in changes.into_iter().take(if member(set) { 1 } else { 2 }) {
            change(transaction, doing.clone(), kind, flags, set, |list| {
                list.nest(NFTA_LIST_ELEM, |body| {
                    put_value(body, ELEMENT_KEY, &key);
                    if set == LIMITED_BRIDGES && kind == NEW_ELEMENT {
                        put_comment(body, name.as_str());
                    }
                });
            });
        }
    }
}

/// An interval is two elements: its first address, and the first after it with a flag.
fn change_subnet(
    transaction: &mut Transaction,
    network: Cidr,
    bridge: &str,
    kind: u16,
    flags: u16,
) {
    let (first, last) = network.range();
    let set = match Family::of(first) {
        Family::V4 => SUBNETS,
        Family::V6 => SUBNETS6,
    };
    let doing = format!("set up NAT for the network {network}");
    change(transaction, doing, kind, flags, set, |list| {
        list.nest(NFTA_LIST_ELEM, |body| {
            put_value(body, ELEMENT_KEY, &octets(first));
            if kind == NEW_ELEMENT {
                put_comment(body, &format!("{bridge} {first}/{}", network.prefix()));
            }
        });
        if let Some(after) = next(last) {
            list.nest(NFTA_LIST_ELEM, |body| {
                put_value(body, ELEMENT_KEY, &octets(after));
                body.u32_be(ELEMENT_FLAGS, FLAG_INTERVAL_END);
            });
        }
    });
}

pub(super) fn change(
    transaction: &mut Transaction,
    doing: String,
    kind: u16,
    flags: u16,
    set: &str,
    list: impl FnOnce(&mut Body<'_>),
) {
    transaction.change(doing, kind, flags, |body| {
        body.text(LIST_SET, set);
        body.nest(LIST_ELEMENTS, list);
    });
}

/// nft's own encoding of comments, so that `nft list` shows them.
pub(super) fn put_comment(body: &mut Body<'_>, text: &str) {
    let text = &text.as_bytes()[..text.len().min(COMMENT_MAX)];
    let mut value = vec![COMMENT, u8::try_from(text.len() + 1).unwrap_or(u8::MAX)];
    value.extend_from_slice(text);
    value.push(0);
    body.bytes(ELEMENT_USERDATA, &value);
}

#[derive(Debug, Default)]
pub(super) struct Element {
    pub(super) key: Vec<u8>,
    /// Of a range of concatenated keys: the last.
    pub(super) end: Vec<u8>,
    pub(super) data: Vec<u8>,
    /// How long it stays yet; None where it stays.
    pub(super) left: Option<Duration>,
    pub(super) comment: String,
}

pub(super) fn elements(socket: &mut Socket, engine: &EngineId, set: &str) -> Result<Vec<Element>> {
    elements_of_family(socket, FAMILY_INET, engine, set)
}

/// Those of the engine's table of that family; none where there is no such table.
pub(super) fn elements_of_family(
    socket: &mut Socket,
    family: u8,
    engine: &EngineId,
    set: &str,
) -> Result<Vec<Element>> {
    let messages = socket.dump(|batch, flags| {
        batch.request(
            format!("list the nftables set {set}"),
            message(GET_ELEMENT),
            flags,
            |body| {
                body.header(&[family, 0, 0, 0]);
                body.text(LIST_TABLE, &engine.table());
                body.text(LIST_SET, set);
            },
        );
    });
    let messages = match messages {
        Err(error) if is_missing(&error) => return Ok(Vec::new()),
        other => other?,
    };
    let mut found = Vec::new();
    for (_, body) in &messages {
        for (kind, list) in attributes(body.get(4..).unwrap_or_default()) {
            if kind == LIST_ELEMENTS {
                found.extend(attributes(list).map(|(_, element)| parse_element(element)));
            }
        }
    }
    Ok(found)
}

fn parse_element(bytes: &[u8]) -> Element {
    let value = |nested: &[u8]| {
        attributes(nested)
            .find(|(kind, _)| *kind == NFTA_DATA_VALUE)
            .map(|(_, value)| value.to_vec())
            .unwrap_or_default()
    };
    let mut element = Element::default();
    for (kind, content) in attributes(bytes) {
        match kind {
            ELEMENT_KEY => element.key = value(content),
            ELEMENT_KEY_END => element.end = value(content),
            ELEMENT_DATA => element.data = value(content),
            ELEMENT_EXPIRATION => element.left = u64_be(content).map(Duration::from_millis),
            ELEMENT_USERDATA => element.comment = comment(content),
            _ => {}
        }
    }
    element
}

/// The comment among user data: type, length, value, each type at most once.
fn comment(mut bytes: &[u8]) -> String {
    while let [kind, length, rest @ ..] = bytes {
        let Some(value) = rest.get(..usize::from(*length)) else {
            break;
        };
        if *kind == COMMENT {
            return crate::netlink::text(value).unwrap_or_default();
        }
        bytes = &rest[value.len()..];
    }
    String::new()
}
