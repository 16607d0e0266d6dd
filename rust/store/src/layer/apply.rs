//! Entries, one after the other, into files.
//!
//! A regular file costs five system calls: openat, write, futimens, close, and fchown only where its owner is not
//! root. fchmod is needed where the mode has bits that openat does not give.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, RawMode, Uid, chmodat, chownat, fchmod, fchown,
    fremovexattr, ftruncate, futimens, linkat, makedev, mkdirat, mknodat, open, openat, statat,
    symlinkat, utimensat,
};
use rustix::io::{Errno, pwrite, write};

use super::attributes::{DEFAULT_ACL, set, set_by_name, wanted};
use super::directories::{Directories, Finish, is_whiteout, times};
use super::path::{Meaning, clean, join, meaning};
use super::{Doing, LayerError, LayerProblem};
use crate::input::Input;
use crate::limits::Limits;
use crate::tar::{Entry, EntryKind, Reader, TarError};

/// What applying a layer left to be done when the lower layers are there.
#[derive(Debug, Default)]
pub struct Applied {
    /// Bytes of the regular files, holes included.
    pub bytes: u64,
    /// Entries in the archive.
    pub entries: u64,
    /// Directories without an entry of their own, parents first.
    pub implicit: Vec<Vec<u8>>,
    /// Hard links to what this layer does not have: the link's path, and the target's.
    pub links: Vec<(Vec<u8>, Vec<u8>)>,
    /// Whiteouts, which are pointless where no lower layer has the name.
    pub whiteouts: Vec<Vec<u8>>,
}

/// Applies an uncompressed archive to an empty directory, reading the input to its end.
pub fn apply(input: impl Input, directory: &Path, limits: &Limits) -> Result<Applied, LayerError> {
    let mut entry = Entry::default();
    let result = (|| {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = open(directory, flags, Mode::empty()).doing("open the layer's directory")?;
        let mut applier = Applier {
            directories: Directories::new(root, limits),
            limits,
            umask: umask().map_err(|source| LayerProblem::Io {
                doing: "read /proc/self/status",
                source,
            })?,
            applied: Applied::default(),
        };
        let mut reader = Reader::new(input, limits);
        while reader.next(&mut entry)? {
            applier.entry(&entry, &mut reader)?;
        }
        applier.applied.entries = reader.entries();
        Ok((applier.directories, applier.applied))
    })();
    let (directories, mut applied) = result.map_err(|problem| LayerError {
        entry: std::mem::take(&mut entry.path),
        problem,
    })?;
    applied.implicit = directories
        .finish()
        .map_err(|(entry, problem)| LayerError { entry, problem })?;
    Ok(applied)
}

