//! A syslog daemon, local or over the network (RFC 3164, RFC 5424), in the forms that Docker's driver sends.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::entry::Entry;
use super::remote::{Keeper, Line, PATIENCE};
use super::time::{civil, fixed};
use crate::clock;
use crate::streams::Stream;

const ERROR: u8 = 3;
const INFORMATION: u8 = 6;
/// Where a local daemon listens.
const LOCAL: [&str; 3] = ["/dev/log", "/var/run/syslog", "/var/run/log"];

/// Where a daemon is.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Address {
    /// Wherever the host's is.
    Local,
    /// A stream socket.
    Unix(PathBuf),
    /// A datagram socket.
    Unixgram(PathBuf),
    /// Any of these, which are one host's.
    Udp(Vec<SocketAddr>),
    /// The same.
    Tcp(Vec<SocketAddr>),
}

/// How a message is written.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// As local daemons take it.
    Unix,
    /// With the host's name.
    Rfc3164,
    /// The structured form, to the second.
    Rfc5424,
    /// The same, to the microsecond.
    Rfc5424Micro,
}

/// Where messages go and what they say besides.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// To whom.
    pub address: Address,
    /// 0 to 23.
    pub facility: u8,
    /// How.
    pub format: Form,
    /// The tag.
    pub tag: String,
    /// The host's name.
    pub hostname: String,
    /// Seconds that local time is ahead of UTC.
    #[serde(default)]
    pub offset: i32,
}

/// Makes messages.
#[derive(Debug)]
pub struct Syslog {
    options: Options,
}

impl Syslog {
    /// For one container.
    pub fn new(options: &Options) -> Self {
        Self {
            options: options.clone(),
        }
    }

    fn head(&self, severity: u8, now: u64) -> String {
        let Options {
            facility,
            format,
            tag,
            hostname,
            offset,
            ..
        } = &self.options;
        let (priority, process) = (facility * 8 + severity, std::process::id());
        let stamp = stamp(*format, now, *offset);
        let mut head = format!("<{priority}>");
        // Writing to a string cannot fail.
        let _ = match format {
            Form::Unix => write!(head, "{stamp} {tag}[{process}]: "),
            Form::Rfc3164 => write!(head, "{stamp} {hostname} {tag}[{process}]: "),
            Form::Rfc5424 | Form::Rfc5424Micro => {
                write!(head, "1 {stamp} {hostname} {tag} {process} {tag} - ")
            }
        };
        head
    }
}

impl Keeper for Syslog {
    fn encode(&mut self, entry: &Entry<'_>) -> Option<Vec<u8>> {
        if entry.line.is_empty() {
            return None;
        }
        let severity = match entry.stream {
            Stream::Stdout => INFORMATION,
            Stream::Stderr => ERROR,
        };
        let mut out = self.head(severity, clock::now()).into_bytes();
        out.extend_from_slice(entry.line);
        out.push(b'\n');
        Some(out)
    }

    fn line(&self) -> Box<dyn Line> {
        Box::new(Wire {
            address: self.options.address.clone(),
            open: None,
        })
    }
}

/// A time as a form has it.
fn stamp(form: Form, now: u64, offset: i32) -> String {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let local = now.saturating_add_signed(i64::from(offset) * 1_000_000_000);
    let text = fixed(local);
    let text = std::str::from_utf8(&text).unwrap_or_default();
    let (_, month, day) = civil(local / 86_400_000_000_000);
    let month = usize::try_from(month).map_or(0, |month| month - 1);
    let zone = if offset == 0 {
        "Z".to_owned()
    } else {
        let minutes = offset.unsigned_abs() / 60;
        let sign = if offset < 0 { '-' } else { '+' };
        format!("{sign}{:02}:{:02}", minutes / 60, minutes % 60)
    };
    match form {
        Form::Unix | Form::Rfc3164 => format!("{} {day:2} {}", MONTHS[month], &text[11..19]),
        Form::Rfc5424 => format!("{}{zone}", &text[..19]),
        Form::Rfc5424Micro => format!("{}{zone}", &text[..26]),
    }
}

enum Open {
    Datagram(UnixDatagram),
    Stream(UnixStream),
    Udp(UdpSocket),
    Tcp(TcpStream),
}

struct Wire {
    address: Address,
    open: Option<Open>,
}

