//! What an engine's table holds, in nft's language:
//!
//! ```text
//! table inet knarr-<engine> {
//!   set bridges { type ifname; }                    # the engine's bridges
//!   set paths   { type ifname . ifname; }           # from which bridge to which: to itself, if to any
//!   set internal { type ifname; }                   # bridges that nothing leaves, and nothing enters
//!   set routed  { type ifname; }                    # bridges whose containers keep their own addresses outside
//!   set subnets  { type ipv4_addr; flags interval; } # theirs
//!   set subnets6 { type ipv6_addr; flags interval; }
//!   map forwards      { type inet_proto . ipv4_addr . inet_service : ipv4_addr . inet_service; }
//!   map forwards-any  { type inet_proto . inet_service : ipv4_addr . inet_service; }
//!   map forwards6     { type inet_proto . ipv6_addr . inet_service : ipv6_addr . inet_service; }
//!   map forwards6-any { type inet_proto . inet_service : ipv6_addr . inet_service; }
//!   map loopback6     { type inet_proto . inet_service : ipv6_addr; }
//!   set virtual  { type ipv4_addr; }                 # addresses of balanced entries
//!   set virtual6 { type ipv6_addr; }
//!   map balanced      { type inet_proto . ipv4_addr . inet_service . mark : ipv4_addr . inet_service }
//!   map balanced-any  { type inet_proto . inet_service . mark : ipv4_addr . inet_service }
//!   map balanced6     { type inet_proto . ipv6_addr . inet_service . mark : ipv6_addr . inet_service }
//!   map balanced6-any { type inet_proto . inet_service . mark : ipv6_addr . inet_service }
//!   set own-virtual  { type ifname . ipv4_addr; }    # the same, with the bridge that each is on
//!   set own-virtual6 { type ifname . ipv6_addr; }
//!   set limited  { type ipv4_addr; }                 # addresses of containers that have an allow-list
//!   set limited6 { type ipv6_addr; }
//!   set limited-bridges { type ifname; }             # bridges of networks that have one
//!   set reachable  { type ipv4_addr . ipv4_addr . inet_proto . inet_service; flags interval, timeout; }
//!   set reachable6 { type ipv6_addr . ipv6_addr . inet_proto . inet_service; flags interval, timeout; }
//!   set reachable-from  { type ifname . ipv4_addr . inet_proto . inet_service; flags interval, timeout; }
//!   set reachable-from6 { type ifname . ipv6_addr . inet_proto . inet_service; flags interval, timeout; }
//!   chain guard {       # bridges have route_localnet: containers must not reach the host's loopback
//!     type filter hook prerouting priority raw
//!     iifname @bridges ip daddr 127.0.0.0/8 drop
//!     iifname @bridges ip saddr 127.0.0.0/8 drop
//!     iifname @bridges ip6 daddr ::1 drop
//!     iifname @bridges ip6 saddr ::1 drop
//!   }
//!   chain egress {      # what a limited container sends, to wherever it says: before any address is translated
//!     type filter hook prerouting priority mangle
//!     ct state established,related accept
//!     ip saddr != @limited accept
//!     ip6 saddr != @limited6 accept
//!     icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept   # two rules
//!     iifname . fib daddr oifname @paths accept                        # to its own network
//!     iifname . ip daddr @own-virtual accept
//!     iifname . ip6 daddr @own-virtual6 accept
//!     ip saddr . ip daddr . meta l4proto . th dport @reachable accept
//!     ip6 saddr . ip6 daddr . meta l4proto . th dport @reachable6 accept
//!     reject with icmpx admin-prohibited
//!   }
//!   chain egress-bridges {  # the same of limited networks
//!     type filter hook prerouting priority mangle + 1
//!     ct state established,related accept
//!     iifname != @limited-bridges accept
//!     icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept   # two rules
//!     iifname . fib daddr oifname @paths accept
//!     iifname . ip daddr @own-virtual accept
//!     iifname . ip6 daddr @own-virtual6 accept
//!     iifname . ip daddr . meta l4proto . th dport @reachable-from accept
//!     iifname . ip6 daddr . meta l4proto . th dport @reachable-from6 accept
//!     reject with icmpx admin-prohibited
//!   }
//!   chain prerouting {  # 127.0.0.0/8 from outside stays what it is, a martian: a port published
//!                       # on 127.0.0.1 is not for the neighbours
//!     type nat hook prerouting priority dstnat
//!     ip daddr != 127.0.0.0/8 dnat ip to meta l4proto . ip daddr . th dport map @forwards
//!     ip daddr != 127.0.0.0/8 fib daddr type local dnat ip to meta l4proto . th dport map @forwards-any
//!     ip6 daddr != ::1 dnat ip6 to meta l4proto . ip6 daddr . th dport map @forwards6
//!     ip6 daddr != ::1 fib daddr type local dnat ip6 to meta l4proto . th dport map @forwards6-any
//!     ip daddr != 127.0.0.0/8 dnat ip to meta l4proto . ip daddr . th dport . numgen random mod 240 map @balanced
//!     ip daddr != 127.0.0.0/8 fib daddr type local dnat ip to meta l4proto . th dport . numgen random mod 240 map @balanced-any
//!     ip6 daddr != ::1 dnat ip6 to meta l4proto . ip6 daddr . th dport . numgen random mod 240 map @balanced6
//!     ip6 daddr != ::1 fib daddr type local dnat ip6 to meta l4proto . th dport . numgen random mod 240 map @balanced6-any
//!   }
//!   chain output {      # the host's own connections, loopback included
//!     type nat hook output priority dstnat
//!     dnat ip to meta l4proto . ip daddr . th dport map @forwards
//!     meta nfproto ipv4 fib daddr type local dnat ip to meta l4proto . th dport map @forwards-any
//!     ip6 saddr != ::1 dnat ip6 to meta l4proto . ip6 daddr . th dport map @forwards6
//!     ip6 saddr != ::1 fib daddr type local dnat ip6 to meta l4proto . th dport map @forwards6-any
//!     dnat ip to meta l4proto . ip daddr . th dport . numgen random mod 240 map @balanced
//!     meta nfproto ipv4 fib daddr type local dnat ip to meta l4proto . th dport . numgen random mod 240 map @balanced-any
//!     ip6 saddr != ::1 dnat ip6 to meta l4proto . ip6 daddr . th dport . numgen random mod 240 map @balanced6
//!     ip6 saddr != ::1 fib daddr type local dnat ip6 to meta l4proto . th dport . numgen random mod 240 map @balanced6-any
//!   }
//!   chain input {       # an entry that nobody stands behind is not the host
//!     type filter hook input priority filter
//!     ip daddr @virtual ct state new reject            # port unreachable
//!     ip6 daddr @virtual6 ct state new reject
//!   }
//!   chain loopback {    # before connections are tracked
//!     type filter hook output priority raw
//!     ip6 saddr ::1 ip6 daddr ::1 ip6 saddr set meta l4proto . th dport map @loopback6
//!   }
//!   chain returning {   # after their NAT is undone
//!     type filter hook input priority 200
//!     iifname @bridges ip6 saddr ::1 ip6 daddr != ::1 ip6 daddr set ::1
//!   }
//!   chain postrouting {
//!     type nat hook postrouting priority srcnat
//!     iifname @bridges iifname != @routed oifname != @bridges masquerade  # to the world
//!     ip saddr 127.0.0.0/8 oifname @bridges masquerade                 # from the host's loopback
//!     ip saddr @subnets oifname @bridges ct status dnat masquerade     # hairpin: the answer must come back here
//!     ip6 saddr @subnets6 oifname @bridges ct status dnat masquerade
//!   }
//!   chain forward {     # of both families
//!     type filter hook forward priority filter
//!     iifname @internal iifname . oifname != @paths drop               # first: whatever the flow is
//!     oifname @internal iifname . oifname != @paths drop
//!     oifname @bridges ct state established,related accept
//!     iifname . oifname @paths accept
//!     oifname @bridges ct status dnat accept
//!     oifname @bridges drop                                            # unsolicited, from anywhere
//!   }
//! }
//! ```
//!
//! So a packet from one bridge to another is dropped, but for published ports. An isolated bridge has no path even to
//! itself: frames between its ports are the bridge's to drop (`IFLA_BRPORT_ISOLATED`), but who sends them to the host,
//! for it to route them back, comes by here.
//!
//! What comes by a bridge for `::1` the kernel drops, whatever the NAT was: IPv6 has no `route_localnet`. So who asks a
//! published port from `::1` is given the bridge's own address before anything is tracked, and the answer is given `::1` as
//! the last of all: addresses are written into the packets, as `loopback6` says. The rules that translate leave alone what
//! still comes from `::1`, so that a connection to a port that is not in there is refused, and does not wait for ever.
//!
//! `internal` and `routed` hold the exceptions: a table that an earlier version wrote means the same without them.
//! The source address of outside clients is kept. An `accept` here ends this table's chain only:
//! `foreign` has what is done about tables that drop forwarded packets.

