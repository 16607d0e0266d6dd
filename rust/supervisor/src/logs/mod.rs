//! A container's log: Docker's json-file or local format, over rotated files; and reading it.
//!
//! ```text
//! lines.rs   cuts output into entries
//! entry.rs   an entry, and its encoder:
//!   json.rs    a line of JSON
//!   local.rs   a protobuf message
//! file.rs    the files: appending, rotation, compression; what the writer tells readers
//! decode.rs  entries from bytes
//! source.rs  the files as readers see them
//! reader.rs  a client that reads
//! ```
//!
//! [`Log`] is the writing side. One batch of output is one write. An entry carries at most [`lines::ENTRY_BYTES`] of
//! output; a line that is longer, or whose end has not come when its stream ends, is several entries or one without
//! a newline.
//!
//! A log that cannot be written never holds up a container: what does not fit is counted and dropped.

mod decode;
mod entry;
mod file;
mod json;
mod lines;
mod local;
mod reader;
mod source;
mod time;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

#[cfg(test)]
use entry::Format;
use entry::{Encoder, Entry, Part};
use file::LogFile;
pub use file::{Chore, FileOptions, Shared};
use lines::Lines;
pub use reader::{Reader, Step, Wanted};
pub use time::rfc3339;

use crate::clock;
use crate::streams::Stream;

/// Where a container's output is logged.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct LogOptions {
    /// Files.
    pub file: FileOptions,
    /// What each entry carries besides its text.
    #[serde(default)]
    pub attributes: BTreeMap<String, String>,
}

/// The log of one container.
#[derive(Debug)]
pub struct Log {
    file: LogFile,
    encoder: Encoder,
    outputs: [Output; 2],
}

/// What is known of one of the container's outputs.
#[derive(Debug, Default)]
struct Output {
    lines: Lines,
    /// The line that some entries have been written of.
    open: Option<Open>,
}

/// A line that is longer than an entry.
#[derive(Debug)]
struct Open {
    id: String,
    ordinal: u32,
    time: u64,
}

impl Open {
    fn new(time: u64) -> Self {
        let mut id = String::new();
        let mut bytes = [0_u8; 32];
        // Should there be no randomness, the ID is the same as another's: it serves those who look at files by hand.
        let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
        for byte in bytes {
            for digit in [byte >> 4, byte & 15] {
                id.extend(char::from_digit(digit.into(), 16));
            }
        }
        Self {
            id,
            ordinal: 0,
            time,
        }
    }
}

impl Log {
    /// Open the log for appending. An entry that a killed process left half written is cut off.
    pub fn open(options: LogOptions) -> io::Result<Self> {
        Ok(Self {
            encoder: Encoder::new(options.file.format, &options.attributes),
            file: LogFile::open(options.file)?,
            outputs: [Output::default(), Output::default()],
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
        let now = clock::now();
        let Self {
            file,
            encoder,
            outputs,
        } = self;
        let Output { lines, open } = &mut outputs[stream.index()];
        lines.push(data, |line, complete| {
            file.make_room(scratch);
            write(encoder, scratch, open, stream, now, line, complete);
        });
        file.flush(scratch);
        file.first_error()
    }

    /// Log what a stream has held back because its line was not complete.
    pub fn end(&mut self, stream: Stream, scratch: &mut Vec<u8>) -> Option<io::Error> {
        let Output { lines, open } = &mut self.outputs[stream.index()];
        let rest = lines.take();
        if !rest.is_empty() {
            self.file.make_room(scratch);
            let now = clock::now();
            write(&mut self.encoder, scratch, open, stream, now, &rest, false);
            self.file.flush(scratch);
        }
        self.file.first_error()
    }

    /// Entries dropped so far.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.file.dropped()
    }

    /// For readers of the log with this file; None if that is another.
    #[must_use]
    pub fn shared(&self, path: &Path) -> Option<Arc<Shared>> {
        (self.file.path() == path).then(|| Arc::clone(self.file.shared()))
    }

    /// What of a stream has not been written, because its line is not complete.
    #[must_use]
    pub fn pending(&self, stream: Stream) -> &[u8] {
        self.outputs[stream.index()].lines.pending()
    }

    /// What is to be done for it where it holds up nobody.
    pub fn chores(&mut self) -> Vec<Chore> {
        self.file.chores()
    }
}

fn write(
    encoder: &mut Encoder,
    out: &mut Vec<u8>,
    open: &mut Option<Open>,
    stream: Stream,
    now: u64,
    line: &[u8],
    complete: bool,
) {
    if complete && open.is_none() {
        let entry = Entry {
            stream,
            time: now,
            line,
            part: None,
        };
        return encoder.write(out, &entry);
    }
    let found = open.get_or_insert_with(|| Open::new(now));
    found.ordinal += 1;
    let part = Part {
        id: &found.id,
        ordinal: found.ordinal,
        last: complete,
    };
    let entry = Entry {
        stream,
        time: found.time,
        line,
        part: Some(part),
    };
    encoder.write(out, &entry);
    if complete {
        *open = None;
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_reading;
