//! `Store`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use knarr_store::{
    Classified, Compression, Digest, ErrorKind, Layer, LayerSource, StoreError, UnpackOptions,
};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::error::raise;
use crate::funnel::{blocking, interruptible};
use crate::progress::Progress;
use crate::registry::Registry;

/// Arguments that have no place in the crates below.
#[derive(Debug)]
pub(crate) enum Refused {
    Scheme(String),
    Timeout(f64),
}

impl std::fmt::Display for Refused {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Scheme(scheme) => write!(
                formatter,
                "scheme {scheme:?} of a registry: use \"https\" or \"http\""
            ),
            Self::Timeout(timeout) => write!(
                formatter,
                "timeout {timeout} of a registry: give a number of seconds"
            ),
        }
    }
}

impl std::error::Error for Refused {}

impl Classified for Refused {
    fn kind(&self) -> ErrorKind {
        ErrorKind::InvalidArgument
    }
}

/// Blobs and snapshots under one data root.
#[pyclass(frozen, module = "knarr._core")]
pub(crate) struct Store {
    inner: knarr_store::Store,
}

/// (blob digest, blob size, media type, diff ID, chain ID, parent's chain ID or "").
type LayerTuple = (String, u64, String, String, String, String);

fn digest(text: &str) -> PyResult<Digest> {
    text.parse()
        .map_err(|error| raise(&StoreError::from(error)))
}

fn layer(tuple: &LayerTuple) -> PyResult<Layer> {
    let (blob, size, media_type, diff_id, chain_id, parent) = tuple;
    Ok(Layer {
        digest: digest(blob)?,
        size: *size,
        media_type: media_type.clone(),
        diff_id: digest(diff_id)?,
        chain_id: digest(chain_id)?,
        parent: if parent.is_empty() {
            None
        } else {
            Some(digest(parent)?)
        },
    })
}

/// The root came as text, so what is below it is text as well.
fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

#[pymethods]
impl Store {
    #[new]
    fn new(py: Python<'_>, root: PathBuf) -> PyResult<Self> {
        Ok(Self {
            inner: blocking(py, || knarr_store::Store::open(root))?,
        })
    }

    /// Delete what an earlier process left unfinished; how many objects went.
    fn sweep(&self, py: Python<'_>) -> PyResult<u64> {
        blocking(py, || self.inner.sweep())
    }

    /// Store bytes durably; their digest.
    fn put_blob(&self, py: Python<'_>, data: &[u8]) -> PyResult<String> {
        blocking(py, || self.inner.put_blob(data)).map(|digest| digest.to_string())
    }

    /// Copy a file in as a blob: (digest, size).
    fn put_file(&self, py: Python<'_>, path: PathBuf) -> PyResult<(String, u64)> {
        blocking(py, || self.inner.put_file(&path)).map(|(digest, size)| (digest.to_string(), size))
    }

