//! Thin safe wrappers over system calls, and the child that interprets Steps.
//!
//! The only crate with unsafe code: each block says why it is sound. [`step`] is the program that
//! a plan makes, [`child`] clones a process that interprets it.

pub mod bpf;
pub mod child;
pub mod init;
mod interpret;
pub mod loopback;
pub mod mount;
pub mod net;
pub mod passing;
pub mod pidfd;
pub mod process;
pub mod project;
pub mod step;
pub mod supervise;
pub mod userns;