impl Line for Wire {
    fn connect(&mut self) -> io::Result<()> {
        self.open = None;
        self.open = Some(match &self.address {
            Address::Local => local()?,
            Address::Unix(path) => stream(path)?,
            Address::Unixgram(path) => datagram(path)?,
            Address::Udp(addresses) => first("udp", addresses, |address| {
                let any: IpAddr = if address.is_ipv4() {
                    std::net::Ipv4Addr::UNSPECIFIED.into()
                } else {
                    std::net::Ipv6Addr::UNSPECIFIED.into()
                };
                let socket = UdpSocket::bind((any, 0))?;
                socket.connect(address)?;
                Ok(Open::Udp(socket))
            })?,
            Address::Tcp(addresses) => first("tcp", addresses, |address| {
                let socket = TcpStream::connect_timeout(address, PATIENCE)?;
                socket.set_write_timeout(Some(PATIENCE))?;
                Ok(Open::Tcp(socket))
            })?,
        });
        Ok(())
    }

    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        let sent = match &mut self.open {
            None => return Err(io::ErrorKind::NotConnected.into()),
            Some(Open::Datagram(socket)) => socket.send(message).map(drop),
            Some(Open::Udp(socket)) => socket.send(message).map(drop),
            Some(Open::Stream(socket)) => socket.write_all(message),
            Some(Open::Tcp(socket)) => socket.write_all(message),
        };
        if sent.is_err() {
            // A message that was sent in part would be taken for the beginning of the next.
            self.open = None;
        }
        sent
    }
}

fn datagram(path: &Path) -> io::Result<Open> {
    let socket = UnixDatagram::unbound()?;
    let failed = |error| named(&format!("dial unixgram {}", path.display()), &error);
    socket.connect(path).map_err(failed)?;
    socket.set_write_timeout(Some(PATIENCE))?;
    Ok(Open::Datagram(socket))
}

fn stream(path: &Path) -> io::Result<Open> {
    let failed = |error| named(&format!("dial unix {}", path.display()), &error);
    let socket = UnixStream::connect(path).map_err(failed)?;
    socket.set_write_timeout(Some(PATIENCE))?;
    Ok(Open::Stream(socket))
}

fn local() -> io::Result<Open> {
    let paths = LOCAL.map(Path::new);
    let found = paths.iter().find_map(|path| datagram(path).ok());
    found
        .or_else(|| paths.iter().find_map(|path| stream(path).ok()))
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "Unix syslog delivery error"))
}

fn first(
    network: &str,
    addresses: &[SocketAddr],
    mut open: impl FnMut(&SocketAddr) -> io::Result<Open>,
) -> io::Result<Open> {
    let mut failed = io::Error::new(io::ErrorKind::NotFound, "no address");
    for address in addresses {
        match open(address) {
            Ok(found) => return Ok(found),
            Err(error) => failed = named(&format!("dial {network} {address}"), &error),
        }
    }
    Err(failed)
}

/// An error as Docker words it.
fn named(what: &str, error: &io::Error) -> io::Error {
    let words = match error.kind() {
        io::ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
        io::ErrorKind::NotFound => "connect: no such file or directory".to_owned(),
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => "i/o timeout".to_owned(),
        _ => error.to_string(),
    };
    io::Error::new(error.kind(), format!("{what}: {words}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_those_of_docker() {
        let process = std::process::id();
        for (format, offset, expected) in [
            (Form::Unix, 0, format!("<30>Feb  9 03:04:05 t[{process}]: ")),
            (
                Form::Rfc3164,
                3600,
                format!("<30>Feb  9 04:04:05 h t[{process}]: "),
            ),
            (
                Form::Rfc5424,
                0,
                format!("<30>1 2024-02-09T03:04:05Z h t {process} t - "),
            ),
            (
                Form::Rfc5424Micro,
                -5400,
                format!("<30>1 2024-02-09T01:34:05.123456-01:30 h t {process} t - "),
            ),
        ] {
            let syslog = Syslog::new(&Options {
                address: Address::Local,
                facility: 3,
                format,
                tag: "t".to_owned(),
                hostname: "h".to_owned(),
                offset,
            });
            let now = super::super::time::parse(b"2024-02-09T03:04:05.123456789Z").unwrap();
            assert_eq!(syslog.head(INFORMATION, now), expected);
        }
    }
}
