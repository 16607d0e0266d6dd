//! Making what was written durable before it gets its name.
//!
//! A pull of any size costs one syncfs, not one fsync a file. But syncfs waits for whatever else was written to the file system,
//! by anybody: a handful of files is synced one by one instead.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, fsync, open, openat};

use crate::error::{Context, StoreError};
use crate::store::Store;
use crate::tree::{self, Visit};

/// Objects that are worth a sync of their own each.
const FEW: u64 = 16;

/// Something with a temporary name: a file, or a directory of so many entries.
pub(crate) struct Written<'a> {
    pub(crate) path: &'a Path,
    pub(crate) entries: u64,
}

impl Store {
    /// Makes files and directory trees durable.
    pub(crate) fn settle(&self, written: &[Written<'_>]) -> Result<(), StoreError> {
        if written.iter().map(|one| one.entries + 1).sum::<u64>() > FEW {
            return self.sync();
        }
        written
            .iter()
            .try_for_each(|one| sync_tree(one.path).at("cannot sync", one.path))
    }
}

/// Every regular file and directory at and below a path. Links and devices are part of their directory's log.
fn sync_tree(path: &Path) -> io::Result<()> {
    let top = open(
        path,
        OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    if FileType::from_raw_mode(rustix::fs::fstat(&top)?.st_mode) == FileType::Directory {
        tree::walk(top.try_clone()?, |visit| match visit {
            Visit::Enter(directory, name, stat)
                if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile =>
            {
                sync_one(&openat(
                    directory,
                    name,
                    OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
                    Mode::empty(),
                )?)
            }
            Visit::Leave(parent, name) => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                sync_one(&openat(parent, name, flags, Mode::empty())?)
            }
            Visit::Enter(..) | Visit::Mount(_) => Ok(()),
        })?;
    }
    sync_one(&top)
}

fn sync_one(object: &OwnedFd) -> io::Result<()> {
    Ok(fsync(object.as_fd())?)
}
