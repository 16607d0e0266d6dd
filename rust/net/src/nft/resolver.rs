//! The table that a container's namespace gets for its resolver, in nft's language:
//!
//! ```text
//! table ip knarr-dns {
//!   chain questions {
//!     type filter hook output priority 200
//!     ip daddr 127.0.0.11 udp dport 53 udp dport set <port of the udp socket>
//!     ip daddr 127.0.0.11 tcp dport 53 tcp dport set <port of the tcp socket>
//!   }
//!   chain answers {
//!     type filter hook output priority raw
//!     ip saddr 127.0.0.11 udp sport <port of the udp socket> udp sport set 53
//!     ip saddr 127.0.0.11 tcp sport <port of the tcp socket> tcp sport set 53
//!   }
//! }
//! ```
//!
//! Ports are written into the packets, each way. Network address translation would do it too, and takes as long to set
//! up, but has the kernel track every connection of the container: a third more for each packet. Here there is nothing
//! to remember, as it is always the same two ports. Where a program in the container has connections tracked or
//! filtered, it sees port 53 both ways: questions are changed after all that, and answers before.
//!
//! A datagram that its sender sent without a checksum, as almost nobody does, gets a wrong one and is lost.

use std::net::Ipv4Addr;

use super::expression::End;
use super::ruleset::{HOOK_OUTPUT, Hook, PRIORITY_RAW, add_rule, create_chain};
use super::{FAMILY_IPV4, Transaction};
use crate::error::Result;
use crate::netlink::Socket;
use crate::ports::Protocol;

const TABLE: &str = "knarr-dns";
const PORT: u16 = 53;
/// After what filters (0) and what labels (50).
const PRIORITY_LATE: i32 = 200;

/// Have the sockets on these ports of an address answer for port 53, in the namespace of the netlink socket. Those that
/// did so before do no longer.
pub(crate) fn redirect_resolver(
    socket: &mut Socket,
    address: Ipv4Addr,
    ports: [(Protocol, u16); 2],
) -> Result<()> {
    let mut transaction = Transaction::begin(FAMILY_IPV4, TABLE.to_owned(), None);
    transaction.create_table();
    let chains = [
        ("questions", PRIORITY_LATE, End::Destination),
        ("answers", PRIORITY_RAW, End::Source),
    ];
    for (name, priority, end) in chains {
        let hook = Hook {
            kind: "filter",
            number: HOOK_OUTPUT,
            priority,
        };
        create_chain(&mut transaction, name, &hook);
        for (number, (protocol, port)) in (1..).zip(ports) {
            let (from, to) = match end {
                End::Destination => (PORT, port),
                End::Source => (port, PORT),
            };
            add_rule(&mut transaction, name, number, |rule| {
                rule.address_is(end, address)
                    .protocol_is(protocol)
                    .port_is(end, from)
                    .set_port(end, protocol, to)
            });
        }
    }
    transaction.commit(socket)
}
