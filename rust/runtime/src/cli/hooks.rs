//! Hooks (config.md, "POSIX-platform Hooks"): programs that read the container's state.

use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::state::State;
use crate::cgroup::Cgroup;
use crate::error::{Kind, LaunchError};
use crate::exec::{ExecRequest, exec};
use crate::launch;
use crate::spec::{Hook, Process};

fn failed(name: &str, hook: &Hook, what: impl std::fmt::Display) -> LaunchError {
    LaunchError::new(
        Kind::Unavailable,
        format!("{name} hook {:?}: {what}", hook.path),
    )
}

/// Run hooks one after another in this process's namespaces; the first failure ends it.
pub fn run(name: &str, hooks: &[Hook], state: &State, status: &str) -> Result<(), LaunchError> {
    for hook in hooks {
        one(name, hook, &state.document(status).to_string())?;
    }
    Ok(())
}

fn one(name: &str, hook: &Hook, document: &str) -> Result<(), LaunchError> {
    let wrong = |error: std::io::Error| failed(name, hook, error);
    let mut command = Command::new(&hook.path);
    if let Some((first, rest)) = hook.args.split_first() {
        command.arg0(first).args(rest);
    }
    command.env_clear().stdin(Stdio::piped());
    command.envs(hook.env.iter().filter_map(|entry| entry.split_once('=')));
    let mut child = command.spawn().map_err(wrong)?;
    if let Some(mut input) = child.stdin.take() {
        match input.write_all(document.as_bytes()) {
            // A hook need not read its state.
            Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
                return Err(wrong(error));
            }
            _ => {}
        }
    }
    if let Some(seconds) = hook.timeout {
        let pid = i32::try_from(child.id()).unwrap_or(0);
        let pidfd = knarr_sys::pidfd::open(pid).map_err(wrong)?;
        let patience = Timespec {
            tv_sec: seconds.into(),
            tv_nsec: 0,
        };
        let ended = poll(
            &mut [PollFd::new(&pidfd.as_fd(), PollFlags::IN)],
            Some(&patience),
        );
        if ended.map_err(|errno| wrong(errno.into()))? == 0 {
            child.kill().map_err(wrong)?;
            child.wait().map_err(wrong)?;
            return Err(failed(
                name,
                hook,
                format!("did not end within {seconds} s"),
            ));
        }
    }
    let status = child.wait().map_err(wrong)?;
    if status.success() {
        Ok(())
    } else {
        Err(failed(name, hook, status))
    }
}

/// Run hooks inside a created container, as its first process would run.
pub fn run_inside(hooks: &[Hook], state: &State) -> Result<(), LaunchError> {
    let name = "startContainer";
    for hook in hooks {
        let wrong = |error: std::io::Error| failed(name, hook, error);
        let mut args = hook.args.clone();
        match args.first_mut() {
            Some(first) => first.clone_from(&hook.path),
            None => args.push(hook.path.clone()),
        }
        let own = state.spec.process.clone().unwrap_or_default();
        let process = Process {
            args,
            env: hook.env.clone(),
            cwd: "/".to_owned(),
            terminal: false,
            ..own
        };
        let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
            .map_err(|errno| wrong(errno.into()))?;
        let stderr = || {
            std::io::stderr()
                .as_fd()
                .try_clone_to_owned()
                .map_err(wrong)
        };
        let stdio = launch::Stdio::Pipes {
            stdin: reader,
            stdout: stderr()?,
            stderr: stderr()?,
        };
        let group = Cgroup::adopt(&state.cgroup).map_err(wrong)?;
        let pidfd = state.process()?;
        let launched = exec(ExecRequest::new(
            &process,
            state.pid,
            pidfd.as_fd(),
            &group,
            stdio,
        ))?;
        let document = state.document("created").to_string();
        match std::fs::File::from(writer).write_all(document.as_bytes()) {
            Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
                return Err(wrong(error));
            }
            _ => {}
        }
        let ended = knarr_sys::pidfd::wait(launched.pidfd.as_fd(), true, false).map_err(wrong)?;
        let code = ended.map_or(255, knarr_sys::pidfd::Ended::code);
        if code != 0 {
            return Err(failed(name, hook, format!("exit status {code}")));
        }
    }
    Ok(())
}
