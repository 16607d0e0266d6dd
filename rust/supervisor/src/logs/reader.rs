//! A client that reads a log.
//!
//! A [`Reader`] goes on in steps, each of which reads, decodes and sends a bounded amount without waiting for anybody:
//! a client that does not read holds up nothing but its own reader, whose memory is bounded by a block of input and
//! a block of output. Steps are for worker threads; between them the event loop has the reader and waits for what
//! [`Step`] says.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::io::Errno;
use rustix::net::{SendFlags, send};

use super::decode::{Decoded, Decoder, Details};
use super::file::{FileOptions, Position, Shared};
use super::source::{Opened, Source};
use super::time::{FIXED, fixed};
use crate::clock;
use crate::session::Gone;
use crate::streams::{Stream, header};

/// How much is read at once, and what an entry may have before it is taken for garbage.
const INPUT: usize = 256 * 1024;
const LONGEST: usize = 2 * 1024 * 1024;
/// How much is sent at once.
const OUTPUT: usize = 256 * 1024;
/// How much is sent, or read in vain, before others have their turn.
const TURN: usize = 8 * 1024 * 1024;
/// The head of a chunk (RFC 9112, section 7.1) of a size that is not known yet.
const CHUNK: &[u8; 10] = b"00000000\r\n";
const HEADER: usize = 8;

/// What of a log is wanted, and how.
#[allow(clippy::struct_excessive_bools)] // each is a fact of its own, as on the wire
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted {
    /// Output, error output.
    pub outputs: [bool; 2],
    /// Nothing before the first entry of this time or later; nanoseconds since the epoch.
    pub since: u64,
    /// Nothing from the first entry on that is later; 0 for no end.
    pub until: u64,
    /// So many entries from the end.
    pub tail: Option<u64>,
    /// What is written from now on as well, until the container has ended.
    pub follow: bool,
    /// The time before each entry.
    pub timestamps: bool,
    /// Its attributes before each entry.
    pub details: bool,
    /// Entries are framed.
    pub multiplexed: bool,
    /// The body is sent in HTTP's chunks.
    pub chunked: bool,
    /// Entries of one output share frames.
    pub merge: bool,
}

/// What has to happen before the next step.
#[derive(Debug)]
pub enum Step {
    /// Nothing.
    More,
    /// The client must have read something.
    Blocked,
    /// The log must have got beyond this.
    AtEnd(Position),
    /// There is none: everything has been sent.
    Ended,
    /// There is none: the client has gone.
    Gone(Gone),
}

/// Where a reader is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// No file is open.
    New,
    /// There is more.
    Reading,
    /// There is no more; what has been read is being sent.
    Ended,
    /// The last bytes are being sent.
    Closed,
}

/// A reader of one log for one client.
#[derive(Debug)]
pub struct Reader {
    wanted: Wanted,
    options: FileOptions,
    /// The writer's, where there is one.
    shared: Option<Arc<Shared>>,
    socket: OwnedFd,
    stage: Stage,
    sources: VecDeque<Source>,
    size: u64,
    input: Vec<u8>,
    from: usize,
    to: usize,
    decoder: Decoder,
    text: Vec<u8>,
    output: Vec<u8>,
    sent: usize,
    /// The last frame of the output, with `merge`.
    last: Option<(usize, Stream)>,
    /// Whether an entry later than `since` has been met.
    begun: bool,
    /// What could not be read, for the journal.
    pub unreadable: u64,
}

impl Reader {
    /// A reader that has not begun.
    #[must_use]
    pub fn new(
        wanted: Wanted,
        options: FileOptions,
        shared: Option<Arc<Shared>>,
        socket: OwnedFd,
    ) -> Self {
        let details = Details {
            time: wanted.timestamps || wanted.since > 0 || wanted.until > 0,
            attributes: wanted.details,
        };
        Self {
            wanted,
            decoder: Decoder::new(options.format, details),
            options,
            shared,
            socket,
            stage: Stage::New,
            sources: VecDeque::new(),
            size: 0,
            input: Vec::new(),
            from: 0,
            to: 0,
            text: Vec::new(),
            output: Vec::new(),
            sent: 0,
            last: None,
            begun: wanted.since == 0,
            unreadable: 0,
        }
    }

    /// When it ends at the latest, in nanoseconds since the epoch: nothing that is written later is wanted.
    #[must_use]
    pub fn until(&self) -> Option<u64> {
        (self.wanted.until > 0).then_some(self.wanted.until)
    }

