//! A tar archive into a directory that others use meanwhile: a container's, or a user's own.
//!
//! Every path is resolved below the directory's descriptor, whatever symbolic links are there, were there or come with the
//! archive: an absolute one leads to what has this path below the directory, ".." stops at it. An entry's own name is
//! never followed. What is there already is replaced, but for a directory by a directory.

use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::thread;

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, RawMode, ResolveFlags, StatxFlags, Uid, fchmod, fchown,
    futimens, linkat, mkdirat, openat, openat2, readlinkat, statx,
};
use rustix::io::Errno;

use crate::archive::feed;
use crate::blob::read;
use crate::decode::Compression;
use crate::error::{Classified, ErrorKind, StoreError};
use crate::input::{Input, ReaderInput};
use crate::layer::object::{create, describe, fill, umask};
use crate::layer::{
    DEFAULT_ACL, Doing, LayerError, LayerProblem, clean, join, set_attribute, split, times,
    wanted_attributes,
};
use crate::limits::Limits;
use crate::pipeline::{COMPRESSED, Decode, PLAIN_BUFFER, conduit};
use crate::tar::{Entry, EntryKind, Reader, Time};
use crate::tree;

/// The kernel's own limit for one path.
const SYMLINKS: usize = 40;

/// How an archive is extracted.
#[derive(Debug, Clone, Default)]
pub struct ExtractOptions {
    /// Fail where a directory would take the place of something else, or the other way round.
    pub no_overwrite: bool,
    /// Who owns what is made, whatever the archive says.
    pub owner: Option<(u32, u32)>,
    /// Leave extended attributes out: who is not root may not set them.
    pub no_attributes: bool,
    /// What the archive says of the directory itself holds: its owner, mode, attributes and time.
    pub whole: bool,
    /// Another beginning for the paths that begin so: from, to.
    pub rename: Option<(Vec<u8>, Vec<u8>)>,
    /// What messages call the directory.
    pub shown: String,
}

/// Why an archive was not extracted, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum ExtractError {
    /// A directory in the place of something else, or the other way round. In Docker's words.
    #[error(
        "cannot overwrite {} \"{}\" with {} \"{directory}\"",
        if *.is_directory { "directory" } else { "non-directory" },
        .path.escape_ascii(),
        if *.is_directory { "non-directory" } else { "directory" }
    )]
    Overwrite {
        /// The entry.
        path: Vec<u8>,
        /// Whether what is there is a directory.
        is_directory: bool,
        /// Where the archive is extracted to.
        directory: String,
    },
    /// An entry's path leads out of the directory.
    #[error("invalid entry name \"{}\"", .0.escape_ascii())]
    Name(Vec<u8>),
    /// A hard link's target is outside of the directory.
    #[error("invalid hardlink target \"{}\"", .0.escape_ascii())]
    Target(Vec<u8>),
    /// An entry is wrong, or cannot be written.
    #[error(transparent)]
    Entry(#[from] LayerError),
}

impl Classified for ExtractError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Overwrite { .. } => ErrorKind::InvalidArgument,
            Self::Name(_) | Self::Target(_) => ErrorKind::Corrupt,
            Self::Entry(source) => source.kind(),
        }
    }
}

/// Extracts an uncompressed archive, reading the input to its end.
pub fn extract(
    input: impl Input,
    directory: OwnedFd,
    options: &ExtractOptions,
    limits: &Limits,
) -> Result<(), ExtractError> {
    let mut entry = Entry::default();
    let at = |entry: &Entry| {
        let path = entry.path.clone();
        move |problem| LayerError {
            entry: path,
            problem,
        }
    };
    let mut extraction = Extraction {
        directory,
        options,
        limits,
        umask: umask().map_err(at(&entry))?,
        current: None,
        finishes: Vec::new(),
        remembered: 0,
    };
    let mut reader = Reader::new(input, limits);
    while reader
        .next(&mut entry)
        .map_err(|error| at(&entry)(error.into()))?
    {
        match extraction.entry(&mut entry, &mut reader) {
            Ok(()) => {}
            Err(Problem::Entry(problem)) => return Err(at(&entry)(problem).into()),
            Err(Problem::Name) => return Err(ExtractError::Name(entry.path)),
            Err(Problem::Target) => return Err(ExtractError::Target(entry.link)),
            Err(Problem::Overwrite(path, is_directory)) => {
                let directory = options.shown.clone();
                return Err(ExtractError::Overwrite {
                    path,
                    is_directory,
                    directory,
                });
            }
        }
    }
    Ok(extraction.finish()?)
}

