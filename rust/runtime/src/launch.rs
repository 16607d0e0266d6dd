//! From a specification to a running container.
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use crate::cgroup::Cgroup;
use crate::error::LaunchError;
use crate::rootfs::Rootfs;
use crate::seccomp;
use crate::spec::Spec;

/// What the process gets as its first three descriptors.
#[derive(Debug)]
pub enum Stdio {
    /// The ends given, one each.
    Pipes {
        /// Descriptor 0.
        stdin: OwnedFd,
        /// Descriptor 1.
        stdout: OwnedFd,
        /// Descriptor 2.
        stderr: OwnedFd,
    },
    /// A terminal of the container's own devpts; its master comes back in [`Launched`].
    Terminal {
        /// Rows; 0 leaves the size unset.
        rows: u16,
        /// Columns.
        cols: u16,
    },
    /// The caller's own.
    Inherit,
}

/// Everything a start needs.
#[derive(Debug)]
pub struct LaunchRequest<'a> {
    /// The container's ID: names the control group where the specification does not.
    pub id: &'a str,
    /// The specification.
    pub spec: &'a Spec,
    /// What relative bind mount sources are relative to.
    pub bundle: &'a Path,
    /// The root file system.
    pub rootfs: Rootfs,
    /// Docker's `User` string (`uid[:gid]`, `name[:group]`), resolved from the image's own files;
    /// `None` takes the specification's numbers.
    pub user: Option<&'a str>,
    /// A compiled filter; `None` compiles `linux.seccomp` of the specification, if there is one.
    pub seccomp: Option<Arc<seccomp::Program>>,
    /// A network namespace to join instead of the specification's.
    pub netns: Option<BorrowedFd<'a>>,
    /// The first three descriptors.
    pub stdio: Stdio,
    /// Whether PID 1 is a small init that forwards signals and reaps.
    pub init: bool,
}

impl<'a> LaunchRequest<'a> {
    /// A request with the optional parts left out.
    #[must_use]
    pub fn new(id: &'a str, spec: &'a Spec, bundle: &'a Path, rootfs: Rootfs, stdio: Stdio) -> Self {
        Self { id, spec, bundle, rootfs, user: None, seccomp: None, netns: None, stdio, init: false }
    }
}

/// A process that has executed its program.
#[derive(Debug)]
pub struct Launched {
    /// Its PID in the caller's namespace. The caller is its parent and must reap it.
    pub pid: i32,
    /// The same, as a descriptor.
    pub pidfd: OwnedFd,
    /// The terminal's master side.
    pub terminal: Option<OwnedFd>,
    /// Where its resources are counted.
    pub cgroup: Cgroup,
    /// What could not be done and was safe to go on without.
    pub warnings: Vec<String>,
}

/// Start a container; returns when its program has been executed.
pub fn launch(request: LaunchRequest<'_>) -> Result<Launched, LaunchError> {
    unimplemented!("{request:?}")
}
