//! System call filters, compiled once.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use knarr_runtime::spec::LinuxSeccomp;
use knarr_runtime::{Kind, seccomp};

use crate::protocol::Failure;

/// How many filters are kept.
const KEPT: usize = 64;

/// Compiled filters by file. Files are named by their content, so one never changes.
#[derive(Debug, Default)]
pub struct Filters {
    compiled: Mutex<HashMap<PathBuf, Arc<seccomp::Program>>>,
}

impl Filters {
    /// The filter of a file.
    pub fn get(&self, path: &Path) -> Result<Arc<seccomp::Program>, Failure> {
        let known = self
            .compiled
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(path)
            .cloned();
        if let Some(program) = known {
            return Ok(program);
        }
        let failed = |what: String| {
            Failure::new(
                Kind::InvalidArgument,
                format!("seccomp profile {}: {what}", path.display()),
            )
        };
        let bytes = fs::read(path).map_err(|error| failed(error.to_string()))?;
        let filter: LinuxSeccomp =
            serde_json::from_slice(&bytes).map_err(|error| failed(error.to_string()))?;
        let program = seccomp::compile(&filter)?;
        let mut compiled = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        if compiled.len() >= KEPT {
            compiled.clear();
        }
        compiled.insert(path.to_owned(), Arc::clone(&program));
        Ok(program)
    }
}
