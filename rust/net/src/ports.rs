//! Published ports, and how the host's side of one is reserved.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::str::FromStr;
use std::thread;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, Protocol as Transport, Shutdown, SocketFlags, SocketType, sockopt,
};
use rustix::net::{bind, getsockname, ipproto, listen, shutdown, socket_with};

use crate::error::{Error, Result};
use crate::holder::holder;

/// How often a port is tried that is taken while nobody is found to have it, and the pause between: a process that
/// is being made has copies of its maker's sockets until it executes something, also of those closed meanwhile.
const ATTEMPTS: u32 = 5;
const PAUSE: Duration = Duration::from_millis(2);

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

impl Protocol {
    /// Its number in an IP header.
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }

    pub(crate) fn of_number(number: u8) -> Option<Self> {
        [Self::Tcp, Self::Udp, Self::Sctp]
            .into_iter()
            .find(|protocol| protocol.number() == number)
    }
}

impl FromStr for Protocol {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "tcp" => Ok(Self::Tcp),
            "udp" => Ok(Self::Udp),
            "sctp" => Ok(Self::Sctp),
            _ => Err(Error::Invalid {
                what: "protocol",
                value: text.to_owned(),
                expected: "tcp, udp or sctp",
            }),
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
    /// The host's address; unspecified (0.0.0.0, ::) for all of its family.
    pub host_ip: IpAddr,
    /// The host's port; 0 to let the kernel choose from `ip_local_port_range`.
    pub host_port: u16,
    /// The last of a range that begins with `host_port`, of which the first free one is taken.
    pub host_port_last: Option<u16>,
    /// Its host port is to be that of the one before it, which differs in the address only.
    pub same_port: bool,
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

/// Reserve a host port: `PortTaken` where somebody has it, `NotLocal` for an address of no interface.
///
/// A bound socket conflicts with any other, `SO_REUSEADDR` or not, and it answers nobody.
pub(crate) fn reserve(port: &Publish) -> Result<Published> {
    let address = SocketAddr::new(port.host_ip, port.host_port);
    let doing = || format!("reserve {address}/{}", port.protocol);
    let mut attempt = 0;
    let reservation = loop {
        match bind_to(port.protocol, address) {
            Ok(socket) => break socket,
            Err(Errno::ADDRINUSE) => {
                let holder = holder(port.protocol, address);
                attempt += 1;
                if holder.is_some() || attempt == ATTEMPTS {
                    return Err(Error::PortTaken {
                        protocol: port.protocol,
                        address: port.host_ip,
                        port: port.host_port,
                        holder,
                    });
                }
                thread::sleep(PAUSE);
            }
            Err(Errno::ADDRNOTAVAIL) => {
                return Err(Error::NotLocal {
                    address: port.host_ip,
                });
            }
            Err(Errno::PROTONOSUPPORT | Errno::SOCKTNOSUPPORT) => {
                return Err(Error::Unsupported {
                    what: format!("publishing {} ports", port.protocol),
                    remedy: "this kernel has no such sockets; load its module, or publish another protocol",
                });
            }
            Err(Errno::AFNOSUPPORT) => {
                return Err(Error::Unsupported {
                    what: format!("publishing on {address}"),
                    remedy: "this kernel has no IPv6; publish on an IPv4 address",
                });
            }
            Err(errno) => return Err(Error::system(doing(), errno)),
        }
    };
    let host_port = if port.host_port == 0 {
        chosen(&reservation, doing)?
    } else {
        port.host_port
    };
    Ok(Published {
        port: Publish { host_port, ..*port },
        reservation,
    })
}

fn bind_to(protocol: Protocol, address: SocketAddr) -> rustix::io::Result<OwnedFd> {
    bound(protocol, address, false).or_else(|errno| match errno {
        // Connections of a server that has gone leave the port in TIME_WAIT for a minute.
        Errno::ADDRINUSE if protocol == Protocol::Tcp => bound_beside_closed(address),
        errno => Err(errno),
    })
}

fn bound(protocol: Protocol, address: SocketAddr, reuse: bool) -> rustix::io::Result<OwnedFd> {
    let (kind, transport): (_, Option<Transport>) = match protocol {
        Protocol::Tcp => (SocketType::STREAM, Some(ipproto::TCP)),
        Protocol::Udp => (SocketType::DGRAM, Some(ipproto::UDP)),
        Protocol::Sctp => (SocketType::STREAM, Some(ipproto::SCTP)),
    };
    let socket = socket_with(family(address), kind, SocketFlags::CLOEXEC, transport)?;
    if address.is_ipv6() {
        // Of all addresses, only IPv6's: 0.0.0.0 is somebody else's, or another reservation of ours.
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    if reuse {
        sockopt::set_socket_reuseaddr(&socket, true)?;
    }
    bind(&socket, &address)?;
    if protocol == Protocol::Udp {
        // What arrives before the NAT is in place is never read: keep it small.
        sockopt::set_socket_recv_buffer_size(&socket, 0)?;
    }
    Ok(socket)
}

/// Bind although connections in `TIME_WAIT` have the port, yet let no later `SO_REUSEADDR` socket bind it
/// too: listening, for an instant, takes the port for good, and ending that keeps it bound.
fn bound_beside_closed(address: SocketAddr) -> rustix::io::Result<OwnedFd> {
    let socket = bound(Protocol::Tcp, address, true)?;
    listen(&socket, 0)?;
    sockopt::set_socket_reuseaddr(&socket, false)?;
    shutdown(&socket, Shutdown::Read)?;
    Ok(socket)
}

fn chosen(socket: &OwnedFd, doing: impl Fn() -> String) -> Result<u16> {
    let name = getsockname(socket).map_err(|errno| Error::system(doing(), errno))?;
    SocketAddr::try_from(name)
        .map(|name| name.port())
        .map_err(|_| Error::malformed(doing()))
}

fn family(address: SocketAddr) -> AddressFamily {
    if address.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    }
}
