//! `kill`, `delete`, `pause` and `resume`.

use std::ffi::OsString;
use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Signal;

use super::args::{Flag, parse};
use super::state::{Home, State, check_id};
use super::{Context, Outcome, hooks, only_id};
use crate::cgroup::Cgroup;
use crate::error::{Kind, LaunchError};
use crate::launch::Launched;

/// Seconds that `delete --force` waits for processes to die.
const PATIENCE: i64 = 10;

const NAMES: [(&str, i32); 31] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("PWR", 30),
    ("SYS", 31),
];

/// A signal by number or name, with or without SIG.
fn signal(text: &str) -> Result<i32, LaunchError> {
    if let Ok(number) = text.parse::<i32>()
        && (0..=64).contains(&number)
    {
        return Ok(number);
    }
    let upper = text.to_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    NAMES
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, number)| *number)
        .ok_or_else(|| LaunchError::new(Kind::InvalidArgument, format!("unknown signal {text:?}")))
}

fn group(state: &State) -> Result<Option<Cgroup>, LaunchError> {
    match Cgroup::adopt(&state.cgroup) {
        Ok(group) => Ok(Some(group)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(LaunchError::new(
            Kind::Unavailable,
            format!("control group of container {}: {error}", state.id),
        )),
    }
}

/// `kill`.
pub fn kill(context: &Context, rest: &[OsString]) -> Outcome {
    let (args, rest) = parse(&[Flag::switch("all").short('a')], rest)?;
    let (id, number) = match rest {
        [id] => (check_id(id)?, libc::SIGTERM),
        [id, name] => (check_id(id)?, signal(&name.to_string_lossy())?),
        _ => return only_id(rest).map(|_| 0),
    };
    let state = Home::open(context, id)?.load()?;
    let failed = |error: std::io::Error| {
        LaunchError::new(
            Kind::Unavailable,
            format!("signal {number} to container {id}: {error}"),
        )
    };
    if args.has("all") {
        if let (Some(group), Some(wanted)) = (group(&state)?, Signal::from_named_raw(number)) {
            group.signal(wanted).map_err(failed)?;
        }
        return Ok(0);
    }
    let pidfd = state.process()?;
    knarr_sys::pidfd::signal(pidfd.as_fd(), number).map_err(failed)?;
    Ok(0)
}

/// `delete`.
pub fn delete(context: &Context, rest: &[OsString]) -> Outcome {
    let (args, rest) = parse(&[Flag::switch("force").short('f')], rest)?;
    let id = only_id(rest)?;
    let force = args.has("force");
    let home = match Home::open(context, id) {
        Err(error) if force && error.kind == Kind::NotFound => return Ok(0),
        other => other?,
    };
    let state = match home.load() {
        // A runtime that was killed before it wrote anything has made nothing else.
        Err(_) if force => {
            home.remove()?;
            return Ok(0);
        }
        other => other?,
    };
    if state.is_running() {
        // A container that was never started has nothing to lose.
        if !force && state.status(&home) != "created" {
            return Err(LaunchError::new(
                Kind::Conflict,
                format!(
                    "container {id} is {}: stop it first, or use --force",
                    state.status(&home)
                ),
            ));
        }
        let failed = |error: std::io::Error| {
            LaunchError::new(Kind::Unavailable, format!("kill container {id}: {error}"))
        };
        if let Ok(pidfd) = state.process() {
            knarr_sys::pidfd::signal(pidfd.as_fd(), libc::SIGKILL).map_err(failed)?;
            // What is frozen dies only when it is thawed.
            if let Some(group) = group(&state)? {
                group.thaw().map_err(failed)?;
            }
            let patience = Timespec {
                tv_sec: PATIENCE,
                tv_nsec: 0,
            };
            let ended = poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&patience));
            if ended.map_err(|errno| failed(errno.into()))? == 0 {
                return Err(LaunchError::new(
                    Kind::Unavailable,
                    format!(
                        "container {id} did not die within {PATIENCE} s: is it stuck in the kernel?"
                    ),
                ));
            }
        }
    }
    remove(&home, &state)?;
    Ok(0)
}

/// Remove what a container with no first process leaves.
pub fn remove(home: &Home, state: &State) -> Result<(), LaunchError> {
    if let Some(group) = group(state)? {
        let failed = |error: std::io::Error| {
            LaunchError::new(
                Kind::Unavailable,
                format!(
                    "remove the control group of container {}: {error}",
                    state.id
                ),
            )
        };
        if !group.processes().map_err(failed)?.is_empty() {
            // Without a PID namespace of its own, others outlive the first process; and a runtime
            // that was killed may have recorded none at all.
            group.kill().map_err(failed)?;
        }
        group.remove().map_err(failed)?;
    }
    home.remove()?;
    if let Some(wanted) = &state.spec.hooks
        && let Err(error) = hooks::run("poststop", &wanted.poststop, state, "stopped")
    {
        eprintln!("knarr-runtime: warning: {error}");
    }
    Ok(())
}

/// Kill and reap a process of ours.
pub fn end(launched: &Launched) -> Result<(), LaunchError> {
    let failed = |error: std::io::Error| {
        LaunchError::new(Kind::Unavailable, format!("end the container: {error}"))
    };
    match knarr_sys::pidfd::signal(launched.pidfd.as_fd(), libc::SIGKILL) {
        Err(error) if error.raw_os_error() != Some(libc::ESRCH) => return Err(failed(error)),
        _ => {}
    }
    match knarr_sys::pidfd::wait(launched.pidfd.as_fd(), true, false) {
        Err(error) if error.raw_os_error() != Some(libc::ECHILD) => Err(failed(error)),
        _ => Ok(()),
    }
}

/// `pause` and `resume`.
pub fn pause(context: &Context, rest: &[OsString], frozen: bool) -> Outcome {
    let (_, rest) = parse(&[], rest)?;
    let id = only_id(rest)?;
    let home = Home::open(context, id)?;
    let state = home.load()?;
    let (wanted, verb) = if frozen {
        (&["running", "created"][..], "pause")
    } else {
        (&["paused"][..], "resume")
    };
    let status = state.status(&home);
    if !wanted.contains(&status) {
        return Err(LaunchError::new(
            Kind::Conflict,
            format!("can't {verb} container {id}: it is {status}"),
        ));
    }
    let group = group(&state)?.ok_or_else(|| {
        LaunchError::new(
            Kind::NotFound,
            format!("container {id} has no control group"),
        )
    })?;
    let done = if frozen { group.freeze() } else { group.thaw() };
    done.map_err(|error| {
        LaunchError::new(Kind::Unavailable, format!("{verb} container {id}: {error}"))
    })?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_by_name_and_number() {
        for (text, number) in [
            ("9", 9),
            ("KILL", 9),
            ("SIGTERM", 15),
            ("sighup", 1),
            ("0", 0),
            ("34", 34),
        ] {
            assert_eq!(signal(text).expect(text), number);
        }
        for text in ["", "SIGNOPE", "65", "-1"] {
            assert!(signal(text).is_err(), "{text}");
        }
    }
}
