//! What a layer lacks until its lower layers are there.
//!
//! - A directory without an entry of its own shows the attributes of the one it covers.
//! - A hard link to what only a lower layer has becomes a copy, as a write through overlay would make one.
//! - A whiteout of nothing goes away: overlay shows one as a broken name where the directory exists in one layer only.
//!
//! Lower layers must have been fixed up before.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags, chownat,
    fchmod, fchown, fgetxattr, flistxattr, fsetxattr, fstat, futimens, linkat, mknodat, open,
    openat, readlinkat, statat, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;

use super::directories::{is_whiteout, open_directory};
use super::path::split;
use super::{Applied, Doing, LayerError, LayerProblem};
use crate::union::{Found, Union, is_opaque};

/// Completes a layer in its directory. `below` are the lower layers' directories, the top-most first.
pub(crate) fn fix_up(layer: &Path, applied: &Applied, below: &[PathBuf]) -> Result<(), LayerError> {
    let at = |entry: &[u8]| {
        let entry = entry.to_vec();
        move |problem| LayerError { entry, problem }
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = open(layer, flags, Mode::empty())
        .doing("open the layer's directory")
        .map_err(at(b""))?;
    let fixer = Fixer {
        root,
        lower: Union::of(below),
    };
    for path in &applied.whiteouts {
        fixer.whiteout(path).map_err(at(path))?;
    }
    let mut copied = HashMap::new();
    for (path, target) in &applied.links {
        fixer.link(path, target, &mut copied).map_err(at(path))?;
    }
    for path in &applied.implicit {
        fixer.directory(path).map_err(at(path))?;
    }
    Ok(())
}

struct Fixer {
    root: OwnedFd,
    lower: Union,
}

fn failed(doing: &'static str) -> impl FnOnce(io::Error) -> LayerProblem {
    move |source| LayerProblem::Io { doing, source }
}

impl Fixer {
    /// What the lower layers have at a path.
    fn covered(&self, path: &[u8]) -> Result<Option<Found>, LayerProblem> {
        self.lower
            .find(path)
            .map_err(failed("look it up in the lower layers"))
    }

    fn whiteout(&self, path: &[u8]) -> Result<(), LayerProblem> {
        let (parent, name) = split(path);
        // A later entry of the layer may have taken the directory's or the name's place.
        let directory = match open_directory(self.root.as_fd(), parent) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(()),
            other => other.doing("open its directory")?,
        };
        match statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if is_whiteout(stat.st_mode, stat.st_rdev) => {}
            Ok(_) | Err(Errno::NOENT) => return Ok(()),
            Err(errno) => return Err(errno).doing("look at it"),
        }
        if self.covered(path)?.is_some() && !self.is_cut_off(parent)? {
            return Ok(());
        }
        keeping_time(&directory, || {
            unlinkat(&directory, name, AtFlags::empty()).doing("remove a whiteout of nothing")
        })
    }

    /// Whether this layer hides everything that lower layers have in a directory.
    fn is_cut_off(&self, path: &[u8]) -> Result<bool, LayerProblem> {
        let mut above = path;
        loop {
            let directory = open_directory(self.root.as_fd(), above).doing("open its directory")?;
            if is_opaque(&directory).map_err(failed("read its attributes"))? {
                return Ok(true);
            }
            if above.is_empty() {
                return Ok(false);
            }
            above = split(above).0;
        }
    }

    /// Makes a hard link whose target was not in the layer when the link came.
    fn link(
        &self,
        path: &[u8],
        target: &[u8],
        copied: &mut HashMap<Vec<u8>, Vec<u8>>,
    ) -> Result<(), LayerProblem> {
        let (parent, name) = split(path);
        let directory = match open_directory(self.root.as_fd(), parent) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(()),
            other => other.doing("open its directory")?,
        };
        match statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => return Ok(()),
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno).doing("look at it"),
        }
        let refuse = |reason| LayerProblem::Link {
            target: target.to_vec(),
            reason,
        };
        keeping_time(&directory, || {
            // A second link to a target is one to the first's copy.
            let near = copied.get(target).map_or(target, Vec::as_slice);
            if let Ok(near_directory) = open_directory(self.root.as_fd(), split(near).0) {
                match statat(&near_directory, split(near).1, AtFlags::SYMLINK_NOFOLLOW) {
                    Ok(stat) if is_whiteout(stat.st_mode, stat.st_rdev) => {
                        return Err(refuse("this layer has removed"));
                    }
                    Ok(_) => {
                        return linkat(
                            &near_directory,
                            split(near).1,
                            &directory,
                            name,
                            AtFlags::empty(),
                        )
                        .doing("create the link");
                    }
                    Err(Errno::NOENT) => {}
                    Err(errno) => return Err(errno).doing("look at the target of the link"),
                }
            }
            let found = self
                .covered(target)?
                .ok_or_else(|| refuse("does not exist in this layer or below"))?;
            if found.file_type() == FileType::Directory {
                return Err(refuse("is a directory"));
            }
            copy(&found, directory.as_fd(), name)?;
            copied.insert(target.to_vec(), path.to_vec());
            Ok(())
        })
    }

    /// Gives a directory the attributes of the one that it covers.
    fn directory(&self, path: &[u8]) -> Result<(), LayerProblem> {
        let directory = open_directory(self.root.as_fd(), path).doing("open it")?;
        let found = match self.covered(path)? {
            Some(found) if found.file_type() == FileType::Directory => found,
            _ => {
                fchmod(&directory, Mode::from_raw_mode(0o755)).doing("set its mode")?;
                let epoch = Timespec {
                    tv_sec: 0,
                    tv_nsec: 0,
                };
                return futimens(
                    &directory,
                    &Timestamps {
                        last_access: epoch,
                        last_modification: epoch,
                    },
                )
                .doing("set its time");
            }
        };
        let source = openat(
            &found.object,
            c".",
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        );
        copy_attributes(
            &source.doing("open the one it covers")?,
            &found.stat,
            &directory,
        )
    }
}

