//! `Registry`.

use std::time::Duration;

use knarr_registry::Options;
use knarr_store::Digest;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::error::raise;
use crate::funnel::blocking;

/// A client of one registry.
#[pyclass(frozen, module = "knarr._core")]
pub(crate) struct Registry {
    pub(crate) inner: knarr_registry::Registry,
}

#[pymethods]
impl Registry {
    #[new]
    #[pyo3(signature = (host, *, scheme = "https", username = "", password = "", insecure = false, timeout = 30.0))]
    fn new(
        host: &str,
        scheme: &str,
        username: &str,
        password: &str,
        insecure: bool,
        timeout: f64,
    ) -> PyResult<Self> {
        let https = match scheme {
            "https" => true,
            "http" => false,
            other => return Err(raise(&crate::store::Refused::Scheme(other.to_owned()))),
        };
        let timeout = Duration::try_from_secs_f64(timeout)
            .map_err(|_| raise(&crate::store::Refused::Timeout(timeout)))?;
        let options = Options {
            https,
            username: username.to_owned(),
            password: password.to_owned(),
            insecure_tls: insecure,
            timeout,
        };
        let inner = knarr_registry::Registry::new(host, &options).map_err(|error| raise(&error))?;
        Ok(Self { inner })
    }

    /// (bytes, media type, digest) of a manifest.
    fn manifest<'py>(
        &self,
        py: Python<'py>,
        repository: &str,
        reference: &str,
    ) -> PyResult<(Bound<'py, PyBytes>, String, String)> {
        let manifest = blocking(py, || self.inner.manifest(repository, reference))?;
        Ok((
            PyBytes::new(py, &manifest.bytes),
            manifest.media_type,
            manifest.digest.to_string(),
        ))
    }

    /// A small blob, verified; Corrupt beyond limit bytes.
    fn blob<'py>(
        &self,
        py: Python<'py>,
        repository: &str,
        digest: &str,
        limit: u64,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let digest: Digest = digest
            .parse()
            .map_err(|error| raise(&knarr_store::StoreError::from(error)))?;
        let bytes = blocking(py, || self.inner.blob(repository, &digest, limit))?;
        Ok(PyBytes::new(py, &bytes))
    }
}
