//! One entry of an archive as an object below an open directory: what layers and containers have in common.
//!
//! The directory may be a container's that runs: no name is followed where it has become a symbolic link.

use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, RawMode, Uid, chmod, chownat, fchmod, fchown, ftruncate,
    futimens, makedev, mknodat, openat, symlinkat, utimensat,
};
use rustix::io::{Errno, pwrite, write};

use super::attributes::{set, set_by_name, wanted};
use super::directories::times;
use super::{Doing, LayerProblem};
use crate::input::Input;
use crate::tar::{Entry, EntryKind, Reader, TarError};

/// The process's umask, which the kernel tells without changing it only here.
pub(crate) fn umask() -> Result<u32, LayerProblem> {
    let status = fs::read_to_string("/proc/self/status").map_err(|source| LayerProblem::Io {
        doing: "read /proc/self/status",
        source,
    })?;
    let line = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    // A kernel too old for the line is one where every mode is set once more.
    Ok(line
        .and_then(|value| u32::from_str_radix(value.trim(), 8).ok())
        .unwrap_or(0o777))
}

/// Creates what the entry is, fails with EEXIST where there is something; a regular file stays open.
pub(crate) fn create(
    parent: BorrowedFd<'_>,
    name: &[u8],
    entry: &Entry,
) -> Result<Option<OwnedFd>, Errno> {
    let mode = Mode::from_raw_mode((entry.mode & 0o777) as RawMode);
    match entry.kind {
        EntryKind::File => {
            let flags =
                OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            return openat(parent, name, flags, mode).map(Some);
        }
        EntryKind::Symlink => symlinkat(entry.link.as_slice(), parent, name)?,
        EntryKind::Fifo => mknodat(parent, name, FileType::Fifo, mode, 0)?,
        EntryKind::CharDevice(major, minor) => mknodat(
            parent,
            name,
            FileType::CharacterDevice,
            mode,
            makedev(major, minor),
        )?,
        EntryKind::BlockDevice(major, minor) => mknodat(
            parent,
            name,
            FileType::BlockDevice,
            mode,
            makedev(major, minor),
        )?,
        EntryKind::HardLink | EntryKind::Directory => return Err(Errno::INVAL),
    }
    Ok(None)
}

/// Owner, mode, attributes and time of what is not open.
pub(crate) fn describe(
    parent: BorrowedFd<'_>,
    name: &[u8],
    entry: &Entry,
    umask: u32,
) -> Result<(), LayerProblem> {
    if (entry.uid, entry.gid) != (0, 0) {
        let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
        chownat(
            parent,
            name,
            Some(uid),
            Some(gid),
            AtFlags::SYMLINK_NOFOLLOW,
        )
        .doing("set its owner")?;
    }
    if entry.kind != EntryKind::Symlink && needs_mode(entry.mode, umask) {
        // The object itself, whatever its name is by then.
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        openat(parent, name, flags, Mode::empty())
            .and_then(|object| {
                let path = format!("/proc/self/fd/{}", object.as_raw_fd());
                chmod(path, Mode::from_raw_mode(entry.mode as RawMode))
            })
            .doing("set its mode")?;
    }
    if !entry.xattrs.is_empty() {
        set_by_name(parent, name, entry)?;
    }
    utimensat(parent, name, &times(entry.mtime), AtFlags::SYMLINK_NOFOLLOW).doing("set its time")
}

/// Data and everything else of an open file; its size. A capability is lost by writing and by a change of owner: it comes after both.
pub(crate) fn fill<I: Input>(
    file: &OwnedFd,
    entry: &Entry,
    reader: &mut Reader<'_, I>,
    umask: u32,
) -> Result<u64, LayerProblem> {
    let size = match &entry.sparse {
        None => {
            copy(file, None, entry.size, reader)?;
            entry.size
        }
        Some((real_size, pieces)) => {
            ftruncate(file, *real_size).doing("set its size")?;
            for piece in pieces {
                copy(file, Some(piece.offset), piece.length, reader)?;
            }
            *real_size
        }
    };
    if (entry.uid, entry.gid) != (0, 0) {
        fchown(
            file,
            Some(Uid::from_raw(entry.uid)),
            Some(Gid::from_raw(entry.gid)),
        )
        .doing("set its owner")?;
    }
    if needs_mode(entry.mode, umask) {
        fchmod(file, Mode::from_raw_mode(entry.mode as RawMode)).doing("set its mode")?;
    }
    for (name, value) in wanted(entry) {
        set(file, name, value)?;
    }
    futimens(file, &times(entry.mtime)).doing("set its time")?;
    Ok(size)
}

/// Whether creating with a mode leaves bits of it unset.
pub(crate) fn needs_mode(mode: u32, umask: u32) -> bool {
    mode & 0o7000 != 0 || mode & umask != 0
}

/// Copies bytes of an entry to a file: at its end, or at an offset.
fn copy<I: Input>(
    file: &OwnedFd,
    offset: Option<u64>,
    length: u64,
    reader: &mut Reader<'_, I>,
) -> Result<(), LayerProblem> {
    let mut done = 0;
    while done < length {
        let data = reader.data()?;
        let data = &data[..data
            .len()
            .min(usize::try_from(length - done).unwrap_or(usize::MAX))];
        if data.is_empty() {
            return Err(TarError::Truncated("an entry's data").into());
        }
        let count = match offset {
            None => write(file.as_fd(), data),
            Some(offset) => pwrite(file.as_fd(), data, offset + done),
        };
        match count {
            Err(Errno::INTR) => {}
            other => {
                let count = other.doing("write it")?;
                reader.consume(count);
                done += count as u64;
            }
        }
    }
    Ok(())
}
