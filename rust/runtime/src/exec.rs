//! Another process in a running container.

use std::fs::{self, File};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use knarr_sys::child::{self, Child, CloneArgs, Report};
use knarr_sys::pidfd;

use crate::cgroup::Cgroup;
use crate::error::{Kind, LaunchError};
use crate::facts;
use crate::launch::{Launched, Stdio, end, identify};
use crate::plan::{self, ExecFacts, Input, Plan, note};
use crate::seccomp;
use crate::spec::{Process, Spec};

/// Everything an exec needs.
#[derive(Debug)]
pub struct ExecRequest<'a> {
    /// What to run, with absolute capability sets, environment and working directory.
    pub process: &'a Process,
    /// Docker's `User` string, resolved from the container's own files; `None` takes `process.user`.
    pub user: Option<&'a str>,
    /// The container's first process.
    pub pid: i32,
    /// The same, as a descriptor.
    pub pidfd: BorrowedFd<'a>,
    /// The container's control group.
    pub cgroup: &'a Cgroup,
    /// The container's filter.
    pub seccomp: Option<Arc<seccomp::Program>>,
    /// The first three descriptors.
    pub stdio: Stdio,
    /// How many descriptors from 3 on the process keeps.
    pub preserve: u32,
}

impl<'a> ExecRequest<'a> {
    /// A request with the optional parts left out.
    #[must_use]
    pub fn new(
        process: &'a Process,
        pid: i32,
        pidfd: BorrowedFd<'a>,
        cgroup: &'a Cgroup,
        stdio: Stdio,
    ) -> Self {
        Self {
            process,
            user: None,
            pid,
            pidfd,
            cgroup,
            seccomp: None,
            stdio,
            preserve: 0,
        }
    }
}

const KINDS: [(&str, i32); 8] = [
    ("user", libc::CLONE_NEWUSER),
    ("mnt", libc::CLONE_NEWNS),
    ("pid", libc::CLONE_NEWPID),
    ("net", libc::CLONE_NEWNET),
    ("ipc", libc::CLONE_NEWIPC),
    ("uts", libc::CLONE_NEWUTS),
    ("cgroup", libc::CLONE_NEWCGROUP),
    ("time", libc::CLONE_NEWTIME),
];

fn not_running(pid: i32) -> LaunchError {
    LaunchError::new(
        Kind::Conflict,
        format!("the container's first process {pid} is not running"),
    )
}

/// Namespaces of a process that are not this one's.
fn foreign(pid: i32) -> Result<i32, LaunchError> {
    let mut flags = 0;
    for (name, flag) in KINDS {
        let own = fs::metadata(format!("/proc/self/ns/{name}"));
        let theirs = fs::metadata(format!("/proc/{pid}/ns/{name}"));
        match (own, theirs) {
            (Ok(own), Ok(theirs)) if (own.dev(), own.ino()) != (theirs.dev(), theirs.ino()) => {
                flags |= flag;
            }
            (Ok(_), Err(_)) => return Err(not_running(pid)),
            // A kernel without that kind of namespace.
            _ => {}
        }
    }
    Ok(flags)
}

