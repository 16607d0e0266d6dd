//! Who has a port: for the message of a conflict, so slow is fine and unknown is an answer.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::MetadataExt;

use crate::ports::Protocol;

/// The name and ID of a process that has a socket on that address and port, or on all addresses.
pub(crate) fn holder(protocol: Protocol, wanted: SocketAddr) -> Option<(String, u32)> {
    let name = match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Sctp => return None,
    };
    // Sockets of IPv6 may be in the way of IPv4 as well, and those of its own are more likely to be.
    let tables: &[&str] = if wanted.is_ipv4() { &["", "6"] } else { &["6"] };
    let inodes = tables
        .iter()
        .map(|suffix| inodes(&format!("{name}{suffix}"), wanted))
        .find(|inodes| !inodes.is_empty())
        .unwrap_or_default();
    if inodes.is_empty() {
        return None;
    }
    let processes = fs::read_dir("/proc").ok()?;
    let mut pids: Vec<u32> = processes
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    pids.sort_unstable();
    pids.into_iter()
        .find(|pid| has_socket(*pid, &inodes))
        .map(|pid| {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            (name.trim_end().to_owned(), pid)
        })
}

fn inodes(table: &str, wanted: SocketAddr) -> Vec<u64> {
    let text = fs::read_to_string(format!("/proc/thread-self/net/{table}")).unwrap_or_default();
    text.lines()
        .skip(1)
        .filter_map(|line| inode(line, wanted))
        .collect()
}

/// The inode of a line of /proc/net/{tcp,udp}{,6} whose local end is in the way of the wanted one.
/// Sockets in `TIME_WAIT` have inode 0.
fn inode(line: &str, wanted: SocketAddr) -> Option<u64> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let (address, port) = fields.next()?.split_once(':')?;
    if u16::from_str_radix(port, 16).ok()? != wanted.port() {
        return None;
    }
    let same = match (address.len(), wanted.ip()) {
        (8, IpAddr::V4(ip)) => {
            let local = Ipv4Addr::from(u32::from_str_radix(address, 16).ok()?.to_ne_bytes());
            local.is_unspecified() || ip.is_unspecified() || local == ip
        }
        (32, IpAddr::V6(ip)) => {
            let local = ipv6(address)?;
            local.is_unspecified() || ip.is_unspecified() || local == ip
        }
        // An IPv6 socket is in the way of IPv4 when it is bound to all addresses.
        _ => address.bytes().all(|digit| digit == b'0') || wanted.ip().is_unspecified(),
    };
    if !same {
        return None;
    }
    fields.nth(7)?.parse().ok().filter(|inode| *inode != 0)
}

/// Four groups of 4 bytes, each in the machine's order.
fn ipv6(digits: &str) -> Option<Ipv6Addr> {
    let mut octets = [0; 16];
    for (place, group) in octets.chunks_exact_mut(4).enumerate() {
        let digits = digits.get(place * 8..place * 8 + 8)?;
        group.copy_from_slice(&u32::from_str_radix(digits, 16).ok()?.to_ne_bytes());
    }
    Some(octets.into())
}

fn has_socket(pid: u32, inodes: &[u64]) -> bool {
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return false;
    };
    descriptors.flatten().any(|entry| {
        fs::read_link(entry.path())
            .is_ok_and(|target| target.to_string_lossy().starts_with("socket:["))
            && fs::metadata(entry.path()).is_ok_and(|metadata| inodes.contains(&metadata.ino()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn a_listener_is_found() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (name, pid) = holder(Protocol::Tcp, address).unwrap();
        assert_eq!(pid, std::process::id());
        assert!(!name.is_empty());
        assert_eq!(holder(Protocol::Udp, address), None);
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn lines_of_the_tables_are_read() {
        let line = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0";
        let at = |text: &str| inode(line, text.parse().unwrap());
        assert_eq!(at("127.0.0.1:8080"), Some(4711));
        assert_eq!(at("0.0.0.0:8080"), Some(4711));
        assert_eq!(at("127.0.0.2:8080"), None);
        assert_eq!(at("127.0.0.1:8081"), None);
        let line = "   0: 000000FD000000000000000002000000:1F90 00000000000000000000000000000000:0000 0A 00000000:00000000 \
                    00:00000000 00000000     0        0 4712 1 0";
        let at = |text: &str| inode(line, text.parse().unwrap());
        assert_eq!(at("[fd00::2]:8080"), Some(4712));
        assert_eq!(at("[fd00::3]:8080"), None);
        assert_eq!(at("[::]:8080"), Some(4712));
        assert_eq!(inode("rubbish", "127.0.0.1:1".parse().unwrap()), None);
    }
}
