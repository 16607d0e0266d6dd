//! Bridges, veth pairs, addresses and nftables over netlink.
//!
//! - [`Host`] is the host's side of one engine: bridges, NAT, published ports.
//! - [`Pool`] hands out [`Sandbox`]es: network namespaces made ahead of need. It also plugs more links into those that are
//!   in use.
//! - [`Resolver`] is where a container of a user-defined network asks for names.
//!
//! Everything global is named after the [`EngineId`], so engines never touch one another. Every
//! change is idempotent: whatever a killed process left half done, the next `ensure` repairs and the
//! next `sweep` removes. No program is run, and nothing waits for anything but the kernel's answer.

mod address;
mod bridge;
mod conntrack;
mod error;
mod flows;
mod holder;
mod host;
mod ipv6;
mod maker;
mod names;
mod netlink;
mod nft;
mod pool;
mod ports;
mod reserve;
mod resolver;
mod route;
mod sandbox;
mod visit;

pub use address::{Cidr, Family, Mac};
pub use bridge::{Bridge, BridgeLink};
pub use error::{Error, Result};
pub use host::{Host, Live, Swept};
pub use names::{EngineId, LinkName};
pub use pool::{Pool, PoolSize};
pub use ports::{Protocol, Publish, Published};
pub use resolver::{Resolver, resolver};
pub use sandbox::{Interface, Sandbox};
pub use visit::set_default_route;