use std::net::Ipv6Addr;

use super::expression::{Complete, End, Rule};
use super::sets::{
    BALANCED, BALANCED_ANY, BALANCED6, BALANCED6_ANY, BRIDGES, FORWARDS, FORWARDS_ANY, FORWARDS6,
    FORWARDS6_ANY, INTERNAL, LIMITED, LIMITED_BRIDGES, LIMITED6, LOOPBACK6, OWN_VIRTUAL,
    OWN_VIRTUAL6, PATHS, REACHABLE, REACHABLE_FROM, REACHABLE_FROM6, REACHABLE6, ROUTED, SETS,
    SLOTS, SUBNETS, SUBNETS6, VIRTUAL, VIRTUAL6, create_sets,
};
use super::{DELETE_RULE, NEW_CHAIN, NEW_RULE, RULE_CHAIN, Transaction};
use crate::address::Family::{V4, V6};
use crate::netlink::{APPEND, CREATE};

const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const CHAIN_TYPE: u16 = 7;
const HOOK_NUMBER: u16 = 1;
const HOOK_PRIORITY: u16 = 2;
const RULE_EXPRESSIONS: u16 = 4;
pub(super) const HOOK_PREROUTING: u32 = 0;
const HOOK_INPUT: u32 = 1;
pub(super) const HOOK_FORWARD: u32 = 2;
pub(super) const HOOK_OUTPUT: u32 = 3;
const HOOK_POSTROUTING: u32 = 4;
pub(super) const PRIORITY_RAW: i32 = -300;
/// Where the connection is known, and the destination is what the sender said.
const PRIORITY_MANGLE: i32 = -150;
const PRIORITY_DSTNAT: i32 = -100;
const PRIORITY_FILTER: i32 = 0;
const PRIORITY_SRCNAT: i32 = 100;
const PRIORITY_LATE: i32 = 200;

