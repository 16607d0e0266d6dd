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

    /// Write the batch, and empty it. Where there is no room, as many whole entries as fit.
    pub fn flush(&mut self, batch: &mut Vec<u8>) {
        if !batch.is_empty() {
            let (kept, result) = self.write(batch);
            self.size += u64::try_from(kept).unwrap_or(u64::MAX);
            if let Err(error) = result {
                // Each entry is a line.
                let lost = memchr::memchr_iter(b'\n', &batch[kept..]).count();
                self.dropped += u64::try_from(lost).unwrap_or(u64::MAX);
                self.error.get_or_insert(error);
            }
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
                    let kept = memchr::memrchr(b'\n', &batch[..written]).map_or(0, |end| end + 1);
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
