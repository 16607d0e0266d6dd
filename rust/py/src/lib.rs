//! `knarr._core`: the only crate that knows Python. One file a class; nothing is decided here.

mod copies;
mod error;
mod files;
mod funnel;
mod mounted;
mod progress;
mod registry;
mod store;

use pyo3::prelude::*;

/// The Rust core of knarr.
#[pymodule]
mod _core {
    #[pymodule_export]
    use crate::copies::{
        attach_disk, clone_volume, detach_disk, exchange, fill_volume, forget_project,
        limit_project, make_disk, pack_volume, project,
    };
    #[pymodule_export]
    use crate::files::{Body, View, changes, pack_local, unpack_local};
    #[pymodule_export]
    use crate::mounted::{mount_volume, unmount_volume};
    #[pymodule_export]
    use crate::progress::Progress;
    #[pymodule_export]
    use crate::registry::Registry;
    #[pymodule_export]
    use crate::store::Store;
    use pyo3::prelude::*;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
