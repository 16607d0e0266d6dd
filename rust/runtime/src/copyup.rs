//! A tmpfs that begins with what the image has at its place (`tmpcopyup`).
//!
//! The parent makes it: copying takes more than system calls in a row. Both sides are walked by
//! descriptors, no link is followed, and nothing outside the root file system is ever opened.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, Timestamps, Uid, chownat, fchmod,
    fchown, futimens, mkdirat, mknodat, openat, openat2, readlinkat, statat, symlinkat,
};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen,
};

use crate::error::LaunchError;
use crate::plan::{self, Options};
use crate::rootfs::Rootfs;
use crate::spec::Mount;

/// Entries that are copied at most.
const MOST_ENTRIES: usize = 100_000;
/// Directories that lie in one another at most.
const DEEPEST: usize = 64;

/// Make it, detached.
pub fn tmpfs(rootfs: &Rootfs, mount: &Mount, options: &Options) -> Result<OwnedFd, LaunchError> {
    let failed = |errno: Errno| {
        let raw = errno.raw_os_error();
        LaunchError::new(
            plan::kind(raw),
            format!(
                "copy what the image has at {:?} to a tmpfs: {}",
                mount.destination,
                plan::errno_text(raw)
            ),
        )
    };
    let made = make(options).map_err(failed)?;
    let place = plan::clean(&mount.destination)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let source = match openat2(rootfs, &place, flags, Mode::empty(), resolve) {
        Ok(source) => source,
        Err(Errno::NOENT) => return Ok(made),
        Err(errno) => return Err(failed(errno)),
    };
    let target = openat(&made, ".", flags, Mode::empty()).map_err(failed)?;
    let mut left = MOST_ENTRIES;
    directory(source.as_fd(), target.as_fd(), DEEPEST, &mut left).map_err(failed)?;
    Ok(made)
}

fn make(options: &Options) -> Result<OwnedFd, Errno> {
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for option in &options.data {
        match option.split_once('=') {
            Some((key, value)) => fsconfig_set_string(context.as_fd(), key, value)?,
            None => fsconfig_set_flag(context.as_fd(), option.as_str())?,
        }
    }
    fsconfig_create(context.as_fd())?;
    // Its other attributes are set once it has been filled.
    let bits = u32::try_from(options.writable()).map_err(|_| Errno::INVAL)?;
    fsmount(
        context.as_fd(),
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::from_bits_retain(bits),
    )
}

fn directory(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    depth: usize,
    left: &mut usize,
) -> Result<(), Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let entries = Dir::read_from(from)?;
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        *left = left.checked_sub(1).ok_or(Errno::FBIG)?;
        let status = statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let mode = Mode::from_raw_mode(status.st_mode & 0o7777);
        let (owner, group) = (Uid::from_raw(status.st_uid), Gid::from_raw(status.st_gid));
        match FileType::from_raw_mode(status.st_mode) {
            FileType::Directory => {
                let depth = depth.checked_sub(1).ok_or(Errno::LOOP)?;
                mkdirat(to, name, Mode::from_raw_mode(0o700))?;
                let source = openat(from, name, flags | OFlags::DIRECTORY, Mode::empty())?;
                let target = openat(to, name, flags | OFlags::DIRECTORY, Mode::empty())?;
                directory(source.as_fd(), target.as_fd(), depth, left)?;
                fchown(&target, Some(owner), Some(group))?;
                fchmod(&target, mode)?;
                futimens(&target, &times(&status))?;
            }
            FileType::RegularFile => {
                let source = openat(from, name, flags, Mode::empty())?;
                let create = OFlags::WRONLY
                    | OFlags::CREATE
                    | OFlags::EXCL
                    | OFlags::NOFOLLOW
                    | OFlags::CLOEXEC;
                let target = openat(to, name, create, Mode::from_raw_mode(0o600))?;
                let (mut source, mut target) = (File::from(source), File::from(target));
                io::copy(&mut source, &mut target)
                    .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
                fchown(&target, Some(owner), Some(group))?;
                // Changing the owner takes set-user-ID bits away: the mode comes last.
                fchmod(&target, mode)?;
                futimens(&target, &times(&status))?;
            }
            FileType::Symlink => {
                symlinkat(readlinkat(from, name, Vec::new())?.as_c_str(), to, name)?;
                chownat(
                    to,
                    name,
                    Some(owner),
                    Some(group),
                    AtFlags::SYMLINK_NOFOLLOW,
                )?;
            }
            kind @ (FileType::Fifo | FileType::CharacterDevice | FileType::BlockDevice) => {
                mknodat(to, name, kind, mode, status.st_rdev)?;
                chownat(
                    to,
                    name,
                    Some(owner),
                    Some(group),
                    AtFlags::SYMLINK_NOFOLLOW,
                )?;
            }
            // A socket in an image has nobody behind it.
            _ => {}
        }
    }
    Ok(())
}

fn times(status: &rustix::fs::Stat) -> Timestamps {
    let time = |seconds: i64, nanoseconds: u64| rustix::fs::Timespec {
        tv_sec: seconds,
        tv_nsec: nanoseconds.cast_signed(),
    };
    Timestamps {
        last_access: time(status.st_atime, status.st_atime_nsec),
        last_modification: time(status.st_mtime, status.st_mtime_nsec),
    }
}
