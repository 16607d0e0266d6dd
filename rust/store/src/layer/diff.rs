//! A layer out of the directory that overlay writes to: [`apply`](super::apply) the other way round.
//!
//! | in the writable directory | in the archive |
//! | --- | --- |
//! | a character device 0:0 called `name` | `.wh.name`, where a lower layer has `name`; else nothing |
//! | `trusted.overlay.opaque=y` on a directory | `.wh..wh..opq` in it, where a lower layer has a directory there; else nothing |
//! | other `trusted.*`, `user.overlay.*` and what [`attributes`](super::attributes) drops | nothing |
//! | a directory | itself, with owner, mode, time and attributes, also where only something below it has changed |
//! | a file | itself; the later names of one with several are hard links to its first |
//! | a file with holes | a sparse file |
//! | a socket | nothing: no archive can hold one |
//! | the root directory | `./`, where it has not the owner and mode that it has below |
//! | an empty directory or file that the engine made for a mount | nothing |
//! | a name that begins with `.wh.` | refused: it would remove something |
//!
//! The archive's order is that of the names, directories before their content: equal directories make equal layers.

use std::collections::HashSet;
use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{FileType, Stat, fstat};

use super::directories::is_whiteout;
use super::path::{join, split};
use crate::changes::is_bare;
use crate::pack::{PackError, Packer};
use crate::tar::{Sink, Time};
use crate::tree::{Mounts, Visit, walk_with_paths};
use crate::union::{Union, is_opaque_at};

/// Writes what a writable directory has that the layers below it (the top-most first) have not; how many entries that is.
///
/// `made` are the paths that the engine makes for its mounts.
pub(crate) fn pack_upper<S: Sink>(
    upper: OwnedFd,
    lower: &[PathBuf],
    made: &[Vec<u8>],
    packer: Packer<S>,
) -> Result<(u64, S), PackError> {
    let mut diff = Diff {
        packer,
        lower: Union::of(lower),
        made: made.iter().map(Vec::as_slice).collect(),
        pending: Vec::new(),
        cut_off: HashSet::new(),
        entries: 0,
    };
    diff.root(upper.as_fd())?;
    walk_with_paths(upper, Mounts::Outside, |visit, path| match visit {
        Visit::Enter(directory, name, stat) => diff.object(directory, name, stat, path),
        Visit::Leave(..) | Visit::Mount(_) => Ok(()),
    })?;
    Ok((diff.entries, diff.packer.finish()?))
}

struct Diff<'a, S> {
    packer: Packer<S>,
    lower: Union,
    made: HashSet<&'a [u8]>,
    /// Directories that the engine made, and that nothing has been found in yet.
    pending: Vec<(Vec<u8>, Stat)>,
    /// Directories through which nothing of lower layers shows.
    cut_off: HashSet<Vec<u8>>,
    entries: u64,
}

impl<S: Sink> Diff<'_, S> {
    fn root(&mut self, upper: BorrowedFd<'_>) -> Result<(), PackError> {
        let stat = fstat(upper).map_err(std::io::Error::from)?;
        let same = self.lower.find(b"")?.is_none_or(|below| {
            let owned = |stat: &Stat| (stat.st_mode, stat.st_uid, stat.st_gid);
            owned(&stat) == owned(&below.stat)
        });
        if same {
            return Ok(());
        }
        self.entries += 1;
        self.packer.object(upper, c".", &stat, b".")
    }

    fn object(
        &mut self,
        directory: BorrowedFd<'_>,
        name: &CStr,
        stat: &Stat,
        path: &[u8],
    ) -> Result<(), PackError> {
        let (above, last) = split(path);
        if last.starts_with(b".wh.") {
            return Err(PackError::Reserved(path.to_vec()));
        }
        let cut_off = self.cut_off.contains(above);
        if is_whiteout(stat.st_mode, stat.st_rdev) {
            if cut_off || self.lower.find(path)?.is_none() {
                return Ok(());
            }
            return self.mark(join(above, &[b".wh.", last].concat()), stat);
        }
        if self.made.contains(path)
            && is_bare(stat)
            && (cut_off || self.lower.find(path)?.is_none())
        {
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                self.pending.push((path.to_vec(), *stat));
            }
            return Ok(());
        }
        self.before(path)?;
        self.entries += 1;
        self.packer.object(directory, name, stat, path)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            return Ok(());
        }
        if cut_off {
            self.cut_off.insert(path.to_vec());
        } else if is_opaque_at(directory, name)? {
            self.cut_off.insert(path.to_vec());
            let covered = self.lower.find(path)?;
            if covered.is_some_and(|below| below.file_type() == FileType::Directory) {
                return self.mark(join(path, b".wh..wh..opq"), stat);
            }
        }
        Ok(())
    }

    fn mark(&mut self, path: Vec<u8>, stat: &Stat) -> Result<(), PackError> {
        self.before(&path)?;
        self.entries += 1;
        let mtime = Time {
            seconds: stat.st_mtime,
            nanoseconds: 0,
        };
        self.packer.mark(path, mtime)
    }

    /// Writes the directories above a path that were held back.
    fn before(&mut self, path: &[u8]) -> Result<(), PackError> {
        let mut held = std::mem::take(&mut self.pending);
        held.retain(|(above, stat)| {
            let inside = path
                .strip_prefix(above.as_slice())
                .is_some_and(|rest| rest.starts_with(b"/"));
            if inside {
                self.pending.push((above.clone(), *stat));
            }
            !inside
        });
        for (above, stat) in std::mem::replace(&mut self.pending, held) {
            self.entries += 1;
            self.packer.directory(&stat, &above)?;
        }
        Ok(())
    }
}
