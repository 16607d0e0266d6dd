//! A directory tree made anew: what a clone or a snapshot of a volume is.
//!
//! | of the source | in the copy |
//! | --- | --- |
//! | regular files | share their blocks with the source where the file system can (FICLONE); else data is copied, and holes stay holes |
//! | names of one file | names of one file |
//! | directories, links, devices, pipes, sockets | made anew |
//! | owner, mode, extended attributes (all of them), access and modification times with their nanoseconds | the same |
//! | what is mounted in it | an empty directory |
//!
//! The source may change meanwhile: what has gone by the time that it is opened is left out. No link of it is followed.
//! The copy is nobody else's until it is complete.

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, SeekFrom, Stat, Uid, XattrFlags, chmodat, chownat,
    copy_file_range, fchmod, fchown, fgetxattr, flistxattr, fsetxattr, fstat, ftruncate, futimens,
    ioctl_ficlone, lgetxattr, linkat, llistxattr, lsetxattr, mkdirat, mknodat, openat, readlinkat,
    seek, symlinkat, utimensat,
};
use rustix::io::{Errno, pread, pwrite};

use crate::layer::{Doing, LayerError, LayerProblem, join, split, times_of};
use crate::pack::whole;
use crate::tree::{Mounts, Visit, walk_with_paths};

/// Descriptors of directories that are held at once; those further up are opened again.
const OPEN: usize = 32;
/// Bytes of one path that the kernel looks up.
const PATH: usize = 4000;
/// Bytes that one call copies.
const PIECE: usize = 1 << 30;
/// Bytes that go through memory at once.
const BUFFER: usize = 256 * 1024;

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// Copies all that is in a directory, and the directory's own attributes, to an empty one.
pub fn clone_tree(source: OwnedFd, destination: OwnedFd) -> Result<(), LayerError> {
    let failed = |problem| LayerError {
        entry: Vec::new(),
        problem,
    };
    let of_top = |errno: Errno| {
        failed(LayerProblem::Io {
            doing: "open it",
            source: errno.into(),
        })
    };
    let (from, to) = (
        openat(&source, c".", DIRECTORY, Mode::empty()).map_err(of_top)?,
        openat(&destination, c".", DIRECTORY, Mode::empty()).map_err(of_top)?,
    );
    let mut copying = Copying {
        top: destination,
        levels: vec![Some(to)],
        pending: None,
        links: HashMap::new(),
        shares: true,
    };
    walk_with_paths(source, Mounts::Outside, |found, path| {
        copying.visit(&found, path).map_err(|problem| Failure {
            entry: path.to_vec(),
            problem,
        })
    })
    .map_err(|failure| LayerError {
        entry: failure.entry,
        problem: failure.problem,
    })?;
    let stat = fstat(&from).map_err(of_top)?;
    attributes(&from, &stat, &copying.top).map_err(failed)
}

/// A `LayerError` that the walk's own errors can become.
struct Failure {
    entry: Vec<u8>,
    problem: LayerProblem,
}

impl From<io::Error> for Failure {
    fn from(source: io::Error) -> Self {
        Self {
            entry: Vec::new(),
            problem: LayerProblem::Io {
                doing: "read the tree",
                source,
            },
        }
    }
}

struct Copying {
    top: OwnedFd,
    /// The directory that is copied to, the last, and those above it.
    levels: Vec<Option<OwnedFd>>,
    /// A directory that was made and not gone into.
    pending: Option<CString>,
    /// Files with several names, by their inode: the first copy's path.
    links: HashMap<(u64, u64), Vec<u8>>,
    /// Whether the file system may be able to share blocks.
    shares: bool,
}

