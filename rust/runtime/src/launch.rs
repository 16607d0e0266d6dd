//! From a specification to a running container: prepare, plan, clone, listen.

mod idmap;
mod inputs;
mod source;

pub use source::{beneath as clone_beneath, layers as clone_layers};

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use knarr_sys::child::{self, Child, CloneArgs, Report};
use knarr_sys::pidfd;

use crate::cgroup::Cgroup;
use crate::error::{Kind, LaunchError};
use crate::facts;
use crate::plan::{self, Descriptors, Facts, Plan, note};
use crate::rootfs::Rootfs;
use crate::seccomp;
use crate::spec::{Process, Spec};
use crate::user::{self, Identity};
use inputs::Inputs;

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

impl Stdio {
    pub(crate) const fn descriptors(&self) -> Descriptors {
        match self {
            Self::Pipes { .. } => Descriptors::Given,
            Self::Terminal { rows, cols } => Descriptors::Terminal {
                rows: *rows,
                cols: *cols,
            },
            Self::Inherit => Descriptors::Inherited,
        }
    }
}

/// What the parent does while the child waits at its gate, knowing its PID: hooks.
pub type AtGate<'a> = &'a mut dyn FnMut(i32) -> Result<(), LaunchError>;

/// Everything a start needs.
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
    /// How many descriptors from 3 on the process keeps.
    pub preserve: u32,
    /// A FIFO open for reading and writing: the process waits for a byte before its program is
    /// executed, and [`launch`] returns when it waits.
    pub fifo: Option<BorrowedFd<'a>>,
    /// Whether the process gets a session keyring of its own.
    pub keyring: bool,
    /// Whether the host's root is left by `pivot_root(2)`; else the container's root covers it.
    pub pivot: bool,
    /// Called while the child waits, before it changes its root.
    pub at_gate: Option<AtGate<'a>>,
}

impl std::fmt::Debug for LaunchRequest<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("LaunchRequest")
            .field("id", &self.id)
            .field("bundle", &self.bundle)
            .finish_non_exhaustive()
    }
}

