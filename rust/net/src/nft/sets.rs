//! The sets and maps of an engine's tables, into which all goes that comes and goes. [`super::ruleset`] draws them.

use super::{NEW_SET, NFTA_LIST_ELEM, Transaction};
use crate::netlink::CREATE;

pub(super) const BRIDGES: &str = "bridges";
pub(super) const PATHS: &str = "paths";
pub(super) const INTERNAL: &str = "internal";
pub(super) const ROUTED: &str = "routed";
pub(super) const SUBNETS: &str = "subnets";
pub(super) const FORWARDS: &str = "forwards";
pub(super) const FORWARDS_ANY: &str = "forwards-any";
pub(super) const SUBNETS6: &str = "subnets6";
pub(super) const FORWARDS6: &str = "forwards6";
pub(super) const FORWARDS6_ANY: &str = "forwards6-any";
pub(super) const LOOPBACK6: &str = "loopback6";
pub(super) const VIRTUAL: &str = "virtual";
pub(super) const VIRTUAL6: &str = "virtual6";
pub(super) const BALANCED: &str = "balanced";
pub(super) const BALANCED_ANY: &str = "balanced-any";
pub(super) const BALANCED6: &str = "balanced6";
pub(super) const BALANCED6_ANY: &str = "balanced6-any";
pub(super) const OWN_VIRTUAL: &str = "own-virtual";
pub(super) const OWN_VIRTUAL6: &str = "own-virtual6";
pub(super) const LIMITED: &str = "limited";
pub(super) const LIMITED6: &str = "limited6";
pub(super) const LIMITED_BRIDGES: &str = "limited-bridges";
pub(super) const REACHABLE: &str = "reachable";
pub(super) const REACHABLE6: &str = "reachable6";
pub(super) const REACHABLE_FROM: &str = "reachable-from";
pub(super) const REACHABLE_FROM6: &str = "reachable-from6";
/// Into how many parts an entry's connections fall: each of up to 60 members has as many of them as any other, give or
/// take a fifth; by most smaller numbers it can be divided.
pub(super) const SLOTS: u32 = 240;

const SET_NAME: u16 = 2;
const SET_FLAGS: u16 = 3;
const SET_KEY_TYPE: u16 = 4;
const SET_KEY_LENGTH: u16 = 5;
const SET_DATA_TYPE: u16 = 6;
const SET_DATA_LENGTH: u16 = 7;
const SET_DESCRIPTION: u16 = 9;
const SET_ID: u16 = 10;
const DESCRIPTION_CONCAT: u16 = 2;
const FIELD_LENGTH: u16 = 1;
const FLAG_INTERVAL: u32 = 4;
const FLAG_MAP: u32 = 8;
const FLAG_TIMEOUT: u32 = 16;
const FLAG_CONCAT: u32 = 128;

// What the nft program calls the types, so that it can show the sets (the kernel does not care).
// A concatenation is its parts' numbers, six bits each.
const TYPE_MARK: u32 = 19;
pub(super) const TYPE_IPV4: u32 = 7;
pub(super) const TYPE_IPV6: u32 = 8;
const TYPE_PROTOCOL: u32 = 12;
const TYPE_PORT: u32 = 13;
pub(super) const TYPE_IFNAME: u32 = 41;

/// A set or map of the table.
pub(super) struct Set {
    name: &'static str,
    flags: u32,
    key: (u32, u32),
    data: Option<(u32, u32)>,
    /// The lengths of a concatenation's parts, where it has ranges of each.
    parts: &'static [u32],
}

impl Set {
    pub(super) const fn plain(name: &'static str, key: (u32, u32)) -> Self {
        Self {
            name,
            flags: 0,
            key,
            data: None,
            parts: &[],
        }
    }

    const fn intervals(name: &'static str, key: (u32, u32)) -> Self {
        Self {
            flags: FLAG_INTERVAL,
            ..Self::plain(name, key)
        }
    }

    const fn map(name: &'static str, key: (u32, u32), data: (u32, u32)) -> Self {
        Self {
            flags: FLAG_MAP,
            data: Some(data),
            ..Self::plain(name, key)
        }
    }

    /// Ranges of each part of the key, which may be there for a time.
    const fn blocks(name: &'static str, key: (u32, u32), parts: &'static [u32]) -> Self {
        Self {
            flags: FLAG_INTERVAL | FLAG_CONCAT | FLAG_TIMEOUT,
            parts,
            ..Self::plain(name, key)
        }
    }
}

/// The type of a concatenation.
const fn join<const N: usize>(parts: [u32; N]) -> u32 {
    let (mut joined, mut at) = (0, 0);
    while at < N {
        joined = joined << 6 | parts[at];
        at += 1;
    }
    joined
}

