//! The files of a log: appends whole entries, rotates, compresses what was rotated.
//!
//! ```text
//! <path>            the current file
//! <path>.1          the one before it, or
//! <path>.1.gz       the same compressed; and so on up to .N
//! <path>.gz.tmp     one that is being compressed
//! ```
//!
//! Invariants: the current file ends with a whole entry after every call of [`LogFile::flush`], because what a failed
//! write left is cut off again. Files are renamed from the oldest on, so a kill between two renames loses
//! no more than the rotation would have removed. Where both forms of a number exist, the plain one counts: the
//! compressed one is renamed into place complete, and only then the plain one removed.
//!
//! Locking: names change, and files of a log that is being written are opened, only with [`Shared`] locked; it
//! is never locked while anything is read, written or compressed.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use flate2::Compression;
use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};

use super::entry::Format;
use super::local;

/// How much of a file's end is looked at once for the end of the last whole entry.
const TAIL_BYTES: u64 = 128 * 1024;

/// Where a log goes and how large it may become.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct FileOptions {
    /// How entries are written.
    pub format: Format,
    /// The file written to; older ones are `.1`, `.2` and so on.
    pub path: PathBuf,
    /// Bytes after which a new file is begun; 0 for never.
    #[serde(default)]
    pub max_size: u64,
    /// How many files there may be, the current one included; 0 means 1.
    #[serde(default)]
    pub max_file: u32,
    /// Whether older files are compressed.
    #[serde(default)]
    pub compress: bool,
}

impl FileOptions {
    /// The name of an older file, or with 0 of the current one.
    #[must_use]
    pub fn plain(&self, number: u64) -> PathBuf {
        if number == 0 {
            self.path.clone()
        } else {
            suffixed(&self.path, &format!(".{number}"))
        }
    }

    /// The name of an older file that has been compressed.
    #[must_use]
    pub fn packed(&self, number: u64) -> PathBuf {
        suffixed(&self.path, &format!(".{number}.gz"))
    }
}

fn suffixed(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Where rotations are counted from: more than there may be files, so that older files have numbers, too.
pub const FIRST_ROTATION: u64 = 1 << 20;

/// How far a log has been written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Rotations until now: what was the current file at rotation `n` is number `rotations - n` since.
    pub rotations: u64,
    /// Bytes in the current file, all of them whole entries.
    pub size: u64,
    /// Nothing more will be written.
    pub closed: bool,
}

/// What the writer of a log tells its readers.
#[derive(Debug)]
pub struct Shared {
    position: Mutex<Position>,
    compressing: Mutex<()>,
}

impl Shared {
    fn new(size: u64) -> Self {
        let position = Position {
            rotations: FIRST_ROTATION,
            size,
            closed: false,
        };
        Self {
            position: Mutex::new(position),
            compressing: Mutex::new(()),
        }
    }

    /// Where it is; while this is held, no file is renamed or removed.
    pub fn lock(&self) -> MutexGuard<'_, Position> {
        self.position.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A log file with its limits.
#[derive(Debug)]
pub struct LogFile {
    options: FileOptions,
    shared: Arc<Shared>,
    file: Option<File>,
    size: u64,
    chores: Vec<Chore>,
    dropped: u64,
    error: Option<io::Error>,
    warned: bool,
}

impl LogFile {
    /// Open for appending, and repair a torn end.
    pub fn open(options: FileOptions) -> io::Result<Self> {
        if options.format == Format::Local
            && let Some(directory) = options.path.parent()
        {
            std::fs::create_dir_all(directory)?;
        }
        let file = append(&options.path, false)?;
        let size = repair(&file, options.format, file.metadata()?.len())?;
        Ok(Self {
            options,
            shared: Arc::new(Shared::new(size)),
            file: Some(file),
            size,
            chores: Vec::new(),
            dropped: 0,
            error: None,
            warned: false,
        })
    }

    /// For readers.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Which file it is.
    pub fn path(&self) -> &Path {
        &self.options.path
    }

    /// Before an entry is added to `batch`: write and rotate if the file is full.
    pub fn make_room(&mut self, batch: &mut Vec<u8>) {
        let length = u64::try_from(batch.len()).unwrap_or(u64::MAX);
        if self.options.max_size > 0 && self.size + length >= self.options.max_size {
            self.flush(batch);
            if self.size >= self.options.max_size {
                self.rotate();
            }
        }
    }

