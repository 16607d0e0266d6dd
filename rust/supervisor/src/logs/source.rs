//! The files of a log as a reader sees them: which there are, in order, and where the last entries begin.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt};

use knarr_inflate::{Gzip, WINDOW};

use super::entry::Format;
use super::file::{FIRST_ROTATION, FileOptions, Shared, whole_end};
use super::local;

/// How much is inflated, or looked at, at once.
const BLOCK: usize = 128 * 1024;

/// One file of a log.
#[derive(Debug)]
pub struct Source {
    input: Input,
    /// Which rotation ended it; of the current file, which will.
    pub rotation: u64,
    /// Entries at its beginning that nobody wants.
    pub skip: u64,
}

#[derive(Debug)]
enum Input {
    /// A file, and where in it we are.
    Plain(File, u64),
    Packed(Box<Packed>),
}

impl Source {
    /// Open the file with a number, in whichever form there is. None where there is none.
    pub fn open(options: &FileOptions, number: u64, rotations: u64) -> io::Result<Option<Self>> {
        let rotation = rotations - number;
        let source = |input| {
            Ok(Some(Self {
                input,
                rotation,
                skip: 0,
            }))
        };
        match File::open(options.plain(number)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            opened => return source(Input::Plain(opened?, 0)),
        }
        if number == 0 {
            return Ok(None);
        }
        match File::open(options.packed(number)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            opened => source(Input::Packed(Box::new(Packed::new(opened?)))),
        }
    }

    /// Read, of a plain file up to `limit`. 0 at its end, or there.
    pub fn read(&mut self, buffer: &mut [u8], limit: u64) -> io::Result<usize> {
        match &mut self.input {
            Input::Plain(file, position) => {
                let most = usize::try_from(limit.saturating_sub(*position)).unwrap_or(usize::MAX);
                let most = most.min(buffer.len());
                let count = file.read_at(&mut buffer[..most], *position)?;
                *position += u64::try_from(count).unwrap_or(0);
                Ok(count)
            }
            Input::Packed(packed) => packed.read(buffer),
        }
    }

    /// Go to where the last entries begin; how many there are, at most `wanted`.
    fn tail(&mut self, format: Format, wanted: u64, limit: u64) -> io::Result<u64> {
        match &mut self.input {
            Input::Plain(file, position) => {
                let (found, begin) = match format {
                    Format::JsonFile => last_lines(file, limit, wanted)?,
                    Format::Local => last_messages(file, limit, wanted)?,
                };
                *position = begin;
                Ok(found)
            }
            Input::Packed(packed) => {
                let all = packed.count(format)?;
                self.skip = all.saturating_sub(wanted);
                Ok(all - self.skip)
            }
        }
    }

    fn inode(&self) -> io::Result<(u64, u64)> {
        let metadata = match &self.input {
            Input::Plain(file, _) => file.metadata()?,
            Input::Packed(packed) => packed.file.metadata()?,
        };
        Ok((metadata.dev(), metadata.ino()))
    }
}

/// All files of a log, oldest first, as they were at one moment.
#[derive(Debug)]
pub struct Opened {
    /// The files; the last one is the current.
    pub sources: VecDeque<Source>,
    /// How much of the current one there was.
    pub size: u64,
}

impl Opened {
    /// Open them. `shared` is the writer's, where there is one.
    pub fn new(options: &FileOptions, shared: Option<&Shared>) -> io::Result<Self> {
        let position = shared.map(Shared::lock);
        let rotations = position
            .as_ref()
            .map_or(FIRST_ROTATION, |position| position.rotations);
        let mut sources = VecDeque::new();
        let mut seen = Vec::new();
        // Newest first: should somebody begin to write just now, a file is found twice rather than never.
        for number in 0..u64::from(options.max_file.max(1)) {
            let Some(source) = Source::open(options, number, rotations)? else {
                if number == 0 {
                    continue;
                }
                break;
            };
            let inode = source.inode()?;
            if !seen.contains(&inode) {
                seen.push(inode);
                sources.push_front(source);
            }
        }
        let size = match (&position, sources.back().map(|source| &source.input)) {
            (Some(position), _) => position.size,
            (None, Some(Input::Plain(file, _))) => {
                whole_end(file, options.format, file.metadata()?.len())?
            }
            (None, _) => 0,
        };
        Ok(Self { sources, size })
    }

    /// Leave out all but the last entries.
    pub fn tail(&mut self, format: Format, wanted: u64) -> io::Result<()> {
        let mut left = wanted;
        let mut keep = 0;
        let last = self.sources.len().saturating_sub(1);
        for (index, source) in self.sources.iter_mut().enumerate().rev() {
            if left == 0 && index < last {
                break;
            }
            let limit = if index == last { self.size } else { u64::MAX };
            left -= source.tail(format, left, limit)?;
            keep += 1;
        }
        self.sources.drain(..self.sources.len() - keep);
        Ok(())
    }
}

