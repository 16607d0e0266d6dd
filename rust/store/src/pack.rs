//! Directory trees into tar archives.
//!
//! A tree may change while it is read: what has gone by the time that it is opened is left out, and what has changed is
//! written as it is then. Nothing but regular files is opened, and none of them through a symbolic link. Sockets
//! are left out: no archive can hold them.

use std::collections::HashMap;
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, SeekFrom, Stat, fgetxattr, flistxattr, fstat, lgetxattr,
    llistxattr, major, minor, openat, readlinkat, seek, statat,
};
use rustix::io::Errno;

use crate::error::{Classified, ErrorKind, kind_of_io};
use crate::layer::join;
use crate::tar::{Entry, EntryKind, Piece, Sink, Time, WriteError, Writer};
use crate::tree::{Mounts, Visit, walk_with_paths};

/// What of a tree is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fidelity {
    /// What Docker's archives of containers hold: whole seconds, and of the extended attributes capabilities alone, as an
    /// attribute that the other side cannot set would make its program fail.
    Docker,
    /// All that a layer keeps: nanoseconds, holes, extended attributes.
    Layer,
}

/// Why a tree could not be written.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// An object cannot be read.
    #[error("cannot read \"{}\": {source}", .path.escape_ascii())]
    Object {
        /// Its path in the archive.
        path: Vec<u8>,
        /// Why not.
        source: io::Error,
    },
    /// The tree cannot be walked.
    #[error("cannot read the tree: {0}")]
    Tree(#[from] io::Error),
    /// The archive's bytes go nowhere.
    #[error("cannot write the archive: {0}")]
    Write(io::Error),
    /// A name that a layer cannot hold.
    #[error("\"{}\" begins with \".wh.\", which means a removal in a layer: give it another name", .0.escape_ascii())]
    Reserved(Vec<u8>),
}

impl Classified for PackError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Object { source, .. } | Self::Tree(source) => match kind_of_io(source) {
                // Nothing here is missing because of the caller.
                ErrorKind::NotFound => ErrorKind::Internal,
                kind => kind,
            },
            Self::Write(_) => ErrorKind::Unavailable,
            Self::Reserved(_) => ErrorKind::InvalidArgument,
        }
    }
}

/// Writes objects and trees to an archive.
pub struct Packer<S> {
    writer: Writer<S>,
    fidelity: Fidelity,
    /// Files with several names, by device and inode: the first name in the archive.
    links: HashMap<(u64, u64), Vec<u8>>,
    entry: Entry,
}

impl<S: Sink> Packer<S> {
    /// Begins an archive.
    pub fn new(sink: S, fidelity: Fidelity) -> Self {
        Self {
            writer: Writer::new(sink),
            fidelity,
            links: HashMap::new(),
            entry: Entry::default(),
        }
    }

