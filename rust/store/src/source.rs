//! Where a layer's compressed bytes come from when the store does not have them.

use crate::digest::Digest;
use crate::error::StoreError;

/// Somebody who has blobs: a registry's repository. Several threads ask at once.
pub trait LayerSource: Sync {
    /// Opens a blob of `size` bytes at `offset` (below `size`).
    ///
    /// A broken connection is the source's to mend: the stream reopens itself where it stopped, as often as its policy allows, and
    /// only then fails with a [`StoreError::Source`]. The store verifies size and digest.
    fn open(
        &self,
        digest: &Digest,
        size: u64,
        offset: u64,
    ) -> Result<Box<dyn LayerStream>, StoreError>;
}

/// The compressed bytes of one blob.
pub trait LayerStream: Send {
    /// Fills the buffer's start; how many bytes, 0 at the end. Returns soon enough (a second) for a cancellation to be noticed,
    /// or watches [`crate::Progress::check`] itself.
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, StoreError>;
}