    /// Whether anything was written since.
    #[must_use]
    pub fn behind(&self, position: Position) -> bool {
        self.shared
            .as_ref()
            .is_some_and(|shared| *shared.lock() != position)
    }

    /// Open the files: what is logged from now on is new.
    pub fn begin(&mut self) {
        if self.stage != Stage::New {
            return;
        }
        self.stage = Stage::Reading;
        if let Err(error) = self.open() {
            self.complain(&error);
            self.stage = Stage::Ended;
        }
    }

    /// Go on.
    pub fn step(&mut self) -> Step {
        self.begin();
        let mut turn = 0;
        loop {
            match self.send() {
                Ok(Some(count)) => turn += count,
                Ok(None) => return Step::Blocked,
                Err(error) => return Step::Gone(error.into()),
            }
            if self.stage == Stage::Closed {
                return Step::Ended;
            }
            if turn >= TURN {
                return Step::More;
            }
            let before = self.output.len();
            let end = self.produce(&mut turn);
            self.close_chunk();
            if self.stage == Stage::Ended {
                self.stage = Stage::Closed;
                if self.wanted.chunked {
                    self.output.extend_from_slice(b"0\r\n\r\n");
                }
            } else if let Some(position) = end
                && self.output.len() == before
            {
                self.rest();
                return Step::AtEnd(position);
            }
        }
    }

    /// Keep no memory while there is nothing to do.
    fn rest(&mut self) {
        if self.from == self.to {
            (self.input, self.from, self.to) = (Vec::new(), 0, 0);
        }
        (self.output, self.text) = (Vec::new(), Vec::new());
    }

    fn open(&mut self) -> io::Result<()> {
        let mut opened = Opened::new(&self.options, self.shared.as_deref())?;
        if let Some(count) = self.wanted.tail {
            opened.tail(self.options.format, count)?;
        }
        self.size = opened.size;
        self.sources = opened.sources;
        Ok(())
    }

