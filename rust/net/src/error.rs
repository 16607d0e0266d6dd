//! What can go wrong, and which word of the shared vocabulary it is.

use std::fmt;
use std::io;
use std::net::IpAddr;

use crate::ports::Protocol;

/// The result of everything in this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a network operation did not happen.
#[derive(Debug)]
pub enum Error {
    /// The kernel refused a netlink request.
    Refused {
        /// What was being done, to which object.
        doing: String,
        /// The kernel's errno.
        cause: io::Error,
        /// The kernel's own explanation, where it gave one.
        detail: Option<String>,
    },
    /// A system call other than a netlink request failed.
    System {
        /// What was being done, to which object.
        doing: String,
        /// The errno.
        cause: io::Error,
    },
    /// The kernel's answer did not have the shape that its protocol promises.
    Malformed {
        /// What was being done.
        doing: String,
    },
    /// A host port is in use.
    PortTaken {
        /// tcp, udp or sctp.
        protocol: Protocol,
        /// The host address asked for.
        address: IpAddr,
        /// The port asked for.
        port: u16,
        /// The process that has it, where that can be found: its name and ID.
        holder: Option<(String, u32)>,
    },
    /// A host port is published by another container of this engine.
    PortOurs {
        /// tcp, udp or sctp.
        protocol: Protocol,
        /// The host address asked for.
        address: IpAddr,
        /// The port asked for.
        port: u16,
        /// The container's ID.
        owner: String,
    },
    /// Every host port of a range is in use.
    RangeTaken {
        /// tcp, udp or sctp.
        protocol: Protocol,
        /// The host address asked for.
        address: IpAddr,
        /// The first port asked for.
        first: u16,
        /// The last.
        last: u16,
    },
    /// A host address to publish on is not one of this host's.
    NotLocal {
        /// The address asked for.
        address: IpAddr,
    },
    /// A link of that name exists and is not what we make under this name.
    Occupied {
        /// The link's name.
        link: String,
        /// What was wanted of it.
        wanted: &'static str,
    },
    /// The interface of the host that a network is on has gone.
    NoParent {
        /// Its name.
        parent: String,
    },
    /// The interface of the host that a network is on takes no more links, or none of that kind.
    ParentBusy {
        /// macvlan or ipvlan.
        kind: &'static str,
        /// The interface's name.
        parent: String,
        /// Why, and what helps.
        why: &'static str,
    },
    /// Text or a value that names no such thing.
    Invalid {
        /// What was to be read: "engine ID", "address".
        what: &'static str,
        /// What was given.
        value: String,
        /// What it should look like.
        expected: &'static str,
    },
    /// Something this kernel, or this version of knarr, does not do.
    Unsupported {
        /// The feature.
        what: String,
        /// What would help.
        remedy: &'static str,
    },
}

impl Error {
    /// The word of the engine's closed error vocabulary: `Conflict`, `InvalidArgument`, ...
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::PortTaken { .. }
            | Self::PortOurs { .. }
            | Self::RangeTaken { .. }
            | Self::Occupied { .. }
            | Self::ParentBusy { .. } => "Conflict",
            Self::NoParent { .. } => "Unavailable",
            Self::Invalid { .. } | Self::NotLocal { .. } => "InvalidArgument",
            Self::Unsupported { .. } => "Unsupported",
            Self::Malformed { .. } => "Internal",
            Self::Refused { cause, .. } | Self::System { cause, .. } => kind_of(cause),
        }
    }

    pub(crate) fn system(doing: impl Into<String>, cause: impl Into<io::Error>) -> Self {
        Self::System {
            doing: doing.into(),
            cause: cause.into(),
        }
    }

    pub(crate) fn malformed(doing: impl Into<String>) -> Self {
        Self::Malformed {
            doing: doing.into(),
        }
    }

    /// The kernel's errno, if this is its refusal.
    pub(crate) fn errno(&self) -> Option<i32> {
        match self {
            Self::Refused { cause, .. } | Self::System { cause, .. } => cause.raw_os_error(),
            _ => None,
        }
    }
}

fn kind_of(cause: &io::Error) -> &'static str {
    match cause.kind() {
        io::ErrorKind::PermissionDenied => "PermissionDenied",
        io::ErrorKind::NotFound => "NotFound",
        io::ErrorKind::AlreadyExists | io::ErrorKind::AddrInUse | io::ErrorKind::ResourceBusy => {
            "Conflict"
        }
        io::ErrorKind::Unsupported => "Unsupported",
        io::ErrorKind::OutOfMemory | io::ErrorKind::WouldBlock => "Unavailable",
        _ => "Internal",
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused {
                doing,
                cause,
                detail: Some(detail),
            } => write!(f, "{doing}: {cause}: {detail}"),
            Self::Refused {
                doing,
                cause,
                detail: None,
            }
            | Self::System { doing, cause } => {
                write!(f, "{doing}: {cause}")
            }
            Self::Malformed { doing } => write!(f, "{doing}: the kernel's answer makes no sense"),
            Self::PortTaken {
                protocol,
                address,
                port,
                holder,
            } => {
                write!(
                    f,
                    "Bind for {}/{protocol} failed: port is already allocated",
                    endpoint(*address, *port)
                )?;
                match holder {
                    Some((name, pid)) => write!(
                        f,
                        " by {name} (process {pid}); stop it or publish another port"
                    ),
                    None => write!(f, "; publish another port"),
                }
            }
            Self::PortOurs {
                protocol,
                address,
                port,
                owner,
            } => write!(
                f,
                "Bind for {}/{protocol} failed: port is already allocated by container {owner}; stop it or publish \
                 another port",
                endpoint(*address, *port)
            ),
            Self::RangeTaken {
                protocol,
                address,
                first,
                last,
            } => write!(
                f,
                "Bind for {}-{last}/{protocol} failed: all ports of the range are already allocated; publish others",
                endpoint(*address, *first)
            ),
            Self::NotLocal { address } => {
                write!(
                    f,
                    "cannot publish on {address}: it is not an address of this host"
                )
            }
            Self::Occupied { link, wanted } => {
                write!(
                    f,
                    "a network interface named {link} exists and is not {wanted}; rename or delete it"
                )
            }
            Self::NoParent { parent } => write!(
                f,
                "the requested parent interface {parent} was not found on the host; bring it back, or remove the network"
            ),
            Self::ParentBusy { kind, parent, why } => {
                write!(f, "failed to create the {kind} port on {parent}: {why}")
            }
            Self::Invalid {
                what,
                value,
                expected,
            } => {
                write!(f, "invalid {what} {value:?}: it should be {expected}")
            }
            Self::Unsupported { what, remedy } => {
                write!(f, "{what} is not supported here: {remedy}")
            }
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Refused { cause, .. } | Self::System { cause, .. } => Some(cause),
            _ => None,
        }
    }
}

fn endpoint(address: IpAddr, port: u16) -> String {
    std::net::SocketAddr::new(address, port).to_string()
}
