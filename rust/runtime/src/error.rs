//! What can go wrong on the way to a container's first instruction.

use std::fmt;

/// The engine's error vocabulary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The object named does not exist.
    NotFound,
    /// It exists already, or is in the wrong state.
    Conflict,
    /// The request itself is wrong.
    InvalidArgument,
    /// Credentials or policy refuse it.
    PermissionDenied,
    /// Something that is needed does not answer.
    Unavailable,
    /// Bytes are not what they should be.
    Corrupt,
    /// Known, and deliberately not done.
    Unsupported,
    /// A defect of ours.
    Internal,
}

impl Kind {
    /// The word used on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotFound => "NotFound",
            Self::Conflict => "Conflict",
            Self::InvalidArgument => "InvalidArgument",
            Self::PermissionDenied => "PermissionDenied",
            Self::Unavailable => "Unavailable",
            Self::Corrupt => "Corrupt",
            Self::Unsupported => "Unsupported",
            Self::Internal => "Internal",
        }
    }
}

/// A process did not start. Nothing of it is left behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaunchError {
    /// Which class of the vocabulary.
    pub kind: Kind,
    /// Which object, which path, what to do: in Docker's words where clients match on them.
    pub message: String,
    /// What a command line exits with: 127 not found, 126 not executable, 125 anything else.
    pub exit_code: u8,
}

impl LaunchError {
    /// An error of the runtime rather than of the command (exit code 125).
    #[must_use]
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            exit_code: 125,
        }
    }

    /// The same error with the exit code of a command that could not be run.
    #[must_use]
    pub fn with_exit_code(mut self, exit_code: u8) -> Self {
        self.exit_code = exit_code;
        self
    }
}

impl fmt::Display for LaunchError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl std::error::Error for LaunchError {}
