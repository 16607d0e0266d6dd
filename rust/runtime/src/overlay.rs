//! Overlay file systems as detached mounts, on every kernel.
//!
//! There are two ways, and which one the kernel takes is found by trying, once a process for each kind:
//!
//! - **By descriptor**: every layer is a descriptor of its own. For a container's overlay since Linux 6.13; above
//!   a tmpfs that is mounted nowhere since 6.15.
//! - **By name**: before that all layers are one string, which fsconfig(2) takes up to 255 bytes of. So each layer
//!   gets a name of one byte, a symbolic link in a tmpfs that is mounted nowhere, and the mount is made by a thread
//!   whose working directory that is. A throw-away upper must be mounted somewhere: the thread gets a mount
//!   namespace of its own for it, which ends with the thread. The host's mount table never changes.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};

use knarr_sys::mount::{MountAttr, set_attributes};
use knarr_sys::process::unshare;
use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat, symlinkat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, fsconfig_create, fsconfig_set_fd,
    fsconfig_set_string, fsmount, fsopen, move_mount,
};

use crate::error::{Kind, LaunchError};
use crate::rootfs::{directory, failed};

/// Bytes that name layers: nothing that overlay's options, a path or /proc/mounts would take for something else.
/// As many as there are names, with a colon between each two, are the longest string that fsconfig(2) takes.
const MOST_LAYERS: usize = 128;
const UPPER: &str = "upper";
const WORK: &str = "work";
const MS_PRIVATE: u64 = 1 << 18;

/// Which way the kernel takes, as far as it is known.
struct Way(AtomicU8);

impl Way {
    const UNKNOWN: u8 = 0;
    const BY_DESCRIPTOR: u8 = 1;
    const BY_NAME: u8 = 2;

    const fn unknown() -> Self {
        Self(AtomicU8::new(Self::UNKNOWN))
    }

    /// Take the way that is known, else the first that works.
    fn take(
        &self,
        by_descriptor: impl FnOnce() -> Result<OwnedFd, Failure>,
        by_name: impl FnOnce() -> Result<OwnedFd, Failure>,
    ) -> Result<OwnedFd, LaunchError> {
        let known = self.0.load(Ordering::Relaxed);
        if known != Self::BY_NAME {
            match by_descriptor() {
                Ok(mount) => {
                    self.0.store(Self::BY_DESCRIPTOR, Ordering::Relaxed);
                    return Ok(mount);
                }
                Err(failure) if known == Self::BY_DESCRIPTOR || !failure.unknown() => {
                    return Err(failure.error);
                }
                Err(_) => {}
            }
        }
        let mount = by_name().map_err(|failure| failure.error)?;
        self.0.store(Self::BY_NAME, Ordering::Relaxed);
        Ok(mount)
    }
}

static ABOVE: Way = Way::unknown();
static MERGED: Way = Way::unknown();
static THROWAWAY: Way = Way::unknown();

/// Why no mount came of it.
struct Failure {
    errno: Option<Errno>,
    error: LaunchError,
}

impl Failure {
    fn new(what: &str, path: &Path, errno: Errno) -> Self {
        Self {
            errno: Some(errno),
            error: failed(what, path, errno),
        }
    }

    /// Whether a kernel says this that does not know what it was asked for.
    fn unknown(&self) -> bool {
        matches!(
            self.errno,
            Some(Errno::INVAL | Errno::OPNOTSUPP | Errno::BADF)
        )
    }
}

impl From<LaunchError> for Failure {
    fn from(error: LaunchError) -> Self {
        Self { errno: None, error }
    }
}

/// Layers (top-most first) below the writable directory `upper`.
pub fn above(lower: &[PathBuf], upper: &Path, work: &Path) -> Result<OwnedFd, LaunchError> {
    ABOVE.take(
        || {
            let (upper, work) = (directory(upper)?, directory(work)?);
            by_descriptor(lower, Some((upper.as_fd(), work.as_fd())))
        },
        || above_by_name(lower, upper, work),
    )
}

/// Layers (top-most first, two of them at least) as they look together, without anything to write to.
pub fn merged(lower: &[PathBuf]) -> Result<OwnedFd, LaunchError> {
    MERGED.take(
        || by_descriptor(lower, None),
        || {
            for path in lower {
                directory(path)?;
            }
            let names = names(lower)?;
            in_thread(libc::CLONE_FS, || by_name(lower, names.as_fd(), None))
        },
    )
}

