//! Volumes: their files copied, packed, and taken from an archive.
//!
//! What is read may be used by containers meanwhile: it is read through a mount of our own, in which no device can be opened and
//! nothing written. What is written is nobody else's yet. Limits of its size hold for what is written here as for anybody: the
//! calling thread gives the capability to go beyond them up for as long.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use knarr_store::{
    Compressed, ExtractOptions, Fidelity, Limits, PackError, Packer, Packing, clone_tree,
    extract_stream,
};
use knarr_sys::process::Limited;
use rustix::fs::{CWD, Mode, OFlags, RenameFlags, fsync, open, renameat_with, syncfs};

use crate::error::FilesError;
use crate::shielded;
use crate::stream::{Incoming, Outgoing};

fn directory(path: &Path) -> Result<OwnedFd, FilesError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    open(path, flags, Mode::empty()).map_err(|errno| FilesError::io("open", path, errno))
}

fn limited(path: &Path) -> Result<Limited, FilesError> {
    Limited::begin().map_err(|source| FilesError::io("prepare to write to", path, source))
}

fn settled(directory: &OwnedFd, path: &Path) -> Result<(), FilesError> {
    syncfs(directory).map_err(|errno| FilesError::io("sync", path, errno))
}

/// Copies all that is in a directory, and its own attributes, to an empty one, durably. After an error that holds a part.
pub fn clone_volume(source: &Path, destination: &Path) -> Result<(), FilesError> {
    let from = shielded(source)?;
    let to = directory(destination)?;
    let synced = to
        .try_clone()
        .map_err(|error| FilesError::io("open", destination, error))?;
    let limited = limited(destination)?;
    clone_tree(from, to)?;
    drop(limited);
    settled(&synced, destination)
}

/// Writes a directory and all that is in it as an archive, whose paths begin with "./".
pub fn pack_volume(source: &Path, to: Outgoing, packing: Packing) -> Result<(), FilesError> {
    let from = shielded(source)?;
    let failed = |error| FilesError::Pack(PackError::Write(error));
    let sink = Compressed::new(to, packing).map_err(failed)?;
    let mut packer = Packer::new(sink, Fidelity::Layer);
    packer.tree(from.as_fd(), c".", b".")?;
    packer.finish()?.finish().map_err(failed)
}

/// Extracts an archive to an empty directory, durably. After an error that holds a part.
pub fn fill_volume(destination: &Path, from: &mut Incoming) -> Result<(), FilesError> {
    let to = directory(destination)?;
    let synced = to
        .try_clone()
        .map_err(|error| FilesError::io("open", destination, error))?;
    let options = ExtractOptions {
        whole: true,
        shown: "the volume".to_owned(),
        ..ExtractOptions::default()
    };
    let limited = limited(destination)?;
    extract_stream(from, "the archive", to, &options, &Limits::default())?;
    drop(limited);
    settled(&synced, destination)
}

/// Exchanges two directories in one step, durably.
pub fn exchange(one: &Path, other: &Path) -> Result<(), FilesError> {
    let wrong = |errno| FilesError::io("exchange", one, errno);
    renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).map_err(wrong)?;
    let parent = one.parent().unwrap_or(one);
    let opened = directory(parent)?;
    fsync(&opened).map_err(|errno| FilesError::io("sync", parent, errno))
}
