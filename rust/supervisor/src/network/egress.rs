//! Allow-lists: what containers reach beyond their own networks.
//!
//! The kernel has the addresses, by way of the net crate. Names are resolved by our own server: it asks the world for
//! those that are on a list, and what it hears is pinned, for a time, before it is told; so what a container reaches is
//! what its names lead to, whatever it makes of them. Where the world says that a name leads to an address of a special
//! purpose, or to the host, nothing is opened.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use knarr_dns::Gate;
use knarr_net::{Cidr, Host, LinkName, Pinned, Ports, Reach, Subject};
use knarr_runtime::Kind;

use super::{Network, NetworkRecord};
use crate::journal::Journal;
use crate::protocol::{EgressRule, Failure, Id};

/// For how long an address stays open after its name was resolved: programs keep addresses for longer than they were
/// told, and shorter than for ever.
const AT_LEAST: Duration = Duration::from_secs(300);
const AT_MOST: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// How many of the world's strange answers are told of.
const SAID_MAX: usize = 1000;

/// Whom a list is about, and what of it the kernel knows from the beginning.
pub type Limit = (Subject, Vec<Reach>);

/// The lists that questions for names are held against.
#[derive(Debug)]
pub struct Egress {
    host: Arc<Mutex<Option<Host>>>,
    journal: Journal,
    clients: Mutex<BTreeMap<String, Vec<List>>>,
    said: Mutex<BTreeSet<String>>,
}

/// The names of one allow-list.
#[derive(Clone, Debug)]
struct List {
    /// Whose it is, as the net crate knows it.
    owner: String,
    names: Vec<(Pattern, Ports)>,
}

/// Names.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Pattern {
    /// This one.
    One(String),
    /// Those that end so, which begins with a dot.
    Below(String),
}

impl Pattern {
    fn parse(text: &str) -> Self {
        match text.strip_prefix('*') {
            Some(end) => Self::Below(end.to_owned()),
            None => Self::One(text.to_owned()),
        }
    }

    fn has(&self, name: &str) -> bool {
        match self {
            Self::One(one) => one == name,
            Self::Below(end) => name.len() > end.len() && name.ends_with(end),
        }
    }
}

impl List {
    fn new(owner: &str, rules: &[EgressRule]) -> Result<Self, Failure> {
        let mut names = Vec::new();
        for rule in rules {
            if let Some(name) = &rule.name {
                names.push((Pattern::parse(name), rule.ports()?));
            }
        }
        Ok(Self {
            owner: owner.to_owned(),
            names,
        })
    }

    /// What of a name may be reached.
    fn ports(&self, name: &str) -> Ports {
        let those = self.names.iter().filter(|(pattern, _)| pattern.has(name));
        those.fold(Ports::default(), |found, (_, ports)| found.with(ports))
    }
}

impl EgressRule {
    fn ports(&self) -> Result<Ports, Failure> {
        let protocol = self.protocol.as_deref().map(str::parse).transpose()?;
        Ok(match (self.ports, protocol) {
            (Some((first, last)), protocol) => Ports::of(protocol, first, last),
            (None, None) => Ports::all(),
            (None, protocol) => Ports::of(protocol, 0, u16::MAX),
        })
    }

    fn reach(&self) -> Result<Option<Reach>, Failure> {
        match (&self.network, &self.name) {
            (Some(network), None) => Ok(Some(Reach {
                network: network.parse::<Cidr>()?,
                ports: self.ports()?,
            })),
            (None, Some(_)) => Ok(None),
            _ => Err(Failure::new(
                Kind::InvalidArgument,
                "egress: a rule has a `network` or a `name`",
            )),
        }
    }
}

/// What of a list the kernel knows from the beginning.
pub fn reach(rules: &[EgressRule]) -> Result<Vec<Reach>, Failure> {
    let found: Result<Vec<Option<Reach>>, Failure> = rules.iter().map(EgressRule::reach).collect();
    Ok(found?.into_iter().flatten().collect())
}

impl Egress {
    pub fn new(host: Arc<Mutex<Option<Host>>>, journal: Journal) -> Self {
        Self {
            host,
            journal,
            clients: Mutex::default(),
            said: Mutex::default(),
        }
    }

    /// From now on a container's questions are held against its own list, and those of the networks that it goes out by.
    fn set(&self, id: &Id, record: &NetworkRecord) -> Result<(), Failure> {
        let mut lists = Vec::new();
        if let Some(rules) = &record.egress {
            lists.push(List::new(id.as_str(), rules)?);
        }
        for network in record.ways_out().into_iter().flatten() {
            let attached = record.on(network);
            if let Some(bridge) = attached.and_then(|attached| attached.interface.bridge.as_ref())
                && let Some(rules) = &bridge.egress
                && lists.iter().all(|list| list.owner != bridge.name)
            {
                lists.push(List::new(&bridge.name, rules)?);
            }
        }
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if lists.is_empty() {
            clients.remove(id.as_str());
        } else {
            clients.insert(id.as_str().to_owned(), lists);
        }
        Ok(())
    }

