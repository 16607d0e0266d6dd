//! File systems of volumes: mounted and unmounted on the host.

use std::ffi::CString;
use std::io;
use std::path::PathBuf;

use knarr_files::mounted::{FileSystem, mount, unmount};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

/// Mount a file system at a directory, unless something is mounted there: 0, or the errno of what was refused.
#[pyfunction]
#[allow(clippy::needless_pass_by_value)] // pyo3 hands paths over
pub(crate) fn mount_volume(
    py: Python<'_>,
    place: PathBuf,
    source: &str,
    kind: &str,
    flags: u32,
    propagation: u32,
    data: &str,
) -> PyResult<i32> {
    let data = CString::new(data).map_err(|error| PyValueError::new_err(error.to_string()))?;
    let wanted = FileSystem {
        source,
        kind,
        flags,
        propagation,
        data: &data,
    };
    Ok(number(py.detach(|| mount(&place, &wanted))))
}

/// Unmount what is mounted at a directory: 0, or the errno of what was refused.
#[pyfunction]
#[allow(clippy::needless_pass_by_value)] // pyo3 hands paths over
pub(crate) fn unmount_volume(py: Python<'_>, place: PathBuf) -> i32 {
    number(py.detach(|| unmount(&place)))
}

fn number(result: io::Result<()>) -> i32 {
    // Every error there is the kernel's, and has its number.
    result.map_or_else(|error| error.raw_os_error().unwrap_or(-1), |()| 0)
}
