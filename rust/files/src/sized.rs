//! Directories that hold no more than so many bytes.
//!
//! Where the file system keeps project quotas and enforces them (ext4 with `quota,project` and `prjquota`, xfs with `pquota`), a
//! directory gets a project of its own: its ID is on the directory, its limit in the file system, nothing of it anywhere else. Elsewhere
//! the directory holds an ext4 file system of that size in a file ([`DISK`]), which is mounted on the directory itself: where
//! the file can be seen, it is not mounted. So both forms outlive every process, and say by themselves what is left to do.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use knarr_sys::{loopback, project};
use rustix::fs::{CWD, FallocateFlags, Mode, OFlags, fallocate, open};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, UnmountFlags, fsconfig_create,
    fsconfig_set_string, fsmount, fsopen, move_mount, unmount,
};

use crate::error::FilesError;

/// The file in a directory that holds its file system.
const DISK: &str = "_disk";
/// IDs of our projects: others' are smaller, as people write them down.
const FIRST: u32 = 1 << 30;
/// IDs that are tried for one that nobody has.
const TRIES: usize = 100;
/// What an ext4 file system needs for itself.
const SMALLEST: u64 = 4 << 20;

fn opened(path: &Path) -> Result<OwnedFd, FilesError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    open(path, flags, Mode::empty()).map_err(|errno| FilesError::io("open", path, errno))
}

/// The project of ours that a directory belongs to, if it belongs to one.
pub fn project(path: &Path) -> Result<Option<u32>, FilesError> {
    let directory = match opened(path) {
        Err(FilesError::Io { source, .. })
            if [Errno::NOENT, Errno::NOTDIR, Errno::LOOP]
                .iter()
                .any(|errno| source.raw_os_error() == Some(errno.raw_os_error())) =>
        {
            return Ok(None);
        }
        other => other?,
    };
    // A file system without the attribute has no projects.
    Ok(project::of(directory.as_fd())
        .ok()
        .filter(|&id| id >= FIRST))
}

/// Limits all that will be below some empty directories of one file system, taken together; false where the file system does
/// not do so.
pub fn limit_project(paths: &[&Path], bytes: u64) -> Result<bool, FilesError> {
    let Some(first) = paths.first() else {
        return Ok(false);
    };
    let directory = opened(first)?;
    if !project::enforced(directory.as_fd()) {
        return Ok(false);
    }
    let wrong = |source| FilesError::io("set a project quota on", *first, source);
    let id = free(&directory).map_err(wrong)?;
    for path in paths {
        project::assign(opened(path)?.as_fd(), id)
            .map_err(|source| FilesError::io("set a project quota on", *path, source))?;
    }
    // In this order: who finds the directories knows of the limit.
    project::limit(directory.as_fd(), id, bytes).map_err(wrong)?;
    Ok(true)
}

/// A project that nobody uses.
fn free(directory: &OwnedFd) -> io::Result<u32> {
    for _ in 0..TRIES {
        let mut bytes = [0; 4];
        File::open("/dev/urandom")
            .and_then(|mut file| io::Read::read_exact(&mut file, &mut bytes))?;
        let id = FIRST | u32::from_ne_bytes(bytes) >> 2;
        let usage = project::usage(directory.as_fd(), id)?;
        if usage.limit == 0 && usage.used == 0 {
            return Ok(id);
        }
    }
    Err(io::Error::other("no free project was found"))
}

/// Takes the limit of a project away, whose files are gone; `beside` is any directory of the file system.
pub fn forget_project(beside: &Path, id: u32) -> Result<(), FilesError> {
    project::limit(opened(beside)?.as_fd(), id, 0)
        .map_err(|source| FilesError::io("end a project quota on", beside, source))
}