    fn forget(&self, id: &Id) {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        clients.remove(id.as_str());
    }

    fn lists(&self, client: &str) -> Option<Vec<List>> {
        let clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        clients.get(client).cloned()
    }

    fn say(&self, what: String) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.len() < SAID_MAX && said.insert(what.clone()) {
            self.journal.say(what);
        }
    }
}

impl Gate for Egress {
    fn admits(&self, client: &str, name: &str) -> bool {
        let clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        clients.get(client).is_none_or(|lists| {
            lists
                .iter()
                .all(|list| list.names.iter().any(|(pattern, _)| pattern.has(name)))
        })
    }

    fn answered(&self, client: &str, name: &str, addresses: &[(IpAddr, Duration)]) {
        for list in self.lists(client).unwrap_or_default() {
            let ports = list.ports(name);
            let mut host = self.host.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(host) = host.as_mut() else {
                return;
            };
            for (address, keep) in addresses {
                let lifetime = (*keep).clamp(AT_LEAST, AT_MOST);
                match host.pin(&list.owner, name, *address, &ports, lifetime) {
                    Ok(Pinned::Open) => {}
                    Ok(Pinned::Special) => self.say(format!(
                        "the allow-list of {} does not open {address}, which {name} is said to be: names lead to \
                         addresses of the world only; where that is meant, put the address on the list",
                        list.owner
                    )),
                    Err(error) => self.say(format!(
                        "{address}, which {name} is, cannot be opened for {}: {error}",
                        list.owner
                    )),
                }
            }
        }
    }
}

impl Network {
    /// Have a container limited as its record says, before anything of it can be sent; to what.
    pub(super) fn limit(&self, id: &Id, record: &NetworkRecord) -> Result<Option<Limit>, Failure> {
        let mut limit = None;
        if let Some(rules) = &record.egress {
            if record.has_lan() {
                return Err(Failure::new(
                    Kind::InvalidArgument,
                    format!(
                        "container {id}: an allow-list holds on bridges only, and what is sent on an interface of the \
                         host's own comes by none"
                    ),
                ));
            }
            let (subject, reach) = limit.insert((subject(record)?, reach(rules)?));
            self.opened(&mut self.host())?
                .limit(id.as_str(), subject.clone(), reach)?;
        }
        self.egress.set(id, record)?;
        Ok(limit)
    }

    /// The same with the host's side of one more interface, which is about to be used.
    pub(super) fn limit_link(
        &self,
        id: &Id,
        limit: Option<&Limit>,
        link: &LinkName,
    ) -> Result<(), knarr_net::Error> {
        let mut host = self.host();
        let (Some((subject, reach)), Some(host)) = (limit, host.as_mut()) else {
            return Ok(());
        };
        let mut subject = subject.clone();
        if let Subject::Container { links, .. } = &mut subject {
            links.push(link.clone());
        }
        host.limit(id.as_str(), subject, reach)
    }

    /// Nothing is said of it any more. Whoever still is in its namespace, as a container that has joined it may be, is
    /// cut off: nobody outlives the limit.
    pub(super) fn unlimit(&self, id: &Id, record: &NetworkRecord) -> Result<(), Failure> {
        self.egress.forget(id);
        if record.egress.is_none() {
            return Ok(());
        }
        for attached in record.interfaces.iter().filter(|one| !one.link.is_empty()) {
            self.pool.unplug(&LinkName::parse(&attached.link)?)?;
        }
        Ok(self.opened(&mut self.host())?.unlimit(id.as_str())?)
    }
}

fn subject(record: &NetworkRecord) -> Result<Subject, Failure> {
    let (mut addresses, mut links) = (Vec::new(), Vec::new());
    for attached in &record.interfaces {
        addresses.extend(attached.interface.addresses()?);
        if !attached.link.is_empty() {
            links.push(LinkName::parse(&attached.link)?);
        }
    }
    Ok(Subject::Container { addresses, links })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_has_its_names_and_no_others() {
        let one = Pattern::parse("example.org");
        let below = Pattern::parse("*.example.org");
        for (name, is_one, is_below) in [
            ("example.org", true, false),
            ("a.example.org", false, true),
            ("a.b.example.org", false, true),
            (".example.org", false, false),
            ("badexample.org", false, false),
            ("example.org.evil.net", false, false),
            ("", false, false),
        ] {
            assert_eq!(one.has(name), is_one, "{name}");
            assert_eq!(below.has(name), is_below, "{name}");
        }
    }
}
