//! Who has which name, in which network.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

/// A client's place in one network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    /// The network's ID.
    pub network: String,
    /// The network's name: a container is also found as `name.network`.
    pub network_name: String,
    /// The container's addresses there.
    pub addresses: Vec<IpAddr>,
    /// What it is called there; the first is what its addresses lead back to. None where names mean nothing.
    pub names: Vec<String>,
    /// What the client alone calls others of that network: their names by its own words.
    pub links: BTreeMap<String, String>,
    /// Whether names of the world may be asked for: not from an internal network (CVE-2024-29018).
    pub external: bool,
    /// Whether its names are its own alone, whoever else has the same: it stands for these.
    pub sole: bool,
}

/// All memberships.
#[derive(Debug, Default)]
pub(crate) struct Zones {
    clients: HashMap<String, Vec<Membership>>,
    networks: HashMap<String, Zone>,
}

/// Who has a name.
#[derive(Debug)]
struct Holder {
    client: String,
    addresses: Vec<IpAddr>,
    sole: bool,
}

/// The names of one network.
#[derive(Debug, Default)]
struct Zone {
    /// Whose addresses a name leads to, by name and then by client.
    names: HashMap<String, Vec<Holder>>,
    /// A client's first name, by address.
    addresses: HashMap<IpAddr, String>,
}

impl Zones {
    /// Put a client where it is now, and nowhere else.
    pub(crate) fn set(&mut self, client: &str, memberships: Vec<Membership>) {
        self.forget(client);
        for membership in &memberships {
            let zone = self.networks.entry(membership.network.clone()).or_default();
            for name in &membership.names {
                let holders = zone.names.entry(name.to_ascii_lowercase()).or_default();
                if holders.iter().all(|holder| holder.client != client) {
                    holders.push(Holder {
                        client: client.to_owned(),
                        addresses: membership.addresses.clone(),
                        sole: membership.sole,
                    });
                }
            }
            if let Some(name) = membership.names.first() {
                for address in &membership.addresses {
                    let full = format!("{name}.{}", membership.network_name);
                    zone.addresses.insert(*address, full);
                }
            }
        }
        self.clients.insert(client.to_owned(), memberships);
    }

    /// A client is nowhere any more.
    pub(crate) fn forget(&mut self, client: &str) {
        for membership in self.clients.remove(client).unwrap_or_default() {
            let Some(zone) = self.networks.get_mut(&membership.network) else {
                continue;
            };
            for name in &membership.names {
                let name = name.to_ascii_lowercase();
                if let Some(holders) = zone.names.get_mut(&name) {
                    holders.retain(|holder| holder.client != client);
                    if holders.is_empty() {
                        zone.names.remove(&name);
                    }
                }
            }
            for address in &membership.addresses {
                zone.addresses.remove(address);
            }
            if zone.names.is_empty() && zone.addresses.is_empty() {
                self.networks.remove(&membership.network);
            }
        }
    }

    /// The addresses of a name as a client sees it, of the first of its networks that has the name; None where none has.
    /// Its own words for others come before everybody's names.
    pub(crate) fn addresses(&self, client: &str, name: &str) -> Option<Vec<IpAddr>> {
        let memberships = self.clients.get(client)?;
        let linked = memberships.iter().find_map(|membership| {
            let links = &membership.links;
            let found = links.iter().find(|(own, _)| own.eq_ignore_ascii_case(name));
            self.holders(membership, &found?.1.to_ascii_lowercase())
        });
        linked.or_else(|| {
            memberships
                .iter()
                .find_map(|membership| self.holders(membership, name))
        })
    }

    /// The addresses that a name leads to in one network, by itself or with the network's name behind it.
    fn holders(&self, membership: &Membership, name: &str) -> Option<Vec<IpAddr>> {
        let zone = self.networks.get(&membership.network)?;
        let holders = zone.names.get(name).or_else(|| {
            let dot = name.len().checked_sub(membership.network_name.len() + 1)?;
            let (host, suffix) = name.split_at_checked(dot)?;
            let suffix = suffix.strip_prefix('.')?;
            let ours = suffix.eq_ignore_ascii_case(&membership.network_name);
            zone.names.get(host).filter(|_| ours)
        })?;
        let sole = holders.iter().any(|holder| holder.sole);
        let those = holders.iter().filter(|holder| holder.sole == sole);
        let each = those.flat_map(|holder| holder.addresses.iter().copied());
        Some(each.collect())
    }

