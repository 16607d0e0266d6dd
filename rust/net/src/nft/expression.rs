//! The expressions that rules are made of: a small machine with 16 registers of 4 bytes.
//!
//! [`Rule`] reads like the rule in nft's own language: each method is one condition or one action.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::{NFTA_LIST_ELEM, put_value};
use crate::address::Family;
use crate::names::LinkName;
use crate::netlink::Body;
use crate::ports::Protocol;

const EXPRESSION_NAME: u16 = 1;
const EXPRESSION_DATA: u16 = 2;

/// The verdict's register, and some of the 4-byte ones. A value longer than 4 bytes takes the ones that follow.
const VERDICT: u32 = 0;
const R0: u32 = 8;
const R1: u32 = 9;
const R2: u32 = 10;
const R4: u32 = 12;

const META_PROTOCOL: u32 = 1;
pub(super) const META_IIFNAME: u32 = 6;
pub(super) const META_OIFNAME: u32 = 7;
const META_NFPROTO: u32 = 15;
const META_L4PROTO: u32 = 16;
const CT_STATE: u32 = 0;
const CT_STATUS: u32 = 2;
const BASE_NETWORK: u32 = 1;
const BASE_TRANSPORT: u32 = 2;
pub(super) const EQUAL: u32 = 0;
const NOT_EQUAL: u32 = 1;
const NAT_DESTINATION: u32 = 1;
const FIB_OUTPUT_NAME: u32 = 2;
const FIB_ADDRESS_TYPE: u32 = 3;
const FIB_BY_DESTINATION: u32 = 2;
const RTN_LOCAL: u32 = 2;
const CHECKSUM_INTERNET: u32 = 1;
const NUMGEN_RANDOM: u32 = 1;
const REJECT_ICMPX: u32 = 2;
const ICMPX_PORT_UNREACHABLE: u8 = 1;
const ICMPX_PROHIBITED: u8 = 3;
const PROTOCOL_ICMPV6: u8 = 58;
const ETHERTYPE_ARP: u16 = 0x0806;
/// Where the sender's address is in an ARP packet about IPv4 (RFC 826).
const ARP_SENDER: u32 = 14;
/// `NFT_PAYLOAD_L4CSUM_PSEUDOHDR`: addresses are part of what the transport's checksum is about.
const CHECKSUM_OF_TRANSPORT: u32 = 1;
const DROP: u32 = 0;
pub(super) const ACCEPT: u32 = 1;

/// Where the addresses are in an IPv4 header.
const IPV4_SOURCE: u32 = 12;
const IPV4_DESTINATION: u32 = 16;

impl Family {
    /// `NFPROTO_IPV4`, `NFPROTO_IPV6`
    fn number(self) -> u8 {
        match self {
            Self::V4 => 2,
            Self::V6 => 10,
        }
    }

    /// Its number in an Ethernet header.
    fn ethertype(self) -> u16 {
        match self {
            Self::V4 => 0x0800,
            Self::V6 => 0x86dd,
        }
    }

    /// Where the address of one end is in the family's header, and how long it is.
    fn place(self, end: End) -> (u32, u32) {
        match (self, end) {
            (Self::V4, End::Source) => (IPV4_SOURCE, 4),
            (Self::V4, End::Destination) => (IPV4_DESTINATION, 4),
            (Self::V6, End::Source) => (8, 16),
            (Self::V6, End::Destination) => (24, 16),
        }
    }

    /// What the host's own addresses for itself begin with: 127.0.0.0/8, `::1`.
    fn loopback(self) -> Vec<u8> {
        match self {
            Self::V4 => vec![127],
            Self::V6 => Ipv6Addr::LOCALHOST.octets().to_vec(),
        }
    }
}

/// One of the two ends of a packet's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Source,
    Destination,
}

impl End {
    fn address(self) -> u32 {
        match self {
            Self::Source => IPV4_SOURCE,
            Self::Destination => IPV4_DESTINATION,
        }
    }

    /// Where its port is in the header of every transport.
    fn port(self) -> u32 {
        match self {
            Self::Source => 0,
            Self::Destination => 2,
        }
    }
}

/// What a rule ends with: it has an action.
#[derive(Clone, Copy, Debug)]
pub(super) struct Complete;

/// A rule while it is written: its list of expressions.
#[derive(Debug)]
pub(super) struct Rule<'a, 'b> {
    pub(super) list: &'a mut Body<'b>,
}

