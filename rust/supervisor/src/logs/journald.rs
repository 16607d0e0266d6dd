//! The journal of the host, by its native protocol (systemd's `JOURNAL_NATIVE_PROTOCOL`), with Docker's fields.
//!
//! An entry is one datagram of fields. None is too large for one: its fields came in a packet of our own.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::entry::Entry;
use super::remote::{Keeper, Line, PATIENCE};
use super::rfc3339;
use crate::streams::Stream;

/// Where the journal is, and what its entries say besides.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// Its socket.
    pub socket: PathBuf,
    /// The same for all entries of the container.
    pub fields: BTreeMap<String, String>,
}

/// Makes entries of the journal.
#[derive(Debug)]
pub struct Journald {
    socket: PathBuf,
    fields: Vec<u8>,
    ordinal: u64,
}

impl Journald {
    /// For one container.
    pub fn new(options: &Options) -> Self {
        let mut fields = Vec::new();
        for (name, value) in &options.fields {
            field(&mut fields, name, value.as_bytes());
        }
        let epoch = super::random_id();
        field(&mut fields, "CONTAINER_LOG_EPOCH", epoch.as_bytes());
        Self {
            socket: options.socket.clone(),
            fields,
            ordinal: 0,
        }
    }
}

impl Keeper for Journald {
    fn encode(&mut self, entry: &Entry<'_>) -> Option<Vec<u8>> {
        self.ordinal += 1;
        let mut out = self.fields.clone();
        let priority = match entry.stream {
            Stream::Stdout => "6",
            Stream::Stderr => "3",
        };
        field(&mut out, "PRIORITY", priority.as_bytes());
        field(&mut out, "MESSAGE", entry.line);
        field(&mut out, "SYSLOG_TIMESTAMP", rfc3339(entry.time).as_bytes());
        let ordinal = self.ordinal.to_string();
        field(&mut out, "CONTAINER_LOG_ORDINAL", ordinal.as_bytes());
        if let Some(part) = entry.part {
            field(&mut out, "CONTAINER_PARTIAL_ID", part.id.as_bytes());
            let ordinal = part.ordinal.to_string();
            field(&mut out, "CONTAINER_PARTIAL_ORDINAL", ordinal.as_bytes());
            let last = part.last.to_string();
            field(&mut out, "CONTAINER_PARTIAL_LAST", last.as_bytes());
            if !part.last {
                field(&mut out, "CONTAINER_PARTIAL_MESSAGE", b"true");
            }
        }
        Some(out)
    }

    fn line(&self) -> Box<dyn Line> {
        Box::new(Socket {
            path: self.socket.clone(),
            socket: None,
        })
    }
}

/// Append a field; a value with a newline in it goes behind its length.
fn field(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    if value.contains(&b'\n') {
        out.push(b'\n');
        let length = u64::try_from(value.len()).unwrap_or(u64::MAX);
        out.extend_from_slice(&length.to_le_bytes());
    } else {
        out.push(b'=');
    }
    out.extend_from_slice(value);
    out.push(b'\n');
}

struct Socket {
    path: PathBuf,
    socket: Option<UnixDatagram>,
}

impl Line for Socket {
    fn connect(&mut self) -> io::Result<()> {
        self.socket = None;
        let socket = UnixDatagram::unbound()?;
        let disabled = |_| {
            io::Error::new(
                io::ErrorKind::NotFound,
                "journald is not enabled on this host",
            )
        };
        socket.connect(&self.path).map_err(disabled)?;
        socket.set_write_timeout(Some(PATIENCE))?;
        self.socket = Some(socket);
        Ok(())
    }

    fn send(&mut self, entry: &[u8]) -> io::Result<()> {
        let Some(socket) = &self.socket else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        socket.send(entry).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_with_newlines_goes_behind_its_length() {
        let mut out = Vec::new();
        field(&mut out, "A", b"x=y");
        field(&mut out, "B", b"1\n2");
        assert_eq!(out, b"A=x=y\nB\n\x03\0\0\0\0\0\0\x001\n2\n");
    }
}