/// How many lines, and where they begin.
fn last_lines(file: &File, limit: u64, wanted: u64) -> io::Result<(u64, u64)> {
    let limit = limit.min(file.metadata()?.len());
    let (mut end, mut found) = (limit, 0);
    if wanted == 0 {
        return Ok((0, limit));
    }
    let mut block = vec![0; BLOCK];
    while end > 0 {
        let begin = end.saturating_sub(u64::try_from(BLOCK).unwrap_or(0));
        let block = &mut block[..usize::try_from(end - begin).unwrap_or(BLOCK)];
        file.read_exact_at(block, begin)?;
        for at in memchr::memrchr_iter(b'\n', block) {
            let after = begin + u64::try_from(at).unwrap_or(0) + 1;
            // The last newline ends the last line; each other one also begins a line.
            if after < limit {
                found += 1;
                if found == wanted {
                    return Ok((found, after));
                }
            }
        }
        end = begin;
    }
    Ok((found + u64::from(limit > 0), 0))
}

/// The same of messages, backwards by the lengths behind them. Beyond something broken nothing is found.
fn last_messages(file: &File, limit: u64, wanted: u64) -> io::Result<(u64, u64)> {
    const OVERHEAD: u64 = 2 * local::LENGTH as u64;
    let mut end = limit.min(file.metadata()?.len());
    let mut found = 0;
    while found < wanted && end >= OVERHEAD {
        let mut bytes = [0; local::LENGTH];
        file.read_exact_at(&mut bytes, end - OVERHEAD / 2)?;
        let length = u64::from(u32::from_be_bytes(bytes));
        let Some(begin) = end
            .checked_sub(length + OVERHEAD)
            .filter(|_| length > 0 && length <= local::LONGEST as u64)
        else {
            break;
        };
        let mut head = [0; local::LENGTH];
        file.read_exact_at(&mut head, begin)?;
        if head != bytes {
            break;
        }
        found += 1;
        end = begin;
    }
    Ok((found, end))
}

/// A compressed file that is being inflated.
#[derive(Debug)]
struct Packed {
    file: File,
    gzip: Gzip,
    input: Vec<u8>,
    taken: usize,
    ended: bool,
    /// The window, and behind it what has been inflated.
    window: Vec<u8>,
    begin: usize,
    end: usize,
}

impl Packed {
    fn new(file: File) -> Self {
        Self {
            file,
            gzip: Gzip::new(true),
            input: Vec::new(),
            taken: 0,
            ended: false,
            window: vec![0; WINDOW + BLOCK],
            begin: 0,
            end: 0,
        }
    }

    /// How many entries it has. It is back at its beginning then.
    fn count(&mut self, format: Format) -> io::Result<u64> {
        let (mut found, mut rest) = (0, Vec::new());
        let mut block = vec![0; BLOCK];
        loop {
            let count = self.read(&mut block)?;
            if count == 0 {
                break;
            }
            match format {
                Format::JsonFile => {
                    found += memchr::memchr_iter(b'\n', &block[..count]).count();
                }
                Format::Local => {
                    rest.extend_from_slice(&block[..count]);
                    let mut at = 0;
                    while let Some(Ok(message)) = local::message(&rest[at..]) {
                        at += message.len() + 2 * local::LENGTH;
                        found += 1;
                    }
                    rest.drain(..at);
                    if rest.len() > local::LONGEST + 2 * local::LENGTH {
                        break;
                    }
                }
            }
        }
        self.file.seek(SeekFrom::Start(0))?;
        let file = self.file.try_clone()?;
        *self = Self::new(file);
        Ok(u64::try_from(found).unwrap_or(u64::MAX))
    }
}

impl Read for Packed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let broken = |error: knarr_inflate::Error| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("a compressed log: {error}"),
            )
        };
        while self.begin == self.end {
            if self.taken == self.input.len() && !self.ended {
                self.input.resize(BLOCK, 0);
                let count = self.file.read(&mut self.input)?;
                self.input.truncate(count);
                self.taken = 0;
                self.ended = count == 0;
            }
            if self.ended {
                self.gzip.finish().map_err(broken)?;
                return Ok(0);
            }
            let keep = self.end.min(WINDOW);
            self.window.copy_within(self.end - keep..self.end, 0);
            let progress = self
                .gzip
                .decode(&self.input[self.taken..], &mut self.window, keep)
                .map_err(broken)?;
            self.taken += progress.consumed;
            (self.begin, self.end) = (keep, keep + progress.produced);
        }
        let count = buffer.len().min(self.end - self.begin);
        buffer[..count].copy_from_slice(&self.window[self.begin..self.begin + count]);
        self.begin += count;
        Ok(count)
    }
}
