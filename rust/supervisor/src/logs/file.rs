//! The file of a log: appends whole entries and rotates.
//!
//! Invariants: the file ends with a whole entry after every call of [`LogFile::flush`], because what a failed
//! write left is cut off again. Files are renamed from the oldest on, so a kill between two renames loses
//! no more than the rotation would have removed.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::LogOptions;

/// How far back the end of the last whole entry is looked for: more than the longest entry can take.
const TAIL_BYTES: u64 = 128 * 1024;

/// A log file with its limits.
#[derive(Debug)]
pub struct LogFile {
    options: LogOptions,
    file: Option<File>,
    size: u64,
    batch: u64,
    dropped: u64,
    error: Option<io::Error>,
    warned: bool,
}

impl LogFile {
    /// Open for appending, and repair a torn end.
    pub fn open(options: LogOptions) -> io::Result<Self> {
        let file = append(&options.path, false)?;
        let size = repair(&file, file.metadata()?.len())?;
        Ok(Self {
            options,
            file: Some(file),
            size,
            batch: 0,
            dropped: 0,
            error: None,
            warned: false,
        })
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

    /// Note how many entries the batch has got.
    pub fn count(&mut self, entries: u64) {
        self.batch += entries;
    }

    /// Write the batch, all or nothing, and empty it.
    pub fn flush(&mut self, batch: &mut Vec<u8>) {
        if !batch.is_empty() {
            match self.write(batch) {
                Ok(()) => self.size += u64::try_from(batch.len()).unwrap_or(u64::MAX),
                Err(error) => {
                    self.dropped += self.batch;
                    self.error.get_or_insert(error);
                }
            }
        }
        self.batch = 0;
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

    fn write(&mut self, batch: &[u8]) -> io::Result<()> {
        if self.file.is_none() {
            let file = append(&self.options.path, false)?;
            self.size = file.metadata()?.len();
            self.file = Some(file);
        }
        let Some(file) = &mut self.file else {
            return Ok(());
        };
        let result = file.write_all(batch);
        // Cut off a torn entry. Should that fail as well, the next opening repairs it.
        if result.is_err() && file.set_len(self.size).is_err() {
            self.file = None;
        }
        result
    }

    fn rotate(&mut self) {
        self.file = None;
        if let Err(error) = shift(&self.options.path, self.options.max_file).and_then(|()| {
            self.file = Some(append(&self.options.path, true)?);
            self.size = 0;
            Ok(())
        }) {
            self.error.get_or_insert(error);
        }
    }
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
fn shift(path: &Path, max_file: u32) -> io::Result<()> {
    let numbered = |number: u32| {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{number}"));
        PathBuf::from(name)
    };
    for number in (1..max_file.saturating_sub(1)).rev() {
        rename(&numbered(number), &numbered(number + 1))?;
    }
    if max_file > 1 {
        rename(path, &numbered(1))
    } else {
        Ok(())
    }
}

fn rename(from: &Path, to: &Path) -> io::Result<()> {
    match std::fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// Cut off an entry without an end; the size that is left.
fn repair(file: &File, size: u64) -> io::Result<u64> {
    let begin = size.saturating_sub(TAIL_BYTES);
    let mut tail = vec![0; usize::try_from(size - begin).unwrap_or(0)];
    file.read_exact_at(&mut tail, begin)?;
    if tail.last().is_none_or(|last| *last == b'\n') {
        return Ok(size);
    }
    let keep = memchr::memrchr(b'\n', &tail).map_or(0, |at| at + 1);
    let keep = begin + u64::try_from(keep).unwrap_or(0);
    file.set_len(keep)?;
    Ok(keep)
}