/// Layers (top-most first) below a tmpfs of `size` bytes (0: the kernel's default).
pub fn throwaway(lower: &[PathBuf], size: u64) -> Result<OwnedFd, LaunchError> {
    THROWAWAY.take(
        || {
            let tmpfs = tmpfs(size)?;
            let (upper, work) = (folder(&tmpfs, UPPER)?, folder(&tmpfs, WORK)?);
            by_descriptor(lower, Some((upper.as_fd(), work.as_fd())))
        },
        || throwaway_by_name(lower, size),
    )
}

fn by_descriptor(
    lower: &[PathBuf],
    writable: Option<(BorrowedFd<'_>, BorrowedFd<'_>)>,
) -> Result<OwnedFd, Failure> {
    let first = first(lower);
    let wrong = |errno| Failure::new("overlay of", first, errno);
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).map_err(wrong)?;
    for path in lower {
        let layer = directory(path)?;
        fsconfig_set_fd(context.as_fd(), "lowerdir+", layer.as_fd())
            .map_err(|errno| Failure::new("overlay layer", path, errno))?;
    }
    if let Some((upper, work)) = writable {
        fsconfig_set_fd(context.as_fd(), "upperdir", upper).map_err(wrong)?;
        fsconfig_set_fd(context.as_fd(), "workdir", work).map_err(wrong)?;
    }
    complete(context.as_fd()).map_err(wrong)
}

fn above_by_name(lower: &[PathBuf], upper: &Path, work: &Path) -> Result<OwnedFd, Failure> {
    // A layer that is missing is told of by its own name, not by its link's.
    for path in lower.iter().map(PathBuf::as_path).chain([upper, work]) {
        directory(path)?;
    }
    let names = names(lower)?;
    for (path, name) in [(upper, UPPER), (work, WORK)] {
        link(&names, path, name)?;
    }
    in_thread(libc::CLONE_FS, || {
        by_name(lower, names.as_fd(), Some((UPPER, WORK)))
    })
}

fn throwaway_by_name(lower: &[PathBuf], size: u64) -> Result<OwnedFd, Failure> {
    for path in lower {
        directory(path)?;
    }
    let names = names(lower)?;
    in_thread(libc::CLONE_NEWNS, || {
        let here = Path::new("tmpfs");
        let wrong = |errno| Failure::new("make a throw-away", here, errno);
        let private = MountAttr {
            propagation: MS_PRIVATE,
            ..MountAttr::default()
        };
        set_attributes(CWD, c"/", true, &private)
            .map_err(|error| wrong(Errno::from_io_error(&error).unwrap_or(Errno::IO)))?;
        let tmpfs = tmpfs(size)?;
        // On top of the root, where no path leads: nothing is hidden by it.
        move_mount(
            tmpfs.as_fd(),
            "",
            CWD,
            "/",
            MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
        )
        .map_err(wrong)?;
        let (upper, work) = (folder(&tmpfs, UPPER)?, folder(&tmpfs, WORK)?);
        let path = |directory: &OwnedFd| format!("/proc/thread-self/fd/{}", directory.as_raw_fd());
        by_name(lower, names.as_fd(), Some((&path(&upper), &path(&work))))
    })
}

/// To be called in a thread of its own: changes its working directory.
fn by_name(
    lower: &[PathBuf],
    names: BorrowedFd<'_>,
    writable: Option<(&str, &str)>,
) -> Result<OwnedFd, Failure> {
    let first = first(lower);
    let wrong = |errno| Failure::new("overlay of", first, errno);
    rustix::process::fchdir(names).map_err(wrong)?;
    let mut list: Vec<u8> = Vec::with_capacity(2 * lower.len());
    for name in (0..lower.len()).map_while(name_of) {
        if !list.is_empty() {
            list.push(b':');
        }
        list.push(name);
    }
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).map_err(wrong)?;
    fsconfig_set_string(context.as_fd(), "lowerdir", list.as_slice()).map_err(wrong)?;
    if let Some((upper, work)) = writable {
        fsconfig_set_string(context.as_fd(), "upperdir", upper).map_err(wrong)?;
        fsconfig_set_string(context.as_fd(), "workdir", work).map_err(wrong)?;
    }
    complete(context.as_fd()).map_err(wrong)
}

