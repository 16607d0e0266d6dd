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
//!   set virtual  { type ipv4_addr; }                 # addresses of balanced entries, which are IPv4's
//!   map balanced     { type inet_proto . ipv4_addr . inet_service . mark : ipv4_addr . inet_service }
//!   map balanced-any { type inet_proto . inet_service . mark : ipv4_addr . inet_service }
//!   chain guard {       # bridges have route_localnet: containers must not reach the host's loopback
//!     type filter hook prerouting priority raw
//!     iifname @bridges ip daddr 127.0.0.0/8 drop
//!     iifname @bridges ip saddr 127.0.0.0/8 drop
//!     iifname @bridges ip6 daddr ::1 drop
//!     iifname @bridges ip6 saddr ::1 drop
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
//!   }
//!   chain output {      # the host's own connections, loopback included
//!     type nat hook output priority dstnat
//!     dnat ip to meta l4proto . ip daddr . th dport map @forwards
//!     meta nfproto ipv4 fib daddr type local dnat ip to meta l4proto . th dport map @forwards-any
//!     ip6 saddr != ::1 dnat ip6 to meta l4proto . ip6 daddr . th dport map @forwards6
//!     ip6 saddr != ::1 fib daddr type local dnat ip6 to meta l4proto . th dport map @forwards6-any
//!     dnat ip to meta l4proto . ip daddr . th dport . numgen random mod 240 map @balanced
//!     meta nfproto ipv4 fib daddr type local dnat ip to meta l4proto . th dport . numgen random mod 240 map @balanced-any
//!   }
//!   chain input {       # an entry that nobody stands behind is not the host
//!     type filter hook input priority filter
//!     ip daddr @virtual ct state new reject            # port unreachable
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
use super::{DELETE_RULE, NEW_CHAIN, NEW_RULE, NEW_SET, RULE_CHAIN, Transaction};
use crate::address::Family::{V4, V6};
use crate::netlink::{APPEND, CREATE};

pub(super) const BRIDGES: &str = "bridges";
pub(super) const PATHS: &str = "paths";
pub(super) const INTERNAL: &str = "internal";
pub(super) const ROUTED: &str = "routed";
pub(super) const SUBNETS: &str = "subnets";
pub(super) const FORWARDS: &str = "forwards";
pub(super) const FORWARDS_ANY: &str = "forwards-any";
pub(super) const SUBNETS6: &str = "subnets6";
pub(super) const FORWARDS6: &str = "forwards6";
pub(super) const FORWARDS6_ANY: &str = "forwards6-any";
pub(super) const LOOPBACK6: &str = "loopback6";
pub(super) const VIRTUAL: &str = "virtual";
pub(super) const BALANCED: &str = "balanced";
pub(super) const BALANCED_ANY: &str = "balanced-any";
/// Into how many parts an entry's connections fall: each of up to 60 members has as many of them as any other, give or
/// take a fifth; by most smaller numbers it can be divided.
pub(super) const SLOTS: u32 = 240;

const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const CHAIN_TYPE: u16 = 7;
const HOOK_NUMBER: u16 = 1;
const HOOK_PRIORITY: u16 = 2;
const RULE_EXPRESSIONS: u16 = 4;
const SET_NAME: u16 = 2;
const SET_FLAGS: u16 = 3;
const SET_KEY_TYPE: u16 = 4;
const SET_KEY_LENGTH: u16 = 5;
const SET_DATA_TYPE: u16 = 6;
const SET_DATA_LENGTH: u16 = 7;
const SET_ID: u16 = 10;
const FLAG_INTERVAL: u32 = 4;
const FLAG_MAP: u32 = 8;

// What the nft program calls the types, so that it can show the sets (the kernel does not care).
// A concatenation is its parts' numbers, six bits each.
const TYPE_MARK: u32 = 19;
const TYPE_IPV4: u32 = 7;
const TYPE_IPV6: u32 = 8;
const TYPE_PROTOCOL: u32 = 12;
const TYPE_PORT: u32 = 13;
const TYPE_IFNAME: u32 = 41;

const HOOK_PREROUTING: u32 = 0;
const HOOK_INPUT: u32 = 1;
pub(super) const HOOK_FORWARD: u32 = 2;
pub(super) const HOOK_OUTPUT: u32 = 3;
const HOOK_POSTROUTING: u32 = 4;
pub(super) const PRIORITY_RAW: i32 = -300;
const PRIORITY_DSTNAT: i32 = -100;
const PRIORITY_FILTER: i32 = 0;
const PRIORITY_SRCNAT: i32 = 100;
const PRIORITY_LATE: i32 = 200;