    /// The name that an address has in one of a client's networks.
    pub(crate) fn name(&self, client: &str, address: IpAddr) -> Option<&str> {
        self.clients.get(client)?.iter().find_map(|membership| {
            let zone = self.networks.get(&membership.network)?;
            zone.addresses.get(&address).map(String::as_str)
        })
    }

    /// Whether a client may ask for names of the world.
    pub(crate) fn is_external(&self, client: &str) -> bool {
        self.clients
            .get(client)
            .is_some_and(|memberships| memberships.iter().any(|membership| membership.external))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on(network: &str, last: u8, names: &[&str]) -> Membership {
        Membership {
            network: network.to_owned(),
            network_name: format!("{network}-net"),
            addresses: vec![IpAddr::from([10, 0, 0, last])],
            names: names.iter().map(ToString::to_string).collect(),
            links: BTreeMap::new(),
            external: network != "inside",
            sole: false,
        }
    }

    fn last(found: Option<Vec<IpAddr>>) -> Option<Vec<String>> {
        found.map(|found| found.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn names_are_those_of_a_clients_own_networks() {
        let mut zones = Zones::default();
        zones.set("a", vec![on("left", 1, &["one", "DB"])]);
        zones.set(
            "b",
            vec![on("left", 2, &["two", "db"]), on("right", 3, &["two"])],
        );
        zones.set("c", vec![on("right", 4, &["three"])]);
        assert_eq!(
            last(zones.addresses("a", "db")),
            Some(vec!["10.0.0.1".into(), "10.0.0.2".into()])
        );
        assert_eq!(
            last(zones.addresses("a", "two.left-net")),
            Some(vec!["10.0.0.2".into()])
        );
        assert_eq!(
            last(zones.addresses("c", "two")),
            Some(vec!["10.0.0.3".into()])
        );
        assert_eq!(zones.addresses("a", "three"), None);
        assert_eq!(zones.addresses("a", "two.right-net"), None);
        assert_eq!(zones.addresses("a", "-net"), None);
        assert_eq!(zones.addresses("nobody", "one"), None);
        assert_eq!(
            zones.name("a", IpAddr::from([10, 0, 0, 2])),
            Some("two.left-net")
        );
        assert_eq!(zones.name("a", IpAddr::from([10, 0, 0, 4])), None);
        zones.set("b", vec![on("right", 3, &["other"])]);
        assert_eq!(
            last(zones.addresses("a", "db")),
            Some(vec!["10.0.0.1".into()])
        );
        assert_eq!(
            last(zones.addresses("c", "other")),
            Some(vec!["10.0.0.3".into()])
        );
        for client in ["a", "b", "c", "nobody"] {
            zones.forget(client);
        }
        assert!(zones.networks.is_empty() && zones.clients.is_empty());
    }

    #[test]
    fn who_stands_for_others_has_their_name_alone() {
        let mut zones = Zones::default();
        zones.set("a", vec![on("left", 1, &["one", "web"])]);
        zones.set("b", vec![on("left", 2, &["two", "web"])]);
        let mut sole = on("left", 9, &["Web"]);
        sole.sole = true;
        zones.set("entry:web", vec![sole]);
        let found = |zones: &Zones| last(zones.addresses("a", "web")).unwrap();
        assert_eq!(found(&zones), ["10.0.0.9"]);
        zones.forget("entry:web");
        assert_eq!(found(&zones), ["10.0.0.1", "10.0.0.2"]);
    }

    #[test]
    fn a_link_is_a_name_for_one_client_alone() {
        let mut zones = Zones::default();
        let mut linking = on("left", 1, &["one"]);
        linking.links = [("Store", "DB"), ("two", "db"), ("gone", "nobody")]
            .map(|(own, other)| (own.to_owned(), other.to_owned()))
            .into();
        zones.set("a", vec![linking]);
        zones.set("b", vec![on("left", 2, &["two"])]);
        zones.set("c", vec![on("left", 3, &["db"])]);
        let db = Some(vec!["10.0.0.3".to_owned()]);
        assert_eq!(last(zones.addresses("a", "store")), db);
        assert_eq!(last(zones.addresses("a", "two")), db);
        assert_eq!(zones.addresses("a", "gone"), None);
        assert_eq!(zones.addresses("b", "store"), None);
    }

    #[test]
    fn only_an_internal_network_has_no_world() {
        let mut zones = Zones::default();
        zones.set("in", vec![on("inside", 1, &["one"])]);
        zones.set(
            "both",
            vec![on("inside", 2, &["two"]), on("left", 3, &["two"])],
        );
        let external = |client| zones.is_external(client);
        assert_eq!(
            (external("in"), external("both"), external("nobody")),
            (false, true, false)
        );
    }
}
