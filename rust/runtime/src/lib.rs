//! OCI runtime specification to plan to Steps: seccomp, capabilities, control groups, exec, state.

pub mod cgroup;
pub mod error;
pub mod exec;
pub mod launch;
pub mod rootfs;
pub mod seccomp;
pub mod spec;

pub use error::{Kind, LaunchError};
pub use exec::{ExecRequest, exec};
pub use launch::{LaunchRequest, Launched, Stdio, launch};
pub use rootfs::{Rootfs, RootfsSource};
pub use spec::{Process, Spec};
