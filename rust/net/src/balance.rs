//! Balanced entries: one address, and ports of the host's, behind which several containers stand.
//!
//! The address is the bridge's own as well, so that it is answered for; a connection to one of its ports goes to a
//! member that is drawn by lot. Nothing is there but elements of the engine's sets, and that address.

use std::net::IpAddr;
use std::os::fd::OwnedFd;

use crate::address::Cidr;
use crate::error::{Error, Result};
use crate::host::Host;
use crate::names::LinkName;
use crate::netlink::Batch;
use crate::nft::{self, Transaction};
use crate::ports::{Protocol, Publish};
use crate::route::{self, By};

/// A port of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served {
    /// The transport.
    pub protocol: Protocol,
    /// The members' port, which is the virtual address's port as well.
    pub to: u16,
    /// Where on the host it is published, with one port everywhere; an unspecified address stands for all of its family.
    pub published: Vec<(IpAddr, u16)>,
}

/// What an entry is at the moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Balance {
    /// The bridge that the members are on.
    pub bridge: LinkName,
    /// The virtual addresses, in the bridge's subnets and nobody's: at most one of a family.
    pub addresses: Vec<IpAddr>,
    /// Its ports.
    pub ports: Vec<Served>,
    /// The members' addresses. With none of a family, connections of that family are refused.
    pub members: Vec<IpAddr>,
}

impl Balance {
    /// Its addresses, as the bridge has them.
    pub(crate) fn cidrs(&self) -> Result<Vec<Cidr>> {
        let alone =
            |address: &IpAddr| Cidr::new(*address, if address.is_ipv4() { 32 } else { 128 });
        self.addresses.iter().map(alone).collect()
    }
}

impl Host {
    /// Reserve an entry's ports on the host, as containers' published ports are; the kernel chooses for 0.
    pub fn reserve_served(&self, ports: &mut [Served]) -> Result<Vec<OwnedFd>> {
        let mut reserved = Vec::new();
        for served in ports {
            let places = served.published.iter().enumerate();
            let wanted: Vec<Publish> = places
                .map(|(at, (host, port))| Publish {
                    protocol: served.protocol,
                    host_ip: *host,
                    host_port: *port,
                    host_port_last: None,
                    same_port: at > 0,
                    container_port: served.to,
                })
                .collect();
            let published = self.reserve(&wanted)?;
            for (place, published) in served.published.iter_mut().zip(published) {
                place.1 = published.port.host_port;
                reserved.push(published.reservation);
            }
        }
        Ok(reserved)
    }

    /// Have an entry be as described: members come and go in one transaction. Its bridge must have been ensured.
    pub fn balance(&mut self, name: &str, balance: Balance) -> Result<()> {
        let link = route::link(&mut self.route, By::Name(&balance.bridge))?;
        let link = link.ok_or_else(|| Error::Occupied {
            link: balance.bridge.to_string(),
            wanted: "a bridge: it is not there",
        })?;
        let mut batch = Batch::new();
        for address in balance.cidrs()? {
            route::add_address(&mut batch, link.index, address);
        }
        self.route.run(batch)?;
        let mut transaction = Transaction::new(&self.engine);
        nft::put_balance(
            &mut transaction,
            &mut self.netfilter,
            &self.engine,
            name,
            self.balances.get(name),
            Some(&balance),
        )?;
        let done = transaction.commit(&mut self.netfilter);
        // What the table holds is not known any more where that has failed: the next change asks it.
        self.balances.remove(name);
        let missing = match done {
            Ok(()) => false,
            // The table has gone, or is one that an earlier version wrote.
            Err(error) if nft::is_missing(&error) => true,
            Err(error) => return Err(error),
        };
        self.balances.insert(name.to_owned(), balance);
        if missing {
            self.write_nat(None)
        } else {
            Ok(())
        }
    }

    /// Withdraw an entry. One that is not there is no error.
    pub fn unbalance(&mut self, name: &str) -> Result<()> {
        let known = self.balances.remove(name);
        let mut transaction = Transaction::new(&self.engine);
        nft::put_balance(
            &mut transaction,
            &mut self.netfilter,
            &self.engine,
            name,
            None, // a table that has been written anew may have no part of it
            None,
        )?;
        transaction.commit(&mut self.netfilter)?;
        let Some(known) = known else {
            return Ok(());
        };
        if let Some(link) = route::link(&mut self.route, By::Name(&known.bridge))? {
            for address in known.cidrs()? {
                route::delete_address(&mut self.route, link.index, address)?;
            }
        }
        Ok(())
    }
}
