//! Ready sandboxes, made off the start path.

use crate::bridge::Bridge;
use crate::error::Result;
use crate::names::EngineId;
use crate::sandbox::Sandbox;

/// How many ready sandboxes of a kind to keep.
#[derive(Clone, Copy, Debug)]
pub struct PoolSize {
    /// Without a link.
    pub bare: usize,
    /// With a veth pair, for each bridge that has been asked for.
    pub linked: usize,
}

/// Sandboxes made by a thread of the pool's own, bounded, and refilled after each take.
#[derive(Debug)]
pub struct Pool {}

impl Pool {
    /// Start the pool. It begins to keep sandboxes of a kind when the first of that kind is taken.
    pub fn start(_engine: &EngineId, _size: PoolSize) -> Result<Self> {
        todo!()
    }

    /// A sandbox with `lo` only. Never waits for the refill: an empty pool makes one on the spot.
    pub fn take_bare(&self) -> Result<Sandbox> {
        todo!()
    }

    /// A sandbox with `eth0` on that bridge, which must exist (`Host::ensure`).
    pub fn take_linked(&self, _bridge: &Bridge) -> Result<Sandbox> {
        todo!()
    }
}
