//! Limits of what containers reach beyond their own networks: allow-lists.
//!
//! A container is limited by its addresses, which a table of the bridges' own makes sure of, and a network by its
//! bridge; a container that is limited and on a network that is limited reaches what both let through. What goes to the
//! container's own networks is never limited, and neither is the answer to a connection that came in.
//!
//! Names are not the kernel's: who resolves them pins what they lead to, for a time.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::bridge::Bridge;
use crate::error::Result;
use crate::host::{Host, Live};
use crate::names::LinkName;
use crate::nft::{self, Elements, Guarded, Transaction};
use crate::reach::{Ports, Reach, disjoint, is_special, ports_at};
use crate::route;

/// Addresses that names are pinned to, of one limit: the one that would expire first gives way to a further one.
const PINS_MAX: usize = 4096;

/// Whom a limit is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A container.
    Container {
        /// Its addresses, on all its networks.
        addresses: Vec<IpAddr>,
        /// The host's sides of its links.
        links: Vec<LinkName>,
    },
    /// All containers of a bridge's network, in what they send by way of it.
    Bridge(LinkName),
}

/// A limit that there is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Limited {
    pub(crate) subject: Subject,
    /// What may be reached always: no packet is in two of them.
    pub(crate) fixed: Vec<Reach>,
    /// What names have been pinned to, of what is not in `fixed`.
    pub(crate) pins: BTreeMap<IpAddr, Pin>,
}

/// An address that may be reached for a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pin {
    pub(crate) ports: Ports,
    pub(crate) until: Instant,
    /// One of the names that led there.
    pub(crate) name: String,
}

/// What became of a name's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pinned {
    /// It may be reached.
    Open,
    /// It is one that no name leads to: of a special purpose, the host's own, or of an engine's network.
    Special,
}

/// The limits of one engine.
#[derive(Debug, Default)]
pub(crate) struct Limits {
    known: BTreeMap<String, Limited>,
    /// What a predecessor has said of those that have not been limited again yet.
    left: BTreeMap<String, Elements>,
    /// Whether the table that guards ports is there.
    guarding: bool,
}

impl Limits {
    /// Of a bridge that is about to be written, or that is not limited any more.
    pub(crate) fn set_bridge(&mut self, bridge: &Bridge) {
        let owner = bridge.name.as_str();
        match &bridge.reach {
            None => drop(self.known.remove(owner)),
            Some(reach) => {
                let limited = self.next(owner, Subject::Bridge(bridge.name.clone()), reach);
                self.known.insert(owner.to_owned(), limited);
            }
        }
    }

    /// A limit with what has been pinned of it.
    fn next(&mut self, owner: &str, subject: Subject, reach: &[Reach]) -> Limited {
        let fixed = disjoint(reach);
        let before = match self.known.get(owner) {
            Some(known) => known.pins.clone(),
            None => self
                .left
                .remove(owner)
                .unwrap_or_default()
                .pins(Instant::now()),
        };
        let still = before.into_iter().filter_map(|(address, mut pin)| {
            pin.ports = pin.ports.without(&ports_at(&fixed, address));
            (!pin.ports.is_empty()).then_some((address, pin))
        });
        Limited {
            subject,
            pins: still.collect(),
            fixed,
        }
    }

    /// Write all of them into a table that has none of what they say may be reached.
    pub(crate) fn write(&self, transaction: &mut Transaction) {
        let now = Instant::now();
        nft::flush_reachable(transaction);
        let guarded: Vec<Guarded> = self.guarded().collect();
        if !guarded.is_empty() {
            nft::write_guard(transaction);
        }
        for elements in self.left.values() {
            elements.add(transaction);
        }
        for (owner, limited) in &self.known {
            Elements::of(owner, limited, now).add(transaction);
        }
        for ports in guarded {
            ports.add(transaction);
        }
    }

    /// Once what `write` wrote is there.
    pub(crate) fn written(&mut self) {
        self.guarding = self.has_guarded();
    }

    fn has_guarded(&self) -> bool {
        self.guarded().next().is_some()
    }

    fn guarded(&self) -> impl Iterator<Item = Guarded> {
        let all = self.known.iter();
        all.map(|(owner, limited)| Guarded::of(owner, limited))
            .filter(|ports| !ports.is_empty())
    }
}

impl Host {
    /// Limit a container from now on, instead of what was said of it before: to what may be reached beyond its own
    /// networks. What its names were pinned to stays. `owner` is its ID.
    pub fn limit(&mut self, owner: &str, subject: Subject, reach: &[Reach]) -> Result<()> {
        let now = Instant::now();
        let next = self.limits.next(owner, subject, reach);
        let (wanted, ports) = (Elements::of(owner, &next, now), Guarded::of(owner, &next));
        let mut transaction = Transaction::new(&self.engine);
        if let Some(known) = self.limits.known.get(owner) {
            let (said, guarded) = (Elements::of(owner, known, now), Guarded::of(owner, known));
            said.without(&wanted).delete(&mut transaction);
            if self.limits.guarding {
                guarded.without(&ports).delete(&mut transaction);
            }
        }
        if !ports.is_empty() && !self.limits.guarding {
            nft::write_guard(&mut transaction);
        }
        ports.add(&mut transaction);
        wanted.add(&mut transaction);
        let guards = !ports.is_empty();
        self.limits.known.insert(owner.to_owned(), next);
        match transaction.commit(&mut self.netfilter) {
            Ok(()) => {
                self.limits.guarding |= guards;
                Ok(())
            }
            // The table has gone or is an earlier version's, or there is something else where this one has to be.
            Err(_) => self.write_nat(None),
        }
    }