impl Rule<'_, '_> {
    /// `iifname @set`
    pub(super) fn input_in(&mut self, set: &str) -> &mut Self {
        self.meta(META_IIFNAME, R0).lookup(set, R0, false, None)
    }

    /// `iifname != @set`
    pub(super) fn input_not_in(&mut self, set: &str) -> &mut Self {
        self.meta(META_IIFNAME, R0).lookup(set, R0, true, None)
    }

    /// `oifname @set`
    pub(super) fn output_in(&mut self, set: &str) -> &mut Self {
        self.meta(META_OIFNAME, R0).lookup(set, R0, false, None)
    }

    /// `oifname != @set`
    pub(super) fn output_not_in(&mut self, set: &str) -> &mut Self {
        self.meta(META_OIFNAME, R0).lookup(set, R0, true, None)
    }

    /// `iifname <link>`
    pub(super) fn input_is(&mut self, link: &LinkName) -> &mut Self {
        self.meta(META_IIFNAME, R0)
            .compare(R0, EQUAL, &terminated(link))
    }

    /// `oifname <link>`
    pub(super) fn output_is(&mut self, link: &LinkName) -> &mut Self {
        self.meta(META_OIFNAME, R0)
            .compare(R0, EQUAL, &terminated(link))
    }

    /// `iifname . oifname @set`
    pub(super) fn path_in(&mut self, set: &str) -> &mut Self {
        self.path().lookup(set, R0, false, None)
    }

    /// `iifname . oifname != @set`
    pub(super) fn path_not_in(&mut self, set: &str) -> &mut Self {
        self.path().lookup(set, R0, true, None)
    }

    /// `meta nfproto ipv4` or `meta nfproto ipv6`
    pub(super) fn is(&mut self, family: Family) -> &mut Self {
        self.meta(META_NFPROTO, R0)
            .compare(R0, EQUAL, &[family.number()])
    }

    /// `ip saddr 127.0.0.0/8` or `ip6 saddr ::1`, and the same of `daddr`
    pub(super) fn loopback(&mut self, family: Family, end: End) -> &mut Self {
        self.is(family).compare_loopback(family, end, EQUAL)
    }

    /// `ip daddr != 127.0.0.0/8` or `ip6 daddr != ::1`, and the same of `saddr`
    pub(super) fn not_loopback(&mut self, family: Family, end: End) -> &mut Self {
        self.is(family).compare_loopback(family, end, NOT_EQUAL)
    }

    /// `ip6 saddr set meta l4proto . th dport map @map`, after `is`: the packet itself is changed, and its checksum
    pub(super) fn set_source_by_port(&mut self, map: &str) -> Complete {
        self.meta(META_L4PROTO, R0)
            .payload(BASE_TRANSPORT, 2, 2, R1)
            .lookup(map, R0, false, Some(R0))
            .set_address(Family::V6, End::Source)
    }

    /// `ip6 daddr set ::1` and the like, after `is`: the packet itself is changed, and its checksum
    pub(super) fn set_destination(&mut self, address: Ipv6Addr) -> Complete {
        self.expression("immediate", |body| {
            body.u32_be(1, R0);
            put_value(body, 2, &address.octets());
        });
        self.set_address(Family::V6, End::Destination)
    }

    /// To the address in the first registers.
    fn set_address(&mut self, family: Family, end: End) -> Complete {
        let (offset, length) = family.place(end);
        self.expression("payload", |body| {
            body.u32_be(5, R0);
            body.u32_be(2, BASE_NETWORK);
            body.u32_be(3, offset);
            body.u32_be(4, length);
            body.u32_be(8, CHECKSUM_OF_TRANSPORT);
        });
        Complete
    }

    /// `ip saddr @set` or `ip6 saddr @set`
    pub(super) fn source_in(&mut self, family: Family, set: &str) -> &mut Self {
        let (offset, length) = family.place(End::Source);
        self.is(family)
            .payload(BASE_NETWORK, offset, length, R0)
            .lookup(set, R0, false, None)
    }

    /// `ip saddr <address>` or `ip daddr <address>`, in a table of family ip
    pub(super) fn address_is(&mut self, end: End, address: Ipv4Addr) -> &mut Self {
        self.payload(BASE_NETWORK, end.address(), 4, R0)
            .compare(R0, EQUAL, &address.octets())
    }

    /// `ip saddr != @set` or `ip6 saddr != @set`
    pub(super) fn source_not_in(&mut self, family: Family, set: &str) -> &mut Self {
        let (offset, length) = family.place(End::Source);
        self.is(family)
            .payload(BASE_NETWORK, offset, length, R0)
            .lookup(set, R0, true, None)
    }

