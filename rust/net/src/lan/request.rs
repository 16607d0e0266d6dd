//! The rtnetlink requests that only such networks make (`linux/if_link.h`).

use std::os::fd::{AsRawFd, BorrowedFd};

use super::{IpvlanFlag, IpvlanMode, Lan, LanKind, MacvlanMode};
use crate::address::Family;
use crate::error::Result;
use crate::names::LinkName;
use crate::netlink::{Batch, CREATE, EXCLUSIVE, REPLACE, Socket};
use crate::route::{
    AF_INET, AF_INET6, By, DELETE_LINK, IFLA_IFALIAS, IFLA_IFNAME, IFLA_LINKINFO, IFLA_MTU,
    IFLA_NET_NS_FD, INFO_DATA, INFO_KIND, NEW_LINK, NEW_ROUTE, PROTOCOL_STATIC, RTA_OIF,
    TABLE_MAIN, TYPE_UNICAST, gone_is_fine, header,
};

const IFLA_LINK: u16 = 5;
const IFLA_MACVLAN_MODE: u16 = 1;
const IFLA_IPVLAN_MODE: u16 = 1;
const IFLA_IPVLAN_FLAGS: u16 = 2;
const IFLA_VLAN_ID: u16 = 1;
const SCOPE_LINK: u8 = 253;

/// Create a link of a network, straight in a namespace.
pub(super) fn create(
    batch: &mut Batch,
    lan: &Lan,
    name: &LinkName,
    parent: u32,
    namespace: BorrowedFd<'_>,
) {
    let kind = lan.kind.name();
    let doing = format!("failed to create the {kind} port on {}", lan.parent);
    batch.request(doing, NEW_LINK, CREATE | EXCLUSIVE, |body| {
        header(body, By::Name(name), false);
        body.u32(IFLA_LINK, parent);
        body.bytes(IFLA_NET_NS_FD, &namespace.as_raw_fd().to_ne_bytes());
        if let Some(mtu) = lan.mtu {
            body.u32(IFLA_MTU, mtu);
        }
        body.nest(IFLA_LINKINFO, |body| {
            body.text(INFO_KIND, kind);
            body.nest(INFO_DATA, |body| match lan.kind {
                LanKind::Macvlan(mode) => body.u32(IFLA_MACVLAN_MODE, macvlan(mode)),
                LanKind::Ipvlan(mode, flag) => {
                    body.bytes(IFLA_IPVLAN_MODE, &ipvlan(mode).to_ne_bytes());
                    body.bytes(IFLA_IPVLAN_FLAGS, &flags(flag).to_ne_bytes());
                }
            });
        });
    });
}

fn macvlan(mode: MacvlanMode) -> u32 {
    match mode {
        MacvlanMode::Private => 1,
        MacvlanMode::Vepa => 2,
        MacvlanMode::Bridge => 4,
        MacvlanMode::Passthru => 8,
    }
}

fn ipvlan(mode: IpvlanMode) -> u16 {
    match mode {
        IpvlanMode::L2 => 0,
        IpvlanMode::L3 => 1,
        IpvlanMode::L3s => 2,
    }
}

fn flags(flag: IpvlanFlag) -> u16 {
    match flag {
        IpvlanFlag::Bridge => 0,
        IpvlanFlag::Private => 1,
        IpvlanFlag::Vepa => 2,
    }
}

/// Create an interface that leads nowhere.
pub(super) fn create_dummy(batch: &mut Batch, name: &LinkName) {
    let doing = format!("create the dummy interface {name}");
    batch.request(doing, NEW_LINK, CREATE | EXCLUSIVE, |body| {
        header(body, By::Name(name), false);
        body.nest(IFLA_LINKINFO, |body| body.text(INFO_KIND, "dummy"));
    });
}

/// Create a VLAN of an interface.
pub(super) fn create_vlan(batch: &mut Batch, name: &LinkName, base: u32, id: u16) {
    let doing = format!("failed to create {name} vlan link");
    batch.request(doing, NEW_LINK, CREATE | EXCLUSIVE, |body| {
        header(body, By::Name(name), false);
        body.u32(IFLA_LINK, base);
        body.nest(IFLA_LINKINFO, |body| {
            body.text(INFO_KIND, "vlan");
            body.nest(INFO_DATA, |body| {
                body.bytes(IFLA_VLAN_ID, &id.to_ne_bytes());
            });
        });
    });
}

/// Put a text on a link; an empty one takes it off.
pub(super) fn set_alias(batch: &mut Batch, name: &LinkName, alias: &str) {
    batch.request(format!("set the alias of {name}"), NEW_LINK, 0, |body| {
        header(body, By::Name(name), false);
        body.bytes(IFLA_IFALIAS, alias.as_bytes());
    });
}

/// Bring an interface that was just created up.
pub(super) fn enable(batch: &mut Batch, name: &LinkName) {
    let doing = format!("failed to enable {name}, the parent link");
    batch.request(doing, NEW_LINK, 0, |body| {
        header(body, By::Name(name), true);
    });
}

/// Give a link that is down another name.
pub(super) fn rename(batch: &mut Batch, index: u32, name: &LinkName) {
    batch.request(format!("name a link {name}"), NEW_LINK, 0, |body| {
        header(body, By::Index(index), false);
        body.text(IFLA_IFNAME, name.as_str());
    });
}

/// The default route of a family, to a link without a next hop. One that is there is replaced.
pub(super) fn add_link_route(batch: &mut Batch, index: u32, family: Family) {
    // IPv6 has no scopes of routes.
    let (family, scope) = match family {
        Family::V4 => (AF_INET, SCOPE_LINK),
        Family::V6 => (AF_INET6, 0),
    };
    let doing = "add the default route through a link";
    batch.request(doing, NEW_ROUTE, CREATE | REPLACE, |body| {
        body.header(&[
            family,
            0,
            0,
            0,
            TABLE_MAIN,
            PROTOCOL_STATIC,
            scope,
            TYPE_UNICAST,
            0,
            0,
            0,
            0,
        ]);
        body.u32(RTA_OIF, index);
    });
}

/// Delete a link; one that has gone meanwhile is no error.
pub(super) fn delete(socket: &mut Socket, index: u32) -> Result<()> {
    let mut batch = Batch::new();
    batch.request("delete a network interface", DELETE_LINK, 0, |body| {
        header(body, By::Index(index), false);
    });
    gone_is_fine(socket.run(batch))
}
