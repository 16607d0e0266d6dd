//! The merged view of snapshots, looked up as overlay would, without a mount.
//!
//! It costs no privilege, works on every kernel, and is exact for what the store makes: whiteouts and opaque directories, and
//! none of overlay's other marks.

use std::collections::HashSet;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Dir, FileType, Mode, OFlags, Stat, fgetxattr, fstat, open, openat, readlinkat};
use rustix::io::Errno;

use crate::layer::{is_whiteout, join, parent};

/// The kernel's own limit for one path.
const SYMLINKS: usize = 40;

/// Directories of snapshots, the top-most first. Opened when they are asked: an image may have more layers than a process
/// descriptors.
pub(crate) struct Union {
    layers: Vec<PathBuf>,
}

/// An object in the merged view, open as a path only.
pub(crate) struct Found {
    /// Refers to the object, without access to its content.
    pub(crate) object: OwnedFd,
    /// Its attributes.
    pub(crate) stat: Stat,
}

impl Found {
    pub(crate) fn file_type(&self) -> FileType {
        FileType::from_raw_mode(self.stat.st_mode)
    }
}

impl Union {
    /// Of these layers.
    pub(crate) fn of<P: AsRef<Path>>(layers: impl IntoIterator<Item = P>) -> Self {
        Self {
            layers: layers
                .into_iter()
                .map(|layer| layer.as_ref().to_owned())
                .collect(),
        }
    }

    /// What the clean path is, without following symbolic links anywhere in it.
    pub(crate) fn find(&self, path: &[u8]) -> io::Result<Option<Found>> {
        for layer in &self.layers {
            match look(layer, path)? {
                Look::Here(found, _) => return Ok(Some(found)),
                Look::Hidden => return Ok(None),
                Look::Lower => {}
            }
        }
        Ok(None)
    }

    /// The clean path that any path leads to, symbolic links followed inside the view; none where something is missing.
    pub(crate) fn resolve(&self, path: &[u8]) -> io::Result<Option<Vec<u8>>> {
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
                    here.truncate(parent(&here).len());
                    continue;
                }
                _ => {}
            }
            let next = join(&here, &name);
            let Some(found) = self.find(&next)? else {
                return Ok(None);
            };
            if found.file_type() == FileType::Symlink {
                links += 1;
                if links > SYMLINKS {
                    return Err(Errno::LOOP.into());
                }
                let target = readlinkat(&found.object, c"", Vec::new())?;
                if target.as_bytes().starts_with(b"/") {
                    here.clear();
                }
                ahead.extend(names(target.as_bytes()));
            } else {
                here = next;
            }
        }
        Ok(Some(here))
    }

    /// What is in a directory, by name; none where the clean path is no directory.
    pub(crate) fn list(&self, path: &[u8]) -> io::Result<Option<Vec<(CString, Found)>>> {
        let mut directory = false;
        let mut seen = HashSet::new();
        let mut entries = Vec::new();
        for layer in &self.layers {
            let (found, opaque) = match look(layer, path)? {
                Look::Lower => continue,
                Look::Here(found, opaque) if found.file_type() == FileType::Directory => {
                    (found, opaque)
                }
                Look::Here(..) | Look::Hidden => break,
            };
            directory = true;
            let opened = openat(
                &found.object,
                c".",
                OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
                Mode::empty(),
            )?;
            for entry in Dir::read_from(&opened)? {
                let name = entry?.file_name().to_owned();
                if matches!(name.to_bytes(), b"." | b"..") || !seen.insert(name.clone()) {
                    continue;
                }
                let object = openat(
                    &opened,
                    &name,
                    OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
                    Mode::empty(),
                )?;
                let stat = fstat(&object)?;
                if !is_whiteout(stat.st_mode, stat.st_rdev) {
                    entries.push((name, Found { object, stat }));
                }
            }
            if opaque {
                break;
            }
        }
        entries.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        Ok(directory.then_some(entries))
    }
}

/// What one layer says about a path.
enum Look {
    /// It has the object, and whether it hides what lower layers have below it.
    Here(Found, bool),
    /// It has nothing there, and hides what lower layers have.
    Hidden,
    /// It has nothing there: ask the next lower layer.
    Lower,
}

fn look(layer: &Path, path: &[u8]) -> io::Result<Look> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut here = open(layer, flags | OFlags::DIRECTORY, Mode::empty())?;
    let mut stat = fstat(&here)?;
    let mut opaque = is_opaque(&here)?;
    for name in path
        .split(|&byte| byte == b'/')
        .filter(|name| !name.is_empty())
    {
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            return Ok(Look::Hidden);
        }
        let next = match openat(&here, name, flags, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(if opaque { Look::Hidden } else { Look::Lower }),
            other => other?,
        };
        stat = fstat(&next)?;
        if is_whiteout(stat.st_mode, stat.st_rdev) {
            return Ok(Look::Hidden);
        }
        here = next;
        if !opaque && FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            opaque = is_opaque(&here)?;
        }
    }
    Ok(Look::Here(Found { object: here, stat }, opaque))
}

/// Whether a directory hides what is below it in lower layers.
pub(crate) fn is_opaque(directory: &OwnedFd) -> io::Result<bool> {
    is_opaque_at(directory.as_fd(), c".")
}

/// The same of a directory in another; false where it is none, or has gone.
pub(crate) fn is_opaque_at(parent: BorrowedFd<'_>, name: &CStr) -> io::Result<bool> {
    // Attributes cannot be read through a descriptor that is a path only.
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = match openat(parent, name, flags, Mode::empty()) {
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(false),
        other => other?,
    };
    let mut value = [0; 1];
    match fgetxattr(&opened, c"trusted.overlay.opaque", &mut value) {
        Ok(count) => Ok(count == 1 && value[0] == b'y'),
        Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::RANGE) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}