    /// `iifname . fib daddr oifname @set`: none where the destination is the host itself
    pub(super) fn path_by_route_in(&mut self, set: &str) -> &mut Self {
        self.meta(META_IIFNAME, R0).expression("fib", |body| {
            body.u32_be(1, R4);
            body.u32_be(2, FIB_OUTPUT_NAME);
            body.u32_be(3, FIB_BY_DESTINATION);
        });
        self.lookup(set, R0, false, None)
    }

    /// `iifname . ip daddr @set` or `iifname . ip6 daddr @set`
    pub(super) fn input_and_destination_in(&mut self, family: Family, set: &str) -> &mut Self {
        let (offset, length) = family.place(End::Destination);
        self.is(family)
            .meta(META_IIFNAME, R0)
            .payload(BASE_NETWORK, offset, length, R4)
            .lookup(set, R0, false, None)
    }

    /// `ip saddr . ip daddr . meta l4proto . th dport @set`, and the same of `ip6`
    pub(super) fn flow_in(&mut self, family: Family, set: &str) -> &mut Self {
        let (offset, length) = family.place(End::Source);
        self.is(family)
            .payload(BASE_NETWORK, offset, length, R0)
            .destination_in_blocks(family, R0 + length / 4, set)
    }

    /// `iifname . ip daddr . meta l4proto . th dport @set`, and the same of `ip6`
    pub(super) fn flow_from_in(&mut self, family: Family, set: &str) -> &mut Self {
        self.is(family)
            .meta(META_IIFNAME, R0)
            .destination_in_blocks(family, R4, set)
    }

    /// What begins in the first registers, with address, protocol and port from that one on.
    fn destination_in_blocks(&mut self, family: Family, register: u32, set: &str) -> &mut Self {
        let (offset, length) = family.place(End::Destination);
        let after = register + length / 4;
        self.payload(BASE_NETWORK, offset, length, register)
            .meta(META_L4PROTO, after)
            .payload(BASE_TRANSPORT, End::Destination.port(), 2, after + 1)
            .lookup(set, R0, false, None)
    }

    /// `icmpv6 type <kind>`
    pub(super) fn neighbour_message(&mut self, kind: u8) -> &mut Self {
        self.is(Family::V6)
            .meta(META_L4PROTO, R0)
            .compare(R0, EQUAL, &[PROTOCOL_ICMPV6])
            .payload(BASE_TRANSPORT, 0, 1, R0)
            .compare(R0, EQUAL, &[kind])
    }

    /// `iifname . ip saddr @set` or `iifname . ip6 saddr @set`, in a table of family bridge
    pub(super) fn sent_by(&mut self, family: Family, set: &str) -> &mut Self {
        let (offset, length) = family.place(End::Source);
        self.ethertype(family.ethertype())
            .meta(META_IIFNAME, R0)
            .payload(BASE_NETWORK, offset, length, R4)
            .lookup(set, R0, false, None)
    }

    /// `iifname . arp saddr ip @set`, in a table of family bridge
    pub(super) fn resolves_for(&mut self, set: &str) -> &mut Self {
        self.ethertype(ETHERTYPE_ARP)
            .meta(META_IIFNAME, R0)
            .payload(BASE_NETWORK, ARP_SENDER, 4, R4)
            .lookup(set, R0, false, None)
    }

    /// `ip6 saddr fe80::/64 meta l4proto ipv6-icmp`, in a table of family bridge
    pub(super) fn finds_neighbours(&mut self) -> &mut Self {
        let (offset, _) = Family::V6.place(End::Source);
        self.ethertype(Family::V6.ethertype())
            .payload(BASE_NETWORK, offset, 8, R0)
            .compare(R0, EQUAL, &[0xfe, 0x80, 0, 0, 0, 0, 0, 0])
            .meta(META_L4PROTO, R0)
            .compare(R0, EQUAL, &[PROTOCOL_ICMPV6])
    }

    fn ethertype(&mut self, number: u16) -> &mut Self {
        self.meta(META_PROTOCOL, R0)
            .compare(R0, EQUAL, &number.to_be_bytes())
    }

    /// `meta l4proto <protocol>`
    pub(super) fn protocol_is(&mut self, protocol: Protocol) -> &mut Self {
        self.meta(META_L4PROTO, R0)
            .compare(R0, EQUAL, &[protocol.number()])
    }

    /// `th sport <port>` or `th dport <port>`
    pub(super) fn port_is(&mut self, end: End, port: u16) -> &mut Self {
        self.payload(BASE_TRANSPORT, end.port(), 2, R0)
            .compare(R0, EQUAL, &port.to_be_bytes())
    }

