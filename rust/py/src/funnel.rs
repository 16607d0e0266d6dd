//! The one way into code that may block: without the GIL, errors mapped, signals honoured.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use knarr_store::{Classified, Progress};
use pyo3::prelude::*;

use crate::error::raise;

/// How long a Ctrl-C may wait.
const POLL: Duration = Duration::from_millis(100);

/// Runs something short that may block.
pub(crate) fn blocking<T: Send, E: Classified>(
    py: Python<'_>,
    work: impl FnOnce() -> Result<T, E> + Send,
) -> PyResult<T> {
    let result = py.detach(work);
    py.check_signals()?;
    result.map_err(|error| raise(&error))
}

/// Runs something long on a thread of its own, cancelled through its progress when a signal's handler raises.
pub(crate) fn interruptible<T: Send, E: Classified + Send>(
    py: Python<'_>,
    progress: &Progress,
    work: impl FnOnce() -> Result<T, E> + Send,
) -> PyResult<T> {
    py.detach(|| {
        thread::scope(|scope| {
            let (done, finished) = channel();
            let worker = scope.spawn(move || {
                let result = work();
                // The receiver lives until this thread has been joined.
                drop(done);
                result
            });
            let mut interrupted = None;
            while finished.recv_timeout(POLL) == Err::<(), _>(RecvTimeoutError::Timeout) {
                if interrupted.is_none()
                    && let Err(signal) = Python::attach(|py| py.check_signals())
                {
                    progress.cancel();
                    interrupted = Some(signal);
                }
            }
            let result = worker.join();
            match (interrupted, result) {
                (Some(signal), _) => Err(signal),
                (None, Ok(result)) => result.map_err(|error| raise(&error)),
                (None, Err(panic)) => std::panic::resume_unwind(panic),
            }
        })
    })
}
