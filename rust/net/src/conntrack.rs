//! Forgetting UDP flows (`linux/netfilter/nfnetlink_conntrack.h`).
//!
//! The kernel decides about a flow's NAT once, and a client that goes on sending keeps a flow alive
//! for ever. So a flow from before a port was published would go past the container, and one from
//! before it was withdrawn would go to whoever has the container's address next.

use std::net::IpAddr;

use crate::address::{Family, octets};
use crate::error::Result;
use crate::netlink::{Batch, Body, Socket, attributes};
use crate::nft::Forward;
use crate::ports::Protocol;

const SUBSYSTEM: u16 = 1;
const GET: u16 = 1;
const DELETE: u16 = 2;

const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const ID: u16 = 12;
const FILTER: u16 = 25;
const TUPLE_IP: u16 = 1;
const TUPLE_PROTO: u16 = 2;
const IPV4_SOURCE: u16 = 1;
const IPV4_DESTINATION: u16 = 2;
const IPV6_SOURCE: u16 = 3;
const IPV6_DESTINATION: u16 = 4;
const PROTO_NUMBER: u16 = 1;
const PROTO_SOURCE_PORT: u16 = 2;
const PROTO_DESTINATION_PORT: u16 = 3;

/// In a filter: which parts of the tuple count.
const BY_SOURCE_ADDRESS: u32 = 1 << 0;
const BY_DESTINATION_ADDRESS: u32 = 1 << 1;
const BY_PROTOCOL: u32 = 1 << 3;
const BY_SOURCE_PORT: u32 = 1 << 4;
const BY_DESTINATION_PORT: u32 = 1 << 5;

const ENOENT: i32 = 2;
const EINVAL: i32 = 22;
const EOPNOTSUPP: i32 = 95;

/// One direction of a flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tuple {
    protocol: u8,
    source: Option<(IpAddr, u16)>,
    destination: Option<(IpAddr, u16)>,
}

/// A flow as the kernel lists it.
#[derive(Debug)]
struct Flow {
    original: Tuple,
    reply: Tuple,
    /// The original tuple and the ID as they came, to name the flow by.
    name: (Vec<u8>, Vec<u8>),
}

/// After publishing: forget flows to the host port that the host itself has had. `is_local` knows
/// the host's addresses.
pub(crate) fn forget_flows_to_host(
    socket: &mut Socket,
    forward: &Forward,
    is_local: impl Fn(IpAddr) -> bool,
) -> Result<()> {
    // Kernels drop what matches an IPv6 address, and keep all else: such a filter is of no use.
    let host = forward.host_ip.filter(IpAddr::is_ipv4);
    let flags = BY_PROTOCOL
        | BY_DESTINATION_PORT
        | if host.is_some() {
            BY_DESTINATION_ADDRESS
        } else {
            0
        };
    let wanted = |flow: &Flow| {
        let Some((address, port)) = flow.original.destination else {
            return false;
        };
        let ours = forward
            .host_ip
            .map_or_else(|| is_local(address), |host| host == address);
        let led_here = flow.reply.source == Some(forward.to);
        port == forward.host_port && ours && !led_here
    };
    let filter = |body: &mut Body<'_>| {
        body.nest(TUPLE_ORIGINAL, |body| {
            if let Some(host) = host {
                body.nest(TUPLE_IP, |body| {
                    body.bytes(IPV4_DESTINATION, &octets(host));
                });
            }
            put_proto(body, PROTO_DESTINATION_PORT, forward.host_port);
        });
        body.nest(FILTER, |body| body.u32(1, flags));
    };
    forget(socket, forward, filter, wanted)
}

/// After withdrawing: forget flows that lead to the container's port.
pub(crate) fn forget_flows_to_container(socket: &mut Socket, forward: &Forward) -> Result<()> {
    let source = Some(forward.to.0).filter(IpAddr::is_ipv4); // as above
    let flags = BY_PROTOCOL
        | BY_SOURCE_PORT
        | if source.is_some() {
            BY_SOURCE_ADDRESS
        } else {
            0
        };
    let wanted = |flow: &Flow| flow.reply.source == Some(forward.to);
    let filter = |body: &mut Body<'_>| {
        body.nest(TUPLE_REPLY, |body| {
            if let Some(source) = source {
                body.nest(TUPLE_IP, |body| {
                    body.bytes(IPV4_SOURCE, &octets(source));
                });
            }
            put_proto(body, PROTO_SOURCE_PORT, forward.to.1);
        });
        body.nest(FILTER, |body| body.u32(2, flags));
    };
    forget(socket, forward, filter, wanted)
}