    /// One object, and where it is a directory all that is below it, mounts included, as `path`.
    pub fn tree(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &CStr,
        path: &[u8],
    ) -> Result<(), PackError> {
        let stat = statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).map_err(object(path))?;
        self.object(parent, name, &stat, path)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            return Ok(());
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let top = openat(parent, name, flags, Mode::empty()).map_err(object(path))?;
        self.below(top, path)
    }

    /// All that is below a directory, as what is below `path`.
    pub fn below(&mut self, top: OwnedFd, path: &[u8]) -> Result<(), PackError> {
        walk_with_paths(top, Mounts::Inside, |found, below| match found {
            Visit::Enter(directory, name, stat) => {
                self.object(directory, name, stat, &inside(path, below))
            }
            Visit::Leave(..) | Visit::Mount(_) => Ok(()),
        })
    }

    /// One object as it is, under a path; a directory without its content.
    pub fn object(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &CStr,
        stat: &Stat,
        path: &[u8],
    ) -> Result<(), PackError> {
        let wrong = object(path);
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => match open_file(parent, name).map_err(&wrong)? {
                Some((file, stat)) => self.file(&file, &stat, path),
                None => Ok(()),
            },
            FileType::Directory => {
                self.describe(stat, path, EntryKind::Directory);
                if self.fidelity == Fidelity::Layer {
                    let flags =
                        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                    match openat(parent, name, flags, Mode::empty()) {
                        Ok(directory) => {
                            self.entry.xattrs = attributes(&directory).map_err(wrong)?;
                        }
                        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(()),
                        Err(errno) => return Err(wrong(errno)),
                    }
                }
                self.headers(path)
            }
            FileType::Symlink => {
                let target = match readlinkat(parent, name, Vec::new()) {
                    Err(Errno::NOENT | Errno::INVAL) => return Ok(()),
                    other => other.map_err(wrong)?,
                };
                self.special(
                    parent,
                    name,
                    stat,
                    path,
                    EntryKind::Symlink,
                    target.into_bytes(),
                )
            }
            FileType::Fifo => self.special(parent, name, stat, path, EntryKind::Fifo, Vec::new()),
            kind @ (FileType::CharacterDevice | FileType::BlockDevice) => {
                let (major, minor) = (major(stat.st_rdev), minor(stat.st_rdev));
                let kind = if kind == FileType::CharacterDevice {
                    EntryKind::CharDevice(major, minor)
                } else {
                    EntryKind::BlockDevice(major, minor)
                };
                self.special(parent, name, stat, path, kind, Vec::new())
            }
            FileType::Socket | FileType::Unknown => Ok(()),
        }
    }

    /// A directory that is not there to be looked at: without attributes.
    pub(crate) fn directory(&mut self, stat: &Stat, path: &[u8]) -> Result<(), PackError> {
        self.describe(stat, path, EntryKind::Directory);
        self.headers(path)
    }

    /// An entry that no object stands behind: a whiteout.
    pub(crate) fn mark(&mut self, path: Vec<u8>, mtime: Time) -> Result<(), PackError> {
        self.entry = Entry {
            path,
            mtime,
            ..Entry::default()
        };
        self.writer
            .entry(&self.entry)
            .map_err(|error| told(&self.entry.path, error))
    }

    /// Ends the archive; where it went.
    pub fn finish(self) -> Result<S, PackError> {
        self.writer.finish().map_err(|error| told(b"", error))
    }

    fn special(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &CStr,
        stat: &Stat,
        path: &[u8],
        kind: EntryKind,
        link: Vec<u8>,
    ) -> Result<(), PackError> {
        self.describe(stat, path, kind);
        self.entry.link = link;
        if self.again(stat, path) {
            return self.headers(path);
        }
        if self.fidelity == Fidelity::Layer {
            self.entry.xattrs = attributes_by_name(parent, name).map_err(object(path))?;
        }
        self.headers(path)
    }

    fn file(&mut self, file: &OwnedFd, stat: &Stat, path: &[u8]) -> Result<(), PackError> {
        self.describe(stat, path, EntryKind::File);
        if self.again(stat, path) {
            return self.headers(path);
        }
        let wrong = object(path);
        self.entry.size = stat.st_size.cast_unsigned();
        self.entry.xattrs = match self.fidelity {
            Fidelity::Docker => capability(file).map_err(wrong)?,
            Fidelity::Layer => attributes(file).map_err(wrong)?,
        };
        let told = |error| told(path, error);
        if self.fidelity == Fidelity::Layer
            && stat.st_blocks.cast_unsigned() * 512 < self.entry.size
            && let Some(pieces) = pieces(file, self.entry.size).map_err(object(path))?
        {
            let stored = pieces.iter().map(|piece| piece.length).sum();
            let real_size = std::mem::replace(&mut self.entry.size, stored);
            self.entry.sparse = Some((real_size, pieces.clone()));
            self.headers(path)?;
            return self.writer.pieces(file.as_fd(), &pieces).map_err(told);
        }
        self.headers(path)?;
        self.writer
            .file(file.as_fd(), self.entry.size)
            .map_err(told)
    }

    fn describe(&mut self, stat: &Stat, path: &[u8], kind: EntryKind) {
        let entry = &mut self.entry;
        entry.path.clear();
        entry.path.extend_from_slice(path);
        entry.link.clear();
        entry.kind = kind;
        entry.mode = stat.st_mode & 0o7777;
        (entry.uid, entry.gid, entry.size) = (stat.st_uid, stat.st_gid, 0);
        entry.mtime = Time {
            seconds: stat.st_mtime,
            nanoseconds: match self.fidelity {
                Fidelity::Docker => 0,
                Fidelity::Layer => u32::try_from(stat.st_mtime_nsec).unwrap_or(0),
            },
        };
        entry.xattrs.clear();
        entry.sparse = None;
    }

    /// Whether the entry is another name of an earlier one; then it is made a link to that.
    fn again(&mut self, stat: &Stat, path: &[u8]) -> bool {
        if stat.st_nlink < 2 {
            return false;
        }
        if let Some(first) = self.links.get(&(stat.st_dev, stat.st_ino)) {
            self.entry.kind = EntryKind::HardLink;
            self.entry.link.clone_from(first);
            return true;
        }
        self.links.insert((stat.st_dev, stat.st_ino), path.to_vec());
        false
    }

    fn headers(&mut self, path: &[u8]) -> Result<(), PackError> {
        self.writer
            .entry(&self.entry)
            .map_err(|error| told(path, error))
    }
}

