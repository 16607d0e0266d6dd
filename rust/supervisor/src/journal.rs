//! The engine's own log: plain lines in `<run-root>/supervisor.log`, bounded.
//!
//! Keeper and supervisor write to the same file. It is opened for each line, since lines are rare and either
//! may have moved it to `supervisor.log.1`, which happens at [`LOG_BYTES`].

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::clock;
use crate::logs::rfc3339;

/// The size at which a new file is begun.
const LOG_BYTES: u64 = 1024 * 1024;

/// Where to say what happens.
#[derive(Clone, Debug)]
pub struct Journal {
    path: Arc<PathBuf>,
    who: &'static str,
    foreground: bool,
}

impl Journal {
    /// The log of a run root.
    #[must_use]
    pub fn new(run_root: &Path, who: &'static str, foreground: bool) -> Self {
        Self {
            path: Arc::new(run_root.join("supervisor.log")),
            who,
            foreground,
        }
    }

    /// Write one line.
    pub fn say(&self, text: impl AsRef<str>) {
        let text = text.as_ref().replace('\n', "; ");
        let line = format!(
            "{} {}[{}]: {text}\n",
            rfc3339(clock::now()),
            self.who,
            std::process::id()
        );
        let written = self.append(&line);
        if self.foreground || written.is_err() {
            // Standard error is the last resort: where it is gone as well, nobody can be told.
            let _ = io::stderr().write_all(line.as_bytes());
        }
    }

    fn append(&self, line: &str) -> io::Result<()> {
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&*self.path)?;
        file.write_all(line.as_bytes())?;
        if file.metadata()?.len() > LOG_BYTES {
            std::fs::rename(&*self.path, self.path.with_extension("log.1"))?;
        }
        Ok(())
    }
}