fn put_proto(body: &mut Body<'_>, kind: u16, port: u16) {
    body.nest(TUPLE_PROTO, |body| {
        body.u8(PROTO_NUMBER, Protocol::Udp.number());
        body.bytes(kind, &port.to_be_bytes());
    });
}

/// Kernels before 5.8 don't know filters and list all, so everything is looked at once more here.
fn forget(
    socket: &mut Socket,
    forward: &Forward,
    filter: impl Fn(&mut Body<'_>),
    wanted: impl Fn(&Flow) -> bool,
) -> Result<()> {
    let doing = || format!("forget the UDP flows of port {}", forward.host_port);
    // AF_INET, AF_INET6
    let family = match forward.to.0 {
        IpAddr::V4(_) => 2,
        IpAddr::V6(_) => 10,
    };
    let listed = socket.dump(|batch, flags| {
        batch.request(doing(), SUBSYSTEM << 8 | GET, flags, |body| {
            body.header(&[family, 0, 0, 0]);
            filter(body);
        });
    });
    let listed = match listed {
        // A kernel without ctnetlink: such flows end 30 s to 2 min after their last packet.
        Err(error) if matches!(error.errno(), Some(EINVAL | EOPNOTSUPP)) => return Ok(()),
        other => other?,
    };
    for (_, body) in &listed {
        let Some(flow) = parse(body) else { continue };
        if flow.original.protocol != Protocol::Udp.number() || !wanted(&flow) {
            continue;
        }
        let mut batch = Batch::new();
        batch.request(doing(), SUBSYSTEM << 8 | DELETE, 0, |body| {
            body.header(&[family, 0, 0, 0]);
            body.nested_bytes(TUPLE_ORIGINAL, &flow.name.0);
            body.bytes(ID, &flow.name.1);
        });
        match socket.run(batch) {
            Err(error) if error.errno() == Some(ENOENT) => {} // it has ended meanwhile
            other => other?,
        }
    }
    Ok(())
}

fn parse(body: &[u8]) -> Option<Flow> {
    let find = |kind: u16| {
        let mut all = attributes(body.get(4..).unwrap_or_default());
        all.find(|(found, _)| *found == kind)
            .map(|(_, value)| value)
    };
    let original = find(TUPLE_ORIGINAL)?;
    Some(Flow {
        original: parse_tuple(original),
        reply: parse_tuple(find(TUPLE_REPLY)?),
        name: (original.to_vec(), find(ID)?.to_vec()),
    })
}

fn parse_tuple(bytes: &[u8]) -> Tuple {
    let (mut source, mut destination) = (None, None);
    let (mut source_port, mut destination_port) = (None, None);
    let mut protocol = 0;
    let address = |family: Family, value| family.split(value).map(|(address, _)| address);
    let port = |value: &[u8]| {
        value
            .first_chunk::<2>()
            .map(|bytes| u16::from_be_bytes(*bytes))
    };
    for (part, nested) in attributes(bytes) {
        for (kind, value) in attributes(nested) {
            match (part, kind) {
                (TUPLE_IP, IPV4_SOURCE) => source = address(Family::V4, value),
                (TUPLE_IP, IPV4_DESTINATION) => destination = address(Family::V4, value),
                (TUPLE_IP, IPV6_SOURCE) => source = address(Family::V6, value),
                (TUPLE_IP, IPV6_DESTINATION) => destination = address(Family::V6, value),
                (TUPLE_PROTO, PROTO_NUMBER) => protocol = value.first().copied().unwrap_or(0),
                (TUPLE_PROTO, PROTO_SOURCE_PORT) => source_port = port(value),
                (TUPLE_PROTO, PROTO_DESTINATION_PORT) => destination_port = port(value),
                _ => {}
            }
        }
    }
    Tuple {
        protocol,
        source: source.zip(source_port),
        destination: destination.zip(destination_port),
    }
}
