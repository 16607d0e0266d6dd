//! Places where the process can be made to fail, for tests that kill it between any two steps: those of
//! `knarr/failpoints.py` that are in here. Nothing happens there unless `KNARR_FAILPOINTS` names a file, whose content is
//! `point action`: `kill`, or the name of an errno, which is what the step that would have come has failed with.

use std::fs;
use std::io;

use rustix::io::Errno;
use rustix::process::{Signal, getpid, kill_process};

const PLAN: &str = "KNARR_FAILPOINTS";

/// Fail here if that was asked for.
pub(crate) fn reached(point: &str) -> io::Result<()> {
    let Some(plan) = std::env::var_os(PLAN) else {
        return Ok(());
    };
    let wanted = match fs::read_to_string(plan) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    match wanted.trim().split_once(' ') {
        Some((name, action)) if name == point => act(action),
        _ => Ok(()),
    }
}

fn act(action: &str) -> io::Result<()> {
    match action {
        "kill" => Ok(kill_process(getpid(), Signal::KILL)?),
        "ENOSPC" => Err(Errno::NOSPC.into()),
        "EIO" => Err(Errno::IO.into()),
        other => Err(io::Error::other(format!("{PLAN}: {other} is not known"))),
    }
}
