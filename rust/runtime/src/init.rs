//! The small init: PID 1 of containers that ask for one.

use std::os::fd::OwnedFd;

use crate::error::{Kind, LaunchError};

/// The name it goes by in the container's process list, and by which our programs know themselves.
pub const NAME: &str = "/sbin/docker-init";

/// The program, as a descriptor.
pub fn program() -> Result<OwnedFd, LaunchError> {
    Err(LaunchError::new(Kind::Unsupported, "init"))
}
