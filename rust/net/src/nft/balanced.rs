//! The elements of balanced entries: for each of an entry's ports, one for each of [`SLOTS`] slots, which says to which
//! member the connections go that draw that slot.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use super::elements::{CHUNK, ELEMENT_DATA, change, elements, put_comment};
use super::limited::link_key;
use super::sets::{BALANCED, BALANCED_ANY, OWN_VIRTUAL, SLOTS, VIRTUAL};
use super::{DELETE_ELEMENT, ELEMENT_KEY, NEW_ELEMENT, NFTA_LIST_ELEM, Transaction, put_value};
use crate::balance::{Balance, Served};
use crate::error::Result;
use crate::names::EngineId;
use crate::netlink::{CREATE, Socket};

/// All sets that have anything of entries.
const SETS: [&str; 4] = [VIRTUAL, OWN_VIRTUAL, BALANCED, BALANCED_ANY];

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
    for set in SETS {
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
    let address = balance.address.octets().to_vec();
    let on_bridge = [link_key(&balance.bridge), address.clone()].concat();
    found.insert((OWN_VIRTUAL, on_bridge), Vec::new());
    found.insert((VIRTUAL, address), Vec::new());
    for served in &balance.ports {
        let Served { protocol, to, .. } = *served;
        for (slot, member) in (0..SLOTS).zip(balance.members.iter().cycle()) {
            let mut place = |address: Option<Ipv4Addr>, port: u16| {
                // Each part in 4 bytes.
                let mut key = vec![protocol.number(), 0, 0, 0];
                key.extend(address.iter().flat_map(Ipv4Addr::octets));
                key.extend(port.to_be_bytes());
                key.extend([0, 0]);
                key.extend(slot.to_ne_bytes());
                let set = if address.is_some() {
                    BALANCED
                } else {
                    BALANCED_ANY
                };
                let mut data = member.octets().to_vec();
                data.extend(to.to_be_bytes());
                data.extend([0, 0]);
                found.insert((set, key), data);
            };
            place(Some(balance.address), to);
            if let Some((host, port)) = served.published {
                place(Some(host).filter(|host| !host.is_unspecified()), port);
            }
        }
    }
    found
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
