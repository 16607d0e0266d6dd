//! The elements of balanced entries: for each of an entry's ports, one for each of [`SLOTS`] slots, which says to which
//! member the connections go that draw that slot.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::elements::{CHUNK, ELEMENT_DATA, change, elements, port_key, put_comment};
use super::limited::link_key;
use super::sets::{
    BALANCED, BALANCED_ANY, BALANCED6, BALANCED6_ANY, LOOPBACK6, OWN_VIRTUAL, OWN_VIRTUAL6, SLOTS,
    VIRTUAL, VIRTUAL6,
};
use super::{DELETE_ELEMENT, ELEMENT_KEY, NEW_ELEMENT, NFTA_LIST_ELEM, Transaction, put_value};
use crate::address::{Family, octets};
use crate::balance::Balance;
use crate::error::Result;
use crate::names::EngineId;
use crate::netlink::{CREATE, Socket};

/// All sets that have anything of entries.
const SETS: [&str; 9] = [
    VIRTUAL,
    VIRTUAL6,
    OWN_VIRTUAL,
    OWN_VIRTUAL6,
    BALANCED,
    BALANCED_ANY,
    BALANCED6,
    BALANCED6_ANY,
    LOOPBACK6,
];

/// An element: where it is, and what it leads to.
type Place = (&'static str, Vec<u8>);
type Placed = BTreeMap<Place, Vec<u8>>;

/// Have the kernel's table hold exactly that of an entry, by changing what is not so already. `before` is what it holds,
/// where that is known; `balance` None: nothing from now on.
pub(crate) fn put_balance(
    transaction: &mut Transaction,
    socket: &mut Socket,
    engine: &EngineId,
    name: &str,
    before: Option<&Balance>,
    balance: Option<&Balance>,
) -> Result<()> {
    let there = match before {
        Some(known) => elements_of(known),
        None => placed(socket, engine, |owner| owner == name)?,
    };
    let wanted = balance.map(elements_of).unwrap_or_default();
    let differs = |place: &&Place| there.get(*place) != wanted.get(*place);
    let stale: Vec<&Place> = there.keys().filter(differs).collect();
    let missing: Vec<&Place> = wanted.keys().filter(differs).collect();
    alter(transaction, name, &stale, None);
    alter(transaction, name, &missing, Some(&wanted));
    Ok(())
}

/// Add all of an entry to a table that has none of it.
pub(crate) fn add_balance(transaction: &mut Transaction, name: &str, balance: &Balance) {
    let wanted = elements_of(balance);
    let places: Vec<&Place> = wanted.keys().collect();
    alter(transaction, name, &places, Some(&wanted));
}

/// The names of the entries that the kernel's table has anything of.
pub(crate) fn balances(socket: &mut Socket, engine: &EngineId) -> Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for set in [VIRTUAL, VIRTUAL6] {
        names.extend(
            elements(socket, engine, set)?
                .into_iter()
                .map(|element| element.comment),
        );
    }
    Ok(names)
}

fn placed(socket: &mut Socket, engine: &EngineId, wanted: impl Fn(&str) -> bool) -> Result<Placed> {
    let mut found = Placed::new();
    for set in SETS {
        let those = elements(socket, engine, set)?;
        let those = those.into_iter().filter(|element| wanted(&element.comment));
        found.extend(those.map(|element| ((set, element.key), element.data)));
    }
    Ok(found)
}

fn elements_of(balance: &Balance) -> Placed {
    let mut found = Placed::new();
    for address in &balance.addresses {
        let own = octets(*address);
        let on_bridge = [link_key(&balance.bridge), own.clone()].concat();
        let (plain, with_bridge) = match Family::of(*address) {
            Family::V4 => (VIRTUAL, OWN_VIRTUAL),
            Family::V6 => (VIRTUAL6, OWN_VIRTUAL6),
        };
        found.insert((with_bridge, on_bridge), Vec::new());
        found.insert((plain, own), Vec::new());
        share_out(balance, *address, &mut found);
    }
    found
}

/// What leads to the members by way of one address, and by the ports of its family on the host.
fn share_out(balance: &Balance, address: IpAddr, found: &mut Placed) {
    let family = Family::of(address);
    let members = balance.members.iter();
    let members = members.filter(|member| Family::of(**member) == family);
    for served in &balance.ports {
        let protocol = served.protocol;
        let published = served.published.iter();
        let published = published.filter(|(host, _)| Family::of(*host) == family);
        for (host, port) in published.clone() {
            if family == Family::V6 && (host.is_unspecified() || host.is_loopback()) {
                // Whom a member sees where the host asks from `::1`.
                let key = port_key(protocol, None, *port);
                found.insert((LOOPBACK6, key), octets(address));
            }
        }
        for (slot, member) in (0..SLOTS).zip(members.clone().cycle()) {
            let mut place = |at: Option<IpAddr>, port: u16| {
                let set = match (family, at) {
                    (Family::V4, Some(_)) => BALANCED,
                    (Family::V4, None) => BALANCED_ANY,
                    (Family::V6, Some(_)) => BALANCED6,
                    (Family::V6, None) => BALANCED6_ANY,
                };
                let mut key = port_key(protocol, at, port);
                key.extend(slot.to_ne_bytes());
                let mut data = octets(*member);
                data.extend(served.to.to_be_bytes());
                data.extend([0, 0]);
                found.insert((set, key), data);
            };
            place(Some(address), served.to);
            for (host, port) in published.clone() {
                place(Some(*host).filter(|host| !host.is_unspecified()), *port);
            }
        }
    }
}

/// Add elements with what they lead to, or delete them.
fn alter(transaction: &mut Transaction, name: &str, places: &[&Place], to: Option<&Placed>) {
    let (kind, flags, verb) = match to {
        Some(_) => (NEW_ELEMENT, CREATE, "share out"),
        None => (DELETE_ELEMENT, 0, "withdraw"),
    };
    for set in SETS {
        let of_set: Vec<&&Place> = places.iter().filter(|(of, _)| *of == set).collect();
        for chunk in of_set.chunks(CHUNK) {
            let doing = format!("{verb} the connections of {name}");
            change(transaction, doing, kind, flags, set, |list| {
                for place in chunk {
                    list.nest(NFTA_LIST_ELEM, |body| {
                        put_value(body, ELEMENT_KEY, &place.1);
                        let Some(data) = to.and_then(|to| to.get(**place)) else {
                            return;
                        };
                        if !data.is_empty() {
                            put_value(body, ELEMENT_DATA, data);
                        }
                        put_comment(body, name);
                    });
                }
            });
        }
    }
}
