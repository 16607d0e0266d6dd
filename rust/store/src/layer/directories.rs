//! The directories of a layer that is being applied.
//!
//! The layer's directory starts empty and nobody else writes there, so every directory in it is one that was
//! made and remembered here: a name that is not remembered is absent or something else. Descriptors
//! of directories are kept open up to a number and then all closed; a file costs no walk along its path.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, RawMode, ResolveFlags, XattrFlags, fsetxattr, mkdirat,
    openat2, readlinkat, statat, unlinkat,
};
use rustix::io::Errno;

use super::path::{join, split};
use super::{Doing, LayerProblem};
use crate::limits::Limits;
use crate::tar::Time;
use crate::tree;

const OPEN: usize = 32;
/// The kernel's own limit for one path.
const SYMLINKS: usize = 40;

/// What a directory gets when everything in it is there.
#[derive(Debug)]
pub(super) struct Finish {
    pub(super) mtime: Time,
    /// Where creating it did not give it this mode.
    pub(super) mode: Option<u32>,
    pub(super) default_acl: Option<Vec<u8>>,
}

#[derive(Default)]
struct Directory {
    descriptor: Option<OwnedFd>,
    /// None for one that has no entry of its own.
    finish: Option<Finish>,
}

pub(super) struct Directories {
    root: OwnedFd,
    known: HashMap<Vec<u8>, Directory>,
    open: usize,
    remembered: usize,
    limit: usize,
    path_limit: usize,
}

impl Directories {
    /// Of a layer whose directory is open and empty.
    pub(super) fn new(root: OwnedFd, limits: &Limits) -> Self {
        let known = HashMap::from([(Vec::new(), Directory::default())]);
        Self {
            root,
            known,
            open: 0,
            remembered: 0,
            limit: limits.remembered,
            path_limit: limits.path,
        }
    }

    /// Counts what is kept until the layer is complete.
    pub(super) fn remember(&mut self, bytes: usize) -> Result<(), LayerProblem> {
        self.remembered += bytes + 96;
        if self.remembered > self.limit {
            Err(LayerProblem::Memory(self.limit))
        } else {
            Ok(())
        }
    }

    pub(super) fn is_known(&self, path: &[u8]) -> bool {
        self.known.contains_key(path)
    }