    /// Write the batch, and empty it. Where there is no room, as many whole entries as fit.
    pub fn flush(&mut self, batch: &mut Vec<u8>) {
        if !batch.is_empty() {
            let (kept, result) = self.write(batch);
            self.size += u64::try_from(kept).unwrap_or(u64::MAX);
            if let Err(error) = result {
                self.dropped += count(self.options.format, &batch[kept..]);
                self.error.get_or_insert(error);
            }
            self.shared.lock().size = self.size;
        }
        batch.clear();
    }

    /// The first error there has been, once.
    pub fn first_error(&mut self) -> Option<io::Error> {
        let error = self.error.take()?;
        (!std::mem::replace(&mut self.warned, true)).then_some(error)
    }

    /// Entries dropped so far.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// What is to be done where it holds up nobody.
    pub fn chores(&mut self) -> Vec<Chore> {
        std::mem::take(&mut self.chores)
    }

    /// How much of the batch is in the file now, a number of whole entries, and what stopped it.
    fn write(&mut self, batch: &[u8]) -> (usize, io::Result<()>) {
        if self.file.is_none() {
            match append(&self.options.path, false)
                .and_then(|file| Ok((file.metadata()?.len(), file)))
            {
                Ok((size, file)) => (self.size, self.file) = (size, Some(file)),
                Err(error) => return (0, Err(error)),
            }
        }
        let Some(file) = &mut self.file else {
            return (0, Ok(()));
        };
        let mut written = 0;
        while written < batch.len() {
            match file.write(&batch[written..]) {
                Ok(count) if count > 0 => written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                failed => {
                    let error = failed.err().unwrap_or(io::ErrorKind::WriteZero.into());
                    let kept = whole(self.options.format, &batch[..written]);
                    let size = self.size + u64::try_from(kept).unwrap_or(0);
                    // Cut off a torn entry. Should that fail as well, the next opening repairs it.
                    if file.set_len(size).is_err() {
                        self.file = None;
                    }
                    return (kept, Err(error));
                }
            }
        }
        (written, Ok(()))
    }

    fn rotate(&mut self) {
        self.file = None;
        let shared = Arc::clone(&self.shared);
        let mut position = shared.lock();
        match shift(&self.options).and_then(|()| append(&self.options.path, true)) {
            Ok(file) => {
                self.file = Some(file);
                self.size = 0;
                let rotation = position.rotations;
                *position = Position {
                    rotations: rotation + 1,
                    size: 0,
                    closed: false,
                };
                if self.options.compress && self.options.max_file > 1 {
                    self.chores.push(Chore {
                        options: self.options.clone(),
                        shared: Arc::clone(&self.shared),
                        rotation,
                    });
                }
            }
            Err(error) => {
                self.error.get_or_insert(error);
            }
        }
    }
}

impl Drop for LogFile {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
    }
}

/// A file that is to be compressed.
#[derive(Debug)]
pub struct Chore {
    options: FileOptions,
    shared: Arc<Shared>,
    rotation: u64,
}

impl Chore {
    /// Compress it, unless it has been rotated out of existence meanwhile. It may be renamed at any time.
    pub fn run(&self) -> io::Result<()> {
        let _alone = self
            .shared
            .compressing
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let number = |rotations: u64| rotations - self.rotation;
        let opened = {
            let position = self.shared.lock();
            File::open(self.options.plain(number(position.rotations)))
        };
        let mut file = match opened {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            opened => opened?,
        };
        let work = suffixed(&self.options.path, ".gz.tmp");
        let packed = pack(&mut file, &work);
        let position = self.shared.lock();
        let number = number(position.rotations);
        let plain = self.options.plain(number);
        let kept = packed.and_then(|()| {
            if number < u64::from(self.options.max_file) {
                std::fs::rename(&work, self.options.packed(number))?;
                std::fs::remove_file(plain)
            } else {
                std::fs::remove_file(&work)
            }
        });
        kept.inspect_err(|_| {
            // It may not exist, or be of a directory that has been removed.
            let _ = std::fs::remove_file(&work);
        })
    }
}

fn pack(file: &mut File, path: &Path) -> io::Result<()> {
    let out = OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(true)
        .mode(0o640)
        .open(path)?;
    let mut packer = GzEncoder::new(out, Compression::fast());
    let mut buffer = vec![0; 128 * 1024];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            count => packer.write_all(&buffer[..count])?,
        }
    }
    packer.finish().map(drop)
}

