//! `View`, and what else there is for containers' files.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use knarr_files::stream::{Framing, Incoming, Outgoing, duplicate};
use knarr_files::{BindMount, FilesError, Layers, shielded};
use knarr_store::ExtractOptions;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::error::raise;
use crate::funnel::blocking;

/// (destination, source, layers in its place, path beneath it, recursive, read-only, recursively so).
type MountTuple = (String, PathBuf, Vec<PathBuf>, String, bool, bool, bool);
/// (name, size, mode, mtime in ns, target).
type StatTuple = (String, i64, u32, i128, String);

/// A body on a socket that Python keeps.
///
/// length: -1 for chunks, -2 for all until the end of the stream.
pub(crate) fn framing(length: i64) -> Framing {
    match u64::try_from(length) {
        Ok(length) => Framing::Length(length),
        Err(_) if length == -1 => Framing::Chunked,
        Err(_) => Framing::Stream,
    }
}

pub(crate) fn socket(descriptor: i32) -> PyResult<OwnedFd> {
    duplicate(descriptor).map_err(|error| raise(&FilesError::Body(error)))
}

/// A request's body, or an answer's, on its way in.
#[pyclass(module = "knarr._core")]
pub(crate) struct Body {
    pub(crate) inner: Incoming,
}

#[pymethods]
impl Body {
    #[new]
    #[pyo3(signature = (descriptor, length, initial, patience = 0.0))]
    fn new(descriptor: i32, length: i64, initial: &[u8], patience: f64) -> PyResult<Self> {
        let patience = Duration::try_from_secs_f64(patience)
            .ok()
            .filter(|patience| !patience.is_zero());
        let socket = socket(descriptor)?;
        Ok(Self {
            inner: Incoming::new(socket, initial.to_vec(), framing(length), patience),
        })
    }

    /// Whether it has been read to its end.
    #[getter]
    fn ended(&self) -> bool {
        self.inner.ended()
    }

    /// Bytes that were read of it.
    #[getter]
    fn count(&self) -> u64 {
        self.inner.count()
    }

    /// What was read beyond its end.
    fn rest<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.inner.rest())
    }

    /// Read and forget what is left of it, at most so many bytes.
    fn drain(&mut self, py: Python<'_>, limit: u64) -> PyResult<()> {
        let inner = &mut self.inner;
        blocking(py, || inner.drain(limit).map_err(FilesError::Body))
    }
}

/// A container's root file system, open.
#[pyclass(frozen, module = "knarr._core")]
pub(crate) struct View {
    inner: knarr_files::View,
}

#[pymethods]
impl View {
    /// Of a running container, by its first process, with what is mounted at some paths.
    #[staticmethod]
    fn running(py: Python<'_>, pid: i32, container: &str, mounts: Vec<String>) -> PyResult<Self> {
        let inner = blocking(py, || knarr_files::View::running(pid, container, &mounts))?;
        Ok(Self { inner })
    }

    /// Of a container that does not run.
    #[staticmethod]
    #[pyo3(signature = (lower, upper, work, mounts, *, writable, read_only))]
    fn stopped(
        py: Python<'_>,
        lower: Vec<PathBuf>,
        upper: PathBuf,
        work: PathBuf,
        mounts: Vec<MountTuple>,
        writable: bool,
        read_only: bool,
    ) -> PyResult<Self> {
        let layers = Layers { lower, upper, work };
        let mounts: Vec<_> = mounts
            .into_iter()
            .map(
                |(
                    destination,
                    source,
                    layers,
                    beneath,
                    recursive,
                    read_only,
                    recursive_read_only,
                )| {
                    BindMount {
                        destination,
                        source,
                        layers,
                        beneath,
                        recursive,
                        read_only,
                        recursive_read_only,
                    }
                },
            )
            .collect();
        let inner = blocking(py, || {
            knarr_files::View::stopped(&layers, &mounts, writable, read_only)
        })?;
        Ok(Self { inner })
    }

    /// What is at a path.
    fn stat(&self, py: Python<'_>, path: &str) -> PyResult<StatTuple> {
        let found = blocking(py, || self.inner.stat(path))?;
        let mtime = i128::from(found.mtime.0) * 1_000_000_000 + i128::from(found.mtime.1);
        Ok((found.name, found.size, found.mode, mtime, found.target))
    }

    /// Write what is at a path to a socket, as an archive.
    fn pack(&self, py: Python<'_>, path: &str, descriptor: i32, length: i64) -> PyResult<()> {
        let to = Outgoing::new(socket(descriptor)?, framing(length));
        blocking(py, || self.inner.pack(path, to))
    }

    /// Write the root file system to a socket, as an archive.
    fn export(&self, py: Python<'_>, descriptor: i32, length: i64) -> PyResult<()> {
        let to = Outgoing::new(socket(descriptor)?, framing(length));
        blocking(py, || self.inner.export(to))
    }

    /// Extract an archive into a directory.
    #[pyo3(signature = (path, body, *, no_overwrite, user = None))]
    fn extract(
        &self,
        py: Python<'_>,
        path: &str,
        body: &mut Body,
        no_overwrite: bool,
        user: Option<&str>,
    ) -> PyResult<()> {
        let from = &mut body.inner;
        blocking(py, || {
            let owner = user.map(|user| self.inner.owner(user)).transpose()?;
            let options = ExtractOptions {
                no_overwrite,
                owner,
                shown: path.to_owned(),
                ..ExtractOptions::default()
            };
            self.inner.extract(path, from, &options)
        })
    }
}

/// What a container's writable directory has changed of the layers below it: (path, kind) each.
#[pyfunction]
pub(crate) fn changes<'py>(
    py: Python<'py>,
    upper: PathBuf,
    lower: Vec<PathBuf>,
    made: Vec<String>,
) -> PyResult<Vec<(Bound<'py, PyBytes>, u8)>> {
    let made: Vec<_> = made.into_iter().map(String::into_bytes).collect();
    let found = blocking(py, || {
        let upper = shielded(&upper)?;
        knarr_store::changes(upper, &lower, &made).map_err(FilesError::from_tree)
    })?;
    let entry =
        |(path, kind): (Vec<u8>, knarr_store::ChangeKind)| (PyBytes::new(py, &path), kind as u8);
    Ok(found.into_iter().map(entry).collect())
}

/// Write files of the user's own to a socket, as an archive.
#[pyfunction]
pub(crate) fn pack_local(
    py: Python<'_>,
    parent: PathBuf,
    name: &[u8],
    shown: &[u8],
    descriptor: i32,
    length: i64,
) -> PyResult<u64> {
    let to = Outgoing::new(socket(descriptor)?, framing(length));
    blocking(py, || knarr_files::pack_local(&parent, name, shown, to))
}

/// Extract an archive to a directory of the user's own.
#[pyfunction]
#[pyo3(signature = (target, body, rename = None))]
pub(crate) fn unpack_local(
    py: Python<'_>,
    target: PathBuf,
    body: &mut Body,
    rename: Option<(Vec<u8>, Vec<u8>)>,
) -> PyResult<()> {
    let from = &mut body.inner;
    blocking(py, || knarr_files::unpack_local(&target, from, rename))
}
