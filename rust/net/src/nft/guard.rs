//! Who a limited container says it is: it may have `CAP_NET_RAW`, and send what it likes.
//!
//! The limits go by a packet's source address. So a table of the bridges' own lets through, from the ports of limited
//! containers, only what has one of the container's own addresses:
//!
//! ```text
//! table bridge knarr-<engine> {              # there while a container is limited
//!   set guarded { type ifname; }             # ports of limited containers
//!   set own  { type ifname . ipv4_addr; }    # and their addresses
//!   set own6 { type ifname . ipv6_addr; }
//!   chain guard {
//!     type filter hook prerouting priority raw
//!     iifname != @guarded accept
//!     meta protocol ip iifname . ip saddr @own accept
//!     meta protocol arp iifname . arp saddr ip @own accept
//!     meta protocol ip6 iifname . ip6 saddr @own6 accept
//!     meta protocol ip6 ip6 saddr fe80::/64 meta l4proto ipv6-icmp accept    # to find neighbours
//!     iifname @guarded drop
//!   }
//! }
//! ```

use std::collections::BTreeMap;

use super::elements::{CHUNK, Element, change, elements_of_family, put_comment};
use super::limited::link_key;
use super::ruleset::{HOOK_PREROUTING, Hook, PRIORITY_RAW, add_rule, create_chain};
use super::sets::{Set, TYPE_IFNAME, TYPE_IPV4, TYPE_IPV6, create_sets};
use super::{
    DELETE_ELEMENT, ELEMENT_KEY, FAMILY_BRIDGE, NEW_ELEMENT, NFTA_LIST_ELEM, Transaction, put_value,
};
use crate::address::Family::{self, V4, V6};
use crate::address::octets;
use crate::error::Result;
use crate::limits::{Limited, Subject};
use crate::names::EngineId;
use crate::netlink::{CREATE, Socket};

const GUARDED: &str = "guarded";
const OWN: &str = "own";
const OWN6: &str = "own6";

const SETS: [Set; 3] = [
    Set::plain(GUARDED, (TYPE_IFNAME, 16)),
    Set::plain(OWN, (TYPE_IFNAME << 6 | TYPE_IPV4, 20)),
    Set::plain(OWN6, (TYPE_IFNAME << 6 | TYPE_IPV6, 32)),
];

/// The elements of ports: where each is, and whose.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Guarded(BTreeMap<(&'static str, Vec<u8>), String>);

impl Guarded {
    /// Those of one container's ports.
    pub(crate) fn of(owner: &str, limited: &Limited) -> Self {
        let Subject::Container { addresses, links } = &limited.subject else {
            return Self::default();
        };
        let mut found = BTreeMap::new();
        for link in links {
            let link = link_key(link);
            for address in addresses {
                // On whichever of its networks: which address it sends from is its own affair.
                let set = match Family::of(*address) {
                    V4 => OWN,
                    V6 => OWN6,
                };
                let key = [link.clone(), octets(*address)].concat();
                found.insert((set, key), owner.to_owned());
            }
            found.insert((GUARDED, link), owner.to_owned());
        }
        Self(found)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn without(mut self, other: &Self) -> Self {
        self.0.retain(|place, _| !other.0.contains_key(place));
        self
    }

    /// Have the table hold them. It must be there.
    pub(crate) fn add(&self, transaction: &mut Transaction) {
        self.alter(transaction, NEW_ELEMENT, CREATE);
    }

    /// Have the table, which must be there, hold none of them.
    pub(crate) fn delete(&self, transaction: &mut Transaction) {
        self.add(transaction);
        self.alter(transaction, DELETE_ELEMENT, 0);
    }

    fn alter(&self, transaction: &mut Transaction, kind: u16, flags: u16) {
        for set in [GUARDED, OWN, OWN6] {
            let of_set: Vec<_> = self.0.iter().filter(|((of, _), _)| *of == set).collect();
            for chunk in of_set.chunks(CHUNK) {
                let doing = format!("guard the ports of {}", chunk[0].1);
                transaction.of_family(FAMILY_BRIDGE, |transaction| {
                    change(transaction, doing, kind, flags, set, |list| {
                        for ((_, key), owner) in chunk {
                            list.nest(NFTA_LIST_ELEM, |body| {
                                put_value(body, ELEMENT_KEY, key);
                                if kind == NEW_ELEMENT {
                                    put_comment(body, owner);
                                }
                            });
                        }
                    });
                });
            }
        }
    }
}

/// Create the table, and write its rules anew. Elements stay as they are.
pub(crate) fn write_guard(transaction: &mut Transaction) {
    transaction.of_family(FAMILY_BRIDGE, |transaction| {
        transaction.create_table();
        create_sets(transaction, &SETS);
        let hook = Hook {
            kind: "filter",
            number: HOOK_PREROUTING,
            priority: PRIORITY_RAW,
        };
        create_chain(transaction, "guard", &hook);
        add_rule(transaction, "guard", 1, |rule| {
            rule.input_not_in(GUARDED).accept()
        });
        add_rule(transaction, "guard", 2, |rule| {
            rule.sent_by(V4, OWN).accept()
        });
        add_rule(transaction, "guard", 3, |rule| {
            rule.resolves_for(OWN).accept()
        });
        add_rule(transaction, "guard", 4, |rule| {
            rule.sent_by(V6, OWN6).accept()
        });
        add_rule(transaction, "guard", 5, |rule| {
            rule.finds_neighbours().accept()
        });
        add_rule(transaction, "guard", 6, |rule| {
            rule.input_in(GUARDED).drop()
        });
    });
}

/// Delete the table, which must be there.
pub(crate) fn delete_guard(transaction: &mut Transaction) {
    transaction.of_family(FAMILY_BRIDGE, Transaction::delete_table);
}

/// The ports that the kernel's table guards, by whose they are; none where there is no table.
pub(crate) fn guarded(socket: &mut Socket, engine: &EngineId) -> Result<BTreeMap<String, Guarded>> {
    let mut found: BTreeMap<String, Guarded> = BTreeMap::new();
    for set in [GUARDED, OWN, OWN6] {
        for Element { key, comment, .. } in elements_of_family(socket, FAMILY_BRIDGE, engine, set)?
        {
            let of_owner = found.entry(comment.clone()).or_default();
            of_owner.0.insert((set, key), comment);
        }
    }
    Ok(found)
}
