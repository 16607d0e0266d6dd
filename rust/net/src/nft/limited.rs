//! The elements of limits: who is limited, and what each may reach all the same.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::elements::{Element, change, elements, put_comment};
use super::sets::{
    LIMITED, LIMITED_BRIDGES, LIMITED6, REACHABLE, REACHABLE_FROM, REACHABLE_FROM6, REACHABLE6,
};
use super::{DELETE_ELEMENT, ELEMENT_KEY, NEW_ELEMENT, NFTA_LIST_ELEM, Transaction, put_value};
use crate::address::{Family, octets};
use crate::error::Result;
use crate::limits::{Limited, Pin, Subject};
use crate::names::{EngineId, LinkName};
use crate::netlink::{CREATE, Socket};
use crate::reach::{Block, Ports};

const ELEMENT_TIMEOUT: u16 = 4;
/// An element has a range and a comment: so many are below the 64 KiB of an attribute.
const CHUNK: usize = 100;
const RANGES: [&str; 4] = [REACHABLE, REACHABLE6, REACHABLE_FROM, REACHABLE_FROM6];

/// Where an element is: its set, its key, and the last key of its range.
type Place = (&'static str, Vec<u8>, Vec<u8>);

/// The elements of some limits, with how long they stay (None: always) and the comment that they have.
#[derive(Clone, Debug, Default)]
pub(crate) struct Elements(BTreeMap<Place, (Option<Duration>, String)>);

impl Elements {
    /// All that is said of somebody. What has expired is not.
    pub(crate) fn of(owner: &str, limited: &Limited, now: Instant) -> Self {
        let mut found = Self::default();
        match &limited.subject {
            Subject::Container { addresses, .. } => {
                for address in addresses {
                    let set = match Family::of(*address) {
                        Family::V4 => LIMITED,
                        Family::V6 => LIMITED6,
                    };
                    found.put(set, octets(*address), Vec::new(), None, owner);
                }
            }
            Subject::Bridge(name) => {
                found.put(LIMITED_BRIDGES, link_key(name), Vec::new(), None, owner);
            }
        }
        for reach in &limited.fixed {
            found.reach(owner, limited, reach.network.range(), &reach.ports, None);
        }
        for address in limited.pins.keys() {
            found.pin(owner, limited, *address, now);
        }
        found
    }

    /// Those of one pin.
    pub(crate) fn of_pin(owner: &str, limited: &Limited, address: IpAddr, now: Instant) -> Self {
        let mut found = Self::default();
        found.pin(owner, limited, address, now);
        found
    }

    fn pin(&mut self, owner: &str, limited: &Limited, address: IpAddr, now: Instant) {
        let Some(pin) = limited.pins.get(&address) else {
            return;
        };
        let left = pin.until.saturating_duration_since(now);
        if !left.is_zero() {
            let comment = format!("{owner} {}", pin.name);
            self.reach(
                &comment,
                limited,
                (address, address),
                &pin.ports,
                Some(left),
            );
        }
    }

    fn reach(
        &mut self,
        comment: &str,
        limited: &Limited,
        (first, last): (IpAddr, IpAddr),
        ports: &Ports,
        stays: Option<Duration>,
    ) {
        let family = Family::of(first);
        let (set, sources) = match (&limited.subject, family) {
            (Subject::Container { addresses, .. }, _) => {
                let of_family = addresses.iter().filter(|one| Family::of(**one) == family);
                let set = if family == Family::V4 {
                    REACHABLE
                } else {
                    REACHABLE6
                };
                (set, of_family.map(|one| octets(*one)).collect())
            }
            (Subject::Bridge(name), Family::V4) => (REACHABLE_FROM, vec![link_key(name)]),
            (Subject::Bridge(name), Family::V6) => (REACHABLE_FROM6, vec![link_key(name)]),
        };
        for source in &sources {
            for Block { protocols, ports } in ports.blocks() {
                // Each part in 4 bytes or a multiple.
                let key = |address: IpAddr, protocol: u8, port: u16| {
                    let mut key = source.clone();
                    key.extend(octets(address));
                    key.extend([protocol, 0, 0, 0]);
                    key.extend(port.to_be_bytes());
                    key.extend([0, 0]);
                    key
                };
                let from = key(first, protocols.0, ports.0);
                let to = key(last, protocols.1, ports.1);
                self.put(set, from, to, stays, comment);
            }
        }
    }

    fn put(
        &mut self,
        set: &'static str,
        key: Vec<u8>,
        end: Vec<u8>,
        stays: Option<Duration>,
        comment: &str,
    ) {
        self.0.insert((set, key, end), (stays, comment.to_owned()));
    }

    /// What of it the other has not.
    pub(crate) fn without(mut self, other: &Self) -> Self {
        self.0.retain(|place, _| !other.0.contains_key(place));
        self
    }

    /// Have the kernel hold them.
    pub(crate) fn add(&self, transaction: &mut Transaction) {
        self.alter(transaction, NEW_ELEMENT, CREATE, "limit");
    }

    /// Have the kernel hold none of them, whether it did or not: to delete what is not there, because its time was up,
    /// would fail the transaction; to add what is there does not.
    pub(crate) fn delete(&self, transaction: &mut Transaction) {
        self.add(transaction);
        self.alter(transaction, DELETE_ELEMENT, 0, "end the limit of");
    }

    fn alter(&self, transaction: &mut Transaction, kind: u16, flags: u16, verb: &str) {
        let mut by_set: BTreeMap<&str, Vec<_>> = BTreeMap::new();
        for (place, stays) in &self.0 {
            by_set.entry(place.0).or_default().push((place, stays));
        }
        for (set, all) in by_set {
            for chunk in all.chunks(CHUNK) {
                let doing = format!("{verb} {}", chunk[0].1.1);
                change(transaction, doing, kind, flags, set, |list| {
                    for ((_, key, end), (stays, comment)) in chunk {
                        list.nest(NFTA_LIST_ELEM, |body| {
                            put_value(body, ELEMENT_KEY, key);
                            if !end.is_empty() {
                                put_value(body, super::elements::ELEMENT_KEY_END, end);
                            }
                            if kind == NEW_ELEMENT {
                                if let Some(stays) = stays {
                                    let stays =
                                        u64::try_from(stays.as_millis()).unwrap_or(u64::MAX);
                                    body.bytes(ELEMENT_TIMEOUT, &stays.to_be_bytes());
                                }
                                put_comment(body, comment);
                            }
                        });
                    }
                });
            }
        }
    }
}

/// Empty the sets of what may be reached, to be filled anew: meanwhile, within the transaction, it is nothing.
pub(crate) fn flush_reachable(transaction: &mut Transaction) {
    for set in RANGES {
        let doing = format!("empty the nftables set {set}");
        transaction.change(doing, DELETE_ELEMENT, 0, |body| {
            body.text(super::elements::LIST_SET, set);
        });
    }
}

/// All limits that the kernel's table has anything of, by whom they are about.
pub(crate) fn limited(
    socket: &mut Socket,
    engine: &EngineId,
) -> Result<BTreeMap<String, Elements>> {
    let mut found: BTreeMap<String, Elements> = BTreeMap::new();
    for set in RANGES
        .into_iter()
        .chain([LIMITED, LIMITED6, LIMITED_BRIDGES])
    {
        for element in elements(socket, engine, set)? {
            let owner = element.comment.split(' ').next().unwrap_or_default();
            let Element { key, end, left, .. } = &element;
            found.entry(owner.to_owned()).or_default().put(
                set,
                key.clone(),
                end.clone(),
                *left,
                &element.comment,
            );
        }
    }
    Ok(found)
}

impl Elements {
    /// The pins among them: those that do not stay for ever.
    pub(crate) fn pins(&self, now: Instant) -> BTreeMap<IpAddr, Pin> {
        let mut found: BTreeMap<IpAddr, Pin> = BTreeMap::new();
        for ((set, key, end), (stays, comment)) in &self.0 {
            let (Some(stays), Some((_, name))) = (stays, comment.split_once(' ')) else {
                continue;
            };
            let Some((address, block)) = parse(set, key, end) else {
                continue;
            };
            let pin = found.entry(address).or_insert_with(|| Pin {
                ports: Ports::default(),
                until: now,
                name: name.to_owned(),
            });
            pin.ports = pin.ports.with(&Ports::of_blocks([block]));
            pin.until = pin.until.max(now + *stays);
        }
        found
    }
}

fn parse(set: &str, key: &[u8], end: &[u8]) -> Option<(IpAddr, Block)> {
    let (skip, family) = match set {
        REACHABLE => (4, Family::V4),
        REACHABLE_FROM => (16, Family::V4),
        REACHABLE6 | REACHABLE_FROM6 => (16, Family::V6),
        _ => return None,
    };
    let (address, low) = family.split(key.get(skip..)?)?;
    let (_, high) = family.split(end.get(skip..)?)?;
    let port = |rest: &[u8]| Some(u16::from_be_bytes(*rest.get(4..)?.first_chunk()?));
    let block = Block {
        protocols: (*low.first()?, *high.first()?),
        ports: (port(low)?, port(high)?),
    };
    Some((address, block))
}

/// A link's name as a key: with NULs to 16 bytes.
pub(super) fn link_key(name: &LinkName) -> Vec<u8> {
    let mut key = name.as_str().as_bytes().to_vec();
    key.resize(16, 0);
    key
}