    /// A known directory's descriptor.
    pub(super) fn descriptor(&mut self, path: &[u8]) -> Result<BorrowedFd<'_>, LayerProblem> {
        if path.is_empty() {
            return Ok(self.root.as_fd());
        }
        if self.open >= OPEN
            && self
                .known
                .get(path)
                .is_some_and(|directory| directory.descriptor.is_none())
        {
            self.known
                .values_mut()
                .for_each(|directory| directory.descriptor = None);
            self.open = 0;
        }
        let directory = self
            .known
            .get_mut(path)
            .ok_or_else(|| LayerProblem::NotDirectory(path.to_vec()))?;
        let descriptor = if let Some(open) = directory.descriptor.take() {
            open
        } else {
            self.open += 1;
            open_directory(self.root.as_fd(), path).doing("open its directory")?
        };
        let descriptor: &OwnedFd = directory.descriptor.insert(descriptor);
        Ok(descriptor.as_fd())
    }

    /// The directory that a clean path leads to, made where it is missing, symbolic links followed from the layer's root.
    pub(super) fn resolve(&mut self, path: &[u8]) -> Result<Vec<u8>, LayerProblem> {
        match self.walk(path, true)? {
            Some(found) => Ok(found),
            None => Err(LayerProblem::NotDirectory(path.to_vec())),
        }
    }

    /// The same without making any; none where a directory is missing.
    pub(super) fn find(&mut self, path: &[u8]) -> Result<Option<Vec<u8>>, LayerProblem> {
        self.walk(path, false)
    }

    fn walk(&mut self, path: &[u8], make: bool) -> Result<Option<Vec<u8>>, LayerProblem> {
        if self.is_known(path) {
            return Ok(Some(path.to_vec()));
        }
        let names = |path: &[u8]| -> Vec<Vec<u8>> {
            path.split(|&byte| byte == b'/')
                .rev()
                .map(<[u8]>::to_vec)
                .collect()
        };
        let mut ahead = names(path);
        let mut here = Vec::new();
        let mut links = 0;
        while let Some(name) = ahead.pop() {
            match name.as_slice() {
                b"" | b"." => continue,
                b".." => {
                    here.truncate(split(&here).0.len());
                    continue;
                }
                _ => {}
            }
            let next = join(&here, &name);
            if self.is_known(&next) {
                here = next;
                continue;
            }
            if next.len() >= self.path_limit || name.len() > 255 {
                return Err(LayerProblem::TooLong(self.path_limit));
            }
            if name.starts_with(b".wh.") {
                return Err(LayerProblem::Reserved);
            }
            let parent = self.descriptor(&here)?;
            let stat = match statat(parent, name.as_slice(), AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => Some(stat),
                Err(Errno::NOENT) => None,
                Err(errno) => return Err(errno).doing("look at its directory"),
            };
            match stat {
                Some(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink => {
                    links += 1;
                    if links > SYMLINKS {
                        return Err(LayerProblem::Loop);
                    }
                    let target = readlinkat(parent, name.as_slice(), Vec::new())
                        .doing("read a link in its path")?;
                    if target.as_bytes().starts_with(b"/") {
                        here.clear();
                    }
                    ahead.extend(names(target.as_bytes()));
                    if ahead.len() > self.path_limit {
                        return Err(LayerProblem::TooLong(self.path_limit));
                    }
                    continue;
                }
                Some(stat) if !is_whiteout(stat.st_mode, stat.st_rdev) => {
                    return Err(LayerProblem::NotDirectory(next));
                }
                _ if !make => return Ok(None),
                _ => {}
            }
            let hidden = stat.is_some();
            if hidden {
                unlinkat(parent, name.as_slice(), AtFlags::empty()).doing("replace a whiteout")?;
            }
            mkdirat(parent, name.as_slice(), Mode::from_raw_mode(0o755))
                .doing("create its directory")?;
            self.add(&next)?;
            if hidden {
                self.make_opaque(&next)?;
            }
            here = next;
        }
        Ok(Some(here))
    }

    /// Remembers a directory that was just made.
    pub(super) fn add(&mut self, path: &[u8]) -> Result<(), LayerProblem> {
        self.remember(path.len())?;
        self.known.insert(path.to_vec(), Directory::default());
        Ok(())
    }

    /// What an entry says about a known directory; the last one wins.
    pub(super) fn finish_with(&mut self, path: &[u8], finish: Finish) {
        if let Some(directory) = self.known.get_mut(path) {
            directory.finish = Some(finish);
        }
    }

    /// Hides what lower layers have in a known directory.
    pub(super) fn make_opaque(&mut self, path: &[u8]) -> Result<(), LayerProblem> {
        let directory = self.descriptor(path)?;
        fsetxattr(
            directory,
            c"trusted.overlay.opaque",
            b"y",
            XattrFlags::empty(),
        )
        .map_err(|errno| LayerProblem::Attribute {
            name: "trusted.overlay.opaque".into(),
            source: errno.into(),
        })
    }

    /// Deletes whatever has this name, be it a directory with all its content.
    pub(super) fn remove(&mut self, parent: &[u8], name: &[u8]) -> Result<(), LayerProblem> {
        let path = join(parent, name);
        if !self.is_known(&path) {
            return match unlinkat(self.descriptor(parent)?, name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => Ok(()),
                Err(errno) => Err(errno).doing("replace what has its name"),
            };
        }
        let below = join(&path, b"");
        self.known
            .retain(|known, _| *known != path && !known.starts_with(&below));
        self.open = self
            .known
            .values()
            .filter(|directory| directory.descriptor.is_some())
            .count();
        let parent = self.descriptor(parent)?;
        tree::remove_at(parent, name).map_err(|source| LayerProblem::Io {
            doing: "replace the directory that has its name",
            source,
        })
    }

    /// Gives every directory its time and what else waited; the ones without an entry, parents first.
    pub(super) fn finish(self) -> Result<Vec<Vec<u8>>, (Vec<u8>, LayerProblem)> {
        let mut implicit = Vec::new();
        for (path, directory) in self.known {
            match directory.finish {
                Some(finish) => apply_finish(self.root.as_fd(), &path, &finish)
                    .map_err(|problem| (path, problem))?,
                None => implicit.push(path),
            }
        }
        implicit.sort_unstable();
        Ok(implicit)
    }
}

fn apply_finish(root: BorrowedFd<'_>, path: &[u8], finish: &Finish) -> Result<(), LayerProblem> {
    let directory = open_directory(root, path).doing("open it")?;
    if let Some(mode) = finish.mode {
        rustix::fs::fchmod(&directory, Mode::from_raw_mode(mode as RawMode))
            .doing("set its mode")?;
    }
    if let Some(acl) = &finish.default_acl {
        super::attributes::set(&directory, super::attributes::DEFAULT_ACL, acl)?;
    }
    rustix::fs::futimens(&directory, &times(finish.mtime)).doing("set its time")
}

/// Both times of a file.
pub(crate) fn times(mtime: Time) -> rustix::fs::Timestamps {
    let time = rustix::fs::Timespec {
        tv_sec: mtime.seconds,
        tv_nsec: mtime.nanoseconds.into(),
    };
    rustix::fs::Timestamps {
        last_access: time,
        last_modification: time,
    }
}

/// Overlay's mark of something removed.
pub(crate) fn is_whiteout(mode: RawMode, device: u64) -> bool {
    FileType::from_raw_mode(mode) == FileType::CharacterDevice && device == 0
}

/// Opens a directory below another; neither symbolic links nor ".." take part.
pub(crate) fn open_directory(root: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd, Errno> {
    let path = if path.is_empty() { b"." } else { path };
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    openat2(
        root,
        path,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
        resolve,
    )
}
