//! Bridges, veth pairs, addresses and nftables over netlink.
//!
//! - [`Host`] is the host's side of one engine: bridges, NAT, published ports.
//! - [`Pool`] hands out [`Sandbox`]es: network namespaces made ahead of need. It also plugs more links into those that are
//!   in use.
//! - A [`Lan`] is a network on one of the host's own interfaces: macvlan and ipvlan.
//! - [`Resolver`] is where a container of a user-defined network asks for names.
//! - [`Balance`] is an address behind which several containers stand.
//! - A [`Reach`] is what a container or a network may reach, where it is limited.
//! - [`Watch`] waits until somebody else has changed the rules.
//!
//! Everything global is named after the [`EngineId`], so engines never touch one another. Every
//! change is idempotent: whatever a killed process left half done, the next `ensure` repairs and the
//! next `sweep` removes. No program is run, and nothing waits for anything but the kernel's answer.

mod address;
mod balance;
mod bridge;
mod conntrack;
mod error;
mod flows;
mod holder;
mod host;
mod ipv6;
mod lan;
mod limits;
mod maker;
mod names;
mod netlink;
mod nft;
mod pool;
mod ports;
mod reach;
mod reserve;
mod resolver;
mod route;
mod sandbox;
mod visit;
mod watch;

pub use address::{Cidr, Family, Mac};
pub use balance::{Balance, Served};
pub use bridge::{Bridge, BridgeLink};
pub use error::{Error, Result};
pub use host::{Host, Live, Swept};
pub use lan::{
    IpvlanFlag, IpvlanMode, Lan, LanKind, LanRoute, MacvlanMode, Parent, ensure_parent,
    has_parents, plug_lan, remove_parent, remove_parents, set_link_route, unplug_lan,
};
pub use limits::{Pinned, Subject};
pub use names::{EngineId, LinkName};
pub use pool::{Pool, PoolSize};
pub use ports::{Protocol, Publish, Published};
pub use reach::{Ports, Reach, is_special};
pub use resolver::{Resolver, resolver};
pub use sandbox::{Interface, Sandbox};
pub use visit::set_default_route;
pub use watch::{Change, Watch};
