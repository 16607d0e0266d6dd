//! What can go wrong with a container's files.

use std::io;
use std::path::PathBuf;

use knarr_runtime::{Kind, LaunchError};
use knarr_store::{Classified, ErrorKind, ExtractError, LayerError, PackError, kind_of_io};

/// What can go wrong with a container's files.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// The container has no such path.
    #[error("Could not find the file {0} in container")]
    Missing(String),
    /// A path that goes on behind a file.
    #[error("{0}: not a directory")]
    NoPath(String),
    /// Archives are extracted to directories.
    #[error("extraction point is not a directory")]
    NotDirectory,
    /// The container's root file system is read-only.
    #[error("container rootfs is marked read-only")]
    ReadOnlyRoot,
    /// A mount of the container is read-only.
    #[error("mounted volume is marked read-only")]
    ReadOnlyMount,
    /// The process is not the container's any more.
    #[error("container {0} is not running")]
    Ended(String),
    /// The root file system or a mount cannot be opened.
    #[error(transparent)]
    Root(#[from] LaunchError),
    /// An archive cannot be written.
    #[error(transparent)]
    Pack(#[from] PackError),
    /// An archive cannot be extracted.
    #[error(transparent)]
    Extract(#[from] ExtractError),
    /// A volume cannot be copied.
    #[error("{0}")]
    Copy(#[from] LayerError),
    /// A file system is in use, which would have to be unmounted.
    #[error("{}: its file system is in use (by a program of the host's, or by a copy of it that is being made)", .0.display())]
    Busy(PathBuf),
    /// No volume of a size can be made.
    #[error("{0}")]
    Size(String),
    /// A size that nothing can have.
    #[error("{0}")]
    TooSmall(String),
    /// A body does not go through its connection.
    #[error("{0}")]
    Body(#[from] io::Error),
    /// A system call failed.
    #[error("cannot {doing} {}: {source}", .path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

impl FilesError {
    /// A tree that cannot be walked.
    #[must_use]
    pub fn from_tree(source: io::Error) -> Self {
        Self::io("read", "the container's changes", source)
    }

    pub(crate) fn io(
        doing: &'static str,
        path: impl Into<PathBuf>,
        source: impl Into<io::Error>,
    ) -> Self {
        Self::Io {
            doing,
            path: path.into(),
            source: source.into(),
        }
    }
}

impl Classified for FilesError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Missing(_) => ErrorKind::NotFound,
            Self::NoPath(_)
            | Self::NotDirectory
            | Self::ReadOnlyRoot
            | Self::ReadOnlyMount
            | Self::TooSmall(_)
            | Self::Body(_) => ErrorKind::InvalidArgument,
            Self::Ended(_) | Self::Busy(_) => ErrorKind::Conflict,
            Self::Copy(error) => error.kind(),
            Self::Size(_) => ErrorKind::Unavailable,
            Self::Root(error) => match error.kind {
                Kind::NotFound => ErrorKind::NotFound,
                Kind::Conflict => ErrorKind::Conflict,
                Kind::InvalidArgument => ErrorKind::InvalidArgument,
                Kind::PermissionDenied => ErrorKind::PermissionDenied,
                Kind::Unavailable => ErrorKind::Unavailable,
                Kind::Corrupt => ErrorKind::Corrupt,
                Kind::Unsupported => ErrorKind::Unsupported,
                Kind::Internal => ErrorKind::Internal,
            },
            Self::Pack(error) => error.kind(),
            Self::Extract(error) => error.kind(),
            Self::Io { source, .. } => kind_of_io(source),
        }
    }
}