impl Copying {
    fn visit(&mut self, found: &Visit<'_>, path: &[u8]) -> Result<(), LayerProblem> {
        match found {
            Visit::Enter(parent, name, stat) => {
                let depth = path.split(|&byte| byte == b'/').count();
                if depth > self.levels.len() {
                    self.descend()?;
                }
                self.pending = None;
                if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                    mkdirat(self.here(), *name, Mode::from_raw_mode(0o700)).doing("create it")?;
                    self.pending = Some((*name).clone());
                    return Ok(());
                }
                self.object(*parent, name, stat, path)
            }
            Visit::Leave(parent, name) => {
                let depth = path.split(|&byte| byte == b'/').count();
                if depth == self.levels.len() {
                    self.descend()?; // it was empty
                }
                let source = match openat(*parent, *name, DIRECTORY, Mode::empty()) {
                    Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return self.ascend(),
                    other => other.doing("open it")?,
                };
                let stat = fstat(&source).doing("look at it")?;
                attributes(&source, &stat, &self.here())?;
                self.ascend()
            }
            Visit::Mount(_) => Ok(()),
        }
    }

    fn here(&self) -> BorrowedFd<'_> {
        // The innermost level is always open.
        self.levels
            .last()
            .and_then(Option::as_ref)
            .unwrap_or(&self.top)
            .as_fd()
    }

    fn descend(&mut self) -> Result<(), LayerProblem> {
        let name = self
            .pending
            .take()
            .ok_or(Errno::NOENT)
            .doing("go into its copy")?;
        let below = openat(self.here(), &name, DIRECTORY, Mode::empty()).doing("open its copy")?;
        if self.levels.len() >= OPEN {
            let far = self.levels.len() - OPEN;
            self.levels[far] = None;
        }
        self.levels.push(Some(below));
        Ok(())
    }

    fn ascend(&mut self) -> Result<(), LayerProblem> {
        let left = self.levels.pop().flatten();
        if let (Some(left), Some(above @ None)) = (&left, self.levels.last_mut()) {
            *above = Some(openat(left, c"..", DIRECTORY, Mode::empty()).doing("go back up")?);
        }
        Ok(())
    }

    fn object(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &CStr,
        stat: &Stat,
        path: &[u8],
    ) -> Result<(), LayerProblem> {
        if stat.st_nlink > 1 {
            let identity = (stat.st_dev, stat.st_ino);
            if let Some(first) = self.links.get(&identity) {
                let (above, first) = split(first);
                let directory = far(self.top.as_fd(), above).doing("find its other name")?;
                return linkat(&directory, first, self.here(), name, AtFlags::empty())
                    .doing("link it");
            }
        }
        let made = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => self.file(parent, name)?,
            _ => special(parent, name, stat, self.here())?,
        };
        if made && stat.st_nlink > 1 {
            self.links.insert((stat.st_dev, stat.st_ino), path.to_vec());
        }
        Ok(())
    }

    /// A regular file; false where its name has become something else.
    fn file(&mut self, parent: BorrowedFd<'_>, name: &CStr) -> Result<bool, LayerProblem> {
        let flags =
            OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let source = match openat(parent, name, flags, Mode::empty()) {
            Err(Errno::NOENT | Errno::LOOP | Errno::NXIO) => return Ok(false),
            other => other.doing("open it")?,
        };
        let stat = fstat(&source).doing("look at it")?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Ok(false);
        }
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let target =
            openat(self.here(), name, flags, Mode::from_raw_mode(0o600)).doing("create it")?;
        if stat.st_size > 0 && !self.share(&source, &target)? {
            data(&source, &target, stat.st_size.cast_unsigned())?;
        }
        attributes(&source, &stat, &target)?;
        Ok(true)
    }

    fn share(&mut self, source: &OwnedFd, target: &OwnedFd) -> Result<bool, LayerProblem> {
        if !self.shares {
            return Ok(false);
        }
        match ioctl_ficlone(target, source) {
            Ok(()) => Ok(true),
            Err(error @ (Errno::NOSPC | Errno::DQUOT | Errno::IO)) => Err(error).doing("copy it"),
            // A file may be one that cannot be shared.
            Err(Errno::INVAL | Errno::PERM | Errno::TXTBSY) => Ok(false),
            Err(_) => {
                self.shares = false;
                Ok(false)
            }
        }
    }
}

