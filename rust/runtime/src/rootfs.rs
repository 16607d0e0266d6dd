//! A root file system as a detached mount: in nobody's mount table until a container attaches it.
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use crate::error::LaunchError;

/// Where a root file system comes from.
#[derive(Clone, Debug)]
pub enum RootfsSource {
    /// Layers (top-most first) below a writable directory.
    Overlay {
        /// Read-only layers, top-most first.
        lower: Vec<PathBuf>,
        /// Where changes go.
        upper: PathBuf,
        /// Overlay's work directory, on the file system of `upper`.
        work: PathBuf,
    },
    /// Layers below a tmpfs that goes away with the container.
    Throwaway {
        /// Read-only layers, top-most first.
        lower: Vec<PathBuf>,
        /// Bytes the tmpfs may take; 0 for the kernel's default.
        tmpfs_size: u64,
    },
    /// A directory as it is.
    Path(PathBuf),
}

/// A detached mount, unmounted when dropped.
#[derive(Debug)]
pub struct Rootfs {
    mount: OwnedFd,
}

impl Rootfs {
    /// Make the mount.
    pub fn open(source: &RootfsSource) -> Result<Self, LaunchError> {
        unimplemented!("{source:?}")
    }
}

impl AsFd for Rootfs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.mount.as_fd()
    }
}
