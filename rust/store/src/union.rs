//! The merged view of snapshots, looked up as overlay would, without a mount.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, Stat, fgetxattr, fstat, open, openat};
use rustix::io::Errno;

use crate::layer::is_whiteout;

/// Directories of snapshots, the top-most first.
pub(crate) struct Union {
    layers: Vec<OwnedFd>,
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
    /// Opens the layers.
    pub(crate) fn open<P: AsRef<Path>>(layers: impl IntoIterator<Item = P>) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let layers = layers
            .into_iter()
            .map(|layer| open(layer.as_ref(), flags, Mode::empty()));
        Ok(Self {
            layers: layers.collect::<Result<_, _>>()?,
        })
    }

    /// What the clean path is, without following symbolic links anywhere in it.
    pub(crate) fn find(&self, path: &[u8]) -> io::Result<Option<Found>> {
        for layer in &self.layers {
            match look(layer, path)? {
                Look::Here(found) => return Ok(Some(found)),
                Look::Hidden => return Ok(None),
                Look::Lower => {}
            }
        }
        Ok(None)
    }
}

/// What one layer says about a path.
enum Look {
    Here(Found),
    /// It has nothing there, and hides what lower layers have.
    Hidden,
    /// It has nothing there: ask the next lower layer.
    Lower,
}

fn look(layer: &OwnedFd, path: &[u8]) -> io::Result<Look> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut here = openat(
        layer,
        c".",
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let mut stat = fstat(&here)?;
    let mut opaque = false;
    for name in path
        .split(|&byte| byte == b'/')
        .filter(|name| !name.is_empty())
    {
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            return Ok(Look::Hidden);
        }
        opaque |= is_opaque(&here)?;
        let next = match openat(&here, name, flags, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(if opaque { Look::Hidden } else { Look::Lower }),
            other => other?,
        };
        stat = fstat(&next)?;
        if is_whiteout(stat.st_mode, stat.st_rdev) {
            return Ok(Look::Hidden);
        }
        here = next;
    }
    Ok(Look::Here(Found { object: here, stat }))
}

/// Whether a directory hides what is below it in lower layers.
pub(crate) fn is_opaque(directory: &OwnedFd) -> io::Result<bool> {
    // Attributes cannot be read through a descriptor that is a path only.
    let opened = openat(
        directory,
        c".",
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let mut value = [0; 1];
    match fgetxattr(&opened, c"trusted.overlay.opaque", &mut value) {
        Ok(count) => Ok(count == 1 && value[0] == b'y'),
        Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::RANGE) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}
