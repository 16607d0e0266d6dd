//! What a container has changed, told from the directory that overlay writes to and the layers below it.
//!
//! The answer is Docker's: paths in the container that were added, modified or deleted. A directory counts as modified where
//! its owner or mode was, or where anything below it is listed; what is in a deleted directory is not listed. Times of directories
//! do not count, and times of files that differ in the fraction of a second alone do not where one has none.

use std::collections::{BTreeMap, HashSet};
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{AtFlags, FileType, Stat, getxattr, statat};
use rustix::io::Errno;

use crate::layer::{is_whiteout, join, parent};
use crate::tree::{Mounts, Visit, walk_with_paths};
use crate::union::{Found, Union, is_opaque_at};

/// What happened to a path. The numbers are the Engine API's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// It is another than in the image, or something below it is.
    Modified = 0,
    /// The image does not have it.
    Added = 1,
    /// Only the image has it.
    Deleted = 2,
}

/// Paths (without the leading slash) and what happened to them, each directory before what is in it.
pub type Changes = Vec<(Vec<u8>, ChangeKind)>;

/// Compares a writable directory with the layers below it, the top-most first.
///
/// `made` are the paths that the engine itself makes for its mounts: they count only where there is more to them than
/// an empty directory or file.
pub fn changes(upper: OwnedFd, lower: &[PathBuf], made: &[Vec<u8>]) -> io::Result<Changes> {
    let mut comparison = Comparison {
        union: Union::of(lower),
        made: made.iter().map(Vec::as_slice).collect(),
        unlisted: HashSet::new(),
        cut_off: HashSet::new(),
        found: BTreeMap::new(),
    };
    walk_with_paths(upper, Mounts::Outside, |visit, path| match visit {
        Visit::Enter(directory, name, stat) => comparison.object(directory, name, stat, path),
        Visit::Leave(..) | Visit::Mount(_) => Ok(()),
    })?;
    Ok(comparison.finish())
}

struct Comparison<'a> {
    union: Union,
    made: HashSet<&'a [u8]>,
    /// Directories that the engine made, as far as we have seen.
    unlisted: HashSet<Vec<u8>>,
    /// Directories through which nothing of the layers shows.
    cut_off: HashSet<Vec<u8>>,
    /// By the names of their path, which keeps what is in a directory behind it.
    found: BTreeMap<Vec<Vec<u8>>, ChangeKind>,
}

fn names(path: &[u8]) -> Vec<Vec<u8>> {
    path.split(|&byte| byte == b'/')
        .map(<[u8]>::to_vec)
        .collect()
}

impl Comparison<'_> {
    fn object(
        &mut self,
        directory: BorrowedFd<'_>,
        name: &CStr,
        stat: &Stat,
        path: &[u8],
    ) -> io::Result<()> {
        let below = self.union.find(path)?;
        if is_whiteout(stat.st_mode, stat.st_rdev) {
            if below.is_some() {
                self.found.insert(names(path), ChangeKind::Deleted);
            }
            return Ok(());
        }
        let kind = match &below {
            None if self.made.contains(path) && is_bare(stat) => {
                self.unlisted.insert(path.to_vec());
                None
            }
            None => Some(ChangeKind::Added),
            Some(found) if differs(stat, found, directory, name)? => Some(ChangeKind::Modified),
            Some(_) => None,
        };
        if let Some(kind) = kind {
            self.found.insert(names(path), kind);
        }
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory
            && (self.cut_off.contains(parent(path)) || is_opaque_at(directory, name)?)
        {
            self.cut_off.insert(path.to_vec());
            if below.is_some_and(|found| found.file_type() == FileType::Directory) {
                self.hidden(directory, name, path)?;
            }
        }
        Ok(())
    }

    /// What the layers have in a directory that shows nothing of it.
    fn hidden(&mut self, directory: BorrowedFd<'_>, name: &CStr, path: &[u8]) -> io::Result<()> {
        for (other, _) in self.union.list(path)?.unwrap_or_default() {
            let there = join(name.to_bytes(), other.to_bytes());
            match statat(directory, there, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(_) => {}
                Err(Errno::NOENT) => {
                    let path = join(path, other.to_bytes());
                    self.found.insert(names(&path), ChangeKind::Deleted);
                }
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    fn finish(mut self) -> Changes {
        let listed: Vec<_> = self.found.keys().cloned().collect();
        for path in listed {
            for depth in 1..path.len() {
                let above = &path[..depth];
                if !self.found.contains_key(above) {
                    let made = self.unlisted.contains(&above.join(&b'/'));
                    let kind = if made {
                        ChangeKind::Added
                    } else {
                        ChangeKind::Modified
                    };
                    self.found.insert(above.to_vec(), kind);
                }
            }
        }
        self.found
            .into_iter()
            .map(|(path, kind)| (path.join(&b'/'), kind))
            .collect()
    }
}

/// Whether an object holds nothing: what a mount is put on.
pub(crate) fn is_bare(stat: &Stat) -> bool {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => true,
        FileType::RegularFile => stat.st_size == 0,
        _ => false,
    }
}

fn differs(now: &Stat, before: &Found, directory: BorrowedFd<'_>, name: &CStr) -> io::Result<bool> {
    let then = &before.stat;
    let owned = |stat: &Stat| (stat.st_mode, stat.st_uid, stat.st_gid, stat.st_rdev);
    if owned(now) != owned(then) {
        return Ok(true);
    }
    let kind = before.file_type();
    if kind == FileType::Directory {
        return Ok(false);
    }
    let (nanoseconds, earlier) = (now.st_mtime_nsec, then.st_mtime_nsec);
    let same_time = now.st_mtime == then.st_mtime
        && (nanoseconds == earlier || nanoseconds == 0 || earlier == 0);
    if !same_time || now.st_size != then.st_size {
        return Ok(true);
    }
    if kind != FileType::RegularFile {
        return Ok(false);
    }
    let below = format!("/proc/self/fd/{}", before.object.as_raw_fd()).into_bytes();
    let here = join(
        format!("/proc/self/fd/{}", directory.as_raw_fd()).as_bytes(),
        name.to_bytes(),
    );
    Ok(capability(&here)? != capability(&below)?)
}

fn capability(path: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let mut value = [0; 64];
    match getxattr(path, c"security.capability", &mut value) {
        Ok(count) => Ok(Some(value[..count].to_vec())),
        Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}
