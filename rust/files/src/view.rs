//! A container's root file system, open.
//!
//! | the container | its root | its mounts |
//! | --- | --- | --- |
//! | runs | a copy of the mount that it has, out of its mount namespace | copies of those that it has at the paths given |
//! | does not run, to be written | an overlay of its layers and its writable directory | made anew from their sources |
//! | does not run, to be read | an overlay that takes the writable directory for its uppermost layer | the same |
//!
//! So what is written to a running container is there at once, and a stopped one that is read may be started meanwhile: only one
//! overlay ever writes to a directory. `/proc`, `/sys`, `/dev` and what a container has mounted itself are no part of a
//! view, as with Docker.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use knarr_runtime::launch::{clone_beneath, clone_layers};
use knarr_runtime::rootfs::clone_path;
use knarr_runtime::{Rootfs, RootfsSource};
use knarr_store::{ExtractOptions, Fidelity, Limits, Packer, extract_stream, open_in_root};
use rustix::fs::{AtFlags, OFlags, StatVfsMountFlags, StatxFlags, fstat, fstatvfs, statx};
use rustix::io::Errno;

use crate::error::FilesError;
use crate::look::{self, PathStat, Place};
use crate::namespace::{Depth, assemble, of_container, tame};
use crate::stream::{Incoming, Outgoing};

/// What an overlay is made of.
#[derive(Debug, Clone)]
pub struct Layers {
    /// Read-only layers, top-most first.
    pub lower: Vec<PathBuf>,
    /// Where changes are.
    pub upper: PathBuf,
    /// Overlay's work directory.
    pub work: PathBuf,
}

/// A file or directory of the host's that a container sees.
#[derive(Debug, Clone)]
pub struct BindMount {
    /// Where in the container.
    pub destination: String,
    /// What of the host.
    pub source: PathBuf,
    /// In its place these directories as they look together, the top-most first: an image's layers.
    pub layers: Vec<PathBuf>,
    /// A path beneath that, which cannot lead out of it; empty for itself.
    pub beneath: String,
    /// With what is mounted below it.
    pub recursive: bool,
    /// Not to be written.
    pub read_only: bool,
    /// Nor what is mounted below it.
    pub recursive_read_only: bool,
}

/// A container's root file system with its mounts; it goes with its descriptors.
#[derive(Debug)]
pub struct View {
    root: OwnedFd,
    /// Keeps the mounts on the root.
    _namespace: Option<OwnedFd>,
}

impl View {
    /// Of a running container, told by the process that the supervisor started. Paths where something is mounted go before those
    /// below them.
    pub fn running(pid: i32, container: &str, mounts: &[String]) -> Result<Self, FilesError> {
        let (root, found) = of_container(pid, container, mounts)?;
        Self::of(root, None, &found)
    }

    /// Of a container that does not run. Mounts go before those below them.
    pub fn stopped(
        layers: &Layers,
        mounts: &[BindMount],
        writable: bool,
        read_only_root: bool,
    ) -> Result<Self, FilesError> {
        let mut found = Vec::new();
        for mount in mounts {
            let wrong = |source| FilesError::io("open the mount's source", &mount.source, source);
            let opened = if !mount.layers.is_empty() {
                Ok(clone_layers(&mount.layers, &mount.beneath)?)
            } else if mount.beneath.is_empty() {
                clone_path(&mount.source, mount.recursive)
            } else {
                clone_beneath(&mount.source, &mount.beneath, mount.recursive)
            };
            let (directory, tree) = opened.map_err(|errno| wrong(errno.into()))?;
            let depth = match (writable, mount.read_only, mount.recursive_read_only) {
                (false, ..) | (true, true, true) => Some(Depth::Tree),
                (true, true, false) => Some(Depth::Mount),
                (true, false, _) => None,
            };
            tame(tree.as_fd(), depth).map_err(wrong)?;
            found.push((mount.destination.clone(), directory, tree));
        }
        let rootfs = Self::rootfs(layers, &found, writable)?;
        let trees: Vec<_> = found
            .into_iter()
            .map(|(path, _, tree)| (path, tree))
            .collect();
        let depth = (!writable || read_only_root).then_some(Depth::Mount);
        Self::of(rootfs.into(), depth, &trees)
    }

