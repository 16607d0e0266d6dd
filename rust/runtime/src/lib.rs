//! OCI runtime specification to plan to Steps: seccomp, capabilities, control groups, exec, state.

// Reasoned exceptions:
#![allow(clippy::items_after_statements)] // a constant stands where the call that needs it is
#![allow(clippy::similar_names)] // uid and gid, major and minor are the field's names
#![allow(clippy::many_single_char_names)] // bytes of a word
#![allow(clippy::struct_excessive_bools)] // facts are facts

pub mod capability;
pub mod cgroup;
pub mod cli;
mod copyup;
pub mod error;
pub mod exec;
mod facts;
pub mod init;
pub mod launch;
mod overlay;
pub mod plan;
pub mod protect;
pub mod rootfs;
pub mod seccomp;
pub mod spec;
pub mod user;

pub use error::{Kind, LaunchError};
pub use exec::{ExecRequest, exec};
pub use launch::{LaunchRequest, Launched, Stdio, launch};
pub use rootfs::{Rootfs, RootfsSource};
pub use spec::{Process, Spec};