/// A path below another, which may be the root itself.
fn inside(path: &[u8], below: &[u8]) -> Vec<u8> {
    if path == b"/" {
        return [path, below].concat();
    }
    join(path, below)
}

fn object(path: &[u8]) -> impl Fn(Errno) -> PackError {
    move |errno| PackError::Object {
        path: path.to_vec(),
        source: errno.into(),
    }
}

fn told(path: &[u8], error: WriteError) -> PackError {
    match error {
        WriteError::Read(source) => PackError::Object {
            path: path.to_vec(),
            source,
        },
        WriteError::Write(source) => PackError::Write(source),
    }
}

/// A regular file and what it is now; none where the name has become something else. A pipe that has taken its place is not
/// waited for; keeping devices from being opened is the mount's part (`nodev`).
fn open_file(parent: BorrowedFd<'_>, name: &CStr) -> Result<Option<(OwnedFd, Stat)>, Errno> {
    let flags =
        OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = match openat(parent, name, flags, Mode::empty()) {
        Err(Errno::NOENT | Errno::LOOP | Errno::NXIO) => return Ok(None),
        other => other?,
    };
    let stat = fstat(&file)?;
    let regular = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
    Ok(regular.then_some((file, stat)))
}

/// Where a file holds data; none where the file system tells of no holes.
fn pieces(file: &OwnedFd, size: u64) -> Result<Option<Vec<Piece>>, Errno> {
    let mut pieces = Vec::new();
    let mut at = 0;
    while at < size {
        let start = match seek(file, SeekFrom::Data(at)) {
            Err(Errno::NXIO) => break,
            Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(None),
            other => other?.min(size),
        };
        let end = seek(file, SeekFrom::Hole(start))?.min(size);
        if end > start {
            pieces.push(Piece {
                offset: start,
                length: end - start,
            });
        }
        at = end.max(start + 1);
    }
    let stored: u64 = pieces.iter().map(|piece: &Piece| piece.length).sum();
    if stored == size {
        return Ok(None);
    }
    // Says where the file ends, as its last piece does not.
    if pieces
        .last()
        .is_none_or(|piece| piece.offset + piece.length < size)
    {
        pieces.push(Piece {
            offset: size,
            length: 0,
        });
    }
    Ok(Some(pieces))
}

type Attributes = Vec<(Vec<u8>, Vec<u8>)>;

fn capability(file: &OwnedFd) -> Result<Attributes, Errno> {
    let mut value = [0; 64];
    match fgetxattr(file, c"security.capability", &mut value) {
        Ok(count) => Ok(vec![(
            b"security.capability".to_vec(),
            value[..count].to_vec(),
        )]),
        Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::RANGE) => Ok(Vec::new()),
        Err(errno) => Err(errno),
    }
}

/// The attributes of an open object that layers keep.
fn attributes(file: &OwnedFd) -> Result<Attributes, Errno> {
    gather(
        |names| flistxattr(file, names),
        |name, value| fgetxattr(file, name, value),
    )
}

/// The attributes of an object that cannot be opened.
fn attributes_by_name(parent: BorrowedFd<'_>, name: &CStr) -> Result<Attributes, Errno> {
    let path = join(
        format!("/proc/self/fd/{}", parent.as_raw_fd()).as_bytes(),
        name.to_bytes(),
    );
    match gather(
        |names| llistxattr(&path[..], names),
        |name, value| lgetxattr(&path[..], name, value),
    ) {
        Err(Errno::NOENT) => Ok(Vec::new()),
        other => other,
    }
}

fn gather(
    list: impl Fn(&mut [u8]) -> Result<usize, Errno>,
    get: impl Fn(&[u8], &mut [u8]) -> Result<usize, Errno>,
) -> Result<Attributes, Errno> {
    let names = match whole(list) {
        Err(Errno::OPNOTSUPP) => Vec::new(),
        other => other?,
    };
    let mut found = Vec::new();
    let wanted = names
        .split(|&byte| byte == 0)
        .filter(|name| crate::layer::keeps_attribute(name));
    for name in wanted {
        match whole(|value| get(name, value)) {
            Err(Errno::NODATA) => {}
            other => found.push((name.to_vec(), other?)),
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// All that a call has to say: into a larger buffer each time that it does not fit, up to the kernel's own limit.
pub(crate) fn whole(call: impl Fn(&mut [u8]) -> Result<usize, Errno>) -> Result<Vec<u8>, Errno> {
    const MOST: usize = 64 * 1024;
    let mut found = vec![0; 256];
    loop {
        match call(&mut found) {
            Err(Errno::RANGE) if found.len() < MOST => found.resize(MOST.min(found.len() * 8), 0),
            other => {
                found.truncate(other?);
                return Ok(found);
            }
        }
    }
}