    /// The root, with a place for each mount: made as a start would make it.
    fn rootfs(
        layers: &Layers,
        mounts: &[(String, bool, OwnedFd)],
        writable: bool,
    ) -> Result<Rootfs, FilesError> {
        let source = || RootfsSource::Overlay {
            lower: layers.lower.clone(),
            upper: layers.upper.clone(),
            work: layers.work.clone(),
        };
        let merged = || {
            let mut all = vec![layers.upper.clone()];
            all.extend(layers.lower.iter().cloned());
            Rootfs::merged(&all)
        };
        let rootfs = if writable {
            Rootfs::open(&source())?
        } else {
            merged()?
        };
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let missing = mounts
            .iter()
            .any(|(path, ..)| open_in_root(rootfs.as_fd(), path.as_bytes(), flags).is_err());
        if !missing {
            return Ok(rootfs);
        }
        drop(rootfs);
        let rootfs = Rootfs::open(&source())?;
        for (path, directory, _) in mounts {
            rootfs.ensure(path.trim_start_matches('/'), !directory)?;
        }
        if writable {
            return Ok(rootfs);
        }
        drop(rootfs);
        Ok(merged()?)
    }

    fn of(
        root: OwnedFd,
        read_only: Option<Depth>,
        mounts: &[(String, OwnedFd)],
    ) -> Result<Self, FilesError> {
        let wrong = |source| FilesError::io("prepare the mount at", "/", source);
        tame(root.as_fd(), read_only).map_err(wrong)?;
        for (path, mount) in mounts {
            let wrong = |source| FilesError::io("prepare the mount at", path, source);
            tame(mount.as_fd(), None).map_err(wrong)?;
        }
        let namespace = match mounts {
            [] => None,
            mounts => Some(assemble(root.as_fd(), mounts)?),
        };
        Ok(Self {
            root,
            _namespace: namespace,
        })
    }

    /// What is at a path: of a symbolic link the link itself.
    pub fn stat(&self, path: &str) -> Result<PathStat, FilesError> {
        look::stat(self.root.as_fd(), path)
    }

    /// Writes what is at a path, all that is in it included, as an archive whose paths begin with the path's last name.
    pub fn pack(&self, path: &str, mut to: Outgoing) -> Result<(), FilesError> {
        let place = Place::of(path);
        let (above, name) = place.open(self.root.as_fd())?;
        let mut packer = Packer::new(&mut to, Fidelity::Docker);
        packer.tree(above.as_fd(), &name, place.shown.as_bytes())?;
        packer.finish()?;
        Ok(())
    }

    /// Writes the root file system as an archive; what is mounted on it is left out of a view that was opened for that.
    pub fn export(&self, mut to: Outgoing) -> Result<(), FilesError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let top = open_in_root(self.root.as_fd(), b"/", flags)
            .map_err(|errno| FilesError::io("open", "/", errno))?;
        let mut packer = Packer::new(&mut to, Fidelity::Docker);
        packer.below(top, b"")?;
        packer.finish()?;
        Ok(())
    }

    /// Extracts an archive into the directory that a path leads to.
    pub fn extract(
        &self,
        path: &str,
        from: &mut Incoming,
        options: &ExtractOptions,
    ) -> Result<(), FilesError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = match open_in_root(self.root.as_fd(), path.as_bytes(), flags) {
            Err(Errno::NOENT) => return Err(FilesError::Missing(path.to_owned())),
            Err(Errno::NOTDIR) => return Err(FilesError::NotDirectory),
            other => other.map_err(|errno| FilesError::io("open", path, errno))?,
        };
        let wrong = |errno: Errno| FilesError::io("look at", path, errno);
        if fstatvfs(&directory)
            .map_err(wrong)?
            .f_flag
            .contains(StatVfsMountFlags::RDONLY)
        {
            let mount = |of: &OwnedFd| statx(of, c"", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID);
            let same = mount(&directory).map_err(wrong)?.stx_mnt_id
                == mount(&self.root).map_err(wrong)?.stx_mnt_id;
            return Err(if same {
                FilesError::ReadOnlyRoot
            } else {
                FilesError::ReadOnlyMount
            });
        }
        Ok(extract_stream(
            from,
            "the archive",
            directory,
            options,
            &Limits::default(),
        )?)
    }

    /// The user and group IDs that a container's `User` means in its own files.
    pub fn owner(&self, user: &str) -> Result<(u32, u32), FilesError> {
        let identity = knarr_runtime::user::resolve(self.root.as_fd(), user)?;
        Ok((identity.uid, identity.gid))
    }
}

/// A container's writable directory, in which nothing can be written, run, or opened as a device.
pub fn shielded(directory: &Path) -> Result<OwnedFd, FilesError> {
    let wrong = |errno: Errno| FilesError::io("open", directory, errno);
    let (_, tree) = clone_path(directory, false).map_err(wrong)?;
    tame(tree.as_fd(), Some(Depth::Tree))
        .map_err(|source| FilesError::io("shield", directory, source))?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = open_in_root(tree.as_fd(), b".", flags).map_err(wrong)?;
    fstat(&opened).map_err(wrong)?;
    Ok(opened)
}