/// Runs something that changes a directory, and sets its time back.
fn keeping_time(
    directory: &OwnedFd,
    change: impl FnOnce() -> Result<(), LayerProblem>,
) -> Result<(), LayerProblem> {
    let before = fstat(directory).doing("look at its directory")?;
    change()?;
    futimens(directory, &times_of(&before)).doing("set the time of its directory")
}

/// Both times that a file has.
pub(crate) fn times_of(stat: &Stat) -> Timestamps {
    let time = |seconds: i64, nanoseconds| Timespec {
        tv_sec: seconds,
        tv_nsec: nanoseconds,
    };
    Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec.cast_signed()),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec.cast_signed()),
    }
}

/// Copies anything but a directory: content, owner, mode, attributes, times.
pub(crate) fn copy(
    found: &Found,
    directory: BorrowedFd<'_>,
    name: &[u8],
) -> Result<(), LayerProblem> {
    let stat = &found.stat;
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    match found.file_type() {
        FileType::RegularFile => {
            let path = format!("/proc/self/fd/{}", found.object.as_raw_fd());
            let source = open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
                .doing("open what is copied")?;
            let flags =
                OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let target =
                openat(directory, name, flags, Mode::from_raw_mode(0o600)).doing("create it")?;
            let (mut source, mut target) =
                (std::fs::File::from(source), std::fs::File::from(target));
            io::copy(&mut source, &mut target).map_err(failed("copy it"))?;
            return copy_attributes(&source.into(), stat, &target.into());
        }
        FileType::Symlink => {
            let link = readlinkat(&found.object, c"", Vec::new()).doing("read the link")?;
            symlinkat(&link, directory, name).doing("create it")?;
        }
        other => mknodat(
            directory,
            name,
            other,
            Mode::from_raw_mode(stat.st_mode & 0o7777),
            stat.st_rdev,
        )
        .doing("create it")?,
    }
    chownat(
        directory,
        name,
        Some(uid),
        Some(gid),
        AtFlags::SYMLINK_NOFOLLOW,
    )
    .doing("set its owner")?;
    if found.file_type() != FileType::Symlink {
        let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
        rustix::fs::chmodat(directory, name, mode, AtFlags::empty()).doing("set its mode")?;
    }
    utimensat(directory, name, &times_of(stat), AtFlags::SYMLINK_NOFOLLOW).doing("set its time")
}

/// Owner, mode, attributes and times of an open file or directory, onto another. Overlay's own attributes stay behind.
pub(crate) fn copy_attributes(
    source: &OwnedFd,
    stat: &Stat,
    target: &OwnedFd,
) -> Result<(), LayerProblem> {
    fchown(
        target,
        Some(Uid::from_raw(stat.st_uid)),
        Some(Gid::from_raw(stat.st_gid)),
    )
    .doing("set its owner")?;
    fchmod(target, Mode::from_raw_mode(stat.st_mode & 0o7777)).doing("set its mode")?;
    let mut names = vec![0; 64 * 1024];
    let length = match flistxattr(source, &mut names) {
        Err(Errno::OPNOTSUPP) => 0,
        other => other.doing("list its extended attributes")?,
    };
    let mut value = vec![0; 64 * 1024];
    for name in names[..length]
        .split(|&byte| byte == 0)
        .filter(|name| !name.is_empty() && !name.starts_with(b"trusted."))
    {
        let count = match fgetxattr(source, name, &mut value) {
            Err(Errno::NODATA) => continue,
            other => other.doing("read its extended attributes")?,
        };
        fsetxattr(target, name, &value[..count], XattrFlags::empty())
            .doing("set its extended attributes")?;
    }
    futimens(target, &times_of(stat)).doing("set its time")
}
