//! Noticing that somebody else has changed what an engine's networks live by: its own table, or one of the
//! tables that have Docker's chains.
//!
//! The kernel tells a multicast group of every change, with the port of the socket that it was asked through: so the
//! engine's own changes are told from others'.

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::names::EngineId;
use crate::netlink::Socket;
use crate::nft;

/// `NFNLGRP_NFTABLES` (linux/netfilter/nfnetlink.h), as a bit of the groups that a socket is bound to.
const GROUP: u32 = 1 << (7 - 1);
const DOING: &str = "wait for changes of the nftables rules";

/// What somebody else has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// A table that one of Docker's chains is in, where our bridges are let through.
    Dockers,
    /// The engine's own table, or nobody knows: the kernel drops what is not read in time.
    Ours,
}

/// A listener in the namespace that its maker was in.
#[derive(Debug)]
pub struct Watch {
    socket: Socket,
    table: String,
    own: u32,
}

impl Watch {
    /// `own`: the port of the socket whose changes do not count.
    pub(crate) fn open(engine: &EngineId, own: u32) -> Result<Self> {
        Ok(Self {
            socket: Socket::listen(GROUP)?,
            table: engine.table(),
            own,
        })
    }

    /// Wait until somebody else has changed something.
    pub fn wait(&self) -> Result<Change> {
        loop {
            let mut waited = [PollFd::new(&self.socket, PollFlags::IN)];
            match poll(&mut waited, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(Error::system(DOING, errno)),
            }
            if let Some(change) = self.drain()? {
                return Ok(change);
            }
        }
    }

    /// Read what there is, without waiting: the most of it that concerns us.
    pub fn drain(&self) -> Result<Option<Change>> {
        let mut found = None;
        loop {
            match self.socket.told() {
                Ok(told) => {
                    let others = told.iter().filter(|(port, ..)| *port != self.own);
                    let concern = |(_, kind, body): &(u32, u16, Vec<u8>)| {
                        nft::concern(*kind, body, &self.table)
                    };
                    found = found.max(others.filter_map(concern).max());
                }
                Err(Errno::AGAIN) => return Ok(found),
                Err(Errno::NOBUFS) => found = Some(Change::Ours),
                Err(errno) => return Err(Error::system(DOING, errno)),
            }
        }
    }
}