/// Extracts an archive that comes plain or compressed (gzip, zstd, bzip2, xz), reading the source to its end.
///
/// `name` is what messages call the source.
pub fn extract_stream(
    source: &mut (impl Read + Send),
    name: &str,
    directory: OwnedFd,
    options: &ExtractOptions,
    limits: &Limits,
) -> Result<(), ExtractError> {
    let wrap = |source| StoreError::Stream {
        path: PathBuf::from(name),
        source,
    };
    let failed = |error: StoreError| LayerError {
        entry: Vec::new(),
        problem: LayerProblem::Archive(error.into()),
    };
    let mut start = [0; 16];
    let mut filled = 0;
    while filled < start.len() {
        let count = read(source, &mut start[filled..], name.as_ref()).map_err(failed)?;
        if count == 0 {
            break;
        }
        filled += count;
    }
    let start = &start[..filled];
    let compression = Compression::detect(start).map_err(wrap).map_err(failed)?;
    let mut whole = start.chain(source);
    if compression == Compression::Plain {
        return extract(ReaderInput::new(whole, name), directory, options, limits);
    }
    let (compressed, from_source) = conduit(COMPRESSED);
    let (plain, from_decode) = conduit(PLAIN_BUFFER);
    let decode = Decode {
        gzip: None,
        limits,
        hasher: None,
        wrap,
    };
    thread::scope(|scope| {
        scope.spawn(|| compressed.run(|outlet| feed(&mut whole, name.as_ref(), outlet)));
        scope.spawn(|| plain.run(|outlet| decode.run(from_source, outlet)));
        extract(from_decode, directory, options, limits)
    })
}

enum Problem {
    Entry(LayerProblem),
    Name,
    Target,
    Overwrite(Vec<u8>, bool),
}

impl From<LayerProblem> for Problem {
    fn from(problem: LayerProblem) -> Self {
        Self::Entry(problem)
    }
}

/// What a directory gets when all that is in it is there.
struct Finish {
    path: Vec<u8>,
    mtime: Time,
    default_acl: Option<Vec<u8>>,
}

struct Extraction<'a> {
    directory: OwnedFd,
    options: &'a ExtractOptions,
    limits: &'a Limits,
    umask: u32,
    /// The directory of the last entry.
    current: Option<(Vec<u8>, OwnedFd)>,
    finishes: Vec<Finish>,
    remembered: usize,
}