/// Run it; returns when the program has been executed.
#[allow(clippy::needless_pass_by_value)] // the caller's copies of the descriptors are to be closed here
pub fn exec(request: ExecRequest<'_>) -> Result<Launched, LaunchError> {
    let process = request.process;
    let root =
        File::open(format!("/proc/{}/root", request.pid)).map_err(|_| not_running(request.pid))?;
    let identity = identify(root.as_fd(), request.user, process)?;
    drop(root);
    let namespaces = foreign(request.pid)?;
    // Had the PID been given to another process meanwhile, this one would be dead by now.
    if pidfd::signal(request.pidfd, 0).is_err() {
        return Err(not_running(request.pid));
    }
    let entry = request.cgroup.entry()?;
    let mut given: Vec<(Input, BorrowedFd<'_>)> = vec![(Input::Process, request.pidfd)];
    given.extend(
        entry
            .tasks
            .iter()
            .enumerate()
            .map(|(index, tasks)| (Input::Tasks(index), tasks.as_fd())),
    );
    if let Stdio::Pipes {
        stdin,
        stdout,
        stderr,
    } = &request.stdio
    {
        given.extend(
            [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()]
                .into_iter()
                .enumerate()
                .map(|(at, file)| (Input::Stdio(at), file)),
        );
    }
    let facts = ExecFacts {
        process: facts::process(
            identity,
            request.stdio.descriptors(),
            request.seccomp.as_deref(),
            request.preserve,
            false,
        )?,
        inputs: given.iter().map(|(input, _)| *input).collect(),
        tasks: entry.tasks.len(),
        namespaces,
    };
    let mut plan = plan::exec(process, &facts)?;
    let descriptors: Vec<BorrowedFd<'_>> = given.iter().map(|(_, file)| *file).collect();
    let args = CloneArgs {
        namespaces: 0,
        cgroup: entry.unified(),
    };
    let first = child::spawn(&mut plan.program, &descriptors, &args).map_err(|error| {
        let errno = error.raw_os_error().unwrap_or(0);
        LaunchError::new(
            plan::kind(errno),
            format!(
                "clone a process for the container: {}",
                plan::errno_text(errno)
            ),
        )
    })?;
    let mut warnings = plan.warnings.clone();
    let followed = follow(&first, &plan, &mut warnings);
    // The first child has handed over, failed or died: in any case it is ours to reap.
    end(&first);
    let Second {
        pid,
        pidfd,
        terminal,
    } = followed?;
    Ok(Launched {
        pid,
        pidfd,
        terminal,
        cgroup: request.cgroup.clone(),
        warnings,
    })
}

struct Second {
    pid: i32,
    pidfd: OwnedFd,
    terminal: Option<OwnedFd>,
}

/// Follow both children's reports until the program has been executed.
fn follow(first: &Child, plan: &Plan, warnings: &mut Vec<String>) -> Result<Second, LaunchError> {
    let spec = Spec::default();
    let mut process: Option<(i32, OwnedFd)> = None;
    let mut terminal = None;
    let mut executing = false;
    // The second may have failed before the first has said who it is: only the end tells that all is known.
    let mut failure: Option<LaunchError> = None;
    let failed = loop {
        let report = match first.report() {
            Ok(report) => report,
            Err(error) => {
                break LaunchError::new(
                    Kind::Internal,
                    format!("listen to the new process: {error}"),
                );
            }
        };
        match report {
            Report::Failed { step, errno } => {
                failure.get_or_insert_with(|| plan.error(&spec, step, errno));
            }
            Report::Warning { step, errno } => warnings.push(plan.warning(&spec, step, errno)),
            Report::Note {
                kind: note::PROCESS,
                value,
                descriptor: Some(pidfd),
            } => {
                process = Some((i32::try_from(value).unwrap_or(0), pidfd));
            }
            Report::Note {
                kind: note::TERMINAL,
                descriptor,
                ..
            } => terminal = descriptor,
            Report::Note {
                kind: note::EXECUTING,
                ..
            } => executing = true,
            Report::Note { kind, .. } => {
                break LaunchError::new(
                    Kind::Internal,
                    format!("unexpected note {kind} of the new process"),
                );
            }
            Report::Closed => {
                if let Some(failure) = failure {
                    break failure;
                }
                if executing && let Some((pid, pidfd)) = process.take() {
                    return Ok(Second {
                        pid,
                        pidfd,
                        terminal,
                    });
                }
                break LaunchError::new(
                    Kind::Unavailable,
                    "the new process was killed before its program was executed: has the container ended?",
                );
            }
        }
    };
    if let Some((_, pidfd)) = process {
        // It is gone or about to be: either call fails only where there is nothing left to do.
        let _ = pidfd::signal(pidfd.as_fd(), libc::SIGKILL);
        let _ = pidfd::wait(pidfd.as_fd(), true, false);
    }
    Err(failed)
}
