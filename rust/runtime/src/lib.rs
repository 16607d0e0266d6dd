//! OCI runtime specification to plan to Steps: seccomp, capabilities, control groups, exec, state.

pub mod capability;
pub mod cgroup;
pub mod cli;
mod copyup;
pub mod error;
pub mod exec;
mod facts;
pub mod init;
pub mod launch;
pub mod plan;
pub mod rootfs;
pub mod seccomp;
pub mod spec;
pub mod user;

pub use error::{Kind, LaunchError};
pub use exec::{ExecRequest, exec};
pub use launch::{LaunchRequest, Launched, Stdio, launch};
pub use rootfs::{Rootfs, RootfsSource};
pub use spec::{Process, Spec};
