//! Who works on what: two pulls that share a layer wait for one another instead of doing it twice.
//!
//! Deadlock-free by order: an operation claims its snapshots lowest first (images that share a snapshot share everything below
//! it), then its blobs in the order of their digests, and claims nothing more while it holds these.

use std::collections::HashSet;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::digest::Digest;
use crate::error::StoreError;
use crate::progress::Progress;

/// The objects that somebody makes right now.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    taken: Mutex<HashSet<Digest>>,
    freed: Condvar,
}

/// An object that is ours to make, until this is dropped.
#[derive(Debug)]
pub(crate) struct Claim<'a> {
    claims: &'a Claims,
    digest: Digest,
}

impl Claims {
    /// Waits until nobody else makes the object; gives up when cancelled.
    pub(crate) fn take(
        &self,
        digest: Digest,
        progress: &Progress,
    ) -> Result<Claim<'_>, StoreError> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        while !taken.insert(digest) {
            progress.check()?;
            let wait = self.freed.wait_timeout(taken, Duration::from_millis(100));
            taken = wait.unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(Claim {
            claims: self,
            digest,
        })
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.claims
            .taken
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.digest);
        self.claims.freed.notify_all();
    }
}