/// Makes the file system of an empty directory, in a file of its own, of which all bytes are reserved.
pub fn make_disk(path: &Path, bytes: u64) -> Result<(), FilesError> {
    if bytes < SMALLEST {
        return Err(FilesError::TooSmall(format!(
            "a volume of {bytes} bytes is too small for a file system of its own: give it at least {} MiB",
            SMALLEST >> 20
        )));
    }
    let disk = path.join(DISK);
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&disk)
        .map_err(|source| FilesError::io("create", &disk, source))?;
    match fallocate(&file, FallocateFlags::empty(), 0, bytes) {
        Err(Errno::OPNOTSUPP) => {
            return Err(FilesError::Size(
                "the file system of the data root neither keeps project quotas nor lets the room for a file be reserved: \
                 put the data root on ext4, xfs or btrfs for volumes that have a size"
                    .to_owned(),
            ));
        }
        Err(Errno::NOSPC | Errno::DQUOT | Errno::FBIG) => {
            return Err(FilesError::Size(format!(
                "there is no room for a volume of {bytes} bytes: free some, or ask for a smaller one"
            )));
        }
        other => other.map_err(|errno| FilesError::io("reserve room for", &disk, errno))?,
    }
    drop(file);
    format(&disk)
}

/// No system call makes a file system: e2fsprogs does.
fn format(disk: &Path) -> Result<(), FilesError> {
    let path = std::env::var("PATH").unwrap_or_default();
    let made = Command::new("mkfs.ext4")
        .args(["-q", "-F", "-m", "0", "-E", "nodiscard,lazy_itable_init=1"])
        .arg(disk)
        .env("PATH", format!("{path}:/usr/sbin:/sbin"))
        .stdin(Stdio::null())
        .output();
    match made {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(FilesError::Size(
            "the file system of the data root keeps no project quotas, and mkfs.ext4 is not there to make one in a file: \
             install e2fsprogs, or mount the data root with prjquota (ext4 with the features quota and project; xfs: pquota)"
                .to_owned(),
        )),
        Err(error) => Err(FilesError::io("run mkfs.ext4 for", disk, error)),
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(FilesError::Size(format!(
            "mkfs.ext4 makes no file system in {}: {}",
            disk.display(),
            String::from_utf8_lossy(&output.stderr).trim()
        ))),
    }
}

/// Mounts the file system of a directory on it, where it has one that is not mounted: whether that is so.
pub fn attach_disk(path: &Path) -> Result<bool, FilesError> {
    let disk = path.join(DISK);
    let file = match OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
        .open(&disk)
    {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        other => other.map_err(|source| FilesError::io("open", &disk, source))?,
    };
    let device = loopback::attach(file.as_fd())
        .map_err(|source| FilesError::io("find a loop device for", &disk, source))?;
    let mounted = || -> Result<(), Errno> {
        let context = fsopen("ext4", FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_set_string(context.as_fd(), "source", &device.path)?;
        fsconfig_set_string(context.as_fd(), "errors", "remount-ro")?;
        fsconfig_create(context.as_fd())?;
        let mount = fsmount(
            context.as_fd(),
            FsMountFlags::FSMOUNT_CLOEXEC,
            MountAttrFlags::empty(),
        )?;
        let whole = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        move_mount(&mount, "", CWD, path, whole)
    };
    mounted().map_err(|errno| FilesError::io("mount the file system in", &disk, errno))?;
    Ok(true)
}

/// Unmounts the file system of a directory, where it has one that is mounted: whether that is so. With `lazily` those who use it
/// keep it.
pub fn detach_disk(path: &Path, lazily: bool) -> Result<bool, FilesError> {
    let mut flags = UnmountFlags::NOFOLLOW;
    if lazily {
        flags |= UnmountFlags::DETACH;
    }
    match unmount(path, flags) {
        Ok(()) => Ok(true),
        Err(Errno::INVAL | Errno::NOENT | Errno::NOTDIR) => Ok(false), // nothing is mounted there
        Err(Errno::BUSY) => Err(FilesError::Busy(path.to_owned())),
        Err(errno) => Err(FilesError::io("unmount", path, errno)),
    }
}
