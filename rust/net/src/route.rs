//! The rtnetlink requests that we make (rtnetlink(7), `linux/if_link.h`), each with its error's words.

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::address::{Cidr, Family, Mac};
use crate::error::{Error, Result};
use crate::names::LinkName;
use crate::netlink::{Batch, Body, CREATE, EXCLUSIVE, REPLACE, Socket, attributes, text, u32_ne};

pub(crate) const NEW_LINK: u16 = 16;
pub(crate) const DELETE_LINK: u16 = 17;
const GET_LINK: u16 = 18;
const NEW_ADDRESS: u16 = 20;
const DELETE_ADDRESS: u16 = 21;
const GET_ADDRESS: u16 = 22;
pub(crate) const NEW_ROUTE: u16 = 24;
const DELETE_ROUTE: u16 = 25;
const GET_ROUTE: u16 = 26;

const IFLA_ADDRESS: u16 = 1;
pub(crate) const IFLA_IFNAME: u16 = 3;
pub(crate) const IFLA_MTU: u16 = 4;
const IFLA_MASTER: u16 = 10;
pub(crate) const IFLA_LINKINFO: u16 = 18;
pub(crate) const IFLA_IFALIAS: u16 = 20;
const IFLA_AF_SPEC: u16 = 26;
pub(crate) const IFLA_NET_NS_FD: u16 = 28;
pub(crate) const INFO_KIND: u16 = 1;
pub(crate) const INFO_DATA: u16 = 2;
const INFO_SLAVE_KIND: u16 = 4;
const INFO_SLAVE_DATA: u16 = 5;
const VETH_INFO_PEER: u16 = 1;
const BRPORT_HAIRPIN: u16 = 4;
const BRPORT_ISOLATED: u16 = 33;
const INET_CONF: u16 = 1;
const DEVCONF_ARP_NOTIFY: u16 = 22;
const DEVCONF_ROUTE_LOCALNET: u16 = 26;
const INET6_ADDR_GEN_MODE: u16 = 8;
const ADDR_GEN_NONE: u8 = 1;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const RTA_DST: u16 = 1;
pub(crate) const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;

const AF_UNSPEC: u8 = 0;
pub(crate) const AF_INET: u8 = 2;
pub(crate) const AF_INET6: u8 = 10;
const IFF_UP: u32 = 1;
/// `IFA_F_NODAD`: whether another has the address is not asked, so that it can be used at once.
const ADDRESS_AT_ONCE: u8 = 2;
pub(crate) const TABLE_MAIN: u8 = 254;
pub(crate) const PROTOCOL_STATIC: u8 = 4;
pub(crate) const TYPE_UNICAST: u8 = 1;
const SCOPE_ANY: u8 = 255;
const ENOENT: i32 = 2;
const ESRCH: i32 = 3;
const ENODEV: i32 = 19;
const EADDRNOTAVAIL: i32 = 99;

/// The index that `lo` has in every namespace.
pub(crate) const LOOPBACK: u32 = 1;

/// What we want to know of a link.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) up: bool,
    pub(crate) name: String,
    pub(crate) kind: Option<String>,
    pub(crate) mac: Option<[u8; 6]>,
    pub(crate) mtu: u32,
    /// A text that whoever made it has put on it.
    pub(crate) alias: Option<String>,
}

/// How to name a link in a request.
#[derive(Clone, Copy, Debug)]
pub(crate) enum By<'a> {
    Index(u32),
    Name(&'a LinkName),
}

pub(crate) fn header(body: &mut Body<'_>, by: By<'_>, up: bool) {
    let flags = if up { IFF_UP } else { 0 };
    let index = if let By::Index(index) = by { index } else { 0 };
    let mut bytes = [0; 16];
    bytes[4..8].copy_from_slice(&index.to_ne_bytes());
    bytes[8..12].copy_from_slice(&flags.to_ne_bytes());
    bytes[12..].copy_from_slice(&flags.to_ne_bytes()); // which flags to change
    body.header(&bytes);
    if let By::Name(name) = by {
        body.text(IFLA_IFNAME, name.as_str());
    }
}

/// A veth pair to create.
#[derive(Debug)]
pub(crate) struct Veth<'a> {
    pub(crate) host: &'a LinkName,
    pub(crate) bridge_index: u32,
    pub(crate) namespace: BorrowedFd<'a>,
    pub(crate) peer: &'a LinkName,
    pub(crate) mtu: u32,
}

