//! A root file system as a detached mount: in nobody's mount table until a container attaches it,
//! gone with the last descriptor if none does.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use knarr_sys::mount::{MountAttr, set_attributes};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, mkdirat, openat, openat2};
use rustix::io::Errno;
use rustix::mount::{OpenTreeFlags, open_tree};

use crate::error::{Kind, LaunchError};
use crate::overlay;
use crate::plan;

const MS_PRIVATE: u64 = 1 << 18;
const MS_SLAVE: u64 = 1 << 19;

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

pub(crate) fn failed(what: &str, path: &Path, errno: Errno) -> LaunchError {
    let raw = errno.raw_os_error();
    let kind = if errno == Errno::NOENT {
        Kind::NotFound
    } else {
        plan::kind(raw)
    };
    LaunchError::new(
        kind,
        format!("{what} {}: {}", path.display(), plan::errno_text(raw)),
    )
}

pub(crate) fn directory(path: &Path) -> Result<OwnedFd, LaunchError> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(CWD, path, flags, Mode::empty())
        .map_err(|errno| failed("root file system directory", path, errno))
}

impl Rootfs {
    /// Make the mount.
    pub fn open(source: &RootfsSource) -> Result<Self, LaunchError> {
        let mount = match source {
            RootfsSource::Overlay { lower, upper, work } => overlay::above(lower, upper, work)?,
            RootfsSource::Throwaway { lower, tmpfs_size } => {
                overlay::throwaway(lower, *tmpfs_size)?
            }
            RootfsSource::Path(path) => {
                directory(path)?;
                let flags = OpenTreeFlags::OPEN_TREE_CLONE
                    | OpenTreeFlags::OPEN_TREE_CLOEXEC
                    | OpenTreeFlags::AT_RECURSIVE;
                open_tree(CWD, path, flags)
                    .map_err(|errno| failed("root file system", path, errno))?
            }
        };
        Ok(Self { mount })
    }

    /// A view of layers (top-most first) to which nobody can write.
    pub fn merged(layers: &[PathBuf]) -> Result<Self, LaunchError> {
        match layers {
            // Overlay takes no single layer, and one alone looks like itself.
            [only] => Self::open(&RootfsSource::Path(only.clone())),
            _ => Ok(Self {
                mount: overlay::merged(layers)?,
            }),
        }
    }

    /// Take no part in the propagation of the mounts it was cloned from (or only as a slave).
    pub(crate) fn separate(&self, slave: bool) -> Result<(), LaunchError> {
        let propagation = if slave { MS_SLAVE } else { MS_PRIVATE };
        set_attributes(
            self.mount.as_fd(),
            c"",
            true,
            &MountAttr {
                propagation,
                ..MountAttr::default()
            },
        )
        .map_err(|error| {
            LaunchError::new(
                Kind::Internal,
                format!("separate the root file system's mounts: {error}"),
            )
        })
    }

    /// Make sure that a path exists below the root, as seen by a process inside: links are followed
    /// within it, also dangling ones, whose targets are made. The last component becomes a file
    /// where `file` says so.
    pub fn ensure(&self, path: &str, file: bool) -> Result<(), LaunchError> {
        ensure(self.mount.as_fd(), path, file).map_err(|errno| {
            let raw = errno.raw_os_error();
            LaunchError::new(
                plan::kind(raw),
                format!(
                    "make /{path} in the container's root file system: {}",
                    plan::errno_text(raw)
                ),
            )
        })
    }
}

impl From<Rootfs> for OwnedFd {
    fn from(rootfs: Rootfs) -> Self {
        rootfs.mount
    }
}

impl AsFd for Rootfs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.mount.as_fd()
    }
}

fn lookup(root: BorrowedFd<'_>, path: &str) -> Result<OwnedFd, Errno> {
    let path = if path.is_empty() { "." } else { path };
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    loop {
        match openat2(
            root,
            path,
            OFlags::PATH | OFlags::CLOEXEC,
            Mode::empty(),
            resolve,
        ) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
}

fn ensure(root: BorrowedFd<'_>, path: &str, file: bool) -> Result<(), Errno> {
    /// Links that one path may lead through, as in the kernel.
    const MOST_LINKS: usize = 40;
    match lookup(root, path) {
        Err(Errno::NOENT) => {}
        other => return other.map(drop),
    }
    let mut links = 0;
    let mut done: Vec<String> = Vec::new();
    let mut rest: Vec<String> = path.split('/').rev().map(str::to_owned).collect();
    while let Some(name) = rest.pop() {
        match name.as_str() {
            "" | "." => continue,
            ".." => {
                done.pop();
                continue;
            }
            _ => {}
        }
        let parent = lookup(root, &done.join("/"))?;
        let target = match rustix::fs::readlinkat(&parent, name.as_str(), Vec::new()) {
            Ok(target) => target,
            // No link: there as something else, or missing.
            Err(Errno::INVAL) => {
                done.push(name);
                continue;
            }
            Err(Errno::NOENT) => {
                let last = rest.iter().all(|name| matches!(name.as_str(), "" | "."));
                if last && file {
                    let flags = OFlags::CREATE
                        | OFlags::EXCL
                        | OFlags::NOFOLLOW
                        | OFlags::CLOEXEC
                        | OFlags::WRONLY;
                    match openat(&parent, name.as_str(), flags, Mode::from_raw_mode(0o644)) {
                        Ok(_) | Err(Errno::EXIST) => {}
                        Err(errno) => return Err(errno),
                    }
                } else {
                    match mkdirat(&parent, name.as_str(), Mode::from_raw_mode(0o755)) {
                        Ok(()) | Err(Errno::EXIST) => {}
                        Err(errno) => return Err(errno),
                    }
                }
                done.push(name);
                continue;
            }
            Err(errno) => return Err(errno),
        };
        links += 1;
        if links > MOST_LINKS {
            return Err(Errno::LOOP);
        }
        let target = target.to_str().map_err(|_| Errno::ILSEQ)?;
        if target.starts_with('/') {
            done.clear();
        }
        rest.extend(target.split('/').rev().map(str::to_owned));
    }
    lookup(root, path).map(drop)
}

/// A detached copy of what a path names, for a bind mount: whether it is a directory, and the mount.
pub fn clone_path(path: &Path, recursive: bool) -> Result<(bool, OwnedFd), Errno> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    let tree = open_tree(CWD, path, flags)?;
    Ok((is_directory(&tree)?, tree))
}

pub(crate) fn is_directory(file: &OwnedFd) -> Result<bool, Errno> {
    Ok(rustix::fs::fstat(file)?.st_mode & S_IFMT == S_IFDIR)
}

const S_IFMT: u32 = 0o170_000;
const S_IFDIR: u32 = 0o040_000;
