//! A container's log in Docker's json-file format.
//!
//! [`Log`] = one [`Lines`] a stream, which cuts output into entries; [`json`] writes an entry; [`LogFile`] appends
//! and rotates. One batch of output is one write. An entry carries at most [`lines::ENTRY_BYTES`] of output; a
//! line that is longer, or whose end has not come when its stream ends, is an entry without a newline in it.
//!
//! A log that cannot be written never holds up a container: what does not fit is counted and dropped.

mod file;
mod json;
mod lines;
mod time;

use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use file::LogFile;
use lines::Lines;
pub use time::rfc3339;

use crate::clock;
use crate::streams::Stream;

/// Where a log goes and how large it may become.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct LogOptions {
    /// The file written to; older ones are `.1`, `.2` and so on.
    pub path: PathBuf,
    /// Bytes after which a new file is begun; 0 for never.
    pub max_size: u64,
    /// How many files there may be, the current one included; 0 means 1.
    pub max_file: u32,
}

/// The log of one container.
#[derive(Debug)]
pub struct Log {
    file: LogFile,
    lines: [Lines; 2],
}

impl Log {
    /// Open the log for appending. An entry that a killed process left half written is cut off.
    pub fn open(options: LogOptions) -> io::Result<Self> {
        Ok(Self {
            file: LogFile::open(options)?,
            lines: [Lines::default(), Lines::default()],
        })
    }

    /// Log what a stream delivered. `scratch` is an empty buffer to work in, and is left empty.
    ///
    /// Returns the error if entries had to be dropped and none had been before.
    pub fn write(
        &mut self,
        stream: Stream,
        data: &[u8],
        scratch: &mut Vec<u8>,
    ) -> Option<io::Error> {
        let time = rfc3339(clock::now());
        let Self { file, lines } = self;
        lines[stream.index()].push(data, |line, complete| {
            file.make_room(scratch);
            json::entry(scratch, line, complete, stream.name(), &time);
        });
        file.flush(scratch);
        file.first_error()
    }

    /// Log what a stream has held back because its line was not complete.
    pub fn end(&mut self, stream: Stream, scratch: &mut Vec<u8>) -> Option<io::Error> {
        let rest = self.lines[stream.index()].take();
        if !rest.is_empty() {
            self.file.make_room(scratch);
            json::entry(scratch, &rest, false, stream.name(), &rfc3339(clock::now()));
            self.file.flush(scratch);
        }
        self.file.first_error()
    }

    /// Entries dropped so far.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.file.dropped()
    }
}

#[cfg(test)]
mod tests;