/// Create a veth pair: one end a port of the bridge, the other straight in the namespace.
pub(crate) fn create_veth(batch: &mut Batch, veth: &Veth<'_>) {
    let doing = format!("create the veth pair {}", veth.host);
    batch.request(doing, NEW_LINK, CREATE | EXCLUSIVE, |body| {
        header(body, By::Name(veth.host), false);
        body.u32(IFLA_MTU, veth.mtu);
        body.u32(IFLA_MASTER, veth.bridge_index);
        body.nest(IFLA_LINKINFO, |body| {
            body.text(INFO_KIND, "veth");
            body.nest(INFO_DATA, |body| {
                body.nest(VETH_INFO_PEER, |body| {
                    header(body, By::Name(veth.peer), false);
                    body.u32(IFLA_MTU, veth.mtu);
                    body.bytes(IFLA_NET_NS_FD, &veth.namespace.as_raw_fd().to_ne_bytes());
                });
            });
        });
    });
}

/// Create a bridge, or do nothing where it exists.
pub(crate) fn create_bridge(batch: &mut Batch, name: &LinkName, mac: Option<Mac>, mtu: u32) {
    batch.request(
        format!("create the bridge {name}"),
        NEW_LINK,
        CREATE,
        |body| {
            header(body, By::Name(name), false);
            body.u32(IFLA_MTU, mtu);
            if let Some(mac) = mac {
                body.bytes(IFLA_ADDRESS, &mac.bytes());
            }
            body.nest(IFLA_LINKINFO, |body| body.text(INFO_KIND, "bridge"));
        },
    );
}

/// Let a bridge's port send a frame back to where it came from. An isolated port sends and gets frames only from and
/// to the host and ports that are not isolated.
pub(crate) fn set_port(batch: &mut Batch, port: &LinkName, isolated: bool) {
    batch.request(
        format!("set up the bridge port {port}"),
        NEW_LINK,
        0,
        |body| {
            header(body, By::Name(port), false);
            body.nest(IFLA_LINKINFO, |body| {
                body.text(INFO_SLAVE_KIND, "bridge");
                body.nest(INFO_SLAVE_DATA, |body| {
                    body.u8(BRPORT_HAIRPIN, 1);
                    if isolated {
                        body.u8(BRPORT_ISOLATED, 1);
                    }
                });
            });
        },
    );
}

/// Let 127.0.0.0/8 be routed through a link.
pub(crate) fn allow_loopback_routes(batch: &mut Batch, name: &LinkName) {
    batch.request(
        format!("set route_localnet of {name}"),
        NEW_LINK,
        0,
        |body| {
            header(body, By::Name(name), false);
            put_ipv4_conf(body, DEVCONF_ROUTE_LOCALNET);
        },
    );
}

/// Let a link send a gratuitous ARP request (RFC 5227, section 3) for its addresses when its MAC
/// address is set, so that nobody sends to whoever had the address before.
pub(crate) fn announce_addresses(batch: &mut Batch, index: u32) {
    batch.request("set arp_notify of a link", NEW_LINK, 0, |body| {
        header(body, By::Index(index), false);
        put_ipv4_conf(body, DEVCONF_ARP_NOTIFY);
    });
}

/// Keep the kernel from giving a link an IPv6 address of its own (and from all that goes with it:
/// duplicate detection, router solicitation, multicast reports).
pub(crate) fn no_own_ipv6(batch: &mut Batch, by: By<'_>) {
    batch.request("set addr_gen_mode of a link", NEW_LINK, 0, |body| {
        header(body, by, false);
        body.nest(IFLA_AF_SPEC, |body| {
            body.nest(u16::from(AF_INET6), |body| {
                body.u8(INET6_ADDR_GEN_MODE, ADDR_GEN_NONE);
            });
        });
    });
}

pub(crate) fn set_up(batch: &mut Batch, by: By<'_>) {
    batch.request("set a link up", NEW_LINK, 0, |body| header(body, by, true));
}

pub(crate) fn set_mac(batch: &mut Batch, index: u32, mac: Mac) {
    batch.request(format!("set the MAC address {mac}"), NEW_LINK, 0, |body| {
        header(body, By::Index(index), false);
        body.bytes(IFLA_ADDRESS, &mac.bytes());
    });
}

/// Add an address, or do nothing where the link has it.
pub(crate) fn add_address(batch: &mut Batch, index: u32, address: Cidr) {
    batch.request(
        format!("add the address {address}"),
        NEW_ADDRESS,
        CREATE | REPLACE,
        |body| {
            let flags = match address.address() {
                IpAddr::V4(_) => 0,
                IpAddr::V6(_) => ADDRESS_AT_ONCE,
            };
            let mut bytes = [
                family(address.address()),
                address.prefix(),
                flags,
                0,
                0,
                0,
                0,
                0,
            ];
            bytes[4..].copy_from_slice(&index.to_ne_bytes());
            body.header(&bytes);
            put_address(body, IFA_LOCAL, address.address());
            put_address(body, IFA_ADDRESS, address.address());
            if let (_, IpAddr::V4(last)) = address.range()
                && address.prefix() < 31
            {
                body.bytes(IFA_BROADCAST, &last.octets());
            }
        },
    );
}