fn complete(context: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    fsconfig_set_string(context, "source", "overlay")?;
    // Whatever the module's defaults are: an upper directory holds whole files, each under its own path, so that it can be
    // read as a layer.
    fsconfig_set_string(context, "redirect_dir", "off")?;
    fsconfig_set_string(context, "metacopy", "off")?;
    fsconfig_create(context)?;
    fsmount(
        context,
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::empty(),
    )
}

/// Run in a thread that shares less than threads do (`CLONE_*`), which ends before this returns.
fn in_thread(
    apart: i32,
    make: impl FnOnce() -> Result<OwnedFd, Failure> + Send,
) -> Result<OwnedFd, Failure> {
    let broken = |why: String| {
        let message = format!("make an overlay in a thread of its own: {why}");
        Failure::from(LaunchError::new(Kind::Internal, message))
    };
    std::thread::scope(|scope| {
        std::thread::Builder::new()
            .stack_size(128 << 10)
            .spawn_scoped(scope, || {
                unshare(apart).map_err(|error| broken(error.to_string()))?;
                make()
            })
            .map_err(|error| broken(error.to_string()))?
            .join()
            .map_err(|_| broken("it panicked".to_owned()))?
    })
}

/// A tmpfs that is mounted nowhere.
fn tmpfs(size: u64) -> Result<OwnedFd, Failure> {
    let wrong = |errno| Failure::new("make a throw-away", Path::new("tmpfs"), errno);
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).map_err(wrong)?;
    if size != 0 {
        fsconfig_set_string(context.as_fd(), "size", size.to_string()).map_err(wrong)?;
    }
    fsconfig_set_string(context.as_fd(), "mode", "0755").map_err(wrong)?;
    fsconfig_create(context.as_fd()).map_err(wrong)?;
    fsmount(
        context.as_fd(),
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::empty(),
    )
    .map_err(wrong)
}

fn folder(tmpfs: &OwnedFd, name: &str) -> Result<OwnedFd, Failure> {
    let wrong = |errno| Failure::new("make a throw-away", Path::new(name), errno);
    mkdirat(tmpfs, name, Mode::from_raw_mode(0o755)).map_err(wrong)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(tmpfs, name, flags, Mode::empty()).map_err(wrong)
}

/// A tmpfs of links to the layers, the first with the first name.
fn names(lower: &[PathBuf]) -> Result<OwnedFd, Failure> {
    let names = tmpfs(0)?;
    for (at, path) in lower.iter().enumerate() {
        let Some(name) = name_of(at) else {
            let message = format!(
                "{} layers are more than the {MOST_LAYERS} that this kernel's overlay takes: use Linux 6.13 or later, \
                 or an image of fewer layers",
                lower.len()
            );
            return Err(LaunchError::new(Kind::Unsupported, message).into());
        };
        link(&names, path, &[name][..])?;
    }
    Ok(names)
}

fn link<N: rustix::path::Arg>(names: &OwnedFd, path: &Path, name: N) -> Result<(), Failure> {
    let wrong = |errno| Failure::new("overlay layer", path, errno);
    let absolute = std::path::absolute(path)
        .map_err(|error| wrong(Errno::from_io_error(&error).unwrap_or(Errno::IO)))?;
    symlinkat(absolute, names, name).map_err(wrong)
}

/// The name of one layer: letters and digits first, then what else is printed, then bytes above those.
fn name_of(at: usize) -> Option<u8> {
    let taken = |byte: u8| matches!(byte, b',' | b':' | b'\\' | b'/' | b'.' | b'=');
    let plain = (b'0'..=b'9').chain(b'a'..=b'z').chain(b'A'..=b'Z');
    let printed = (b'!'..=b'~').filter(move |byte| !byte.is_ascii_alphanumeric() && !taken(*byte));
    plain
        .chain(printed)
        .chain(0x80..=0xff)
        .take(MOST_LAYERS)
        .nth(at)
}

fn first(lower: &[PathBuf]) -> &Path {
    lower.first().map_or(Path::new("overlay"), PathBuf::as_path)
}

#[cfg(test)]
mod tests;
