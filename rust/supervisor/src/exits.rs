//! How a process ended.

use knarr_sys::supervise::Ended;
use serde::{Deserialize, Serialize};

use crate::clock;

/// The end of a process, as it is stored and announced.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
pub struct Exit {
    /// The process in the host's PID namespace; 0 where it never was known.
    pub pid: i32,
    /// 0 to 255; 128 + n for a signal; 255 where nobody could tell.
    pub code: u8,
    /// The signal that ended it.
    pub signal: Option<u8>,
    /// Whether the kernel killed any of its processes for memory.
    pub oom: bool,
    /// Nanoseconds since the epoch.
    pub finished_at: u64,
    /// False where nobody could tell how it ended.
    pub known: bool,
}

impl Exit {
    /// The exit of a process that has ended just now.
    #[must_use]
    pub fn new(pid: i32, ended: Option<Ended>, oom: bool) -> Self {
        let (code, signal) = match ended {
            Some(Ended::Exited(code)) => (code, None),
            Some(Ended::Killed(signal)) => (128_u8.saturating_add(signal), Some(signal)),
            None => (255, None),
        };
        Self {
            pid,
            code,
            signal,
            oom,
            finished_at: clock::now(),
            known: ended.is_some(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_the_shells() {
        let told = |ended| {
            let exit = Exit::new(1, ended, false);
            (exit.code, exit.signal, exit.known)
        };
        assert_eq!(told(Some(Ended::Exited(3))), (3, None, true));
        assert_eq!(told(Some(Ended::Killed(9))), (137, Some(9), true));
        assert_eq!(told(Some(Ended::Killed(64))), (192, Some(64), true));
        assert_eq!(told(None), (255, None, false));
    }
}