const STATE_ESTABLISHED: u32 = 1 << 1;
const STATE_RELATED: u32 = 1 << 2;
const STATE_NEW: u32 = 1 << 3;
const STATUS_DNAT: u32 = 1 << 5;

struct Set {
    name: &'static str,
    flags: u32,
    key: (u32, u32),
    data: Option<(u32, u32)>,
}

const ENDPOINT: Option<(u32, u32)> = Some((TYPE_IPV4 << 6 | TYPE_PORT, 8));
const ENDPOINT6: Option<(u32, u32)> = Some((TYPE_IPV6 << 6 | TYPE_PORT, 20));

const SETS: [Set; 14] = [
    Set {
        name: BRIDGES,
        flags: 0,
        key: (TYPE_IFNAME, 16),
        data: None,
    },
    Set {
        name: PATHS,
        flags: 0,
        key: (TYPE_IFNAME << 6 | TYPE_IFNAME, 32),
        data: None,
    },
    Set {
        name: INTERNAL,
        flags: 0,
        key: (TYPE_IFNAME, 16),
        data: None,
    },
    Set {
        name: ROUTED,
        flags: 0,
        key: (TYPE_IFNAME, 16),
        data: None,
    },
    Set {
        name: SUBNETS,
        flags: FLAG_INTERVAL,
        key: (TYPE_IPV4, 4),
        data: None,
    },
    Set {
        name: FORWARDS,
        flags: FLAG_MAP,
        key: ((TYPE_PROTOCOL << 6 | TYPE_IPV4) << 6 | TYPE_PORT, 12),
        data: ENDPOINT,
    },
    Set {
        name: FORWARDS_ANY,
        flags: FLAG_MAP,
        key: (TYPE_PROTOCOL << 6 | TYPE_PORT, 8),
        data: ENDPOINT,
    },
    Set {
        name: SUBNETS6,
        flags: FLAG_INTERVAL,
        key: (TYPE_IPV6, 16),
        data: None,
    },
    Set {
        name: FORWARDS6,
        flags: FLAG_MAP,
        key: ((TYPE_PROTOCOL << 6 | TYPE_IPV6) << 6 | TYPE_PORT, 24),
        data: ENDPOINT6,
    },
    Set {
        name: FORWARDS6_ANY,
        flags: FLAG_MAP,
        key: (TYPE_PROTOCOL << 6 | TYPE_PORT, 8),
        data: ENDPOINT6,
    },
    Set {
        name: LOOPBACK6,
        flags: FLAG_MAP,
        key: (TYPE_PROTOCOL << 6 | TYPE_PORT, 8),
        data: Some((TYPE_IPV6, 16)),
    },
    Set {
        name: VIRTUAL,
        flags: 0,
        key: (TYPE_IPV4, 4),
        data: None,
    },
    Set {
        name: BALANCED,
        flags: FLAG_MAP,
        key: (
            ((TYPE_PROTOCOL << 6 | TYPE_IPV4) << 6 | TYPE_PORT) << 6 | TYPE_MARK,
            16,
        ),
        data: ENDPOINT,
    },
    Set {
        name: BALANCED_ANY,
        flags: FLAG_MAP,
        key: ((TYPE_PROTOCOL << 6 | TYPE_PORT) << 6 | TYPE_MARK, 12),
        data: ENDPOINT,
    },
];

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

const CHAINS: [Chain; 8] = [
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
                    .balance_by_address(BALANCED, SLOTS)
            },
            |rule| {
                rule.not_loopback(V4, End::Destination)
                    .destination_local()
                    .balance_by_port(BALANCED_ANY, SLOTS)
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
            |rule| rule.is(V4).balance_by_address(BALANCED, SLOTS),
            |rule| {
                rule.is(V4)
                    .destination_local()
                    .balance_by_port(BALANCED_ANY, SLOTS)
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
        rules: &[|rule| {
            rule.is(V4)
                .destination_in(VIRTUAL)
                .state(STATE_NEW)
                .reject()
        }],
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
    for (id, set) in (1..).zip(&SETS) {
        transaction.change(
            format!("create the nftables set {}", set.name),
            NEW_SET,
            CREATE,
            |body| {
                body.text(SET_NAME, set.name);
                body.u32_be(SET_FLAGS, set.flags);
                body.u32_be(SET_KEY_TYPE, set.key.0);
                body.u32_be(SET_KEY_LENGTH, set.key.1);
                if let Some((kind, length)) = set.data {
                    body.u32_be(SET_DATA_TYPE, kind);
                    body.u32_be(SET_DATA_LENGTH, length);
                }
                body.u32_be(SET_ID, id);
            },
        );
    }
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