    /// A blob's bytes, verified.
    #[pyo3(signature = (digest, limit = 8 << 20))]
    fn blob<'py>(
        &self,
        py: Python<'py>,
        digest: &str,
        limit: u64,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let digest = self::digest(digest)?;
        blocking(py, || self.inner.blob(&digest, limit)).map(|bytes| PyBytes::new(py, &bytes))
    }

    fn blob_size(&self, py: Python<'_>, digest: &str) -> PyResult<Option<u64>> {
        let digest = self::digest(digest)?;
        blocking(py, || self.inner.blob_size(&digest))
    }

    fn blob_path(&self, digest: &str) -> PyResult<String> {
        Ok(text(&self.inner.blob_path(&self::digest(digest)?)))
    }

    fn blobs(&self, py: Python<'_>) -> PyResult<Vec<(String, u64)>> {
        let blobs = blocking(py, || self.inner.blobs())?;
        Ok(blobs
            .into_iter()
            .map(|(digest, size)| (digest.to_string(), size))
            .collect())
    }

    fn remove_blob(&self, py: Python<'_>, digest: &str) -> PyResult<()> {
        let digest = self::digest(digest)?;
        blocking(py, || self.inner.remove_blob(&digest))
    }

    /// Where the snapshot is or would be.
    fn snapshot_path(&self, chain_id: &str) -> PyResult<String> {
        Ok(text(&self.inner.snapshot_path(&digest(chain_id)?)))
    }

    fn has_snapshot(&self, py: Python<'_>, chain_id: &str) -> PyResult<bool> {
        let chain_id = digest(chain_id)?;
        blocking(py, || self.inner.has_snapshot(&chain_id))
    }

    fn snapshots(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        let snapshots = blocking(py, || self.inner.snapshots())?;
        Ok(snapshots
            .into_iter()
            .map(|digest| digest.to_string())
            .collect())
    }

    /// Renamed away, then deleted: never seen half gone.
    fn remove_snapshot(&self, py: Python<'_>, chain_id: &str) -> PyResult<()> {
        let chain_id = digest(chain_id)?;
        blocking(py, || self.inner.remove_snapshot(&chain_id))
    }

    /// (bytes allocated, inodes) below a directory, hard links counted once.
    fn usage(&self, py: Python<'_>, path: PathBuf) -> PyResult<(u64, u64)> {
        blocking(py, || self.inner.usage(&path))
    }

    /// syncfs of the data root.
    fn sync(&self, py: Python<'_>) -> PyResult<()> {
        blocking(py, || self.inner.sync())
    }

    /// Make the snapshots of an image's layers, lowest first; the bytes each holds unpacked.
    #[pyo3(signature = (layers, progress, registry = None, repository = ""))]
    fn unpack(
        &self,
        py: Python<'_>,
        layers: Vec<LayerTuple>,
        progress: &Progress,
        registry: Option<&Registry>,
        repository: &str,
    ) -> PyResult<Vec<u64>> {
        let layers = layers.iter().map(layer).collect::<PyResult<Vec<_>>>()?;
        let source = registry.map(|registry| {
            registry
                .inner
                .repository(repository, Some(Arc::clone(&progress.inner)))
        });
        let source = source.transpose().map_err(|error| raise(&error))?;
        interruptible(py, &progress.inner, || {
            let options = UnpackOptions {
                source: source.as_ref().map(|source| source as &dyn LayerSource),
                ..UnpackOptions::default()
            };
            self.inner.unpack(&layers, options, &progress.inner)
        })
    }

    /// Fetch a blob for itself, without unpacking it; one that is there is kept.
    fn fetch(
        &self,
        py: Python<'_>,
        digest: &str,
        size: u64,
        progress: &Progress,
        registry: &Registry,
        repository: &str,
    ) -> PyResult<()> {
        let digest = self::digest(digest)?;
        let progress = &progress.inner;
        let source = registry
            .inner
            .repository(repository, Some(Arc::clone(progress)))
            .map_err(|error| raise(&error))?;
        interruptible(py, progress, || {
            self.inner.fetch(digest, size, &source, progress)
        })
    }

    /// Take every regular file of a tar archive in as a blob: (name, digest, size).
    fn read_archive(&self, py: Python<'_>, path: PathBuf) -> PyResult<Vec<(String, String, u64)>> {
        let members = blocking(py, || self.inner.read_archive(&path))?;
        Ok(members
            .into_iter()
            .map(|member| (member.name, member.digest.to_string(), member.size))
            .collect())
    }

    /// Make a layer of what a container has changed: (blob digest, size, diff ID), or None where that is nothing.
    fn put_layer(
        &self,
        py: Python<'_>,
        upper: PathBuf,
        lower: Vec<PathBuf>,
        made: Vec<String>,
    ) -> PyResult<Option<(String, u64, String)>> {
        let made: Vec<_> = made.into_iter().map(String::into_bytes).collect();
        let upper = blocking(py, || knarr_files::shielded(&upper))?;
        let packed = blocking(py, || self.inner.put_layer(upper, &lower, &made))?;
        Ok(packed.map(|layer| {
            (
                layer.digest.to_string(),
                layer.size,
                layer.diff_id.to_string(),
            )
        }))
    }

    /// Take the archive of a root file system in as a layer's blob: (digest, size, diff ID, compression).
    fn put_archive(
        &self,
        py: Python<'_>,
        path: PathBuf,
    ) -> PyResult<(String, u64, String, &'static str)> {
        let layer = blocking(py, || self.inner.put_archive(&path))?;
        let compression = match layer.compression {
            Compression::Zstd => "zstd",
            _ => "gzip",
        };
        Ok((
            layer.digest.to_string(),
            layer.size,
            layer.diff_id.to_string(),
            compression,
        ))
    }

    /// Whether image layers (top-most first) have a directory at a path.
    fn has_directory(&self, py: Python<'_>, lower: Vec<PathBuf>, path: PathBuf) -> PyResult<bool> {
        blocking(py, || self.inner.has_directory(&lower, &path))
    }

    /// Copy a directory's content from image layers (top-most first) to an empty directory.
    fn copy_up(
        &self,
        py: Python<'_>,
        lower: Vec<PathBuf>,
        path: PathBuf,
        destination: PathBuf,
    ) -> PyResult<bool> {
        blocking(py, || self.inner.copy_up(&lower, &path, &destination))
    }

    /// Move a directory below the data root to tmp/ and delete it there.
    fn remove_tree(&self, py: Python<'_>, path: PathBuf) -> PyResult<()> {
        blocking(py, || self.inner.remove_tree(&path))
    }
}