const STATE_ESTABLISHED: u32 = 1 << 1;
const STATE_RELATED: u32 = 1 << 2;
const STATE_NEW: u32 = 1 << 3;
/// Types of messages (of IPv6's ICMP, RFC 4861, section 4).
const NEIGHBOUR_SOLICITATION: u8 = 135;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;

const STATUS_DNAT: u32 = 1 << 5;

/// Where packets come by a chain.
pub(super) struct Hook {
    pub(super) kind: &'static str,
    pub(super) number: u32,
    pub(super) priority: i32,
}

struct Chain {
    name: &'static str,
    hook: Hook,
    rules: &'static [fn(&mut Rule<'_, '_>) -> Complete],
}

const CHAINS: [Chain; 10] = [
    Chain {
        name: "guard",
        hook: Hook {
            kind: "filter",
            number: HOOK_PREROUTING,
            priority: PRIORITY_RAW,
        },
        rules: &[
            |rule| rule.input_in(BRIDGES).loopback(V4, End::Destination).drop(),
            |rule| rule.input_in(BRIDGES).loopback(V4, End::Source).drop(),
            |rule| rule.input_in(BRIDGES).loopback(V6, End::Destination).drop(),
            |rule| rule.input_in(BRIDGES).loopback(V6, End::Source).drop(),
        ],
    },
    Chain {
        name: "egress",
        hook: Hook {
            kind: "filter",
            number: HOOK_PREROUTING,
            priority: PRIORITY_MANGLE,
        },
        rules: &[
            |rule| rule.state(STATE_ESTABLISHED | STATE_RELATED).accept(),
            |rule| rule.source_not_in(V4, LIMITED).accept(),
            |rule| rule.source_not_in(V6, LIMITED6).accept(),
            |rule| rule.neighbour_message(NEIGHBOUR_SOLICITATION).accept(),
            |rule| rule.neighbour_message(NEIGHBOUR_ADVERTISEMENT).accept(),
            |rule| rule.path_by_route_in(PATHS).accept(),
            |rule| rule.input_and_destination_in(V4, OWN_VIRTUAL).accept(),
            |rule| rule.input_and_destination_in(V6, OWN_VIRTUAL6).accept(),
            |rule| rule.flow_in(V4, REACHABLE).accept(),
            |rule| rule.flow_in(V6, REACHABLE6).accept(),
            |rule| rule.prohibit(),
        ],
    },
    Chain {
        name: "egress-bridges",
        hook: Hook {
            kind: "filter",
            number: HOOK_PREROUTING,
            priority: PRIORITY_MANGLE + 1,
        },
        rules: &[
            |rule| rule.state(STATE_ESTABLISHED | STATE_RELATED).accept(),
            |rule| rule.input_not_in(LIMITED_BRIDGES).accept(),
            |rule| rule.neighbour_message(NEIGHBOUR_SOLICITATION).accept(),
            |rule| rule.neighbour_message(NEIGHBOUR_ADVERTISEMENT).accept(),
            |rule| rule.path_by_route_in(PATHS).accept(),
            |rule| rule.input_and_destination_in(V4, OWN_VIRTUAL).accept(),
            |rule| rule.input_and_destination_in(V6, OWN_VIRTUAL6).accept(),
            |rule| rule.flow_from_in(V4, REACHABLE_FROM).accept(),
            |rule| rule.flow_from_in(V6, REACHABLE_FROM6).accept(),
            |rule| rule.prohibit(),
        ],
    },
    Chain {
        name: "prerouting",
        hook: Hook {
            kind: "nat",
            number: HOOK_PREROUTING,
            priority: PRIORITY_DSTNAT,
        },
        rules: &[
            |rule| {
                rule.not_loopback(V4, End::Destination)
                    .forward_by_address(V4, FORWARDS)
            },
            |rule| {
                rule.not_loopback(V4, End::Destination)
                    .destination_local()
                    .forward_by_port(V4, FORWARDS_ANY)
            },
            |rule| {
                rule.not_loopback(V6, End::Destination)
                    .forward_by_address(V6, FORWARDS6)
            },
            |rule| {
                rule.not_loopback(V6, End::Destination)
                    .destination_local()
                    .forward_by_port(V6, FORWARDS6_ANY)
            },
            |rule| {
                rule.not_loopback(V4, End::Destination)
                    .balance_by_address(V4, BALANCED, SLOTS)
            },
            |rule| {
                rule.not_loopback(V4, End::Destination)
                    .destination_local()
                    .balance_by_port(V4, BALANCED_ANY, SLOTS)
            },
            |rule| {
                rule.not_loopback(V6, End::Destination)
                    .balance_by_address(V6, BALANCED6, SLOTS)
            },
            |rule| {
                rule.not_loopback(V6, End::Destination)
                    .destination_local()
                    .balance_by_port(V6, BALANCED6_ANY, SLOTS)
            },
        ],
    },
    Chain {
        name: "output",
        hook: Hook {
            kind: "nat",
            number: HOOK_OUTPUT,
            priority: PRIORITY_DSTNAT,
        },
        rules: &[
            |rule| rule.is(V4).forward_by_address(V4, FORWARDS),
            |rule| {
                rule.is(V4)
                    .destination_local()
                    .forward_by_port(V4, FORWARDS_ANY)
            },
            |rule| {
                rule.not_loopback(V6, End::Source)
                    .forward_by_address(V6, FORWARDS6)
            },
            |rule| {
                rule.not_loopback(V6, End::Source)
                    .destination_local()
                    .forward_by_port(V6, FORWARDS6_ANY)
            },
            |rule| rule.is(V4).balance_by_address(V4, BALANCED, SLOTS),
            |rule| {
                rule.is(V4)
                    .destination_local()
                    .balance_by_port(V4, BALANCED_ANY, SLOTS)
            },
            |rule| {
                rule.not_loopback(V6, End::Source)
                    .balance_by_address(V6, BALANCED6, SLOTS)
            },
            |rule| {
                rule.not_loopback(V6, End::Source)
                    .destination_local()
                    .balance_by_port(V6, BALANCED6_ANY, SLOTS)
            },
        ],
    },
    Chain {
        name: "input",
        hook: Hook {
            kind: "filter",
            number: HOOK_INPUT,
            priority: PRIORITY_FILTER,
        },
        rules: &[
            |rule| rule.destination_in(V4, VIRTUAL).state(STATE_NEW).reject(),
            |rule| rule.destination_in(V6, VIRTUAL6).state(STATE_NEW).reject(),
        ],
    },
    Chain {
        name: "loopback",
        hook: Hook {
            kind: "filter",
            number: HOOK_OUTPUT,
            priority: PRIORITY_RAW,
        },
        rules: &[|rule| {
            rule.loopback(V6, End::Source)
                .loopback(V6, End::Destination)
                .set_source_by_port(LOOPBACK6)
        }],
    },
    Chain {
        name: "returning",
        hook: Hook {
            kind: "filter",
            number: HOOK_INPUT,
            priority: PRIORITY_LATE,
        },
        rules: &[|rule| {
            rule.input_in(BRIDGES)
                .loopback(V6, End::Source)
                .not_loopback(V6, End::Destination)
                .set_destination(Ipv6Addr::LOCALHOST)
        }],
    },
    Chain {
        name: "postrouting",
        hook: Hook {
            kind: "nat",
            number: HOOK_POSTROUTING,
            priority: PRIORITY_SRCNAT,
        },
        rules: &[
            |rule| {
                rule.input_in(BRIDGES)
                    .input_not_in(ROUTED)
                    .output_not_in(BRIDGES)
                    .masquerade()
            },
            |rule| {
                rule.loopback(V4, End::Source)
                    .output_in(BRIDGES)
                    .masquerade()
            },
            |rule| {
                rule.source_in(V4, SUBNETS)
                    .output_in(BRIDGES)
                    .status(STATUS_DNAT)
                    .masquerade()
            },
            |rule| {
                rule.source_in(V6, SUBNETS6)
                    .output_in(BRIDGES)
                    .status(STATUS_DNAT)
                    .masquerade()
            },
        ],
    },
    Chain {
        name: "forward",
        hook: Hook {
            kind: "filter",
            number: HOOK_FORWARD,
            priority: PRIORITY_FILTER,
        },
        rules: &[
            |rule| rule.input_in(INTERNAL).path_not_in(PATHS).drop(),
            |rule| rule.output_in(INTERNAL).path_not_in(PATHS).drop(),
            |rule| {
                rule.output_in(BRIDGES)
                    .state(STATE_ESTABLISHED | STATE_RELATED)
                    .accept()
            },
            |rule| rule.path_in(PATHS).accept(),
            |rule| rule.output_in(BRIDGES).status(STATUS_DNAT).accept(),
            |rule| rule.output_in(BRIDGES).drop(),
        ],
    },
];