/// Through that link, or through the one whose network the gateway is in. One that is there is replaced.
pub(crate) fn add_default_route(batch: &mut Batch, index: Option<u32>, gateway: IpAddr) {
    batch.request(
        format!("add the default route through {gateway}"),
        NEW_ROUTE,
        CREATE | REPLACE,
        |body| {
            body.header(&[
                family(gateway),
                0,
                0,
                0,
                TABLE_MAIN,
                PROTOCOL_STATIC,
                0,
                TYPE_UNICAST,
                0,
                0,
                0,
                0,
            ]);
            put_address(body, RTA_GATEWAY, gateway);
            if let Some(index) = index {
                body.u32(RTA_OIF, index);
            }
        },
    );
}

/// Remove the default route of a family, whoever has made it; none is no error.
pub(crate) fn delete_default_route(socket: &mut Socket, of: Family) -> Result<()> {
    let family = match of {
        Family::V4 => AF_INET,
        Family::V6 => AF_INET6,
    };
    let mut batch = Batch::new();
    batch.request("remove the default route", DELETE_ROUTE, 0, |body| {
        body.header(&[family, 0, 0, 0, TABLE_MAIN, 0, SCOPE_ANY, 0, 0, 0, 0, 0]);
    });
    match socket.run(batch) {
        // The second is what IPv6 says.
        Err(error) if matches!(error.errno(), Some(ESRCH | ENOENT)) => Ok(()),
        other => other,
    }
}

/// Take an address from a link; one that has gone, or whose link has, is no error.
pub(crate) fn delete_address(socket: &mut Socket, index: u32, address: Cidr) -> Result<()> {
    let mut batch = Batch::new();
    let doing = format!("delete the address {address}");
    batch.request(doing, DELETE_ADDRESS, 0, |body| {
        let mut bytes = [
            family(address.address()),
            address.prefix(),
            0,
            0,
            0,
            0,
            0,
            0,
        ];
        bytes[4..].copy_from_slice(&index.to_ne_bytes());
        body.header(&bytes);
        put_address(body, IFA_LOCAL, address.address());
    });
    match socket.run(batch) {
        Err(error) if error.errno() == Some(EADDRNOTAVAIL) => Ok(()),
        other => gone_is_fine(other),
    }
}

/// Delete a link; one that has gone meanwhile is no error.
pub(crate) fn delete_link(socket: &mut Socket, name: &LinkName) -> Result<()> {
    let mut batch = Batch::new();
    batch.request(
        format!("delete the network interface {name}"),
        DELETE_LINK,
        0,
        |body| {
            header(body, By::Name(name), false);
        },
    );
    gone_is_fine(socket.run(batch))
}

/// A link by its name, or None.
pub(crate) fn link(socket: &mut Socket, by: By<'_>) -> Result<Option<Link>> {
    let mut batch = Batch::new();
    batch.request("look up a network interface", GET_LINK, 0, |body| {
        header(body, by, false);
    });
    match socket.get(batch) {
        Ok(body) => parse_link(&body)
            .map(Some)
            .ok_or_else(|| Error::malformed("look up a network interface")),
        Err(error) if error.errno() == Some(ENODEV) => Ok(None),
        Err(error) => Err(error),
    }
}

/// All links of the namespace.
pub(crate) fn links(socket: &mut Socket) -> Result<Vec<Link>> {
    let objects = socket.dump(|batch, flags| {
        batch.request("list the network interfaces", GET_LINK, flags, |body| {
            header(body, By::Index(0), false);
        });
    })?;
    let parsed: Option<Vec<Link>> = objects.iter().map(|(_, body)| parse_link(body)).collect();
    parsed.ok_or_else(|| Error::malformed("list the network interfaces"))
}

/// All addresses of the namespace's links.
pub(crate) fn local_addresses(socket: &mut Socket) -> Result<Vec<IpAddr>> {
    let objects = socket.dump(|batch, flags| {
        batch.request("list the host's addresses", GET_ADDRESS, flags, |body| {
            body.header(&[AF_UNSPEC, 0, 0, 0, 0, 0, 0, 0]);
        });
    })?;
    let local = |body: &[u8]| {
        // IPv6 has the second only, where it is the same.
        let of = |wanted| attributes(body.get(8..)?).find(|(kind, _)| *kind == wanted);
        let (_, value) = of(IFA_LOCAL).or_else(|| of(IFA_ADDRESS))?;
        let family = match *body.first()? {
            AF_INET => Family::V4,
            AF_INET6 => Family::V6,
            _ => return None,
        };
        Some(family.split(value)?.0)
    };
    Ok(objects.iter().filter_map(|(_, body)| local(body)).collect())
}

