//! The one map from Rust's errors to `knarr.errors`.

use knarr_store::{Classified, ErrorKind};
use pyo3::PyErr;

mod classes {
    use pyo3::import_exception;

    import_exception!(knarr.errors, NotFound);
    import_exception!(knarr.errors, Conflict);
    import_exception!(knarr.errors, InvalidArgument);
    import_exception!(knarr.errors, PermissionDenied);
    import_exception!(knarr.errors, Unauthorized);
    import_exception!(knarr.errors, Unavailable);
    import_exception!(knarr.errors, Corrupt);
    import_exception!(knarr.errors, Unsupported);
    import_exception!(knarr.errors, Internal);
}

/// The exception for an error.
pub(crate) fn raise(error: &dyn Classified) -> PyErr {
    let message = error.to_string();
    match error.kind() {
        ErrorKind::NotFound => classes::NotFound::new_err(message),
        ErrorKind::Conflict => classes::Conflict::new_err(message),
        ErrorKind::InvalidArgument => classes::InvalidArgument::new_err(message),
        ErrorKind::PermissionDenied => classes::PermissionDenied::new_err(message),
        ErrorKind::Unauthorized => classes::Unauthorized::new_err(message),
        ErrorKind::Unavailable => classes::Unavailable::new_err(message),
        ErrorKind::Corrupt => classes::Corrupt::new_err(message),
        ErrorKind::Unsupported => classes::Unsupported::new_err(message),
        ErrorKind::Internal => classes::Internal::new_err(message),
    }
}
