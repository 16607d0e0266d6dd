//! The version 2 device controller: a BPF program made of the rules.

use std::path::Path;

use crate::error::{Kind, LaunchError};
use crate::spec::DeviceRule;

pub(super) fn set(directory: &Path, rules: &[DeviceRule]) -> Result<(), LaunchError> {
    let _ = rules;
    Err(LaunchError::new(
        Kind::Unsupported,
        format!("device rules at {}", directory.display()),
    ))
}