    /// Send what there is. None where the client takes no more.
    fn send(&mut self) -> Result<Option<usize>, Errno> {
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        while self.sent < self.output.len() {
            match send(&self.socket, &self.output[self.sent..], flags) {
                Ok(count) => self.sent += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        self.output.clear();
        Ok(Some(std::mem::take(&mut self.sent)))
    }

    /// Fill the output. A position where the log has no more for now.
    fn produce(&mut self, turn: &mut usize) -> Option<Position> {
        while self.output.len() < OUTPUT && *turn < TURN && self.stage == Stage::Reading {
            if self.from == self.to || !self.decode() {
                match self.read() {
                    Ok(Read::Some(count)) => *turn += count / 4,
                    Ok(Read::Nothing(position)) => return Some(position),
                    Ok(Read::End) => self.stage = Stage::Ended,
                    Err(error) => {
                        self.complain(&error);
                        self.next_source();
                    }
                }
            }
        }
        None
    }

    /// Decode what has been read. False if more has to be read.
    fn decode(&mut self) -> bool {
        let head = if self.wanted.multiplexed { HEADER } else { 0 };
        let stamp = if self.wanted.timestamps { FIXED + 1 } else { 0 };
        while self.output.len() < OUTPUT {
            if self.output.is_empty() && self.wanted.chunked {
                self.output.extend_from_slice(CHUNK);
            }
            let before = self.output.len();
            self.output.resize(before + head + stamp, b' ');
            let data = &self.input[self.from..self.to];
            let decoded = if self.wanted.details {
                self.text.clear();
                self.decoder.next(data, &mut self.text)
            } else {
                self.decoder.next(data, &mut self.output)
            };
            let Decoded::Entry { used, stream, time } = decoded else {
                self.output.truncate(before);
                match decoded {
                    Decoded::Skip(used) => {
                        self.unreadable += 1;
                        self.from += used;
                        continue;
                    }
                    Decoded::Broken => {
                        self.unreadable += 1;
                        (self.from, self.to) = (0, 0);
                        self.next_source();
                    }
                    _ => {}
                }
                return false;
            };
            self.from += used;
            if let Some(source) = self.sources.front_mut()
                && source.skip > 0
            {
                source.skip -= 1;
                self.output.truncate(before);
                continue;
            }
            self.begun = self.begun || time >= self.wanted.since;
            if self.begun && self.wanted.until > 0 && time > self.wanted.until {
                self.output.truncate(before);
                self.stage = Stage::Ended;
                return true;
            }
            if !self.begun || !self.wanted.outputs[stream.index()] {
                self.output.truncate(before);
                continue;
            }
            if self.wanted.details {
                self.output
                    .extend_from_slice(self.decoder.attributes.as_bytes());
                self.output.push(b' ');
                self.output.extend_from_slice(&self.text);
            }
            if self.wanted.timestamps {
                self.output[before + head..before + head + FIXED].copy_from_slice(&fixed(time));
            }
            self.frame(before, stream);
        }
        true
    }

    /// Write the header of what has been put behind its place.
    fn frame(&mut self, mut at: usize, stream: Stream) {
        if self.wanted.multiplexed {
            match self.last {
                Some((last, of)) if of == stream => {
                    self.output.drain(at..at + HEADER);
                    at = last;
                }
                _ => self.last = self.wanted.merge.then_some((at, stream)),
            }
            let length = u32::try_from(self.output.len() - at - HEADER).unwrap_or(u32::MAX);
            self.output[at..at + HEADER].copy_from_slice(&header(stream, length));
        }
    }

    fn close_chunk(&mut self) {
        self.last = None;
        if !self.wanted.chunked || self.output.is_empty() {
            return;
        }
        let length = self.output.len() - CHUNK.len();
        if length == 0 {
            self.output.clear();
            return;
        }
        // A slice of eight bytes takes eight digits.
        let _ = write!(&mut self.output[..8], "{length:08x}");
        self.output.extend_from_slice(b"\r\n");
    }

    /// Read more, from the next file where this one is at its end.
    fn read(&mut self) -> io::Result<Read> {
        loop {
            let last = self.sources.len() <= 1;
            let Some(source) = self.sources.front_mut() else {
                return Ok(Read::End);
            };
            let position = self.shared.as_ref().map(|shared| *shared.lock());
            let current = position
                .as_ref()
                .is_none_or(|position| position.rotations == source.rotation);
            let limit = match &position {
                _ if !last => u64::MAX,
                Some(position) if self.wanted.follow && current => position.size,
                Some(_) if self.wanted.follow => u64::MAX,
                _ => self.size,
            };
            if self.from > 0 {
                self.input.copy_within(self.from..self.to, 0);
                (self.from, self.to) = (0, self.to - self.from);
            }
            if self.to + INPUT / 2 > self.input.len() {
                self.input.resize((self.input.len() * 2).max(INPUT), 0);
            }
            if self.to > LONGEST {
                self.to = 0;
                self.unreadable += 1;
            }
            let count = source.read(&mut self.input[self.to..], limit)?;
            if count > 0 {
                self.to += count;
                return Ok(Read::Some(count));
            }
            if !last {
                self.next_source();
                continue;
            }
            match position {
                Some(position) if self.wanted.follow => {
                    let due = self.wanted.until > 0 && clock::now() > self.wanted.until;
                    if current && (position.closed || due) {
                        return Ok(Read::End);
                    }
                    if current {
                        return Ok(Read::Nothing(position));
                    }
                    self.rotated()?;
                }
                _ => return Ok(Read::End),
            }
        }
    }

    /// The file that is followed has been rotated: go on with the one after it, or the oldest there is.
    fn rotated(&mut self) -> io::Result<()> {
        let Some(shared) = self.shared.clone() else {
            return Ok(());
        };
        let position = shared.lock();
        let rotation = self
            .sources
            .front()
            .map_or(position.rotations, |source| source.rotation + 1);
        let oldest = u64::from(self.options.max_file.max(1)) - 1;
        let number = (position.rotations - rotation).min(oldest);
        self.unreadable += u64::from(self.to > self.from);
        (self.from, self.to) = (0, 0);
        self.sources.clear();
        for number in (0..=number).rev() {
            if let Some(source) = Source::open(&self.options, number, position.rotations)? {
                self.sources.push_back(source);
                return Ok(());
            }
        }
        Ok(())
    }

    fn next_source(&mut self) {
        self.unreadable += u64::from(self.to > self.from);
        (self.from, self.to) = (0, 0);
        self.sources.pop_front();
    }

    /// Say in the stream that something cannot be read, as Docker does.
    fn complain(&mut self, error: &io::Error) {
        if self.output.is_empty() && self.wanted.chunked {
            self.output.extend_from_slice(CHUNK);
        }
        let before = self.output.len();
        if self.wanted.multiplexed {
            self.output.resize(before + HEADER, 0);
        }
        // Writing to memory cannot fail.
        let _ = writeln!(self.output, "Error grabbing logs: {error}");
        self.frame(before, Stream::Stderr);
    }
}

/// What came of reading.
enum Read {
    Some(usize),
    Nothing(Position),
    End,
}
