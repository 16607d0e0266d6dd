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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    use super::*;

    #[test]
    fn one_at_a_time_and_nobody_waits_when_cancelled() {
        let (claims, progress, digest) = (Claims::default(), Progress::new(), Digest::of(b"x"));
        let (inside, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let _claim = claims.take(digest, &progress).unwrap();
                    most.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    thread::sleep(Duration::from_millis(5));
                    inside.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        assert_eq!(most.into_inner(), 1);
        let _held = claims.take(digest, &progress).unwrap();
        let _other = claims.take(Digest::of(b"y"), &progress).unwrap();
        progress.cancel();
        assert!(matches!(
            claims.take(digest, &progress),
            Err(StoreError::Cancelled)
        ));
    }
}
