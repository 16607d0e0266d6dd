//! Published ports, and how the host's side of one is reserved.

use std::fmt;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::str::FromStr;

use crate::error::{Error, Result};

/// A transport protocol that ports can be published of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl FromStr for Protocol {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "tcp" => Ok(Self::Tcp),
            "udp" => Ok(Self::Udp),
            "sctp" => Ok(Self::Sctp),
            _ => Err(Error::Invalid { what: "protocol", value: text.to_owned(), expected: "tcp, udp or sctp" }),
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        })
    }
}

/// A port of the host that leads to a port of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Publish {
    /// The transport.
    pub protocol: Protocol,
    /// The host's address; unspecified (0.0.0.0) for all.
    pub host_ip: IpAddr,
    /// The host's port; 0 to let the kernel choose from `ip_local_port_range`.
    pub host_port: u16,
    /// The port in the container.
    pub container_port: u16,
}

/// A port that has been published.
#[derive(Debug)]
pub struct Published {
    /// As asked for, with the host port that was chosen.
    pub port: Publish,
    /// A bound socket that listens to nothing: the port is ours until all its copies are closed.
    pub reservation: OwnedFd,
}