fn append(path: &Path, truncate: bool) -> io::Result<File> {
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .read(true)
        .mode(0o640)
        .open(path)?;
    if truncate {
        file.set_len(0)?;
    }
    Ok(file)
}

/// Make way for a new file: the oldest goes, each other gets the next number.
fn shift(options: &FileOptions) -> io::Result<()> {
    let most = u64::from(options.max_file.max(1));
    if most == 1 {
        // Not emptied: somebody may be reading it.
        return missing_is_fine(std::fs::remove_file(&options.path));
    }
    missing_is_fine(std::fs::remove_file(options.plain(most - 1)))?;
    missing_is_fine(std::fs::remove_file(options.packed(most - 1)))?;
    for number in (1..most - 1).rev() {
        missing_is_fine(std::fs::rename(
            options.plain(number),
            options.plain(number + 1),
        ))?;
        missing_is_fine(std::fs::rename(
            options.packed(number),
            options.packed(number + 1),
        ))?;
    }
    missing_is_fine(std::fs::rename(&options.path, options.plain(1)))
}

fn missing_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// Cut off an entry without an end, or what is no entry; the size that is left.
fn repair(file: &File, format: Format, size: u64) -> io::Result<u64> {
    let keep = whole_end(file, format, size)?;
    if keep < size {
        file.set_len(keep)?;
    }
    Ok(keep)
}

/// Where the last whole entry of so many bytes ends.
pub fn whole_end(file: &File, format: Format, size: u64) -> io::Result<u64> {
    match format {
        Format::JsonFile => whole_lines(file, size),
        Format::Local => whole_messages(file, size),
    }
}

fn whole_lines(file: &File, size: u64) -> io::Result<u64> {
    let mut end = size;
    while end > 0 {
        let begin = end.saturating_sub(TAIL_BYTES);
        let mut tail = vec![0; usize::try_from(end - begin).unwrap_or(0)];
        file.read_exact_at(&mut tail, begin)?;
        if let Some(at) = memchr::memrchr(b'\n', &tail) {
            return Ok(begin + u64::try_from(at).unwrap_or(0) + 1);
        }
        end = begin;
    }
    Ok(0)
}

fn whole_messages(file: &File, size: u64) -> io::Result<u64> {
    const OVERHEAD: u64 = 2 * local::LENGTH as u64;
    let length_at = |at: u64| -> io::Result<u64> {
        let mut bytes = [0; local::LENGTH];
        file.read_exact_at(&mut bytes, at)?;
        Ok(u32::from_be_bytes(bytes).into())
    };
    let fits = |begin: u64, end: u64, length: u64| -> io::Result<bool> {
        let possible = length > 0
            && length <= local::LONGEST as u64
            && begin
                .checked_add(length + OVERHEAD)
                .is_some_and(|reach| reach <= end);
        Ok(possible && length_at(begin + length + OVERHEAD / 2)? == length)
    };
    // As a rule the last entry is whole.
    if size >= OVERHEAD {
        let length = length_at(size - OVERHEAD / 2)?;
        if let Some(begin) = size.checked_sub(length + OVERHEAD)
            && fits(begin, size, length)?
            && length_at(begin)? == length
        {
            return Ok(size);
        }
    }
    let mut at = 0;
    while at + OVERHEAD <= size {
        let length = length_at(at)?;
        if !fits(at, size, length)? {
            break;
        }
        at += length + OVERHEAD;
    }
    Ok(at)
}

/// How much of a batch is whole entries.
fn whole(format: Format, batch: &[u8]) -> usize {
    match format {
        Format::JsonFile => memchr::memrchr(b'\n', batch).map_or(0, |end| end + 1),
        Format::Local => {
            let mut at = 0;
            while let Some(Ok(message)) = local::message(&batch[at..]) {
                at += message.len() + 2 * local::LENGTH;
            }
            at
        }
    }
}

/// How many entries a batch has.
fn count(format: Format, batch: &[u8]) -> u64 {
    let entries = match format {
        Format::JsonFile => memchr::memchr_iter(b'\n', batch).count(),
        Format::Local => {
            let (mut at, mut found) = (0, 0);
            while let Some(Ok(message)) = local::message(&batch[at..]) {
                at += message.len() + 2 * local::LENGTH;
                found += 1;
            }
            found
        }
    };
    u64::try_from(entries).unwrap_or(u64::MAX)
}
