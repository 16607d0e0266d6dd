//! From a specification and prepared facts to a flat program of Steps. Nothing here touches the
//! system: the same specification and facts give the same program, which tests read.
//!
//! The way of a container's first process, in the order of its steps:
//!
//! 1. session, keyring, control groups, control group namespace;
//! 2. a gate where the parent writes ID maps or runs hooks, if there are any;
//! 3. namespaces joined by descriptor; the mount tree made private;
//! 4. every new file system made detached, while the host's procfs is still visible;
//! 5. the root attached and pivoted to, the host's tree let go: from here on no path leads out;
//! 6. mounts attached, devices, kernel parameters, host name, masked and read-only paths;
//! 7. terminal, standard descriptors, working directory, limits, identity, filter;
//! 8. a last note to the parent, and the program.

mod enter;
mod finish;
mod identity;
mod mounts;
pub mod options;
mod paths;
mod scheduling;
mod setup;
#[cfg(test)]
mod tests;
mod words;
mod writer;

use knarr_sys::step::Program;

use crate::error::{Kind, LaunchError};
use crate::spec::{Process, Spec};
use crate::user::Identity;

pub use mounts::{change, clean, is_bind};
pub use options::Options;
pub use paths::all_devices;
pub use words::{Context, errno_text, kind};
pub use writer::Input;
use writer::Writer;

/// Notes that a program sends.
pub mod note {
    /// It waits at its gate.
    pub const GATE: u32 = 0;
    /// Here is the terminal's master.
    pub const TERMINAL: u32 = 1;
    /// Everything is set up: it waits for `start`.
    pub const READY: u32 = 2;
    /// The program is executed next.
    pub const EXECUTING: u32 = 3;
    /// The seccomp listener.
    pub const LISTENER: u32 = 4;
    /// The real process of an exec, as a pidfd with its PID.
    pub const PROCESS: u32 = 5;
}

/// What kind of first three descriptors there will be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Descriptors {
    /// Inputs; given to the user where they are no devices.
    Given,
    /// A terminal of the container's own, of this size.
    Terminal {
        /// Rows; 0 leaves the size unset.
        rows: u16,
        /// Columns.
        cols: u16,
    },
    /// What the parent has.
    Inherited,
}

/// What the plan must know about the process's surroundings besides the specification.
#[derive(Clone, Debug)]
pub struct ProcessFacts {
    /// Who it runs as.
    pub identity: Identity,
    /// Capabilities that this process may pass on, by bit.
    pub permitted: u64,
    /// The kernel's last capability.
    pub last_capability: u32,
    /// (resource, soft, hard) in force now.
    pub limits: Vec<(u32, u64, u64)>,
    /// Standard descriptors.
    pub descriptors: Descriptors,
    /// The compiled filter's instructions and flags.
    pub filter: Option<(Vec<u64>, u32)>,
    /// How many descriptors from 3 on the process keeps.
    pub preserve: u32,
    /// Whether the small init goes between.
    pub init: bool,
    /// Whether these security modules are in force.
    pub apparmor: bool,
    /// Whether these security modules are in force.
    pub selinux: bool,
}

/// One version 1 hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    /// Its controllers (`cpu,cpuacct`) or its name (`name=systemd`).
    pub controllers: String,
}

/// What the plan must know about the container's surroundings.
#[derive(Clone, Debug)]
pub struct Facts {
    /// About the process.
    pub process: ProcessFacts,
    /// The container's ID: names its session keyring.
    pub id: String,
    /// Inputs that there will be.
    pub inputs: Vec<Input>,
    /// For each mount that is an input: whether it is a directory.
    pub directories: Vec<Option<bool>>,
    /// Version 1 hierarchies that the container has a group in; empty for version 2.
    pub hierarchies: Vec<Hierarchy>,
    /// Whether the parent acts at the gate.
    pub gate: bool,
    /// Whether a session keyring is made.
    pub keyring: bool,
    /// Whether the host's root is left by `pivot_root(2)` (else by moving over it).
    pub pivot: bool,
    /// Whether the process waits on a FIFO for `start`.
    pub fifo: bool,
}

/// A program, what to give it, and what its steps are about.
#[derive(Debug)]
pub struct Plan {
    /// The program.
    pub program: Program,
    /// What goes into its slots from 1 on.
    pub inputs: Vec<Input>,
    /// Steps from this number on are about this.
    pub contexts: Vec<(u16, Context)>,
    /// `CLONE_NEW*` that the child is cloned with.
    pub namespaces: u64,
    /// What was left out because it could not be had.
    pub warnings: Vec<String>,
}

impl Plan {
    fn context(&self, step: usize) -> Option<(&Context, Option<i64>)> {
        use knarr_sys::step::Operation;
        let index = self
            .contexts
            .partition_point(|(first, _)| usize::from(*first) <= step)
            .checked_sub(1)?;
        let call = match self.program.steps().get(step)?.operation {
            Operation::Call(number) => Some(i64::from(number)),
            _ => None,
        };
        Some((&self.contexts.get(index)?.1, call))
    }

    /// The error that a failed step becomes.
    #[must_use]
    pub fn error(&self, spec: &Spec, step: usize, errno: i32) -> LaunchError {
        match self.context(step) {
            Some((context, call)) => context.error(spec, call, errno),
            None => LaunchError::new(
                Kind::Internal,
                format!("step {step} failed: {}", errno_text(errno)),
            ),
        }
    }

    /// The warning that a tolerated failure becomes.
    #[must_use]
    pub fn warning(&self, spec: &Spec, step: usize, errno: i32) -> String {
        self.error(spec, step, errno).message
    }
}