/// The link that a packet to that address would leave by; None where there is no route.
pub(crate) fn outgoing_link(socket: &mut Socket, to: Ipv4Addr) -> Result<Option<Link>> {
    let mut batch = Batch::new();
    batch.request("look up the default route", GET_ROUTE, 0, |body| {
        body.header(&[AF_INET, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        body.bytes(RTA_DST, &to.octets());
    });
    let Ok(answer) = socket.get(batch) else {
        return Ok(None); // ENETUNREACH and its kin: no route is an answer
    };
    let index = answer
        .get(12..)
        .and_then(|rest| attributes(rest).find(|(kind, _)| *kind == RTA_OIF))
        .and_then(|(_, value)| u32_ne(value));
    match index {
        Some(index) => link(socket, By::Index(index)),
        None => Ok(None),
    }
}

/// ENODEV turned into success, for deletions.
pub(crate) fn gone_is_fine(result: Result<()>) -> Result<()> {
    match result {
        Err(error) if error.errno() == Some(ENODEV) => Ok(()),
        other => other,
    }
}

fn parse_link(body: &[u8]) -> Option<Link> {
    let mut link = Link {
        index: u32_ne(body.get(4..)?)?,
        up: u32_ne(body.get(8..)?)? & IFF_UP != 0,
        ..Link::default()
    };
    for (kind, value) in attributes(body.get(16..)?) {
        match kind {
            IFLA_IFNAME => link.name = text(value)?,
            IFLA_MTU => link.mtu = u32_ne(value)?,
            IFLA_ADDRESS => link.mac = value.try_into().ok(),
            IFLA_IFALIAS => link.alias = text(value),
            IFLA_LINKINFO => {
                link.kind = attributes(value)
                    .find(|(kind, _)| *kind == INFO_KIND)
                    .and_then(|(_, value)| text(value));
            }
            _ => {}
        }
    }
    Some(link)
}

fn family(address: IpAddr) -> u8 {
    if address.is_ipv4() { AF_INET } else { AF_INET6 }
}

fn put_address(body: &mut Body<'_>, kind: u16, address: IpAddr) {
    match address {
        IpAddr::V4(address) => body.bytes(kind, &address.octets()),
        IpAddr::V6(address) => body.bytes(kind, &address.octets()),
    }
}

/// Turn on one of a link's IPv4 settings, as a write to /proc/sys/net/ipv4/conf would.
fn put_ipv4_conf(body: &mut Body<'_>, setting: u16) {
    body.nest(IFLA_AF_SPEC, |body| {
        body.nest(u16::from(AF_INET), |body| {
            body.nest(INET_CONF, |body| body.u32(setting, 1));
        });
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn an_address_is_encoded_as_rtnetlink_reads_it() {
        let mut batch = Batch::new();
        add_address(&mut batch, 7, "10.88.0.5/16".parse().unwrap());
        #[rustfmt::skip]
        let expected = [
            48, 0, 0, 0, 20, 0, 0x01, 0x05, 1, 0, 0, 0, 0, 0, 0, 0,
            2, 16, 0, 0, 7, 0, 0, 0,
            8, 0, 2, 0, 10, 88, 0, 5,
            8, 0, 1, 0, 10, 88, 0, 5,
            8, 0, 4, 0, 10, 88, 255, 255,
        ];
        assert_eq!(batch.numbered(1), expected);
        let mut batch = Batch::new();
        add_address(&mut batch, 7, "fd00::5/64".parse().unwrap());
        assert_eq!(batch.numbered(1)[16..24], [10, 64, 2, 0, 7, 0, 0, 0]);
    }

    #[test]
    fn a_link_is_read_back() {
        let name = LinkName::parse("knarr-0123abcd").unwrap();
        let mut batch = Batch::new();
        create_bridge(
            &mut batch,
            &name,
            Some(Mac::of_ipv4(Ipv4Addr::new(10, 88, 0, 1))),
            1400,
        );
        let link = parse_link(&batch.numbered(1)[16..]).unwrap();
        assert_eq!(
            (link.name.as_str(), link.kind.as_deref(), link.mtu),
            ("knarr-0123abcd", Some("bridge"), 1400)
        );
        assert_eq!(link.mac, Some([2, 0x42, 10, 88, 0, 1]));
        assert_eq!(parse_link(&[0; 10]), None);
    }
}
