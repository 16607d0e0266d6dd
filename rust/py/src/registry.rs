//! `Registry`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use knarr_registry::{Options, Upload};
use knarr_store::Digest;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::error::raise;
use crate::funnel::{blocking, interruptible};
use crate::progress::Progress;

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

    /// Bring blobs to a repository: (digest, size, path of the file, another repository that may have it or "").
    fn push(
        &self,
        py: Python<'_>,
        repository: &str,
        blobs: Vec<(String, u64, PathBuf, String)>,
        progress: &Progress,
    ) -> PyResult<()> {
        let upload = |(digest, size, path, source): (String, u64, PathBuf, String)| {
            let digest = digest
                .parse()
                .map_err(|error| raise(&knarr_store::StoreError::from(error)))?;
            let source = (!source.is_empty()).then_some(source);
            Ok(Upload {
                digest,
                size,
                path,
                source,
            })
        };
        let uploads = blobs
            .into_iter()
            .map(upload)
            .collect::<PyResult<Vec<_>>>()?;
        interruptible(py, &progress.inner, || {
            self.inner.push(repository, &uploads, &progress.inner)
        })
    }

    /// Put a manifest or index, as it is, under a tag or its digest.
    fn put_manifest(
        &self,
        py: Python<'_>,
        repository: &str,
        reference: &str,
        media_type: &str,
        data: &[u8],
        progress: &Progress,
    ) -> PyResult<()> {
        let bytes = data.to_vec();
        interruptible(py, &progress.inner, || {
            let progress = Some(Arc::clone(&progress.inner));
            self.inner
                .put_manifest(repository, reference, media_type, &bytes, progress)
        })
    }

    /// Every tag of a repository.
    fn tags(&self, py: Python<'_>, repository: &str) -> PyResult<Vec<String>> {
        blocking(py, || self.inner.tags(repository))
    }

    /// Whether somebody answers at all.
    fn ping(&self, py: Python<'_>) -> PyResult<()> {
        blocking(py, || self.inner.ping())
    }

    /// Whether the registry takes the credentials: the identity token given for them, or "".
    fn login(&self, py: Python<'_>) -> PyResult<String> {
        blocking(py, || self.inner.login())
    }

    /// What the registry's search answers: JSON.
    fn search<'py>(
        &self,
        py: Python<'py>,
        term: &str,
        limit: u32,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let found = blocking(py, || self.inner.search(term, limit))?;
        Ok(PyBytes::new(py, &found))
    }
}