const ENDPOINT: (u32, u32) = (join([TYPE_IPV4, TYPE_PORT]), 8);
const ENDPOINT6: (u32, u32) = (join([TYPE_IPV6, TYPE_PORT]), 20);
const BY_ADDRESS: (u32, u32) = (join([TYPE_PROTOCOL, TYPE_IPV4, TYPE_PORT]), 12);
const BY_ADDRESS6: (u32, u32) = (join([TYPE_PROTOCOL, TYPE_IPV6, TYPE_PORT]), 24);
const BY_PORT: (u32, u32) = (join([TYPE_PROTOCOL, TYPE_PORT]), 8);

/// Those of the main table.
pub(super) const SETS: [Set; 26] = [
    Set::plain(BRIDGES, (TYPE_IFNAME, 16)),
    Set::plain(PATHS, (join([TYPE_IFNAME, TYPE_IFNAME]), 32)),
    Set::plain(INTERNAL, (TYPE_IFNAME, 16)),
    Set::plain(ROUTED, (TYPE_IFNAME, 16)),
    Set::intervals(SUBNETS, (TYPE_IPV4, 4)),
    Set::map(FORWARDS, BY_ADDRESS, ENDPOINT),
    Set::map(FORWARDS_ANY, BY_PORT, ENDPOINT),
    Set::intervals(SUBNETS6, (TYPE_IPV6, 16)),
    Set::map(FORWARDS6, BY_ADDRESS6, ENDPOINT6),
    Set::map(FORWARDS6_ANY, BY_PORT, ENDPOINT6),
    Set::map(LOOPBACK6, BY_PORT, (TYPE_IPV6, 16)),
    Set::plain(VIRTUAL, (TYPE_IPV4, 4)),
    Set::map(
        BALANCED,
        (join([TYPE_PROTOCOL, TYPE_IPV4, TYPE_PORT, TYPE_MARK]), 16),
        ENDPOINT,
    ),
    Set::map(
        BALANCED_ANY,
        (join([TYPE_PROTOCOL, TYPE_PORT, TYPE_MARK]), 12),
        ENDPOINT,
    ),
    Set::plain(VIRTUAL6, (TYPE_IPV6, 16)),
    Set::map(
        BALANCED6,
        (join([TYPE_PROTOCOL, TYPE_IPV6, TYPE_PORT, TYPE_MARK]), 28),
        ENDPOINT6,
    ),
    Set::map(
        BALANCED6_ANY,
        (join([TYPE_PROTOCOL, TYPE_PORT, TYPE_MARK]), 12),
        ENDPOINT6,
    ),
    Set::plain(OWN_VIRTUAL6, (join([TYPE_IFNAME, TYPE_IPV6]), 32)),
    Set::plain(OWN_VIRTUAL, (join([TYPE_IFNAME, TYPE_IPV4]), 20)),
    Set::plain(LIMITED, (TYPE_IPV4, 4)),
    Set::plain(LIMITED6, (TYPE_IPV6, 16)),
    Set::plain(LIMITED_BRIDGES, (TYPE_IFNAME, 16)),
    Set::blocks(
        REACHABLE,
        (join([TYPE_IPV4, TYPE_IPV4, TYPE_PROTOCOL, TYPE_PORT]), 16),
        &[4, 4, 1, 2],
    ),
    Set::blocks(
        REACHABLE6,
        (join([TYPE_IPV6, TYPE_IPV6, TYPE_PROTOCOL, TYPE_PORT]), 40),
        &[16, 16, 1, 2],
    ),
    Set::blocks(
        REACHABLE_FROM,
        (join([TYPE_IFNAME, TYPE_IPV4, TYPE_PROTOCOL, TYPE_PORT]), 28),
        &[16, 4, 1, 2],
    ),
    Set::blocks(
        REACHABLE_FROM6,
        (join([TYPE_IFNAME, TYPE_IPV6, TYPE_PROTOCOL, TYPE_PORT]), 40),
        &[16, 16, 1, 2],
    ),
];

/// Where they are missing.
pub(super) fn create_sets(transaction: &mut Transaction, sets: &[Set]) {
    for (id, set) in (1..).zip(sets) {
        let doing = format!("create the nftables set {}", set.name);
        transaction.change(doing, NEW_SET, CREATE, |body| {
            body.text(SET_NAME, set.name);
            body.u32_be(SET_FLAGS, set.flags);
            body.u32_be(SET_KEY_TYPE, set.key.0);
            body.u32_be(SET_KEY_LENGTH, set.key.1);
            if let Some((kind, length)) = set.data {
                body.u32_be(SET_DATA_TYPE, kind);
                body.u32_be(SET_DATA_LENGTH, length);
            }
            if !set.parts.is_empty() {
                body.nest(SET_DESCRIPTION, |body| {
                    body.nest(DESCRIPTION_CONCAT, |body| {
                        for part in set.parts {
                            body.nest(NFTA_LIST_ELEM, |body| body.u32_be(FIELD_LENGTH, *part));
                        }
                    });
                });
            }
            body.u32_be(SET_ID, id);
        });
    }
}