    /// `udp sport set <port>` and its kin, after `protocol_is`: the packet itself is changed, and its checksum.
    pub(super) fn set_port(&mut self, end: End, protocol: Protocol, port: u16) -> Complete {
        self.expression("immediate", |body| {
            body.u32_be(1, R0);
            put_value(body, 2, &port.to_be_bytes());
        });
        self.expression("payload", |body| {
            body.u32_be(5, R0);
            body.u32_be(2, BASE_TRANSPORT);
            body.u32_be(3, end.port());
            body.u32_be(4, 2);
            if let Some(offset) = checksum_offset(protocol) {
                body.u32_be(6, CHECKSUM_INTERNET);
                body.u32_be(7, offset);
            }
        });
        Complete
    }

    /// `fib daddr type local`
    pub(super) fn destination_local(&mut self) -> &mut Self {
        self.expression("fib", |body| {
            body.u32_be(1, R0);
            body.u32_be(2, FIB_ADDRESS_TYPE);
            body.u32_be(3, FIB_BY_DESTINATION);
        });
        self.compare(R0, EQUAL, &RTN_LOCAL.to_ne_bytes())
    }

    /// `ct state` has one of these bits
    pub(super) fn state(&mut self, bits: u32) -> &mut Self {
        self.connection(CT_STATE, bits)
    }

    /// `ct status` has one of these bits
    pub(super) fn status(&mut self, bits: u32) -> &mut Self {
        self.connection(CT_STATUS, bits)
    }

    /// `dnat ip to meta l4proto . ip daddr . th dport map @map`, and the same of `ip6`, after `is`
    pub(super) fn forward_by_address(&mut self, family: Family, map: &str) -> Complete {
        let (offset, length) = family.place(End::Destination);
        self.meta(META_L4PROTO, R0)
            .payload(BASE_NETWORK, offset, length, R1)
            .payload(BASE_TRANSPORT, 2, 2, R1 + length / 4)
            .lookup(map, R0, false, Some(R0))
            .destination_nat(family)
    }

    /// `dnat ip to meta l4proto . th dport map @map`, and the same of `ip6`, after `is`
    pub(super) fn forward_by_port(&mut self, family: Family, map: &str) -> Complete {
        self.meta(META_L4PROTO, R0)
            .payload(BASE_TRANSPORT, 2, 2, R1)
            .lookup(map, R0, false, Some(R0))
            .destination_nat(family)
    }

    /// `dnat ip to meta l4proto . ip daddr . th dport . numgen random mod <slots> map @map`, and the same of `ip6`, after
    /// `is`
    pub(super) fn balance_by_address(&mut self, family: Family, map: &str, slots: u32) -> Complete {
        let (offset, length) = family.place(End::Destination);
        self.meta(META_L4PROTO, R0)
            .payload(BASE_NETWORK, offset, length, R1)
            .payload(BASE_TRANSPORT, 2, 2, R1 + length / 4)
            .random(slots, R1 + length / 4 + 1)
            .lookup(map, R0, false, Some(R0))
            .destination_nat(family)
    }

    /// `dnat ip to meta l4proto . th dport . numgen random mod <slots> map @map`, and the same of `ip6`, after `is`
    pub(super) fn balance_by_port(&mut self, family: Family, map: &str, slots: u32) -> Complete {
        self.meta(META_L4PROTO, R0)
            .payload(BASE_TRANSPORT, 2, 2, R1)
            .random(slots, R2)
            .lookup(map, R0, false, Some(R0))
            .destination_nat(family)
    }

    /// `ip daddr @set` or `ip6 daddr @set`
    pub(super) fn destination_in(&mut self, family: Family, set: &str) -> &mut Self {
        let (offset, length) = family.place(End::Destination);
        self.is(family)
            .payload(BASE_NETWORK, offset, length, R0)
            .lookup(set, R0, false, None)
    }

    /// `reject with icmpx port-unreachable`
    pub(super) fn reject(&mut self) -> Complete {
        self.refuse(ICMPX_PORT_UNREACHABLE)
    }

    /// `reject with icmpx admin-prohibited`
    pub(super) fn prohibit(&mut self) -> Complete {
        self.refuse(ICMPX_PROHIBITED)
    }

    fn refuse(&mut self, reason: u8) -> Complete {
        self.expression("reject", |body| {
            body.u32_be(1, REJECT_ICMPX);
            body.u8(2, reason);
        });
        Complete
    }