impl<'a> LaunchRequest<'a> {
    /// A request with the optional parts left out.
    #[must_use]
    pub fn new(
        id: &'a str,
        spec: &'a Spec,
        bundle: &'a Path,
        rootfs: Rootfs,
        stdio: Stdio,
    ) -> Self {
        Self {
            id,
            spec,
            bundle,
            rootfs,
            user: None,
            seccomp: None,
            netns: None,
            stdio,
            init: false,
            preserve: 0,
            fifo: None,
            keyring: true,
            pivot: true,
            at_gate: None,
        }
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

/// A container whose child is on its way to its program.
#[derive(Debug)]
pub struct Launching {
    child: Child,
    plan: Plan,
    cgroup: Cgroup,
    warnings: Vec<String>,
}

/// Start a container; returns when its program has been executed (or it waits on its FIFO).
pub fn launch(request: LaunchRequest<'_>) -> Result<Launched, LaunchError> {
    let spec = request.spec;
    let mut request = request;
    let at_gate = request.at_gate.take();
    let gate = at_gate.is_some();
    begin(request, gate)?.finish(spec, at_gate)
}

/// Clone a container's first process; [`Launching::finish`] waits for it. With `gate` it waits for
/// the function that is given there.
#[allow(clippy::needless_pass_by_value)] // the caller's copies of the descriptors are to be closed here
pub fn begin(request: LaunchRequest<'_>, gate: bool) -> Result<Launching, LaunchError> {
    let spec = request.spec;
    let linux = spec.linux.as_ref();
    let process = spec.process.as_ref().ok_or_else(|| {
        LaunchError::new(Kind::InvalidArgument, "the specification has no process")
    })?;
    let identity = identify(request.rootfs.as_fd(), request.user, process)?;
    let filter = match (
        &request.seccomp,
        linux.and_then(|linux| linux.seccomp.as_ref()),
    ) {
        (Some(program), _) => Some(Arc::clone(program)),
        (None, Some(filter)) => Some(seccomp::compile(filter)?),
        (None, None) => None,
    };
    let user = (identity.uid, identity.gid);
    let process_facts = facts::process(
        identity,
        request.stdio.descriptors(),
        filter.as_deref(),
        request.preserve,
        request.init,
    )?;
    let (fresh, joined) = plan::namespaces(spec)?;
    let path = linux.map_or("", |linux| linux.cgroups_path.as_str());
    let inputs = Inputs::gather(&request, user, fresh, &joined)?;
    let resources = linux.and_then(|linux| linux.resources.as_ref());
    let (cgroup, mut warnings) = Cgroup::create(path, request.id, resources)?;
    let started = start(&request, inputs, process_facts, &cgroup, fresh, gate);
    match started {
        Ok((child, plan)) => {
            warnings.extend(plan.warnings.iter().cloned());
            Ok(Launching {
                child,
                plan,
                cgroup,
                warnings,
            })
        }
        Err(error) => {
            discard(&cgroup);
            Err(error)
        }
    }
}

fn start(
    request: &LaunchRequest<'_>,
    mut inputs: Inputs,
    process: plan::ProcessFacts,
    cgroup: &Cgroup,
    fresh: u64,
    gate: bool,
) -> Result<(Child, Plan), LaunchError> {
    let entry = cgroup.entry()?;
    let own_cgroups = fresh & u64::from(libc::CLONE_NEWCGROUP.cast_unsigned()) != 0;
    inputs.control_groups(cgroup, &entry, request.spec, own_cgroups)?;
    let user_namespace = fresh & u64::from(libc::CLONE_NEWUSER.cast_unsigned()) != 0;
    let facts = Facts {
        process,
        id: request.id.to_owned(),
        inputs: inputs.kinds(request, user_namespace),
        directories: inputs.directories.clone(),
        hierarchies: cgroup
            .hierarchies()
            .into_iter()
            .map(|controllers| plan::Hierarchy { controllers })
            .collect(),
        gate: gate || user_namespace,
        keyring: request.keyring,
        pivot: request.pivot,
        fifo: request.fifo.is_some(),
    };
    let mut plan = plan::container(request.spec, &facts)?;
    let descriptors = inputs.descriptors(request, &plan.inputs)?;
    let args = CloneArgs {
        namespaces: plan.namespaces,
        cgroup: entry.unified(),
    };
    let around = inputs.join_before(request, user_namespace)?;
    let child = child::spawn(&mut plan.program, &descriptors, &args);
    drop(around);
    let child = child.map_err(|error| {
        let errno = error.raw_os_error().unwrap_or(0);
        LaunchError::new(
            plan::kind(errno),
            format!(
                "clone the container's first process: {}",
                plan::errno_text(errno)
            ),
        )
    })?;
    if user_namespace && let Err(error) = facts::map_ids(child.pid, request.spec) {
        end(&child);
        return Err(error);
    }
    Ok((child, plan))
}

/// Who the process runs as, by Docker's string or the specification's numbers.
pub(crate) fn identify(
    root: BorrowedFd<'_>,
    user: Option<&str>,
    process: &Process,
) -> Result<Identity, LaunchError> {
    if let Some(user) = user {
        let mut identity = user::resolve(root, user)?;
        for group in &process.user.additional_gids {
            if !identity.groups.contains(group) {
                identity.groups.push(*group);
            }
        }
        Ok(identity)
    } else {
        let has_home = process.env.iter().any(|entry| entry.starts_with("HOME="));
        let home = if has_home {
            String::new()
        } else {
            user::home(root, process.user.uid)?
        };
        Ok(Identity {
            uid: process.user.uid,
            gid: process.user.gid,
            groups: process.user.additional_gids.clone(),
            home,
        })
    }
}

/// Kill and reap a child that did not get to its program.
pub(crate) fn end(child: &Child) {
    // Either call fails only where the child is gone already, which is what they are for.
    let _ = pidfd::signal(child.pidfd.as_fd(), libc::SIGKILL);
    let _ = pidfd::wait(child.pidfd.as_fd(), true, false);
}

/// Remove the group of a container that did not start.
fn discard(cgroup: &Cgroup) {
    // A group with processes in it (a container without a PID namespace) is emptied first. What
    // still can't be removed is swept by its owner; the error to report is the one of the start.
    let _ = cgroup.kill();
    let _ = cgroup.remove();
}

impl Launching {
    /// The child's PID.
    #[must_use]
    pub const fn pid(&self) -> i32 {
        self.child.pid
    }

    /// Becomes readable when [`Launching::finish`] has something to do.
    #[must_use]
    pub fn channel(&self) -> BorrowedFd<'_> {
        self.child.channel.as_fd()
    }

    /// Wait until the program has been executed.
    pub fn finish(self, spec: &Spec, at_gate: Option<AtGate<'_>>) -> Result<Launched, LaunchError> {
        let Self {
            child,
            plan,
            cgroup,
            mut warnings,
        } = self;
        match listen(&child, &plan, spec, at_gate, &mut warnings) {
            Ok(terminal) => Ok(Launched {
                pid: child.pid,
                pidfd: child.pidfd,
                terminal,
                cgroup,
                warnings,
            }),
            Err(error) => {
                end(&child);
                discard(&cgroup);
                Err(error)
            }
        }
    }
}

/// Follow a child's reports until its program has been executed: its terminal, if it has one.
pub(crate) fn listen(
    child: &Child,
    plan: &Plan,
    spec: &Spec,
    mut at_gate: Option<AtGate<'_>>,
    warnings: &mut Vec<String>,
) -> Result<Option<OwnedFd>, LaunchError> {
    let broken = |error: std::io::Error| {
        LaunchError::new(
            Kind::Internal,
            format!("listen to the container's first process: {error}"),
        )
    };
    let mut terminal = None;
    let mut executing = false;
    loop {
        match child.report().map_err(broken)? {
            Report::Failed { step, errno } => return Err(plan.error(spec, step, errno)),
            Report::Warning { step, errno } => warnings.push(plan.warning(spec, step, errno)),
            Report::Note {
                kind: note::GATE, ..
            } => {
                if let Some(act) = at_gate.take() {
                    act(child.pid)?;
                }
                child.release().map_err(broken)?;
            }
            Report::Note {
                kind: note::TERMINAL,
                descriptor,
                ..
            } => terminal = descriptor,
            Report::Note {
                kind: note::READY, ..
            } => return Ok(terminal),
            Report::Note {
                kind: note::EXECUTING,
                ..
            } => executing = true,
            Report::Note {
                kind: note::LISTENER,
                descriptor,
                ..
            } => {
                let filter = spec.linux.as_ref().and_then(|linux| linux.seccomp.as_ref());
                if let (Some(descriptor), Some(filter)) = (descriptor, filter) {
                    seccomp::hand_over(&descriptor, filter, child.pid)?;
                }
            }
            Report::Note { kind, .. } => {
                return Err(LaunchError::new(
                    Kind::Internal,
                    format!("unexpected note {kind} of the first process"),
                ));
            }
            Report::Closed if executing => return Ok(terminal),
            Report::Closed => return Err(died(child)),
        }
    }
}

fn died(child: &Child) -> LaunchError {
    let how = match pidfd::wait(child.pidfd.as_fd(), true, true) {
        Ok(Some(pidfd::Ended::Killed(signal))) => format!(
            "was killed by signal {signal} before its program was executed: is the memory limit too low for it?"
        ),
        Ok(Some(pidfd::Ended::Exited(code))) => {
            format!("ended with status {code} before its program was executed")
        }
        Ok(None) | Err(_) => "is gone".to_owned(),
    };
    LaunchError::new(
        Kind::Unavailable,
        format!("the container's first process {how}"),
    )
}