    /// Nothing is said of it any more. One that is not limited is no error.
    pub fn unlimit(&mut self, owner: &str) -> Result<()> {
        let mut transaction = Transaction::new(&self.engine);
        let left = self.limits.left.remove(owner);
        let Some(known) = self.limits.known.remove(owner) else {
            left.unwrap_or_default().delete(&mut transaction);
            return transaction.commit(&mut self.netfilter);
        };
        Elements::of(owner, &known, Instant::now()).delete(&mut transaction);
        let last = !self.limits.has_guarded();
        if self.limits.guarding && last {
            nft::delete_guard(&mut transaction);
        } else if self.limits.guarding {
            Guarded::of(owner, &known).delete(&mut transaction);
        }
        match transaction.commit(&mut self.netfilter) {
            Ok(()) => {
                self.limits.guarding &= !last;
                Ok(())
            }
            Err(error) if nft::is_missing(&error) => self.write_nat(None),
            other => other,
        }
    }

    /// A name leads to that address, of which the limit lets these ports be reached: for so long, or for what is
    /// left where it was longer. Once this returns, it is so.
    pub fn pin(
        &mut self,
        owner: &str,
        name: &str,
        address: IpAddr,
        ports: &Ports,
        lifetime: Duration,
    ) -> Result<Pinned> {
        let now = Instant::now();
        let Some(limited) = self.limits.known.get(owner) else {
            return Ok(Pinned::Open); // it is limited no more
        };
        let wanted = ports.without(&ports_at(&limited.fixed, address));
        if wanted.is_empty() {
            return Ok(Pinned::Open);
        }
        let before = limited.pins.get(&address).filter(|pin| pin.until > now);
        let next = Pin {
            ports: before.map_or_else(|| wanted.clone(), |pin| pin.ports.with(&wanted)),
            until: before.map_or(now, |pin| pin.until).max(now + lifetime),
            name: name.to_owned(),
        };
        if let Some(pin) = before
            && pin.ports == next.ports
            && pin.until >= now + lifetime / 2
        {
            return Ok(Pinned::Open);
        }
        if is_special(address) || self.is_ours(address)? {
            return Ok(Pinned::Special);
        }
        let Some(limited) = self.limits.known.get_mut(owner) else {
            return Ok(Pinned::Open);
        };
        let mut transaction = Transaction::new(&self.engine);
        Elements::of_pin(owner, limited, address, now).delete(&mut transaction);
        limited.pins.retain(|_, pin| pin.until > now);
        if limited.pins.len() >= PINS_MAX && !limited.pins.contains_key(&address) {
            let first = limited.pins.iter().min_by_key(|(_, pin)| pin.until);
            if let Some(first) = first.map(|(address, _)| *address) {
                Elements::of_pin(owner, limited, first, now).delete(&mut transaction);
                limited.pins.remove(&first);
            }
        }
        limited.pins.insert(address, next);
        Elements::of_pin(owner, limited, address, now).add(&mut transaction);
        match transaction.commit(&mut self.netfilter) {
            Ok(()) => {}
            Err(_) => self.write_nat(None)?,
        }
        Ok(Pinned::Open)
    }

    /// Whether an address is the host's own, or in one of the engine's networks.
    fn is_ours(&mut self, address: IpAddr) -> Result<bool> {
        let within = self.gateways().any(|gateway| gateway.contains(address));
        Ok(within || route::local_addresses(&mut self.route)?.contains(&address))
    }

    /// Of predecessors' limits those that are nobody's any more go, and what the others have pinned is kept for them.
    pub(crate) fn sweep_limits(&mut self, live: &Live) -> Result<()> {
        let bridges = nft::bridges(&mut self.netfilter, &self.engine)?;
        let lives = |owner: &str| {
            live.owners.contains(owner) || bridges.iter().any(|name| name.as_str() == owner)
        };
        let mut transaction = Transaction::new(&self.engine);
        for (owner, elements) in nft::limited(&mut self.netfilter, &self.engine)? {
            if !lives(&owner) {
                elements.delete(&mut transaction);
            } else if !self.limits.known.contains_key(&owner) {
                self.limits.left.insert(owner, elements);
            }
        }
        let guarded = nft::guarded(&mut self.netfilter, &self.engine)?;
        self.limits.guarding = !guarded.is_empty();
        if self.limits.guarding && !guarded.keys().any(|owner| lives(owner)) {
            nft::delete_guard(&mut transaction);
            self.limits.guarding = false;
        } else {
            for (_, ports) in guarded.iter().filter(|(owner, _)| !lives(owner)) {
                ports.delete(&mut transaction);
            }
        }
        self.limits.known.retain(|owner, _| lives(owner));
        transaction.commit(&mut self.netfilter)
    }
}
