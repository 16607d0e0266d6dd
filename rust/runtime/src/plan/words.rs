//! What a step was about, in words: for the error that a failed step becomes.

use std::io;

use crate::error::{Kind, LaunchError};
use crate::spec::Spec;

/// What a run of steps is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Context {
    /// Something said in full.
    Doing(&'static str),
    /// The mount of this index.
    Mount(usize),
    /// A device node or link.
    Device(String),
    /// The masked path of this index.
    Masked(usize),
    /// The read-only path of this index.
    Readonly(usize),
    /// A kernel parameter.
    Sysctl(String),
    /// A resource limit.
    Rlimit(String),
    /// The working directory.
    Cwd(String),
    /// A hook.
    Hook(String),
    /// The command.
    Exec(String),
}

/// The kind of the vocabulary that an error number means.
#[must_use]
pub fn kind(errno: i32) -> Kind {
    match errno {
        libc::ENOENT
        | libc::ENOTDIR
        | libc::ELOOP
        | libc::EXDEV
        | libc::EINVAL
        | libc::ENAMETOOLONG
        | libc::E2BIG => Kind::InvalidArgument,
        libc::EPERM | libc::EACCES | libc::EROFS => Kind::PermissionDenied,
        libc::ENOSPC | libc::ENOMEM | libc::EAGAIN | libc::EMFILE | libc::ENFILE | libc::EDQUOT => {
            Kind::Unavailable
        }
        libc::ENOSYS | libc::EOPNOTSUPP => Kind::Unsupported,
        _ => Kind::Internal,
    }
}

/// An error number in the kernel's words, without Rust's "(os error 2)".
#[must_use]
pub fn errno_text(errno: i32) -> String {
    let text = io::Error::from_raw_os_error(errno).to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| {
        first.to_lowercase().chain(letters).collect()
    })
}

fn call_name(call: Option<i64>) -> &'static str {
    match call {
        Some(libc::SYS_fsopen) => "fsopen",
        Some(libc::SYS_fsconfig) => "fsconfig",
        Some(libc::SYS_fsmount) => "fsmount",
        Some(libc::SYS_move_mount) => "move_mount",
        Some(libc::SYS_open_tree) => "open_tree",
        Some(libc::SYS_mount_setattr) => "mount_setattr",
        Some(libc::SYS_openat | libc::SYS_openat2) => "open",
        Some(libc::SYS_mkdirat) => "mkdir",
        Some(libc::SYS_mknodat) => "mknod",
        Some(libc::SYS_write) => "write",
        Some(libc::SYS_pivot_root) => "pivot_root",
        Some(libc::SYS_setns) => "setns",
        Some(libc::SYS_unshare) => "unshare",
        Some(libc::SYS_seccomp) => "seccomp",
        Some(libc::SYS_capset) => "capset",
        Some(libc::SYS_setuid | libc::SYS_setresuid) => "setuid",
        Some(libc::SYS_setgid | libc::SYS_setresgid) => "setgid",
        Some(libc::SYS_setgroups) => "setgroups",
        Some(libc::SYS_fchdir | libc::SYS_chdir) => "chdir",
        Some(libc::SYS_prctl) => "prctl",
        Some(libc::SYS_ioctl) => "ioctl",
        Some(libc::SYS_sethostname) => "sethostname",
        Some(libc::SYS_prlimit64) => "setrlimit",
        _ => "",
    }
}

impl Context {
    /// The error of a step that failed with `errno` in the system call `call`.
    #[must_use]
    pub fn error(&self, spec: &Spec, call: Option<i64>, errno: i32) -> LaunchError {
        if let Self::Exec(command) = self {
            return exec_error(command, errno);
        }
        let text = errno_text(errno);
        let how = match call_name(call) {
            "" => text,
            name => format!("{name}: {text}"),
        };
        let message = match self {
            Self::Mount(index) => {
                let mount = spec.mounts.get(*index).cloned().unwrap_or_default();
                let what = if mount.source.is_empty() {
                    &mount.kind
                } else {
                    &mount.source
                };
                let hint = match errno {
                    libc::ENOTDIR | libc::EINVAL if call == Some(libc::SYS_move_mount) => {
                        ": one may be a directory and the other not"
                    }
                    libc::ELOOP | libc::EXDEV => {
                        ": the path leads through a link that leaves the container"
                    }
                    _ => "",
                };
                format!(
                    "mount {what:?} at {:?} of the container: {how}{hint}",
                    mount.destination
                )
            }
            Self::Masked(index) | Self::Readonly(index) => {
                let paths = spec.linux.as_ref().map(|linux| match self {
                    Self::Masked(_) => &linux.masked_paths,
                    _ => &linux.readonly_paths,
                });
                let path = paths
                    .and_then(|paths| paths.get(*index))
                    .map_or("", String::as_str);
                let verb = if matches!(self, Self::Masked(_)) {
                    "mask"
                } else {
                    "make read-only"
                };
                format!("{verb} {path:?}: {how}")
            }
            Self::Device(path) => format!("make device {path:?} in the container: {how}"),
            Self::Sysctl(name) => format!("set kernel parameter {name:?}: {how}"),
            Self::Rlimit(name) => format!("set {name}: {how}"),
            Self::Cwd(path) => return directory_error(path, errno),
            Self::Hook(path) => format!("hook {path:?}: {how}"),
            Self::Doing(what) => format!("{what}: {how}"),
            Self::Exec(_) => how,
        };
        LaunchError::new(kind(errno), message)
    }

    /// A warning about a step that need not succeed.
    #[must_use]
    pub fn warning(&self, spec: &Spec, call: Option<i64>, errno: i32) -> String {
        self.error(spec, call, errno).message
    }
}

/// The working directory could not be entered, in runc's words: Docker's clients take their exit code from them.
fn directory_error(path: &str, errno: i32) -> LaunchError {
    let text = errno_text(errno);
    let message = format!("chdir to cwd ({path:?}) set in config.json failed: {text}");
    let code = if errno == libc::ENOENT { 127 } else { 126 };
    LaunchError::new(kind(errno), message).with_exit_code(code)
}

/// The command could not be executed, in Docker's words.
fn exec_error(command: &str, errno: i32) -> LaunchError {
    let error = |kind, message, code| LaunchError::new(kind, message).with_exit_code(code);
    match (errno, command.contains('/')) {
        (libc::ENOENT, false) => error(
            Kind::NotFound,
            format!("exec: {command:?}: executable file not found in $PATH"),
            127,
        ),
        (libc::ENOENT | libc::ENOTDIR | libc::ELOOP, true) => {
            let text = errno_text(errno);
            error(
                Kind::NotFound,
                format!("exec: {command:?}: stat {command}: {text}"),
                127,
            )
        }
        (libc::EACCES | libc::EISDIR | libc::EPERM, _) => error(
            Kind::PermissionDenied,
            format!("exec: {command:?}: permission denied"),
            126,
        ),
        (libc::ENOEXEC, _) => error(
            Kind::InvalidArgument,
            format!("exec {command}: exec format error"),
            126,
        ),
        _ => error(
            kind(errno),
            format!("exec: {command:?}: {}", errno_text(errno)),
            126,
        ),
    }
}
