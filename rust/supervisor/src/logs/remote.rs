//! Logs that somebody else keeps: journald, or a syslog daemon.
//!
//! Each such log has a thread, which alone waits for the other side, and a queue before it. What happens when the queue
//! is full is Docker's `mode`: *blocking*, the container's output is not read until there is room again; or
//! *non-blocking*, entries are dropped. A thread whose container has ended sends what is left, for [`LAST`] at most.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::entry::Entry;
use super::journald::{self, Journald};
use super::syslog::{self, Syslog};

/// Bytes that may wait before a container is held up.
const BLOCKING_BYTES: usize = 1024 * 1024;
/// How long the other side may take for one entry, or to connect.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// How long a connection that failed is not tried again: meanwhile entries are dropped.
const PAUSE: Duration = Duration::from_secs(1);
/// How long a thread may live after its container.
const LAST: Duration = Duration::from_secs(10);
const STACK_BYTES: usize = 256 * 1024;

/// Who keeps a log.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The host's journal.
    Journald(journald::Options),
    /// A syslog daemon.
    Syslog(syslog::Options),
}

/// Where entries go, and how.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct RemoteOptions {
    /// To whom.
    pub to: Kind,
    /// Bytes that may wait, what comes beyond is dropped; None to hold up the container instead.
    #[serde(default)]
    pub buffer: Option<u64>,
}

/// The other side of a log.
pub trait Keeper: Send {
    /// An entry as it is sent; None for one that is not sent at all.
    fn encode(&mut self, entry: &Entry<'_>) -> Option<Vec<u8>>;

    /// Something that sends encoded entries, not connected yet.
    fn line(&self) -> Box<dyn Line>;
}

/// A connection to the other side, or to be one.
pub trait Line: Send {
    /// Connect anew.
    fn connect(&mut self) -> io::Result<()>;

    /// Send one entry. Fails where there is no connection.
    fn send(&mut self, entry: &[u8]) -> io::Result<()>;
}

#[derive(Default)]
struct Queue {
    /// What each counts for, and the entries.
    entries: VecDeque<(usize, Vec<u8>)>,
    bytes: usize,
    closed: bool,
    dropped: u64,
    error: Option<io::Error>,
    /// Somebody waits for room, and is told so.
    waits: bool,
    room: Option<Box<dyn Fn() + Send>>,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    more: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A log that somebody else keeps.
pub struct Remote {
    keeper: Box<dyn Keeper>,
    shared: Arc<Shared>,
    buffer: Option<usize>,
    told: bool,
}

impl fmt::Debug for Remote {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Remote").finish_non_exhaustive()
    }
}

impl Remote {
    /// Connect, and have a thread. `must` says whether it has to be possible to connect now; else it is done later.
    pub fn open(options: &RemoteOptions, must: bool) -> io::Result<Self> {
        let keeper: Box<dyn Keeper> = match &options.to {
            Kind::Journald(options) => Box::new(Journald::new(options)),
            Kind::Syslog(options) => Box::new(Syslog::new(options)),
        };
        let mut line = keeper.line();
        if must {
            line.connect()?;
        }
        let shared = Arc::new(Shared::default());
        let thread = std::thread::Builder::new()
            .name("log".to_owned())
            .stack_size(STACK_BYTES);
        let theirs = Arc::clone(&shared);
        thread.spawn(move || carry(&theirs, line.as_mut()))?;
        Ok(Self {
            keeper,
            shared,
            buffer: options
                .buffer
                .map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX)),
            told: false,
        })
    }

    /// Queue an entry.
    pub fn push(&mut self, entry: &Entry<'_>) {
        let Some(encoded) = self.keeper.encode(entry) else {
            return;
        };
        let mut queue = self.shared.lock();
        // As Docker counts: the text alone, and one entry is always taken.
        let size = match self.buffer {
            Some(_) => entry.line.len(),
            None => encoded.len(),
        };
        if let Some(most) = self.buffer
            && queue.bytes + size > most
            && !queue.entries.is_empty()
        {
            queue.dropped += 1;
            return;
        }
        queue.bytes += size;
        queue.entries.push_back((size, encoded));
        drop(queue);
        self.shared.more.notify_one();
    }

    /// Whether the container has to wait. If so, `room` is called once there is room.
    pub fn is_full(&self) -> bool {
        if self.buffer.is_some() {
            return false;
        }
        let mut queue = self.shared.lock();
        let full = queue.bytes >= BLOCKING_BYTES && queue.room.is_some();
        queue.waits = queue.waits || full;
        full
    }

    /// What is called when there is room again, on another thread.
    pub fn on_room(&self, room: Box<dyn Fn() + Send>) {
        self.shared.lock().room = Some(room);
    }

    /// Entries that were dropped.
    pub fn dropped(&self) -> u64 {
        self.shared.lock().dropped
    }

    /// The first error there has been, once.
    pub fn first_error(&mut self) -> Option<io::Error> {
        let error = self.shared.lock().error.take()?;
        (!std::mem::replace(&mut self.told, true)).then_some(error)
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        let mut queue = self.shared.lock();
        queue.closed = true;
        queue.room = None;
        drop(queue);
        self.shared.more.notify_one();
    }
}

/// Send what is queued, until the log is closed.
fn carry(shared: &Shared, line: &mut dyn Line) {
    let (mut failed, mut last): (Option<Instant>, Option<Instant>) = (None, None);
    loop {
        let mut queue = shared.lock();
        while queue.entries.is_empty() && !queue.closed {
            queue = shared
                .more
                .wait(queue)
                .unwrap_or_else(PoisonError::into_inner);
        }
        if queue.closed {
            let due = *last.get_or_insert_with(|| Instant::now() + LAST);
            if Instant::now() >= due {
                return;
            }
        }
        // What is being sent still counts: it is kept until it has gone.
        let Some((size, entry)) = queue.entries.front().cloned() else {
            return;
        };
        drop(queue);
        let result = match failed {
            Some(at) if at.elapsed() < PAUSE => Err(io::ErrorKind::NotConnected.into()),
            _ => line
                .send(&entry)
                .or_else(|_| line.connect().and_then(|()| line.send(&entry))),
        };
        let mut queue = shared.lock();
        queue.entries.pop_front();
        queue.bytes -= size;
        match result {
            Ok(()) => failed = None,
            Err(error) => {
                queue.dropped += 1;
                if failed.is_none_or(|at| at.elapsed() >= PAUSE) {
                    failed = Some(Instant::now());
                    queue.error.get_or_insert(error);
                }
            }
        }
        if queue.waits && queue.bytes <= BLOCKING_BYTES / 2 {
            queue.waits = false;
            if let Some(room) = &queue.room {
                room();
            }
        }
    }
}
