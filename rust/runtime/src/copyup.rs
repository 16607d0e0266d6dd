//! A tmpfs that begins with what the image has at its place (`tmpcopyup`).

use std::os::fd::OwnedFd;

use crate::error::{Kind, LaunchError};
use crate::plan::Options;
use crate::rootfs::Rootfs;
use crate::spec::Mount;

/// Make it, detached.
pub fn tmpfs(_rootfs: &Rootfs, mount: &Mount, _options: &Options) -> Result<OwnedFd, LaunchError> {
    Err(LaunchError::new(
        Kind::Unsupported,
        format!("mount at {:?}: tmpcopyup", mount.destination),
    ))
}
