//! What a bind mount binds, as a detached tree.
//!
//! Besides a path of the host that is a path beneath the source that cannot lead out of it (an engine's volume, whose files
//! are the containers'), and a path in another container (`/proc/PID/root/PATH`): a mount of another mount namespace can
//! be copied only from within, so a thread goes there for it.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use knarr_sys::process::{join_namespace, unshare};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::io::Errno;
use rustix::mount::{OpenTreeFlags, open_tree};

use crate::error::{Kind, LaunchError};
use crate::plan::{self, Options};
use crate::rootfs::{clone_path, is_directory};
use crate::spec::Mount;

/// Whether it is a directory, and the tree.
pub fn open(
    bundle: &Path,
    mount: &Mount,
    options: &Options,
) -> Result<(bool, OwnedFd), LaunchError> {
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
        let raw = errno.raw_os_error();
        let kind = if errno == Errno::NOENT {
            Kind::InvalidArgument
        } else {
            plan::kind(raw)
        };
        let path = options.beneath.as_ref();
        let below = path.map_or_else(String::new, |path| format!(" (path {path:?} beneath it)"));
        let why = match (errno, path) {
            (Errno::XDEV, Some(_)) => "it leads out".to_owned(),
            _ => plan::errno_text(raw),
        };
        LaunchError::new(
            kind,
            format!(
                "bind source {:?}{below} of {:?}: {why}",
                mount.source, mount.destination,
            ),
        )
    })
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
    let raw = |error: std::io::Error| Errno::from_raw_os_error(error.raw_os_error().unwrap_or(0));
    let namespace = OwnedFd::from(File::open(process).map_err(raw)?);
    std::thread::scope(|scope| {
        std::thread::Builder::new()
            .stack_size(128 << 10)
            .spawn_scoped(scope, || {
                // A thread that shares its root with others may not move: and it ends here.
                unshare(libc::CLONE_FS).map_err(raw)?;
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
