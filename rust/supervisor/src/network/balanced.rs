//! Balanced entries: one address, and ports of the host's, for several containers.
//!
//! The daemon says which containers stand behind an entry; that one has ended is known here first, so it leaves from
//! here. What there is of entries is in a file besides, from which a successor restores them: their ports are reserved
//! anew then, and where somebody else has taken one meanwhile, connections lead to the members all the same.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{MutexGuard, PoisonError};

use knarr_dns::Membership;
use knarr_net::{Balance, LinkName, Served};
use knarr_runtime::Kind;
use serde_json::{Value, json};

use super::Network;
use crate::protocol::{BalanceRequest, EntryPort, Failure, Id};

/// The entries that there are.
#[derive(Debug)]
pub struct Entries {
    path: PathBuf,
    found: BTreeMap<String, Entry>,
}

#[derive(Debug)]
struct Entry {
    request: BalanceRequest,
    reserved: Vec<OwnedFd>,
}

impl Entries {
    /// None yet; they are remembered in that directory.
    pub fn new(run_root: &Path) -> Self {
        Self {
            path: run_root.join("balanced.json"),
            found: BTreeMap::new(),
        }
    }

    fn write(&self) -> io::Result<()> {
        let requests: Vec<&BalanceRequest> =
            self.found.values().map(|entry| &entry.request).collect();
        if requests.is_empty() {
            return match fs::remove_file(&self.path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                done => done,
            };
        }
        let new = self.path.with_extension("json.new");
        fs::write(&new, serde_json::to_vec(&requests)?)?;
        fs::rename(new, &self.path)
    }

    fn read(&self) -> io::Result<Vec<BalanceRequest>> {
        match fs::read(&self.path) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }
}

impl Network {
    /// Have an entry be as described, with those of its members that are `alive`; its ports, with those that were chosen.
    pub fn balance(
        &self,
        mut request: BalanceRequest,
        alive: impl Fn(&Id) -> bool,
    ) -> Result<Value, Failure> {
        request.members.retain(|id, _| alive(id));
        let mut entries = self.entries();
        self.ensure(&request.bridge)?;
        let mut served = request.served()?;
        let kept = entries.found.get(&request.entry);
        let fresh = match kept {
            Some(kept) if kept.request.ports == request.ports => None,
            _ => Some(self.opened(&mut self.host())?.reserve_served(&mut served)?),
        };
        for (port, served) in request.ports.iter_mut().zip(&served) {
            if let Some((_, chosen)) = served.published.first() {
                port.host_port = Some(*chosen);
            }
        }
        let answer = json!({ "ports": request.ports });
        self.apply(&request)?;
        let kept = entries.found.remove(&request.entry);
        let reserved = fresh.or(kept.map(|kept| kept.reserved)).unwrap_or_default();
        let name = request.entry.clone();
        entries.found.insert(name, Entry { request, reserved });
        self.remember(&entries);
        Ok(answer)
    }

    /// Withdraw an entry. One that is not there is no error.
    pub fn unbalance(&self, name: &str) -> Result<(), Failure> {
        let mut entries = self.entries();
        self.names.forget(&client(name));
        let Some(entry) = entries.found.remove(name) else {
            return Ok(());
        };
        self.remember(&entries);
        self.opened(&mut self.host())?.unbalance(name)?;
        drop(entry.reserved); // not before nothing leads to it
        Ok(())
    }

    /// A container has ended: nothing is led to it any more.
    pub fn leave(&self, id: &Id) -> Result<(), Failure> {
        let mut entries = self.entries();
        let mut left = Vec::new();
        for entry in entries.found.values_mut() {
            if entry.request.members.remove(id).is_some() {
                left.push(entry.request.clone());
            }
        }
        if left.is_empty() {
            return Ok(());
        }
        self.remember(&entries);
        left.iter().try_for_each(|request| self.apply(request))
    }

    /// Take over the entries of a predecessor, with those of their members that are `alive`.
    pub fn restore_entries(&self, alive: impl Fn(&Id) -> bool) {
        let found = self.entries().read();
        let found = found.unwrap_or_else(|error| {
            self.journal.say(format!(
                "the load-balanced entries cannot be read: {error}: the daemon tells of them when it starts"
            ));
            Vec::new()
        });
        for request in found {
            let name = request.entry.clone();
            let Err(failure) = self.balance(request.clone(), &alive) else {
                continue;
            };
            // Its port, most likely, which somebody has taken: the entry is there for those who know its address.
            self.journal
                .say(format!("entry {name}: {}", failure.message));
            let mut entries = self.entries();
            if self.apply(&request).is_ok() {
                let reserved = Vec::new();
                entries.found.insert(name, Entry { request, reserved });
            }
        }
    }

    /// The names of the entries that a predecessor has left, which no sweep may take.
    pub(super) fn remembered_entries(&self) -> Vec<String> {
        let found = self.entries().read().unwrap_or_default(); // what cannot be read is told of by `restore_entries`
        found.into_iter().map(|request| request.entry).collect()
    }

    /// Nothing is left of any entry.
    pub(super) fn forget_entries(&self) {
        let mut entries = self.entries();
        entries.found.clear();
        self.remember(&entries);
    }

    fn apply(&self, request: &BalanceRequest) -> Result<(), Failure> {
        let balance = Balance {
            bridge: LinkName::parse(&request.bridge.name)?,
            addresses: request.addresses.clone(),
            ports: request.served()?,
            members: request.members.values().flatten().copied().collect(),
        };
        self.opened(&mut self.host())?
            .balance(&request.entry, balance)?;
        let membership = Membership {
            network: request.network.clone(),
            network_name: request.network_name.clone(),
            addresses: request.addresses.clone(),
            names: vec![request.name.clone()],
            links: BTreeMap::new(),
            external: false,
            sole: true,
        };
        self.names.set(&client(&request.entry), vec![membership]);
        Ok(())
    }

    fn remember(&self, entries: &Entries) {
        if let Err(error) = entries.write() {
            self.journal.say(format!(
                "{} cannot be written: {error}: a supervisor after this one learns of entries from the daemon",
                entries.path.display()
            ));
        }
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What an entry is called among those that have names: no container's ID has such a character.
fn client(entry: &str) -> String {
    format!("entry:{entry}")
}

impl BalanceRequest {
    fn served(&self) -> Result<Vec<Served>, Failure> {
        let served = |port: &EntryPort| port.served(&self.addresses);
        self.ports.iter().map(served).collect()
    }
}

impl EntryPort {
    fn served(&self, addresses: &[IpAddr]) -> Result<Served, Failure> {
        let published = match (self.host_ip, self.host_port) {
            (Some(host), Some(port)) => vec![(host, port)],
            (None, Some(port)) => {
                let everywhere = |address: &IpAddr| match address {
                    IpAddr::V4(_) => (Ipv4Addr::UNSPECIFIED.into(), port),
                    IpAddr::V6(_) => (Ipv6Addr::UNSPECIFIED.into(), port),
                };
                addresses.iter().map(everywhere).collect()
            }
            (None, None) => Vec::new(),
            (Some(address), None) => {
                return Err(Failure::new(
                    Kind::InvalidArgument,
                    format!("balance: `host_ip` {address} without a `host_port`"),
                ));
            }
        };
        Ok(Served {
            protocol: self.protocol.parse()?,
            to: self.container_port,
            published,
        })
    }
}