/// Create the table, its sets and chains where they are missing, and write all rules anew. Set
/// elements stay as they are.
pub(crate) fn write_ruleset(transaction: &mut Transaction) {
    transaction.create_table();
    create_sets(transaction, &SETS);
    for chain in &CHAINS {
        create_chain(transaction, chain.name, &chain.hook);
        for (number, write) in (1..).zip(chain.rules) {
            add_rule(transaction, chain.name, number, write);
        }
    }
}

/// Without a rule, whether it exists or not.
pub(super) fn create_chain(transaction: &mut Transaction, name: &str, hook: &Hook) {
    let doing = format!("create the nftables chain {name}");
    transaction.change(doing, NEW_CHAIN, CREATE, |body| {
        body.text(CHAIN_NAME, name);
        body.nest(CHAIN_HOOK, |body| {
            body.u32_be(HOOK_NUMBER, hook.number);
            body.i32_be(HOOK_PRIORITY, hook.priority);
        });
        body.text(CHAIN_TYPE, hook.kind);
    });
    let doing = format!("flush the nftables chain {name}");
    transaction.change(doing, DELETE_RULE, 0, |body| body.text(RULE_CHAIN, name));
}

/// Add a rule at the chain's end. The number is for the words of its error.
pub(super) fn add_rule(
    transaction: &mut Transaction,
    chain: &str,
    number: u32,
    write: impl FnOnce(&mut Rule<'_, '_>) -> Complete,
) {
    let doing = format!("add rule {number} of the nftables chain {chain}");
    transaction.change(doing, NEW_RULE, CREATE | APPEND, |body| {
        body.text(RULE_CHAIN, chain);
        body.nest(RULE_EXPRESSIONS, |list| {
            let Complete = write(&mut Rule { list });
        });
    });
}