    pub(super) fn counter(&mut self) -> &mut Self {
        self.expression("counter", |_| {})
    }

    pub(super) fn masquerade(&mut self) -> Complete {
        self.expression("masq", |_| {});
        Complete
    }

    pub(super) fn accept(&mut self) -> Complete {
        self.verdict(ACCEPT)
    }

    pub(super) fn drop(&mut self) -> Complete {
        self.verdict(DROP)
    }

    fn path(&mut self) -> &mut Self {
        self.meta(META_IIFNAME, R0).meta(META_OIFNAME, R4)
    }

    fn meta(&mut self, key: u32, to: u32) -> &mut Self {
        self.expression("meta", |body| {
            body.u32_be(1, to);
            body.u32_be(2, key);
        })
    }

    fn payload(&mut self, base: u32, offset: u32, length: u32, to: u32) -> &mut Self {
        self.expression("payload", |body| {
            body.u32_be(1, to);
            body.u32_be(2, base);
            body.u32_be(3, offset);
            body.u32_be(4, length);
        })
    }

    /// A number below `modulus`, in host order.
    fn random(&mut self, modulus: u32, to: u32) -> &mut Self {
        self.expression("numgen", |body| {
            body.u32_be(1, to);
            body.u32_be(2, modulus);
            body.u32_be(3, NUMGEN_RANDOM);
        })
    }

    fn compare_loopback(&mut self, family: Family, end: End, operator: u32) -> &mut Self {
        let (offset, _) = family.place(end);
        let prefix = family.loopback();
        let length = u32::try_from(prefix.len()).unwrap_or(0); // 1 or 16
        self.payload(BASE_NETWORK, offset, length, R0)
            .compare(R0, operator, &prefix)
    }

    fn compare(&mut self, register: u32, operator: u32, value: &[u8]) -> &mut Self {
        self.expression("cmp", |body| {
            body.u32_be(1, register);
            body.u32_be(2, operator);
            put_value(body, 3, value);
        })
    }

    fn lookup(&mut self, set: &str, key: u32, inverted: bool, data: Option<u32>) -> &mut Self {
        self.expression("lookup", |body| {
            body.text(1, set);
            body.u32_be(2, key);
            if let Some(register) = data {
                body.u32_be(3, register);
            }
            if inverted {
                body.u32_be(5, 1);
            }
        })
    }

    fn connection(&mut self, key: u32, bits: u32) -> &mut Self {
        self.expression("ct", |body| {
            body.u32_be(1, R0);
            body.u32_be(2, key);
        });
        self.expression("bitwise", |body| {
            body.u32_be(1, R0);
            body.u32_be(2, R0);
            body.u32_be(3, 4);
            put_value(body, 4, &bits.to_ne_bytes());
            put_value(body, 5, &[0; 4]);
        });
        self.compare(R0, NOT_EQUAL, &[0; 4])
    }

    /// To the address in the first registers and the port in the one that follows.
    fn destination_nat(&mut self, family: Family) -> Complete {
        let (_, length) = family.place(End::Destination);
        self.expression("nat", |body| {
            body.u32_be(1, NAT_DESTINATION);
            body.u32_be(2, u32::from(family.number()));
            body.u32_be(3, R0);
            body.u32_be(4, R0);
            body.u32_be(5, R0 + length / 4);
            body.u32_be(6, R0 + length / 4);
        });
        Complete
    }

    fn verdict(&mut self, code: u32) -> Complete {
        self.expression("immediate", |body| {
            body.u32_be(1, VERDICT);
            body.nest(2, |body| body.nest(2, |body| body.u32_be(1, code)));
        });
        Complete
    }

    fn expression(&mut self, name: &str, data: impl FnOnce(&mut Body<'_>)) -> &mut Self {
        self.list.nest(NFTA_LIST_ELEM, |body| {
            body.text(EXPRESSION_NAME, name);
            body.nest(EXPRESSION_DATA, data);
        });
        self
    }
}

/// Where the Internet checksum is in a transport's header; None for SCTP, which has another.
fn checksum_offset(protocol: Protocol) -> Option<u32> {
    match protocol {
        Protocol::Udp => Some(6),
        Protocol::Tcp => Some(16),
        Protocol::Sctp => None,
    }
}

/// The name's bytes with the NUL that makes it the whole name: without it, it is a beginning.
fn terminated(link: &LinkName) -> Vec<u8> {
    let mut name = link.as_str().as_bytes().to_vec();
    name.push(0);
    name
}
