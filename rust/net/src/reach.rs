//! What somebody may reach: networks, each with protocols and ports.
//!
//! The kernel's sets of ranges hold no two that overlap, so what lists say, who may well say a thing twice, is made
//! disjoint here.

use std::net::IpAddr;

use crate::address::Cidr;
use crate::ports::Protocol;

const PORT_BITS: u32 = 16;
const PORT_MAX: u32 = 0xffff;
const LAST: u32 = 0xff << PORT_BITS | PORT_MAX;

/// A network, and what of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reach {
    /// Which.
    pub network: Cidr,
    /// What of it.
    pub ports: Ports,
}

/// Protocols with their ports: ranges of `protocol << 16 | port`, in order, with something between each two.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ports(Vec<(u32, u32)>);

/// Protocols and ports, every one of these with every one of those; first and last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Block {
    pub(crate) protocols: (u8, u8),
    pub(crate) ports: (u16, u16),
}

impl Ports {
    /// Every packet, whether its protocol has ports or not.
    #[must_use]
    pub fn all() -> Self {
        Self(vec![(0, LAST)])
    }

    /// The ports from the first to the last of a protocol; None: of each that has ports.
    #[must_use]
    pub fn of(protocol: Option<Protocol>, first: u16, last: u16) -> Self {
        let range = |protocol: Protocol| {
            let base = u32::from(protocol.number()) << PORT_BITS;
            (base | u32::from(first), base | u32::from(last))
        };
        let all = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
        let wanted = all
            .into_iter()
            .filter(|one| protocol.is_none_or(|wanted| wanted == *one));
        Self(wanted.map(range).collect())
    }

    /// Whether it is none at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Both.
    #[must_use]
    pub fn with(&self, other: &Self) -> Self {
        let mut ranges = [&self.0[..], &other.0[..]].concat();
        ranges.sort_unstable();
        let mut merged: Vec<(u32, u32)> = Vec::with_capacity(ranges.len());
        for (first, last) in ranges {
            match merged.last_mut() {
                Some(before) if first <= before.1 + 1 => before.1 = before.1.max(last),
                _ => merged.push((first, last)),
            }
        }
        Self(merged)
    }

    /// What of it the other has not.
    #[must_use]
    pub fn without(&self, other: &Self) -> Self {
        let mut left = Vec::new();
        for &(mut first, last) in &self.0 {
            for &(from, to) in &other.0 {
                if to < first {
                    continue;
                }
                if from > last || first > last {
                    break;
                }
                if from > first {
                    left.push((first, from - 1));
                }
                first = to + 1;
            }
            if first <= last {
                left.push((first, last));
            }
        }
        Self(left)
    }

    /// The same, in blocks.
    pub(crate) fn blocks(&self) -> Vec<Block> {
        let mut blocks = Vec::new();
        for &(first, last) in &self.0 {
            let (mut low, mut high) = (first >> PORT_BITS, last >> PORT_BITS);
            let (from, to) = (first & PORT_MAX, last & PORT_MAX);
            if low == high {
                blocks.push(block((low, high), (from, to)));
                continue;
            }
            if from > 0 {
                blocks.push(block((low, low), (from, PORT_MAX)));
                low += 1;
            }
            let tail = (to < PORT_MAX).then(|| block((high, high), (0, to)));
            high -= u32::from(tail.is_some());
            if low <= high {
                blocks.push(block((low, high), (0, PORT_MAX)));
            }
            blocks.extend(tail);
        }
        blocks
    }

    pub(crate) fn of_blocks(blocks: impl IntoIterator<Item = Block>) -> Self {
        blocks.into_iter().fold(Self::default(), |found, block| {
            let (low, high) = block.protocols;
            let ranges = (low..=high).map(|protocol| {
                let base = u32::from(protocol) << PORT_BITS;
                let (from, to) = block.ports;
                (base | u32::from(from), base | u32::from(to))
            });
            found.with(&Self(ranges.collect()))
        })
    }
}

fn block(protocols: (u32, u32), ports: (u32, u32)) -> Block {
    // Of eight bits and of sixteen, by how the ranges are made.
    let protocol = |number: u32| u8::try_from(number).unwrap_or(u8::MAX);
    let port = |number: u32| u16::try_from(number).unwrap_or(u16::MAX);
    Block {
        protocols: (protocol(protocols.0), protocol(protocols.1)),
        ports: (port(ports.0), port(ports.1)),
    }
}

/// The same as the list says, with no packet in two of them.
pub(crate) fn disjoint(list: &[Reach]) -> Vec<Reach> {
    let mut merged: Vec<Reach> = Vec::new();
    for reach in list {
        match merged
            .iter_mut()
            .find(|one| one.network.range() == reach.network.range())
        {
            Some(same) => same.ports = same.ports.with(&reach.ports),
            None => merged.push(reach.clone()),
        }
    }
    // Networks lie within one another, or apart. What is said of the wider need not be said of the narrower.
    let narrowed = merged.iter().map(|reach| {
        let wider = merged
            .iter()
            .filter(|other| other.network.prefix() < reach.network.prefix())
            .filter(|other| other.network.contains(reach.network.address()));
        let said = wider.fold(Ports::default(), |said, other| said.with(&other.ports));
        Reach {
            network: reach.network,
            ports: reach.ports.without(&said),
        }
    });
    narrowed.filter(|reach| !reach.ports.is_empty()).collect()
}

