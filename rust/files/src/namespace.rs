//! Mounts that are made and joined in threads of their own, whose end leaves nothing but descriptors.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::thread;

use knarr_store::open_in_root;
use knarr_sys::mount::{MountAttr, set_attributes};
use knarr_sys::{pidfd, process};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxFlags, fstatfs, open, statx};
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, UnmountFlags, move_mount, open_tree, unmount};

use crate::error::FilesError;

const RDONLY: u64 = 1;
/// No program of it is run, no device of it opened, whatever a container has made there.
const HARMLESS: u64 = 2 | 4 | 8;
const PRIVATE: u64 = 1 << 18;
const MOUNT_ROOT: u64 = 0x2000;

/// File systems that show the kernel's own state: never part of a view, wherever somebody may have mounted them.
const KERNEL: [i64; 16] = [
    0x9fa0,      // proc
    0x6265_6572, // sysfs
    0x0027_e0eb, // cgroup
    0x6367_7270, // cgroup2
    0x1cd1,      // devpts
    0x1980_0202, // mqueue
    0x6462_6720, // debugfs
    0x7472_6163, // tracefs
    0x7363_6673, // securityfs
    0x6265_6570, // configfs
    0xcafe_4a11, // bpf
    0x4249_4e4d, // binfmt_misc
    0xde5e_81e4, // efivarfs
    0x6165_676c, // pstore
    0x6e73_6673, // nsfs
    0x6573_5543, // fusectl
];

/// A thread that may give up what it shares with the others; ended before this returns.
fn apart<T: Send>(work: impl FnOnce() -> Result<T, FilesError> + Send) -> Result<T, FilesError> {
    let broken = |source| FilesError::io("start a thread for", "mounts", source);
    thread::scope(|scope| {
        thread::Builder::new()
            .stack_size(256 << 10)
            .spawn_scoped(scope, work)
            .map_err(broken)?
            .join()
            .map_err(|_| broken(std::io::Error::other("it panicked")))?
    })
}

/// Copies of a running container's root file system, and of what is mounted at the given paths: each the path and the
/// copy. Paths where nothing is mounted any more are left out.
pub(crate) fn of_container(
    pid: i32,
    container: &str,
    mounts: &[String],
) -> Result<(OwnedFd, Vec<(String, OwnedFd)>), FilesError> {
    let ended = || FilesError::Ended(container.to_owned());
    let pidfd = pidfd::open(pid).map_err(|_| ended())?;
    // The number may be another process's by now. What the control group says is about the one that we hold, as it is
    // still there after that.
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).map_err(|_| ended())?;
    if !groups.contains(container) || pidfd::signal(pidfd.as_fd(), 0).is_err() {
        return Err(ended());
    }
    apart(|| {
        process::unshare(libc::CLONE_FS)
            .map_err(|source| FilesError::io("prepare a thread for", "mounts", source))?;
        process::join_namespace(pidfd.as_fd(), libc::CLONE_NEWNS).map_err(|_| ended())?;
        let wrong = |errno: Errno| FilesError::io("copy the mount at", "/", errno);
        let top = open(
            "/",
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .map_err(wrong)?;
        let root = copy(top.as_fd(), false).map_err(wrong)?;
        if is_kernels(root.as_fd()).map_err(wrong)? {
            return Err(ended());
        }
        let mut found = Vec::new();
        for path in mounts {
            let wrong = |errno: Errno| FilesError::io("copy the mount at", path, errno);
            let place =
                match open_in_root(top.as_fd(), path.as_bytes(), OFlags::PATH | OFlags::CLOEXEC) {
                    Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::AGAIN) => continue,
                    other => other.map_err(wrong)?,
                };
            if is_mounted(place.as_fd()).map_err(wrong)?
                && !is_kernels(place.as_fd()).map_err(wrong)?
            {
                found.push((path.clone(), copy(place.as_fd(), true).map_err(wrong)?));
            }
        }
        Ok((root, found))
    })
}

fn copy(place: BorrowedFd<'_>, recursive: bool) -> Result<OwnedFd, Errno> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    open_tree(place, "", flags)
}

fn is_mounted(place: BorrowedFd<'_>) -> Result<bool, Errno> {
    let found = statx(place, c"", AtFlags::EMPTY_PATH, StatxFlags::empty())?;
    Ok(found.stx_attributes.bits() & MOUNT_ROOT != 0)
}

fn is_kernels(place: BorrowedFd<'_>) -> Result<bool, Errno> {
    Ok(KERNEL.contains(&fstatfs(place)?.f_type))
}

/// Takes a mount, or a tree of them, out of what reaches the host: nothing of it is run or opened as a device, no mount
/// comes into it from elsewhere, and nothing is written where it is not to be.
pub(crate) fn tame(mount: BorrowedFd<'_>, read_only: Option<Depth>) -> std::io::Result<()> {
    let harmless = MountAttr {
        set: HARMLESS,
        propagation: PRIVATE,
        ..MountAttr::default()
    };
    set_attributes(mount, c"", true, &harmless)?;
    if let Some(depth) = read_only {
        let attributes = MountAttr {
            set: RDONLY,
            ..MountAttr::default()
        };
        set_attributes(mount, c"", depth == Depth::Tree, &attributes)?;
    }
    Ok(())
}

/// How far a mount's attribute reaches.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Depth {
    /// The mount alone.
    Mount,
    /// All that is mounted below it as well.
    Tree,
}

/// Puts mounts on a root, in a mount namespace that holds nothing else; what keeps that alive. A place that is missing is no
/// error: the container may have moved it since.
pub(crate) fn assemble(
    root: BorrowedFd<'_>,
    mounts: &[(String, OwnedFd)],
) -> Result<OwnedFd, FilesError> {
    apart(|| {
        let wrong = |source| FilesError::io("make a mount namespace for", "/", source);
        let denied = |errno: Errno| wrong(errno.into());
        process::unshare(libc::CLONE_NEWNS).map_err(wrong)?;
        let private = MountAttr {
            propagation: PRIVATE,
            ..MountAttr::default()
        };
        set_attributes(CWD, c"/", true, &private).map_err(wrong)?;
        let path = Path::new("/proc/thread-self/ns/mnt");
        let namespace =
            open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map_err(denied)?;
        let whole = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        move_mount(root, "", CWD, "/", whole).map_err(denied)?;
        for (path, mount) in mounts {
            let place = match open_in_root(root, path.as_bytes(), OFlags::PATH | OFlags::CLOEXEC) {
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::AGAIN) => continue,
                other => other.map_err(|errno| FilesError::io("find", path, errno))?,
            };
            match move_mount(
                mount,
                "",
                &place,
                "",
                whole | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH,
            ) {
                // A directory on a file, or the other way round: it has been swapped.
                Err(Errno::NOTDIR) => {}
                other => other.map_err(|errno| FilesError::io("mount on", path, errno))?,
            }
        }
        // What was copied of the host's own table goes: this one would keep it busy.
        rustix::process::fchdir(root).map_err(denied)?;
        rustix::process::pivot_root(".", ".").map_err(denied)?;
        unmount(".", UnmountFlags::DETACH).map_err(denied)?;
        Ok(namespace)
    })
}
