//! `Progress`.

use std::sync::Arc;

use pyo3::prelude::*;

/// Counters shared with a running operation.
#[pyclass(frozen, module = "knarr._core")]
pub(crate) struct Progress {
    pub(crate) inner: Arc<knarr_store::Progress>,
}

#[pymethods]
impl Progress {
    #[new]
    fn new() -> Self {
        Self {
            inner: Arc::new(knarr_store::Progress::new()),
        }
    }

    /// (blob digest, phase, bytes done, bytes in all or 0) of each layer, in order.
    fn snapshot(&self) -> Vec<(String, &'static str, u64, u64)> {
        let layers = self.inner.layers();
        let one = layers.iter().map(|layer| {
            let (phase, done, total) = layer.read();
            (layer.digest().to_string(), phase.name(), done, total)
        });
        one.collect()
    }

    /// Make the operation end soon.
    fn cancel(&self) {
        self.inner.cancel();
    }
}
