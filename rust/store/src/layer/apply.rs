//! Entries, one after the other, into files.
//!
//! A regular file costs five system calls: openat, write, futimens, close, and fchown only where its owner is not
//! root. fchmod is needed where the mode has bits that openat does not give.

use std::io;
use std::path::Path;

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, RawMode, Uid, fchmod, fchown, fremovexattr, linkat,
    mkdirat, mknodat, open, statat,
};
use rustix::io::Errno;

use super::attributes::{DEFAULT_ACL, set, wanted};
use super::directories::{Directories, Finish, is_whiteout};
use super::object::{create, describe, fill, needs_mode, umask};
use super::path::{Meaning, clean, join, meaning};
use super::{Doing, LayerError, LayerProblem};
use crate::input::Input;
use crate::limits::Limits;
use crate::tar::{Entry, EntryKind, Reader};

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
            umask: umask()?,
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
        let created = match create(self.directories.descriptor(&directory)?, name, entry) {
            Err(Errno::EXIST) => {
                self.directories.remove(&directory, name)?;
                create(self.directories.descriptor(&directory)?, name, entry)
            }
            other => other,
        };
        match created.doing("create it")? {
            Some(file) => {
                self.applied.bytes += fill(&file, entry, reader, self.umask)?;
                Ok(())
            }
            None => describe(
                self.directories.descriptor(&directory)?,
                name,
                entry,
                self.umask,
            ),
        }
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
