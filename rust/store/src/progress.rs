//! Counters that one thread reads while others work.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::digest::Digest;
use crate::error::StoreError;

/// Where a layer is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// Not begun.
    Waiting,
    /// Its bytes arrive; done and total count compressed bytes.
    Downloading,
    /// All its bytes arrived.
    Downloaded,
    /// Only unpacking is left.
    Extracting,
    /// Unpacked.
    Done,
    /// It was there before.
    Exists,
    /// Its bytes go out; done and total count them.
    Uploading,
    /// The other side took it from another repository.
    Mounted,
}

impl Phase {
    /// The name that Python sees.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Downloading => "downloading",
            Self::Downloaded => "downloaded",
            Self::Extracting => "extracting",
            Self::Done => "done",
            Self::Exists => "exists",
            Self::Uploading => "uploading",
            Self::Mounted => "mounted",
        }
    }

    fn from_number(number: u8) -> Self {
        [
            Self::Waiting,
            Self::Downloading,
            Self::Downloaded,
            Self::Extracting,
            Self::Done,
            Self::Exists,
            Self::Uploading,
            Self::Mounted,
        ][usize::from(number.min(7))]
    }
}

/// The counters of one layer.
#[derive(Debug)]
pub struct LayerProgress {
    digest: Digest,
    phase: AtomicU8,
    done: AtomicU64,
    total: AtomicU64,
}

impl LayerProgress {
    /// The layer's blob.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The phase, bytes done, and bytes in all (0: not known).
    #[must_use]
    pub fn read(&self) -> (Phase, u64, u64) {
        (
            Phase::from_number(self.phase.load(Ordering::Relaxed)),
            self.done.load(Ordering::Relaxed),
            self.total.load(Ordering::Relaxed),
        )
    }

    /// Enters a phase, with nothing of it done yet.
    pub fn enter(&self, phase: Phase, total: u64) {
        self.done.store(0, Ordering::Relaxed);
        self.total.store(total, Ordering::Relaxed);
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    /// Says how many bytes are done in all.
    pub fn reach(&self, bytes: u64) {
        self.done.store(bytes, Ordering::Relaxed);
    }

    /// Counts bytes.
    pub fn advance(&self, bytes: u64) {
        self.done.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// The counters of an operation on several layers, and the way to end it early.
#[derive(Debug, Default)]
pub struct Progress {
    layers: Mutex<Vec<Arc<LayerProgress>>>,
    cancelled: AtomicBool,
}

impl Progress {
    /// No layers yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a layer's counters, in the order they shall be shown.
    pub fn add(&self, digest: Digest, total: u64) -> Arc<LayerProgress> {
        let layer = Arc::new(LayerProgress {
            digest,
            phase: AtomicU8::new(Phase::Waiting as u8),
            done: AtomicU64::new(0),
            total: AtomicU64::new(total),
        });
        self.layers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(Arc::clone(&layer));
        layer
    }

    /// The counters of each layer, in order.
    #[must_use]
    pub fn layers(&self) -> Vec<Arc<LayerProgress>> {
        self.layers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Asks the operation to end.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Release);
    }

    /// Whether somebody asked.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Acquire)
    }

    /// [`StoreError::Cancelled`] once somebody asked.
    pub fn check(&self) -> Result<(), StoreError> {
        if self.is_cancelled() {
            Err(StoreError::Cancelled)
        } else {
            Ok(())
        }
    }
}