/// The directory at a path of any length.
fn far(top: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd, Errno> {
    let mut here = openat(top, c".", DIRECTORY, Mode::empty())?;
    let mut left = path;
    while !left.is_empty() {
        let end = match left.len() {
            0..=PATH => left.len(),
            _ => left[..PATH]
                .iter()
                .rposition(|&byte| byte == b'/')
                .ok_or(Errno::NAMETOOLONG)?,
        };
        here = openat(&here, &left[..end], DIRECTORY, Mode::empty())?;
        left = left[end..].strip_prefix(b"/").unwrap_or_default();
    }
    Ok(here)
}

/// What a file holds, its holes left out.
fn data(source: &OwnedFd, target: &OwnedFd, size: u64) -> Result<(), LayerProblem> {
    ftruncate(target, size).doing("set its size")?;
    let mut at = 0;
    while at < size {
        let (start, end) = match seek(source, SeekFrom::Data(at)) {
            Err(Errno::NXIO) => break,
            Err(Errno::INVAL | Errno::OPNOTSUPP) => (at, size),
            other => {
                let start = other.doing("find its data")?.min(size);
                match seek(source, SeekFrom::Hole(start)) {
                    Err(Errno::NXIO) => break, // it has become shorter
                    other => (start, other.doing("find its data")?.min(size)),
                }
            }
        };
        let (mut from, mut to) = (start, start);
        while from < end {
            let length = usize::try_from(end - from).unwrap_or(PIECE).min(PIECE);
            match copy_file_range(source, Some(&mut from), target, Some(&mut to), length) {
                Err(Errno::INTR) => {}
                Ok(0) => return Ok(()),
                // Another file system, or one that cannot do it.
                Err(Errno::XDEV | Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS) => {
                    if !by_hand(source, target, from, end)? {
                        return Ok(());
                    }
                    break;
                }
                other => drop(other.doing("copy it")?),
            }
        }
        at = end.max(start + 1);
    }
    Ok(())
}

/// Copies bytes through memory; false where the file has become shorter.
fn by_hand(
    source: &OwnedFd,
    target: &OwnedFd,
    mut from: u64,
    end: u64,
) -> Result<bool, LayerProblem> {
    let mut buffer = vec![0; BUFFER];
    while from < end {
        let room = usize::try_from(end - from).unwrap_or(BUFFER).min(BUFFER);
        let count = match pread(source, &mut buffer[..room], from) {
            Err(Errno::INTR) => continue,
            Ok(0) => return Ok(false),
            other => other.doing("read it")?,
        };
        let mut done = 0;
        while done < count {
            match pwrite(target, &buffer[done..count], from + done as u64) {
                Err(Errno::INTR) => {}
                other => done += other.doing("copy it")?,
            }
        }
        from += count as u64;
    }
    Ok(true)
}

/// A link, device, pipe or socket; false where it has gone.
fn special(
    parent: BorrowedFd<'_>,
    name: &CStr,
    stat: &Stat,
    here: BorrowedFd<'_>,
) -> Result<bool, LayerProblem> {
    let kind = FileType::from_raw_mode(stat.st_mode);
    let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
    if kind == FileType::Symlink {
        let link = match readlinkat(parent, name, Vec::new()) {
            Err(Errno::NOENT | Errno::INVAL) => return Ok(false),
            other => other.doing("read the link")?,
        };
        symlinkat(&link, here, name).doing("create it")?;
    } else {
        mknodat(here, name, kind, mode, stat.st_rdev).doing("create it")?;
    }
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    chownat(here, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW).doing("set its owner")?;
    if kind != FileType::Symlink {
        chmodat(here, name, mode, AtFlags::empty()).doing("set its mode")?;
    }
    let of = |directory: BorrowedFd<'_>| {
        let directory = format!("/proc/self/fd/{}", directory.as_raw_fd());
        join(directory.as_bytes(), name.to_bytes())
    };
    let (from, to) = (of(parent), of(here));
    copy_attributes(
        |names| llistxattr(&from[..], names),
        |name, value| lgetxattr(&from[..], name, value),
        |name, value| lsetxattr(&to[..], name, value, XattrFlags::empty()),
    )?;
    utimensat(here, name, &times_of(stat), AtFlags::SYMLINK_NOFOLLOW).doing("set its time")?;
    Ok(true)
}

/// Owner, mode, extended attributes and times of an open file or directory.
fn attributes(
    source: &OwnedFd,
    stat: &Stat,
    target: &(impl AsFd + ?Sized),
) -> Result<(), LayerProblem> {
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    fchown(target, Some(uid), Some(gid)).doing("set its owner")?;
    fchmod(target, Mode::from_raw_mode(stat.st_mode & 0o7777)).doing("set its mode")?;
    copy_attributes(
        |names| flistxattr(source, names),
        |name, value| fgetxattr(source, name, value),
        |name, value| fsetxattr(target, name, value, XattrFlags::empty()),
    )?;
    futimens(target, &times_of(stat)).doing("set its time")
}

fn copy_attributes(
    list: impl Fn(&mut [u8]) -> Result<usize, Errno>,
    get: impl Fn(&[u8], &mut [u8]) -> Result<usize, Errno>,
    set: impl Fn(&[u8], &[u8]) -> Result<(), Errno>,
) -> Result<(), LayerProblem> {
    let names = match whole(list) {
        Err(Errno::OPNOTSUPP | Errno::NOENT) => return Ok(()),
        other => other.doing("list its extended attributes")?,
    };
    for name in names
        .split(|&byte| byte == 0)
        .filter(|name| !name.is_empty())
    {
        match whole(|value| get(name, value)) {
            Err(Errno::NODATA | Errno::NOENT) => {}
            other => {
                let value = other.doing("read its extended attributes")?;
                set(name, &value).map_err(|errno| LayerProblem::Attribute {
                    name: name.escape_ascii().to_string(),
                    source: errno.into(),
                })?;
            }
        }
    }
    Ok(())
}