/// Makes a new directory one that passes nothing on to what is created in it: a data root may be in a directory with the
/// set-group-ID bit or a default access list.
pub(crate) fn own(directory: &Path) -> io::Result<()> {
    let opened = open(
        directory,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    for name in [c"system.posix_acl_default", c"system.posix_acl_access"] {
        match fremovexattr(&opened, name) {
            Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    let (user, group) = (rustix::process::geteuid(), rustix::process::getegid());
    fchown(&opened, Some(user), Some(group))?;
    Ok(fchmod(&opened, Mode::from_raw_mode(0o755))?)
}

/// The process's umask, which the kernel tells without changing it only here.
fn umask() -> io::Result<u32> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    // A kernel too old for the line is one where every mode is set once more.
    Ok(line
        .and_then(|value| u32::from_str_radix(value.trim(), 8).ok())
        .unwrap_or(0o777))
}

struct Applier<'l> {
    directories: Directories,
    limits: &'l Limits,
    umask: u32,
    applied: Applied,
}

impl Applier<'_> {
    fn entry<I: Input>(
        &mut self,
        entry: &Entry,
        reader: &mut Reader<'_, I>,
    ) -> Result<(), LayerProblem> {
        let path = clean(&entry.path, self.limits.path)?;
        match meaning(&path)? {
            Meaning::Ignored => Ok(()),
            Meaning::Root if entry.kind == EntryKind::Directory => {
                self.describe_directory(b"", entry, true)
            }
            Meaning::Root => Err(LayerProblem::NotDirectory(b"/".to_vec())),
            Meaning::Opaque(directory) => {
                let directory = self.directories.resolve(directory)?;
                self.directories.make_opaque(&directory)
            }
            Meaning::Whiteout(directory, name) => self.whiteout(directory, name),
            Meaning::Object(directory, name) => match entry.kind {
                EntryKind::Directory => self.directory(directory, name, entry),
                EntryKind::CharDevice(0, 0) => self.whiteout(directory, name),
                _ => self.object(directory, name, entry, reader),
            },
        }
    }

    /// A whiteout hides what lower layers have, not what this layer has itself.
    fn whiteout(&mut self, directory: &[u8], name: &[u8]) -> Result<(), LayerProblem> {
        let directory = self.directories.resolve(directory)?;
        let path = join(&directory, name);
        if self.directories.is_known(&path) {
            return self.directories.make_opaque(&path);
        }
        let parent = self.directories.descriptor(&directory)?;
        match mknodat(parent, name, FileType::CharacterDevice, Mode::empty(), 0) {
            // What has the name in this layer hides it already.
            Err(Errno::EXIST) => Ok(()),
            Err(errno) => Err(errno).doing("create a whiteout"),
            Ok(()) => {
                self.directories.remember(path.len())?;
                self.applied.whiteouts.push(path);
                Ok(())
            }
        }
    }

    fn directory(
        &mut self,
        directory: &[u8],
        name: &[u8],
        entry: &Entry,
    ) -> Result<(), LayerProblem> {
        let directory = self.directories.resolve(directory)?;
        let path = join(&directory, name);
        if self.directories.is_known(&path) {
            return self.describe_directory(&path, entry, true);
        }
        let mode = Mode::from_raw_mode((entry.mode & 0o777) as RawMode);
        let parent = self.directories.descriptor(&directory)?;
        let replaces = match mkdirat(parent, name, mode) {
            Ok(()) => false,
            Err(Errno::EXIST) => {
                self.directories.remove(&directory, name)?;
                mkdirat(self.directories.descriptor(&directory)?, name, mode).doing("create it")?;
                true
            }
            Err(errno) => return Err(errno).doing("create it"),
        };
        self.directories.add(&path)?;
        if replaces {
            self.directories.make_opaque(&path)?;
        }
        self.describe_directory(&path, entry, false)
    }

    /// Owner and attributes at once; time and mode when everything in it is there.
    fn describe_directory(
        &mut self,
        path: &[u8],
        entry: &Entry,
        existed: bool,
    ) -> Result<(), LayerProblem> {
        let owned = existed || (entry.uid, entry.gid) != (0, 0);
        let special = existed || needs_mode(entry.mode, self.umask);
        let mut default_acl = None;
        if owned || !entry.xattrs.is_empty() {
            let directory = self.directories.descriptor(path)?;
            if owned {
                fchown(
                    directory,
                    Some(Uid::from_raw(entry.uid)),
                    Some(Gid::from_raw(entry.gid)),
                )
                .doing("set its owner")?;
            }
            for (name, value) in wanted(entry) {
                if name == DEFAULT_ACL {
                    default_acl = Some(value.to_vec());
                } else {
                    set(directory, name, value)?;
                }
            }
        }
        if let Some(acl) = &default_acl {
            self.directories.remember(acl.len())?;
        }
        self.directories.finish_with(
            path,
            Finish {
                mtime: entry.mtime,
                mode: special.then_some(entry.mode),
                default_acl,
            },
        );
        Ok(())
    }

    /// Anything but a directory or whiteout.
    fn object<I: Input>(
        &mut self,
        directory: &[u8],
        name: &[u8],
        entry: &Entry,
        reader: &mut Reader<'_, I>,
    ) -> Result<(), LayerProblem> {
        let directory = self.directories.resolve(directory)?;
        if entry.kind == EntryKind::HardLink {
            return self.hard_link(&directory, name, entry);
        }
        let created = match self.create(&directory, name, entry) {
            Err(Errno::EXIST) => {
                self.directories.remove(&directory, name)?;
                self.create(&directory, name, entry)
            }
            other => other,
        };
        match created.doing("create it")? {
            Some(file) => self.fill(&file, entry, reader),
            None => self.describe(&directory, name, entry),
        }
    }

    /// Creates what the entry is, fails with EEXIST where there is something; a regular file stays open.
    fn create(
        &mut self,
        directory: &[u8],
        name: &[u8],
        entry: &Entry,
    ) -> Result<Option<OwnedFd>, Errno> {
        let parent = self
            .directories
            .descriptor(directory)
            .map_err(|_| Errno::NOTDIR)?;
        let mode = Mode::from_raw_mode((entry.mode & 0o777) as RawMode);
        match entry.kind {
            EntryKind::File => {
                let flags = OFlags::WRONLY
                    | OFlags::CREATE
                    | OFlags::EXCL
                    | OFlags::NOFOLLOW
                    | OFlags::CLOEXEC;
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
    fn describe(
        &mut self,
        directory: &[u8],
        name: &[u8],
        entry: &Entry,
    ) -> Result<(), LayerProblem> {
        let parent = self.directories.descriptor(directory)?;
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
        if entry.kind != EntryKind::Symlink && needs_mode(entry.mode, self.umask) {
            chmodat(
                parent,
                name,
                Mode::from_raw_mode(entry.mode as RawMode),
                AtFlags::empty(),
            )
            .doing("set its mode")?;
        }
        if !entry.xattrs.is_empty() {
            set_by_name(parent, name, entry)?;
        }
        utimensat(parent, name, &times(entry.mtime), AtFlags::SYMLINK_NOFOLLOW)
            .doing("set its time")
    }

    /// Data and everything else of an open file. A capability is lost by writing and by a change of owner: it comes after both.
    fn fill<I: Input>(
        &mut self,
        file: &OwnedFd,
        entry: &Entry,
        reader: &mut Reader<'_, I>,
    ) -> Result<(), LayerProblem> {
        match &entry.sparse {
            None => {
                copy(file, None, entry.size, reader)?;
                self.applied.bytes += entry.size;
            }
            Some((real_size, pieces)) => {
                ftruncate(file, *real_size).doing("set its size")?;
                for piece in pieces {
                    copy(file, Some(piece.offset), piece.length, reader)?;
                }
                self.applied.bytes += real_size;
            }
        }
        if (entry.uid, entry.gid) != (0, 0) {
            fchown(
                file,
                Some(Uid::from_raw(entry.uid)),
                Some(Gid::from_raw(entry.gid)),
            )
            .doing("set its owner")?;
        }
        if needs_mode(entry.mode, self.umask) {
            fchmod(file, Mode::from_raw_mode(entry.mode as RawMode)).doing("set its mode")?;
        }
        for (name, value) in wanted(entry) {
            set(file, name, value)?;
        }
        futimens(file, &times(entry.mtime)).doing("set its time")
    }

    fn hard_link(
        &mut self,
        directory: &[u8],
        name: &[u8],
        entry: &Entry,
    ) -> Result<(), LayerProblem> {
        let refuse = |reason| LayerProblem::Link {
            target: entry.link.clone(),
            reason,
        };
        let target = match clean(&entry.link, self.limits.path) {
            Err(LayerProblem::Escape) => return Err(refuse("leads out of the root directory")),
            other => other?,
        };
        let Meaning::Object(target_directory, target_name) = meaning(&target)? else {
            return Err(refuse("cannot be linked to"));
        };
        let found = match self.directories.find(target_directory)? {
            None => None,
            Some(found) => {
                let parent = self.directories.descriptor(&found)?;
                match statat(parent, target_name, AtFlags::SYMLINK_NOFOLLOW) {
                    Ok(stat) => Some((found, stat)),
                    Err(Errno::NOENT) => None,
                    Err(errno) => return Err(errno).doing("look at the target of the link"),
                }
            }
        };
        let path = join(directory, name);
        let Some((found, stat)) = found else {
            if target == path {
                return Err(refuse("is the link itself"));
            }
            self.directories.remove(directory, name)?;
            self.directories.remember(path.len() + target.len())?;
            self.applied.links.push((path, target));
            return Ok(());
        };
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            return Err(refuse("is a directory"));
        }
        if is_whiteout(stat.st_mode, stat.st_rdev) {
            return Err(refuse("this layer has removed"));
        }
        if join(&found, target_name) == path {
            return Ok(());
        }
        // Two descriptors at once: the target's is reopened where the cache was emptied in between.
        let source = self.directories.descriptor(&found)?.try_clone_to_owned();
        let source = source.map_err(|source| LayerProblem::Io {
            doing: "open the target's directory",
            source,
        })?;
        let parent = self.directories.descriptor(directory)?;
        match linkat(&source, target_name, parent, name, AtFlags::empty()) {
            Err(Errno::EXIST) => {
                self.directories.remove(directory, name)?;
                let parent = self.directories.descriptor(directory)?;
                match linkat(&source, target_name, parent, name, AtFlags::empty()) {
                    // The target was below what the link took the place of.
                    Err(Errno::NOENT) => Err(refuse("the link itself replaces")),
                    other => other.doing("create the link"),
                }
            }
            other => other.doing("create the link"),
        }
    }
}

/// Whether creating with a mode leaves bits of it unset.
fn needs_mode(mode: u32, umask: u32) -> bool {
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