/// What of an address is in the list.
pub(crate) fn ports_at(list: &[Reach], address: IpAddr) -> Ports {
    let there = list.iter().filter(|one| one.network.contains(address));
    there.fold(Ports::default(), |found, one| found.with(&one.ports))
}

/// Whether an address is for a purpose of its own (RFC 6890): no name of the world leads there, whatever a server says.
#[must_use]
pub fn is_special(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let [a, b, ..] = address.octets();
            a == 0
                || address.is_private()
                || address.is_loopback()
                || address.is_link_local()
                || (a == 100 && b & 0b1100_0000 == 64) // shared, RFC 6598
                || a >= 224 // multicast, reserved, broadcast
        }
        IpAddr::V6(address) => {
            let parts = address.segments();
            let embedded = || {
                let [.., a, b] = parts;
                let [[a, b], [c, d]] = [a.to_be_bytes(), b.to_be_bytes()];
                is_special(IpAddr::from([a, b, c, d]))
            };
            match parts {
                // Translated to IPv4, RFC 6052.
                [0x64, 0xff9b, 0, 0, 0, 0, ..] => embedded(),
                // Global unicast is 2000::/3; 6to4 has an IPv4 address in it, RFC 3056.
                [0x2002, a, b, ..] => {
                    let [[a, b], [c, d]] = [a.to_be_bytes(), b.to_be_bytes()];
                    is_special(IpAddr::from([a, b, c, d]))
                }
                [first, ..] => first & 0xe000 != 0x2000,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reach(network: &str, ports: Ports) -> Reach {
        Reach {
            network: network.parse().unwrap(),
            ports,
        }
    }

    fn https() -> Ports {
        Ports::of(Some(Protocol::Tcp), 443, 443)
    }

    #[test]
    fn ports_add_up_and_go() {
        let low = Ports::of(Some(Protocol::Tcp), 80, 90);
        let high = Ports::of(Some(Protocol::Tcp), 91, 100);
        let both = low.with(&high);
        assert_eq!(both, Ports::of(Some(Protocol::Tcp), 80, 100));
        assert_eq!(both.without(&low), high);
        assert!(both.without(&Ports::all()).is_empty());
        assert_eq!(both.with(&Ports::all()), Ports::all());
        let holed = Ports::all().without(&https());
        assert_eq!(holed.with(&https()), Ports::all());
        assert!(holed.without(&holed).is_empty());
        assert_eq!(holed.without(&https()), holed);
        assert!(Ports::default().without(&https()).is_empty());
        let ends = Ports::of(Some(Protocol::Tcp), 0, 0).with(&Ports::of(
            Some(Protocol::Tcp),
            65535,
            65535,
        ));
        assert_eq!(
            Ports::of(Some(Protocol::Tcp), 0, 65535).without(&ends),
            Ports::of(Some(Protocol::Tcp), 1, 65534)
        );
    }

    #[test]
    fn blocks_are_the_same_ports() {
        let every = Ports::of(None, 0, u16::MAX);
        for ports in [
            Ports::default(),
            Ports::all(),
            https(),
            every.clone(),
            Ports::all().without(&https()),
            Ports::all().without(&every),
            Ports::all().without(&Ports::of(None, 0, 5)),
            Ports::all().without(&Ports::of(None, 9, u16::MAX)),
        ] {
            assert_eq!(Ports::of_blocks(ports.blocks()), ports);
        }
        assert_eq!(
            Ports::all().blocks(),
            [Block {
                protocols: (0, 255),
                ports: (0, 65535)
            }]
        );
    }

    #[test]
    fn what_is_said_twice_is_there_once() {
        let list = [
            reach("10.1.2.3/32", Ports::all()),
            reach("10.0.0.0/8", https()),
            reach("10.1.0.0/16", https()),
            reach("10.9.9.9/8", Ports::of(Some(Protocol::Tcp), 444, 450)),
            reach("192.168.0.0/16", Ports::all()),
            reach("fd00::/8", https()),
        ];
        let wide = Ports::of(Some(Protocol::Tcp), 443, 450);
        assert_eq!(
            disjoint(&list),
            [
                reach("10.1.2.3/32", Ports::all().without(&wide)),
                reach("10.0.0.0/8", wide),
                reach("192.168.0.0/16", Ports::all()),
                reach("fd00::/8", https()),
            ]
        );
        let here = IpAddr::from([10, 1, 2, 3]);
        assert_eq!(ports_at(&disjoint(&list), here), Ports::all());
        assert!(ports_at(&list, IpAddr::from([11, 0, 0, 1])).is_empty());
    }

    #[test]
    fn special_addresses_are_told_from_the_worlds() {
        for special in [
            "0.1.2.3",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.53",
            "169.254.169.254",
            "172.31.0.1",
            "192.168.1.1",
            "224.0.0.251",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:8.8.8.8",
            "fd00::1",
            "fe80::1",
            "ff02::1",
            "64:ff9b::127.0.0.1",
            "64:ff9b::a00:1",
            "64:ff9b:1::1",
            "2002:7f00:1::1",
        ] {
            assert!(is_special(special.parse().unwrap()), "{special}");
        }
        for worlds in [
            "8.8.8.8",
            "100.128.0.1",
            "172.32.0.1",
            "203.0.113.9",
            "2001:db8::1",
            "64:ff9b::808:808",
        ] {
            assert!(!is_special(worlds.parse().unwrap()), "{worlds}");
        }
    }
}