impl Extraction<'_> {
    fn entry<I: Input>(
        &mut self,
        entry: &mut Entry,
        reader: &mut Reader<'_, I>,
    ) -> Result<(), Problem> {
        let path = match self.place(&entry.path) {
            Err(LayerProblem::Escape) => return Err(Problem::Name),
            other => other?,
        };
        if path.is_empty() {
            if self.options.whole && entry.kind == EntryKind::Directory {
                let top = resolve(self.directory.as_fd(), b".").doing("open it")?;
                self.settle(&top, &path, entry)?;
            }
            return Ok(()); // else the directory itself stays as it is
        }
        if let Some((uid, gid)) = self.options.owner {
            (entry.uid, entry.gid) = (uid, gid);
        }
        if self.options.no_attributes {
            entry.xattrs.clear();
        }
        let (above, name) = split(&path);
        self.enter(above)?;
        match entry.kind {
            EntryKind::Directory => self.make_directory(&path, name, entry),
            EntryKind::HardLink => self.hard_link(&path, name, entry),
            _ => {
                let created = match create(self.here(), name, entry) {
                    Err(Errno::EXIST) => {
                        self.clear(&path, name, false)?;
                        create(self.here(), name, entry)
                    }
                    other => other,
                };
                match created.doing("create it")? {
                    Some(file) => fill(&file, entry, reader, self.umask).map(drop)?,
                    None => describe(self.here(), name, entry, self.umask)?,
                }
                Ok(())
            }
        }
    }

    /// The clean path that an archive's path means here.
    fn place(&self, path: &[u8]) -> Result<Vec<u8>, LayerProblem> {
        let path = clean(path, self.limits.path)?;
        let Some((from, to)) = &self.options.rename else {
            return Ok(path);
        };
        match path.strip_prefix(from.as_slice()) {
            Some(rest) if rest.is_empty() || rest.starts_with(b"/") || from.is_empty() => {
                let renamed = [
                    to.as_slice(),
                    if from.is_empty() { b"/" } else { b"" },
                    rest,
                ]
                .concat();
                clean(&renamed, self.limits.path)
            }
            _ => Ok(path),
        }
    }

    fn here(&self) -> BorrowedFd<'_> {
        self.current
            .as_ref()
            .map_or(self.directory.as_fd(), |(_, directory)| directory.as_fd())
    }

    /// Makes a directory the current one, and itself with those above where it is missing.
    fn enter(&mut self, path: &[u8]) -> Result<(), LayerProblem> {
        if self
            .current
            .as_ref()
            .map_or(path.is_empty(), |(current, _)| current == path)
        {
            return Ok(());
        }
        self.current = None;
        if path.is_empty() {
            return Ok(());
        }
        let found = match resolve(self.directory.as_fd(), path) {
            Err(Errno::NOENT) => self.make_parents(path)?,
            Err(Errno::NOTDIR) => return Err(LayerProblem::NotDirectory(path.to_vec())),
            Err(Errno::LOOP) => return Err(LayerProblem::Loop),
            other => other.doing("open its directory")?,
        };
        self.current = Some((path.to_vec(), found));
        Ok(())
    }

    /// Makes the directories of a path that are missing, also those that a symbolic link in it leads to.
    fn make_parents(&self, path: &[u8]) -> Result<OwnedFd, LayerProblem> {
        let names = |path: &[u8]| -> Vec<Vec<u8>> {
            path.split(|&byte| byte == b'/')
                .rev()
                .map(<[u8]>::to_vec)
                .collect()
        };
        let mut ahead = names(path);
        let mut here: Vec<u8> = Vec::new();
        let mut above = resolve(self.directory.as_fd(), b".").doing("open its directory")?;
        let mut links = 0;
        while let Some(name) = ahead.pop() {
            match name.as_slice() {
                b"" | b"." => continue,
                b".." => here.truncate(split(&here).0.len()),
                _ => {
                    let next = join(&here, &name);
                    match resolve(self.directory.as_fd(), &next) {
                        Err(Errno::NOENT) => {
                            match readlinkat(&above, name.as_slice(), Vec::new()) {
                                Ok(target) => {
                                    links += 1;
                                    if links > SYMLINKS {
                                        return Err(LayerProblem::Loop);
                                    }
                                    if target.as_bytes().starts_with(b"/") {
                                        here.clear();
                                    }
                                    ahead.extend(names(target.as_bytes()));
                                }
                                Err(Errno::NOENT) => {
                                    match mkdirat(
                                        &above,
                                        name.as_slice(),
                                        Mode::from_raw_mode(0o755),
                                    ) {
                                        // Somebody was faster.
                                        Ok(()) | Err(Errno::EXIST) => here = next,
                                        Err(errno) => {
                                            return Err(errno).doing("create its directory");
                                        }
                                    }
                                }
                                Err(Errno::INVAL) => return Err(LayerProblem::NotDirectory(next)),
                                Err(errno) => return Err(errno).doing("read a link in its path"),
                            }
                        }
                        Err(Errno::NOTDIR) => return Err(LayerProblem::NotDirectory(next)),
                        Err(Errno::LOOP) => return Err(LayerProblem::Loop),
                        other => {
                            other.doing("open its directory")?;
                            here = next;
                        }
                    }
                }
            }
            let place = if here.is_empty() {
                b".".as_slice()
            } else {
                &here
            };
            above = match resolve(self.directory.as_fd(), place) {
                Err(Errno::NOTDIR | Errno::NOENT) => return Err(LayerProblem::NotDirectory(here)),
                other => other.doing("open its directory")?,
            };
        }
        Ok(above)
    }

    fn make_directory(&mut self, path: &[u8], name: &[u8], entry: &Entry) -> Result<(), Problem> {
        let mode = Mode::from_raw_mode((entry.mode & 0o777) as RawMode);
        match mkdirat(self.here(), name, mode) {
            Ok(()) => {}
            Err(Errno::EXIST) => {
                if self.clear(path, name, true)? {
                    mkdirat(self.here(), name, mode).doing("create it")?;
                }
            }
            Err(errno) => return Err(errno).doing("create it").map_err(Problem::from),
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = openat(self.here(), name, flags, Mode::empty()).doing("open it")?;
        Ok(self.settle(&opened, path, entry)?)
    }

    /// Gives a directory what its entry says, and keeps for the end what has to wait until all that is in it is there.
    fn settle(&mut self, opened: &OwnedFd, path: &[u8], entry: &Entry) -> Result<(), LayerProblem> {
        let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
        fchown(opened, Some(uid), Some(gid)).doing("set its owner")?;
        let mut default_acl = None;
        for (attribute, value) in wanted_attributes(entry) {
            if attribute == DEFAULT_ACL {
                default_acl = Some(value.to_vec());
            } else {
                set_attribute(opened, attribute, value)?;
            }
        }
        fchmod(opened, Mode::from_raw_mode(entry.mode as RawMode)).doing("set its mode")?;
        self.remembered += path.len() + default_acl.as_ref().map_or(0, Vec::len) + 96;
        if self.remembered > self.limits.remembered {
            return Err(LayerProblem::Memory(self.limits.remembered));
        }
        self.finishes.push(Finish {
            path: path.to_vec(),
            mtime: entry.mtime,
            default_acl,
        });
        Ok(())
    }

    /// Takes away what has an entry's name; false where it is a directory and the entry one as well.
    fn clear(&mut self, path: &[u8], name: &[u8], directory: bool) -> Result<bool, Problem> {
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        let found = match statx(self.here(), name, flags, StatxFlags::TYPE) {
            Err(Errno::NOENT) => return Ok(true),
            other => other.doing("look at what has its name")?,
        };
        let is_directory = FileType::from_raw_mode(found.stx_mode.into()) == FileType::Directory;
        if is_directory && directory {
            return Ok(false);
        }
        if self.options.no_overwrite && is_directory != directory {
            return Err(Problem::Overwrite(path.to_vec(), is_directory));
        }
        tree::remove_used_at(self.here(), name).map_err(|source| LayerProblem::Io {
            doing: "replace what has its name",
            source,
        })?;
        Ok(true)
    }

    fn hard_link(&mut self, path: &[u8], name: &[u8], entry: &Entry) -> Result<(), Problem> {
        let refuse = |reason| LayerProblem::Link {
            target: entry.link.clone(),
            reason,
        };
        let target = match self.place(&entry.link) {
            Err(LayerProblem::Escape) => return Err(Problem::Target),
            other => other?,
        };
        if target == path {
            return Ok(());
        }
        let (above, target_name) = split(&target);
        let source = match resolve(
            self.directory.as_fd(),
            if above.is_empty() { b"." } else { above },
        ) {
            Err(Errno::NOENT | Errno::NOTDIR) => return Err(refuse("does not exist").into()),
            Err(Errno::LOOP) => return Err(LayerProblem::Loop.into()),
            other => other.doing("open the target's directory")?,
        };
        let mut linked = linkat(&source, target_name, self.here(), name, AtFlags::empty());
        if linked == Err(Errno::EXIST) {
            self.clear(path, name, false)?;
            linked = linkat(&source, target_name, self.here(), name, AtFlags::empty());
        }
        match linked {
            Err(Errno::NOENT) => Err(refuse("does not exist").into()),
            Err(Errno::PERM) => Err(refuse("cannot be linked to").into()),
            Err(Errno::XDEV) => Err(refuse("is on another file system").into()),
            other => Ok(other.doing("create the link")?),
        }
    }

    /// Gives directories their times, which writing into them has changed. One that somebody has taken away since is let go.
    fn finish(self) -> Result<(), LayerError> {
        for Finish {
            path,
            mtime,
            default_acl,
        } in self.finishes
        {
            let failed = |problem| LayerError {
                entry: path.clone(),
                problem,
            };
            let place = if path.is_empty() {
                b".".as_slice()
            } else {
                &path
            };
            let opened = match resolve(self.directory.as_fd(), place) {
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
                other => other.doing("open it").map_err(failed)?,
            };
            if let Some(acl) = default_acl {
                set_attribute(&opened, DEFAULT_ACL, &acl).map_err(failed)?;
            }
            futimens(&opened, &times(mtime))
                .doing("set its time")
                .map_err(failed)?;
        }
        Ok(())
    }
}

/// The directory that a path leads to below another.
fn resolve(directory: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    open_in_root(directory, path, flags)
}

/// Opens what a path leads to for somebody whose root directory is this one, symbolic links included. AGAIN where somebody
/// renames faster than the kernel can tell whether ".." leads out.
pub fn open_in_root(root: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    const TRIES: usize = 10_000;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let mut result = Err(Errno::AGAIN);
    for _ in 0..TRIES {
        result = openat2(root, path, flags, Mode::empty(), resolve);
        if !matches!(result, Err(Errno::AGAIN | Errno::INTR)) {
            break;
        }
    }
    result
}
