//! What a bind mount binds, as a detached tree.
//!
//! Besides a path of the host that is a path beneath the source that cannot lead out of it (an engine's volume, whose files
//! are the containers'), a path in another container (`/proc/PID/root/PATH`): a mount of another mount namespace can
//! be copied only from within, so a thread goes there for it; and an image's layers as they look together, which are mounted
//! nowhere else.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use knarr_sys::mount::{MountAttr, set_attributes};
use knarr_sys::process::{join_namespace, unshare};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};

use crate::error::{Kind, LaunchError};
use crate::plan::{self, Options};
use crate::rootfs::{Rootfs, clone_path, is_directory};
use crate::spec::Mount;

const MS_PRIVATE: u64 = 1 << 18;

/// Whether it is a directory, and the tree.
pub fn open(
    bundle: &Path,
    mount: &Mount,
    options: &Options,
) -> Result<(bool, OwnedFd), LaunchError> {
    if !mount.layers.is_empty() {
        let path = options.beneath.as_deref().unwrap_or_default();
        return layers(&mount.layers, path).map_err(|error| {
            LaunchError::new(
                error.kind,
                format!("image mount at {:?}: {}", mount.destination, error.message),
            )
        });
    }
    if mount.source.is_empty() {
        return Err(LaunchError::new(
            Kind::InvalidArgument,
            format!("bind mount at {:?} has no source", mount.destination),
        ));
    }
    let recursive = options.bind.unwrap_or(true);
    let source = bundle.join(&mount.source);
    let opened = match (in_process(&mount.source), &options.beneath) {
        (Some((process, path)), None) => elsewhere(&process, &path, recursive),
        (Some(_), Some(_)) => Err(Errno::INVAL),
        (None, Some(path)) => beneath(&source, path, recursive),
        (None, None) => clone_path(&source, recursive),
    };
    opened.map_err(|errno| {
        if let Some(path) = &options.beneath {
            return inaccessible(&format!("{}/{path}", mount.source), errno);
        }
        let raw = errno.raw_os_error();
        LaunchError::new(
            plan::kind(raw),
            format!(
                "bind source {:?} of {:?}: {}",
                mount.source,
                mount.destination,
                plan::errno_text(raw)
            ),
        )
    })
}

/// A path in a volume or an image that cannot be had, in Docker's words.
fn inaccessible(path: &str, errno: Errno) -> LaunchError {
    let raw = errno.raw_os_error();
    let (kind, why) = match errno {
        Errno::XDEV => (
            Kind::InvalidArgument,
            "it leads out: path concatenation escapes the base directory".to_owned(),
        ),
        Errno::NOENT | Errno::NOTDIR => (Kind::NotFound, plan::errno_text(raw)),
        _ => (plan::kind(raw), plan::errno_text(raw)),
    };
    LaunchError::new(kind, format!("cannot access path {path}: {why}"))
}

/// A descriptor's tree, detached.
fn copy(place: &OwnedFd, recursive: bool) -> Result<(bool, OwnedFd), Errno> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    let tree = open_tree(place, "", flags)?;
    Ok((is_directory(&tree)?, tree))
}

fn find(base: &OwnedFd, path: &str, resolve: ResolveFlags) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    loop {
        match openat2(base, path, flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
}

/// What is at a path beneath a directory, which cannot lead out of it: whether it is a directory, and the tree.
pub fn beneath(source: &Path, path: &str, recursive: bool) -> Result<(bool, OwnedFd), Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let base = openat(CWD, source, flags, Mode::empty())?;
    let place = find(
        &base,
        path,
        ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS,
    )?;
    copy(&place, recursive)
}

/// Layers (top-most first) as they look together, or what is at a path beneath their root, which cannot lead out: whether it
/// is a directory, and the tree. Nobody can write to several of them; one alone is bound as it is.
pub fn layers(layers: &[PathBuf], path: &str) -> Result<(bool, OwnedFd), LaunchError> {
    let root = OwnedFd::from(Rootfs::merged(layers)?);
    if path.is_empty() {
        return Ok((true, root));
    }
    // A part of a mount can be copied only where the whole is mounted: in a namespace that ends with this thread.
    let opened = apart(libc::CLONE_NEWNS, || {
        let private = MountAttr {
            propagation: MS_PRIVATE,
            ..MountAttr::default()
        };
        set_attributes(CWD, c"/", true, &private).map_err(raw)?;
        let whole = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        move_mount(&root, "", CWD, "/", whole)?;
        let place = find(
            &root,
            path,
            ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS,
        )?;
        copy(&place, true)
    });
    opened.map_err(|errno| inaccessible(path, errno))
}

/// (its namespace's file, path from its root) of `/proc/PID/root/PATH`.
fn in_process(source: &str) -> Option<(PathBuf, String)> {
    let (pid, path) = source.strip_prefix("/proc/")?.split_once("/root/")?;
    let digits = !pid.is_empty() && pid.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| {
        (
            PathBuf::from(format!("/proc/{pid}/ns/mnt")),
            path.to_owned(),
        )
    })
}

/// What a path names in another mount namespace; no link of its maker's is followed.
fn elsewhere(process: &Path, path: &str, recursive: bool) -> Result<(bool, OwnedFd), Errno> {
    let namespace = OwnedFd::from(File::open(process).map_err(raw)?);
    apart(libc::CLONE_FS, || {
        join_namespace(namespace.as_fd(), libc::CLONE_NEWNS).map_err(raw)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = openat(CWD, "/", flags, Mode::empty())?;
        let place = find(
            &root,
            path,
            ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS,
        )?;
        copy(&place, recursive)
    })
}

#[allow(clippy::needless_pass_by_value)] // as map_err hands it over
fn raw(error: std::io::Error) -> Errno {
    Errno::from_raw_os_error(error.raw_os_error().unwrap_or(0))
}

/// Run in a thread that shares less than threads do (`CLONE_*`): one that shares its root with others may not move. It ends
/// before this returns.
fn apart<T: Send>(less: i32, work: impl FnOnce() -> Result<T, Errno> + Send) -> Result<T, Errno> {
    std::thread::scope(|scope| {
        std::thread::Builder::new()
            .stack_size(128 << 10)
            .spawn_scoped(scope, || {
                unshare(less).map_err(raw)?;
                work()
            })
            .map_err(raw)?
            .join()
            .unwrap_or(Err(Errno::FAULT))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_process_root_is_elsewhere() {
        let found = in_process("/proc/42/root/dev/shm").expect("a place in a process");
        assert_eq!(
            found,
            (PathBuf::from("/proc/42/ns/mnt"), "dev/shm".to_owned())
        );
        for path in [
            "/proc/self/root/dev",
            "/proc//root/x",
            "/proc/4/roots/x",
            "/x/proc/4/root/y",
        ] {
            assert_eq!(in_process(path), None, "{path}");
        }
    }
}
