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
//! remote.rs  logs that somebody else keeps:
//!   journald.rs  the host's journal
//!   syslog.rs    a syslog daemon
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
mod journald;
mod json;
mod lines;
mod local;
mod reader;
mod remote;
mod source;
mod syslog;
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
use remote::{Remote, RemoteOptions};
pub use time::rfc3339;

use crate::clock;
use crate::streams::Stream;

/// Where a container's output is logged.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct LogOptions {
    /// Files.
    #[serde(default)]
    pub file: Option<FileOptions>,
    /// What each entry carries besides its text.
    #[serde(default)]
    pub attributes: BTreeMap<String, String>,
    /// Somebody else who keeps it.
    #[serde(default)]
    pub remote: Option<RemoteOptions>,
}

/// The log of one container.
#[derive(Debug)]
pub struct Log {
    sinks: Sinks,
    outputs: [Output; 2],
}

/// Where entries go.
#[derive(Debug)]
struct Sinks {
    file: Option<(LogFile, Encoder)>,
    remote: Option<Remote>,
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

/// 64 hexadecimal digits that nothing else has.
fn random_id() -> String {
    let mut id = String::new();
    let mut bytes = [0_u8; 32];
    // Should there be no randomness, the ID is the same as another's: it serves those who look for it by hand.
    let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    for byte in bytes {
        for digit in [byte >> 4, byte & 15] {
            id.extend(char::from_digit(digit.into(), 16));
        }
    }
    id
}

impl Log {
    /// Open the log for appending. An entry that a killed process left half written is cut off.
    ///
    /// `anew` says that the container is about to start: then whoever is to keep its log must be there.
    pub fn open(options: LogOptions, anew: bool) -> io::Result<Self> {
        let LogOptions {
            file,
            attributes,
            remote,
        } = options;
        let file = file.map(|file| {
            let encoder = Encoder::new(file.format, &attributes);
            let path = file.path.display().to_string();
            let file = LogFile::open(file)
                .map_err(|error| io::Error::new(error.kind(), format!("{path}: {error}")))?;
            Ok::<_, io::Error>((file, encoder))
        });
        let remote = remote.map(|remote| Remote::open(&remote, anew));
        Ok(Self {
            sinks: Sinks {
                file: file.transpose()?,
                remote: remote.transpose()?,
            },
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
        let Self { sinks, outputs } = self;
        let Output { lines, open } = &mut outputs[stream.index()];
        lines.push(data, |line, complete| {
            sinks.write(scratch, open, stream, now, line, complete);
        });
        sinks.flush(scratch)
    }

    /// Log what a stream has held back because its line was not complete.
    pub fn end(&mut self, stream: Stream, scratch: &mut Vec<u8>) -> Option<io::Error> {
        let Output { lines, open } = &mut self.outputs[stream.index()];
        let rest = lines.take();
        if !rest.is_empty() {
            let now = clock::now();
            self.sinks.write(scratch, open, stream, now, &rest, false);
        }
        self.sinks.flush(scratch)
    }

    /// Entries dropped so far.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        let filed = self
            .sinks
            .file
            .as_ref()
            .map_or(0, |(file, _)| file.dropped());
        filed + self.sinks.remote.as_ref().map_or(0, Remote::dropped)
    }

    /// Whether the container has to wait until [`Log::on_room`] is called.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.sinks.remote.as_ref().is_some_and(Remote::is_full)
    }

    /// What is called when there is room again, on another thread.
    pub fn on_room(&self, room: impl Fn() + Send + 'static) {
        if let Some(remote) = &self.sinks.remote {
            remote.on_room(Box::new(room));
        }
    }

    /// For readers of the log with this file; None if that is another.
    #[must_use]
    pub fn shared(&self, path: &Path) -> Option<Arc<Shared>> {
        let (file, _) = self.sinks.file.as_ref()?;
        (file.path() == path).then(|| Arc::clone(file.shared()))
    }

    /// What of a stream has not been written, because its line is not complete.
    #[must_use]
    pub fn pending(&self, stream: Stream) -> &[u8] {
        self.outputs[stream.index()].lines.pending()
    }

    /// What is to be done for it where it holds up nobody.
    pub fn chores(&mut self) -> Vec<Chore> {
        let file = self.sinks.file.as_mut();
        file.map(|(file, _)| file.chores()).unwrap_or_default()
    }
}

impl Sinks {
    fn write(
        &mut self,
        out: &mut Vec<u8>,
        open: &mut Option<Open>,
        stream: Stream,
        now: u64,
        line: &[u8],
        complete: bool,
    ) {
        let mut entry = Entry {
            stream,
            time: now,
            line,
            part: None,
        };
        if complete && open.is_none() {
            return self.put(out, &entry);
        }
        let found = open.get_or_insert_with(|| Open {
            id: random_id(),
            ordinal: 0,
            time: now,
        });
        found.ordinal += 1;
        entry.time = found.time;
        entry.part = Some(Part {
            id: &found.id,
            ordinal: found.ordinal,
            last: complete,
        });
        self.put(out, &entry);
        if complete {
            *open = None;
        }
    }

    fn put(&mut self, out: &mut Vec<u8>, entry: &Entry<'_>) {
        if let Some((file, encoder)) = &mut self.file {
            file.make_room(out);
            encoder.write(out, entry);
        }
        if let Some(remote) = &mut self.remote {
            remote.push(entry);
        }
    }

    fn flush(&mut self, out: &mut Vec<u8>) -> Option<io::Error> {
        let filed = self.file.as_mut().and_then(|(file, _)| {
            file.flush(out);
            file.first_error()
        });
        filed.or_else(|| self.remote.as_mut().and_then(Remote::first_error))
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_reading;
