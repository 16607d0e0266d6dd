//! The netlink protocol (RFC 3549, linux/netlink.h), as far as it is needed.
//!
//! [`Batch`] encodes requests, [`Socket`] sends them in one call and reads what comes back,
//! [`attributes`] takes answers apart. All integers are in host order, as on any netlink socket;
//! whatever is big-endian (nftables, addresses) says so in its method's name.

mod batch;
mod reply;
mod socket;

pub(crate) use batch::{Batch, Body};
pub(crate) use reply::{attributes, text, u32_be, u32_ne, u64_be};
pub(crate) use socket::Socket;

/// A request (linux/netlink.h, `NLM_F_REQUEST`).
pub(crate) const REQUEST: u16 = 0x01;
/// Answer also when all went well.
pub(crate) const ACK: u16 = 0x04;
/// Replace what exists.
pub(crate) const REPLACE: u16 = 0x100;
/// Refuse what exists.
pub(crate) const EXCLUSIVE: u16 = 0x200;
/// Create what does not exist.
pub(crate) const CREATE: u16 = 0x400;
/// Add at the end of a list.
pub(crate) const APPEND: u16 = 0x800;
/// All objects, not one (`NLM_F_ROOT | NLM_F_MATCH`).
pub(crate) const DUMP: u16 = 0x300;

/// Bytes of a message's header.
const HEADER: usize = 16;

fn aligned(length: usize) -> usize {
    (length + 3) & !3
}
