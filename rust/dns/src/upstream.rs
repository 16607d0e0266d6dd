//! Where names are asked for that are not ours.

use std::fs;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

/// How often the host's file is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// The servers that a client's other questions are passed to, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Upstreams {
    /// Those of the host's resolv.conf(5), as it is at the time.
    Host,
    /// These.
    Given(Vec<IpAddr>),
}

/// The host's resolv.conf.
#[derive(Debug)]
pub(crate) struct HostFile {
    path: PathBuf,
    looked: Option<Instant>,
    changed: Option<SystemTime>,
    /// Their ports are left open.
    servers: Vec<SocketAddr>,
}

impl HostFile {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self {
            path,
            looked: None,
            changed: None,
            servers: Vec::new(),
        }
    }

    /// Its servers now. A file that cannot be read has none.
    pub(crate) fn servers(&mut self) -> &[SocketAddr] {
        if self.looked.is_none_or(|looked| looked.elapsed() >= LOOK) {
            self.looked = Some(Instant::now());
            let changed = fs::metadata(&self.path)
                .and_then(|metadata| metadata.modified())
                .ok();
            if changed.is_none() || changed != self.changed {
                self.changed = changed;
                let text = fs::read(&self.path).unwrap_or_default();
                self.servers = servers(&String::from_utf8_lossy(&text));
            }
        }
        &self.servers
    }
}

fn servers(text: &str) -> Vec<SocketAddr> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let address = words
                .next()
                .filter(|word| *word == "nameserver")
                .and(words.next())?;
            server(address)
        })
        .collect()
}

/// An address, or a link-local one with its interface: `fe80::1%eth0`.
fn server(text: &str) -> Option<SocketAddr> {
    let Some((address, interface)) = text.split_once('%') else {
        return Some(SocketAddr::new(text.parse().ok()?, 0));
    };
    let address: Ipv6Addr = address.parse().ok()?;
    let scope = match interface.parse() {
        Ok(index) => index,
        Err(_) if interface.contains('/') => return None,
        Err(_) => fs::read_to_string(format!("/sys/class/net/{interface}/ifindex"))
            .ok()?
            .trim()
            .parse()
            .ok()?,
    };
    Some(SocketAddrV6::new(address, 0, 0, scope).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_read_and_followed() {
        let text = "# nameserver 1.1.1.1\nnameserver 10.0.0.1\n  nameserver ::1 x\noptions a\nnameserver bad\nnameserver\n";
        assert_eq!(
            servers(text),
            ["10.0.0.1:0", "[::1]:0"].map(|server| server.parse().unwrap())
        );
        let scoped = "nameserver fe80::1%lo\nnameserver fe80::2%7\nnameserver fe80::3%no-such\nnameserver fe80::4%../lo";
        assert_eq!(
            servers(scoped),
            ["[fe80::1%1]:0", "[fe80::2%7]:0"].map(|server| server.parse().unwrap())
        );
        let path = std::env::temp_dir().join(format!("knarr-dns-{}.conf", std::process::id()));
        let mut file = HostFile::new(path.clone());
        assert_eq!(file.servers().len(), 0);
        fs::write(&path, text).unwrap();
        file.looked = None;
        assert_eq!(file.servers().len(), 2);
        fs::remove_file(&path).unwrap();
        file.looked = None;
        assert_eq!(file.servers().len(), 0);
    }
}
