//! The host's side: bridges, NAT and published ports of one engine.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::bridge::Bridge;
use crate::error::Result;
use crate::names::{EngineId, LinkName};
use crate::ports::{Publish, Published};

/// What still lives, and is not swept.
#[derive(Clone, Debug, Default)]
pub struct Live {
    /// Owners (container IDs) of published ports.
    pub owners: BTreeSet<String>,
    /// Host sides of veth pairs.
    pub links: BTreeSet<LinkName>,
}

/// What a sweep removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Published ports.
    pub ports: usize,
    /// Veth pairs.
    pub links: usize,
}

/// The host's networking as one engine sees it. Not shared between threads: one event loop owns it.
#[derive(Debug)]
pub struct Host {
    engine: EngineId,
}

impl Host {
    /// Open the sockets it works through, into the calling thread's network namespace.
    pub fn open(engine: &EngineId) -> Result<Self> {
        Ok(Self { engine: engine.clone() })
    }

    /// Whose it is.
    #[must_use]
    pub fn engine(&self) -> &EngineId {
        &self.engine
    }

    /// Create or repair a bridge and its NAT. Idempotent, also between processes; where all is well
    /// it costs two questions to the kernel, so call it before every start.
    pub fn ensure(&mut self, _bridge: &Bridge) -> Result<()> {
        todo!()
    }

    /// Publish a container's ports, all or none, in one transaction.
    ///
    /// `owner` is the container's ID. A port in use is a Conflict that names it.
    pub fn publish(&mut self, _owner: &str, _container: IpAddr, _ports: &[Publish]) -> Result<Vec<Published>> {
        todo!()
    }

    /// Take over what an earlier process published: its reservations are somebody else's, so
    /// only the NAT elements are made sure of, and remembered.
    pub fn adopt(&mut self, _owner: &str, _container: IpAddr, _ports: &[Publish]) -> Result<()> {
        todo!()
    }

    /// Withdraw all of an owner's ports in one transaction. No ports is no error.
    pub fn unpublish(&mut self, _owner: &str) -> Result<()> {
        todo!()
    }

    /// Remove published ports and veth pairs of this engine that nobody in `live` owns.
    pub fn sweep(&mut self, _live: &Live) -> Result<Swept> {
        todo!()
    }

    /// Remove a bridge, and its part of the NAT.
    pub fn remove(&mut self, _bridge: &LinkName) -> Result<()> {
        todo!()
    }

    /// Remove everything of this engine: bridges, veth pairs, table. For good.
    pub fn destroy(self) -> Result<()> {
        todo!()
    }
}
