//! Thin safe wrappers over system calls, and the child that interprets Steps.
pub mod net;