fn finish(writer: Writer, namespaces: u64, warnings: Vec<String>) -> Result<Plan, LaunchError> {
    let Writer {
        builder,
        contexts,
        inputs,
        ..
    } = writer;
    let program = builder.finish().ok_or_else(|| {
        LaunchError::new(
            Kind::InvalidArgument,
            "the specification asks for more than a start can hold: use fewer mounts, paths or arguments",
        )
    })?;
    Ok(Plan {
        program,
        inputs,
        contexts,
        namespaces,
        warnings,
    })
}

/// Refuse texts that cannot be C strings.
pub(crate) fn check_text(what: &str, text: &str) -> Result<(), LaunchError> {
    if text.contains('\0') {
        return Err(LaunchError::new(
            Kind::InvalidArgument,
            format!("{what} {text:?} holds a NUL byte"),
        ));
    }
    Ok(())
}

fn check_process(process: &Process) -> Result<(), LaunchError> {
    if process.args.is_empty() {
        return Err(LaunchError::new(
            Kind::InvalidArgument,
            "process.args is empty: no command specified",
        ));
    }
    for text in process.args.iter().chain(&process.env) {
        check_text("process argument or environment", text)?;
    }
    if process.exec_cpu_affinity.is_some() {
        return Err(LaunchError::new(
            Kind::Unsupported,
            "process.execCPUAffinity is not supported: limit the container by linux.resources.cpu.cpus",
        ));
    }
    check_text("working directory", &process.cwd)?;
    if !process.cwd.starts_with('/') {
        return Err(LaunchError::new(
            Kind::InvalidArgument,
            format!(
                "working directory {:?} is not an absolute path",
                process.cwd
            ),
        ));
    }
    Ok(())
}

/// Namespaces: flags of new ones, and (flag, path) of those that are joined.
pub type Namespaces<'a> = (u64, Vec<(i32, &'a str)>);

/// The namespaces a specification asks for.
pub fn namespaces(spec: &Spec) -> Result<Namespaces<'_>, LaunchError> {
    let mut fresh = 0u64;
    let mut joined = Vec::new();
    for namespace in spec.linux.iter().flat_map(|linux| &linux.namespaces) {
        let flag = match namespace.kind.as_str() {
            "pid" => libc::CLONE_NEWPID,
            "network" => libc::CLONE_NEWNET,
            "mount" => libc::CLONE_NEWNS,
            "ipc" => libc::CLONE_NEWIPC,
            "uts" => libc::CLONE_NEWUTS,
            "user" => libc::CLONE_NEWUSER,
            "cgroup" => libc::CLONE_NEWCGROUP,
            "time" => libc::CLONE_NEWTIME,
            other => {
                return Err(LaunchError::new(
                    Kind::InvalidArgument,
                    format!("unknown namespace type {other:?}"),
                ));
            }
        };
        let bit = u64::from(flag.cast_unsigned());
        if fresh & bit != 0 || joined.iter().any(|(kind, _)| *kind == flag) {
            return Err(LaunchError::new(
                Kind::InvalidArgument,
                format!("namespace {:?} is listed twice", namespace.kind),
            ));
        }
        if namespace.path.is_empty() {
            fresh |= bit;
        } else {
            check_text("namespace path", &namespace.path)?;
            joined.push((flag, namespace.path.as_str()));
        }
    }
    Ok((fresh, joined))
}

/// What the plan of another process must know besides.
#[derive(Clone, Debug)]
pub struct ExecFacts {
    /// About the process.
    pub process: ProcessFacts,
    /// Inputs that there will be.
    pub inputs: Vec<Input>,
    /// How many version 1 control groups are joined.
    pub tasks: usize,
    /// `CLONE_NEW*` of the namespaces that differ from this process's.
    pub namespaces: i32,
}

/// The plan of another process in a running container.
pub fn exec(process: &Process, facts: &ExecFacts) -> Result<Plan, LaunchError> {
    check_process(process)?;
    let mut writer = Writer::new(facts.inputs.clone());
    let mut warnings = Vec::new();
    enter::join(&mut writer, process, facts)?;
    enter::become_process(&mut writer, process, facts, &mut warnings)?;
    finish(writer, 0, warnings)
}

/// The plan of a container's first process.
pub fn container(spec: &Spec, facts: &Facts) -> Result<Plan, LaunchError> {
    let process = spec.process.as_ref().ok_or_else(|| {
        LaunchError::new(Kind::InvalidArgument, "the specification has no process")
    })?;
    check_process(process)?;
    let (fresh, _) = namespaces(spec)?;
    setup::check(spec, fresh)?;
    let mut writer = Writer::new(facts.inputs.clone());
    let mut warnings = Vec::new();
    setup::begin(&mut writer, spec, facts, fresh)?;
    let prepared = mounts::prepare(&mut writer, spec, facts, fresh)?;
    let root = setup::pivot(&mut writer, spec, facts)?;
    mounts::attach(&mut writer, spec, facts, &prepared, root)?;
    let console = finish::open_terminal(&mut writer, &facts.process, &prepared)?;
    paths::devices(&mut writer, spec, facts, &prepared, root)?;
    if let Some(console) = console {
        paths::console(&mut writer, console, root);
    }
    paths::sysctls(&mut writer, spec, &prepared, fresh)?;
    setup::names(&mut writer, spec);
    paths::hide(&mut writer, spec, &prepared, root)?;
    setup::seal_root(&mut writer, spec, root);
    setup::personality(&mut writer, spec)?;
    finish::process(
        &mut writer,
        process,
        facts,
        root,
        console,
        prepared.procfs,
        &mut warnings,
    )?;
    // The control group namespace is entered by a step, once the group has been joined; a PID
    // namespace that is joined is the parent's business.
    let flags = fresh & !u64::from(libc::CLONE_NEWCGROUP.cast_unsigned());
    finish(writer, flags, warnings)
}
