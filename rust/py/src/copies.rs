//! Volumes: copied, packed, filled, and held to a size.

use std::path::{Path, PathBuf};

use knarr_files::FilesError;
use knarr_files::stream::Outgoing;
use knarr_store::Packing;
use pyo3::prelude::*;

use crate::error::raise;
use crate::files::{Body, framing, socket};
use crate::funnel::blocking;

/// Copy all that is in a directory to an empty one.
#[pyfunction]
pub(crate) fn clone_volume(py: Python<'_>, source: PathBuf, destination: PathBuf) -> PyResult<()> {
    blocking(py, || knarr_files::clone_volume(&source, &destination))
}

/// Write a directory to a socket, as an archive: "", "gzip" or "zstd".
#[pyfunction]
pub(crate) fn pack_volume(
    py: Python<'_>,
    source: PathBuf,
    descriptor: i32,
    length: i64,
    packing: &str,
) -> PyResult<()> {
    let packing = match packing {
        "gzip" => Packing::Gzip,
        "zstd" => Packing::Zstd,
        _ => Packing::Plain,
    };
    let to = Outgoing::new(socket(descriptor)?, framing(length));
    blocking(py, || knarr_files::pack_volume(&source, to, packing))
}

/// Extract an archive to an empty directory.
#[pyfunction]
pub(crate) fn fill_volume(py: Python<'_>, destination: PathBuf, body: &mut Body) -> PyResult<()> {
    let from = &mut body.inner;
    blocking(py, || knarr_files::fill_volume(&destination, from))
}

/// Exchange two directories.
#[pyfunction]
pub(crate) fn exchange(py: Python<'_>, one: PathBuf, other: PathBuf) -> PyResult<()> {
    blocking(py, || knarr_files::exchange(&one, &other))
}

/// Limit directories by a project quota.
#[pyfunction]
pub(crate) fn limit_project(py: Python<'_>, paths: Vec<PathBuf>, bytes: u64) -> PyResult<bool> {
    blocking(py, || {
        let paths: Vec<&Path> = paths.iter().map(PathBuf::as_path).collect();
        knarr_files::limit_project(&paths, bytes)
    })
}

/// The project of a directory.
#[pyfunction]
pub(crate) fn project(path: PathBuf) -> PyResult<Option<u32>> {
    knarr_files::project(&path).map_err(|error| raise(&error))
}

/// Take a project's limit away.
#[pyfunction]
pub(crate) fn forget_project(py: Python<'_>, beside: PathBuf, id: u32) -> PyResult<()> {
    blocking(py, || knarr_files::forget_project(&beside, id))
}

/// Make a directory's file system in a file.
#[pyfunction]
pub(crate) fn make_disk(py: Python<'_>, path: PathBuf, bytes: u64) -> PyResult<()> {
    blocking(py, || knarr_files::make_disk(&path, bytes))
}

/// Mount it.
#[pyfunction]
pub(crate) fn attach_disk(py: Python<'_>, path: PathBuf) -> PyResult<bool> {
    blocking(py, || knarr_files::attach_disk(&path))
}

/// Unmount it.
#[pyfunction]
#[pyo3(signature = (path, *, lazily = false))]
pub(crate) fn detach_disk(py: Python<'_>, path: PathBuf, lazily: bool) -> PyResult<bool> {
    blocking::<_, FilesError>(py, || knarr_files::detach_disk(&path, lazily))
}
