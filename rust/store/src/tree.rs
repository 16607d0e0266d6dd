//! Walks through directory trees of any depth, without following links.
//!
//! A tree may be deeper than a path may be long or a process may have descriptors: containers can make such. The walk holds
//! descriptors for the innermost directories only and goes back up through "..", checking that it arrives where it came from.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat, StatxAttributes, StatxFlags, fstat,
    openat, openat2, statat, statx, unlinkat,
};
use rustix::io::Errno;

const OPEN: usize = 32;

/// One directory on the way down.
struct Level {
    descriptor: Option<OwnedFd>,
    identity: (u64, u64),
    name: CString,
    /// How long its path is.
    path: usize,
    /// Names not visited yet.
    names: Vec<CString>,
}

/// Whether a walk goes on into what is mounted in the tree.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mounts {
    Outside,
    Inside,
}

/// What the walk came upon.
pub(crate) enum Visit<'a> {
    /// Anything, a directory before its content.
    Enter(BorrowedFd<'a>, &'a CString, &'a Stat),
    /// A directory after its content.
    Leave(BorrowedFd<'a>, &'a CString),
    /// A directory on which something is mounted: the walk stays out of it.
    Mount(&'a CString),
}

/// Goes through all that is below a directory, on its own file system; the directory itself is not visited.
pub(crate) fn walk(
    top: OwnedFd,
    mut visit: impl FnMut(Visit<'_>) -> io::Result<()>,
) -> io::Result<()> {
    walk_with_paths(top, Mounts::Outside, |found, _| visit(found))
}

/// The same; `visit` is given each object's path below the top as well.
pub(crate) fn walk_with_paths<E: From<io::Error>>(
    top: OwnedFd,
    mounts: Mounts,
    mut visit: impl FnMut(Visit<'_>, &[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let wrong = |errno: Errno| E::from(errno.into());
    let mut path = Vec::new();
    let mut levels = vec![Level::open(top, CString::default(), 0)?];
    while let Some(level) = levels.last_mut() {
        let Some(name) = level.names.pop() else {
            let Some(left) = levels.pop() else { break };
            let Some(above) = levels.last_mut() else {
                break;
            };
            let parent = above.reopen(&left)?;
            path.truncate(left.path);
            visit(Visit::Leave(parent, &left.name), &path)?;
            continue;
        };
        let directory = level.descriptor.as_ref().ok_or(wrong(Errno::BADF))?.as_fd();
        let stat = match statat(directory, &name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => continue,
            other => other.map_err(wrong)?,
        };
        path.truncate(level.path);
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name.as_bytes());
        visit(Visit::Enter(directory, &name, &stat), &path)?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            let below = match open_below(directory, &name, mounts) {
                // It has gone, or something else has its name by now.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
                Err(Errno::XDEV) => {
                    visit(Visit::Mount(&name), &path)?;
                    continue;
                }
                other => other.map_err(wrong)?,
            };
            let below = Level::open(below, name, path.len())?;
            if levels.len() >= OPEN {
                let far = levels.len() - OPEN;
                levels[far].descriptor = None;
            }
            levels.push(below);
        }
    }
    Ok(())
}

impl Level {
    fn open(directory: OwnedFd, name: CString, path: usize) -> io::Result<Self> {
        let stat = fstat(&directory)?;
        let mut names = Vec::new();
        for entry in Dir::read_from(&directory)? {
            let entry = entry?;
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                names.push(entry.file_name().to_owned());
            }
        }
        // Taken from the end.
        names.sort_unstable_by(|a, b| b.cmp(a));
        Ok(Self {
            descriptor: Some(directory),
            identity: (stat.st_dev, stat.st_ino),
            name,
            path,
            names,
        })
    }

    /// The descriptor, opened again from the directory below where it was given up.
    fn reopen(&mut self, below: &Self) -> io::Result<BorrowedFd<'_>> {
        if self.descriptor.is_none() {
            let from = below.descriptor.as_ref().ok_or(Errno::BADF)?;
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let parent = openat(from, c"..", flags, Mode::empty())?;
            let stat = fstat(&parent)?;
            if (stat.st_dev, stat.st_ino) != self.identity {
                return Err(io::Error::other(
                    "a directory was moved during a walk through its tree",
                ));
            }
            self.descriptor = Some(parent);
        }
        Ok(self.descriptor.as_ref().ok_or(Errno::BADF)?.as_fd())
    }
}

fn open_below(
    directory: BorrowedFd<'_>,
    name: impl rustix::path::Arg,
    mounts: Mounts,
) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut resolve = ResolveFlags::BENEATH;
    if mounts == Mounts::Outside {
        resolve |= ResolveFlags::NO_XDEV;
    }
    openat2(directory, name, flags, Mode::empty(), resolve)
}

/// Deletes a name, and all that is below it.
pub(crate) fn remove_at(parent: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
    remove(parent, name, unlink)
}

/// The same of what others use meanwhile, in mount namespaces that are not this thread's: what is mounted on is left alone, as
/// deleting it would take the mount away from them.
pub(crate) fn remove_used_at(parent: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
    remove(parent, name, |directory, name| {
        let found = match statx(directory, name, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::TYPE) {
            Err(Errno::NOENT) => return Ok(()),
            other => other?,
        };
        if found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) {
            return Err(mounted(name));
        }
        unlink(directory, name)
    })
}

fn mounted(name: &CStr) -> io::Error {
    io::Error::new(
        io::ErrorKind::ResourceBusy,
        format!("something is mounted on {name:?}; unmount it first"),
    )
}

fn unlink(directory: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    Ok(unlinkat(directory, name, AtFlags::empty())?)
}

fn remove(
    parent: BorrowedFd<'_>,
    name: &[u8],
    unlink: impl Fn(BorrowedFd<'_>, &CStr) -> io::Result<()>,
) -> io::Result<()> {
    let name = CString::new(name)?;
    match unlink(parent, &name) {
        Ok(()) => return Ok(()),
        Err(error) => match Errno::from_io_error(&error) {
            Some(Errno::NOENT) => return Ok(()),
            Some(Errno::ISDIR | Errno::PERM) => {}
            _ => return Err(error),
        },
    }
    let top = match open_below(parent, &name, Mounts::Outside) {
        Err(Errno::NOENT) => return Ok(()),
        Err(Errno::XDEV) => return Err(mounted(&name)),
        other => other?,
    };
    walk(top, |visit| match visit {
        Visit::Enter(_, _, stat)
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory =>
        {
            Ok(())
        }
        Visit::Enter(directory, name, _) => match unlink(directory, name) {
            Err(error) if Errno::from_io_error(&error) != Some(Errno::NOENT) => Err(error),
            _ => Ok(()),
        },
        Visit::Leave(directory, name) => gone(unlinkat(directory, name, AtFlags::REMOVEDIR)),
        Visit::Mount(name) => Err(mounted(name)),
    })?;
    gone(unlinkat(parent, &name, AtFlags::REMOVEDIR))
}

fn gone(result: Result<(), Errno>) -> io::Result<()> {
    match result {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}
