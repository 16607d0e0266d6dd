//! Another process in a running container.
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use crate::cgroup::Cgroup;
use crate::error::LaunchError;
use crate::launch::{Launched, Stdio};
use crate::seccomp;
use crate::spec::Process;

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
}

/// Run it; returns when the program has been executed.
pub fn exec(request: ExecRequest<'_>) -> Result<Launched, LaunchError> {
    unimplemented!("{request:?}")
}
