//! Clients that read logs.
//!
//! Their [`Reader`]s work on worker threads, one step at a time; in between they are here, and wait for the client to
//! read, for the container to write, for its end, or for a time after which nothing is wanted. When all is sent our
//! side of the connection is shut down, and the client has a while to close its own.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use knarr_runtime::Kind;
use rustix::io::Errno;
use rustix::net::sockopt::{set_socket_send_buffer_size, socket_type};
use rustix::net::{Shutdown, SocketType, shutdown};

use super::attach::{Attachable, LINGER};
use super::{Done, Phase, Supervisor};
use crate::clock;
use crate::logs::{FileOptions, Reader, Step, Wanted};
use crate::poll::{Interest, Ready, Token, Watched};
use crate::protocol::{Failure, Id, Logs};
use crate::session::{Gone, Phase as SessionPhase};
use crate::streams::Stream;

/// Threads that read logs, once there is anything to read.
const READERS: usize = 2;
/// Bytes that the kernel may keep of a client: fewer turns.
const SEND_BYTES: usize = 1024 * 1024;

/// A client that reads a log.
#[derive(Debug)]
pub struct Reading {
    container: Id,
    socket: Watched,
    /// The process whose log is followed.
    process: Option<u32>,
    /// The session that gets this before anything else.
    session: Option<u32>,
    state: State,
    /// When something is to be done although nothing happens.
    pub due: Option<Instant>,
}

#[derive(Debug)]
enum State {
    /// On a worker.
    Busy,
    /// Its client has not read.
    Blocked(Box<Reader>),
    /// There is no more for now.
    AtEnd(Box<Reader>),
    /// Everything has been sent.
    Lingering,
}

impl Supervisor {
    /// Begin to send a log to a client, whose connection is ours from here on.
    pub(super) fn logs(&mut self, logs: &Logs, descriptors: Vec<OwnedFd>) -> Result<(), Failure> {
        let container = &logs.container;
        let invalid = |what: &str| {
            let what = format!("logs of container {container}: {what}");
            Failure::new(Kind::InvalidArgument, what)
        };
        let Ok([socket]) = <[OwnedFd; 1]>::try_from(descriptors) else {
            return Err(invalid("one descriptor is needed: the client's connection"));
        };
        if socket_type(&socket) != Ok(SocketType::STREAM) {
            return Err(invalid("the descriptor is not a connected stream socket"));
        }
        let unavailable = |error: std::io::Error| {
            let what = format!("logs of container {container}: {error}");
            Failure::new(Kind::Unavailable, what)
        };
        let process = match self.containers.get(container).map(|found| &found.phase) {
            Some(Phase::Running(key)) => Some(*key),
            _ => None,
        };
        let log = process
            .and_then(|key| self.processes.get(&key))
            .and_then(|process| process.log.as_ref());
        let shared = log.and_then(|log| log.shared(&logs.file.path));
        let wanted = Wanted {
            outputs: [logs.stdout, logs.stderr],
            since: logs.since,
            until: logs.until,
            tail: logs.tail,
            follow: logs.follow && shared.is_some(),
            timestamps: logs.timestamps,
            details: logs.details,
            multiplexed: logs.multiplexed,
            chunked: logs.chunked,
            merge: logs.merge,
        };
        // It only makes it quicker.
        let _ = set_socket_send_buffer_size(&socket, SEND_BYTES);
        let copy = socket.as_fd().try_clone_to_owned().map_err(unavailable)?;
        let key = self.key();
        let socket = self
            .poll
            .watch(socket, Token::Logs(key), Interest::READ)
            .map_err(unavailable)?;
        self.readers.have(READERS).map_err(unavailable)?;
        let process = process.filter(|_| wanted.follow);
        if let Some(process) = process.and_then(|key| self.processes.get_mut(&key)) {
            process.readers.insert(key);
        }
        let reading = Reading {
            container: container.clone(),
            socket,
            process,
            session: None,
            state: State::Busy,
            due: None,
        };
        self.readings.insert(key, reading);
        let reader = Reader::new(wanted, logs.file.clone(), shared, copy);
        self.step(key, Box::new(reader));
        Ok(())
    }

    /// Send a session what has been logged until now, before it gets anything else.
    pub(super) fn recall(
        &mut self,
        session: u32,
        file: FileOptions,
        at: Attachable,
    ) -> Result<(), Failure> {
        let Some(found) = self.sessions.get_mut(&session) else {
            return Ok(());
        };
        let container = found.target.container.clone();
        let unavailable = |error: std::io::Error| {
            let what = format!("the log of container {container}: {error}");
            Failure::new(Kind::Unavailable, what)
        };
        let (outputs, multiplexed, socket) = found.recall().map_err(unavailable)?;
        let mut shared = None;
        if let Attachable::Running(process) = at
            && let Some(log) = self
                .processes
                .get(&process)
                .and_then(|process| process.log.as_ref())
        {
            shared = log.shared(&file.path);
            // What was read and not logged yet is between the log and what comes.
            for stream in Stream::ALL {
                if found.offer(stream, log.pending(stream)).is_err() {
                    return Err(Failure::missing(&found.target));
                }
            }
        }
        let copy = socket.as_fd().try_clone_to_owned().map_err(unavailable)?;
        let wanted = Wanted {
            outputs,
            multiplexed,
            ..Wanted::default()
        };
        let mut reader = Reader::new(wanted, file, shared, copy);
        reader.begin();
        let key = self.key();
        let socket = self
            .poll
            .watch(socket, Token::Logs(key), Interest::NONE)
            .map_err(unavailable)?;
        self.readers.have(READERS).map_err(unavailable)?;
        let reading = Reading {
            container,
            socket,
            process: None,
            session: Some(session),
            state: State::Busy,
            due: None,
        };
        self.readings.insert(key, reading);
        self.step(key, Box::new(reader));
        Ok(())
    }

    /// A session has got what was logged.
    fn recalled(&mut self, session: u32) {
        let Some(found) = self.sessions.get_mut(&session) else {
            return;
        };
        found.recalling = false;
        let flushed = found.flush();
        let closing = found.phase == SessionPhase::Closing;
        match flushed {
            Ok(_) if closing => self.finish_session(session),
            Ok(_) => {}
            Err(why) => self.let_go(session, &why),
        }
    }

    fn step(&mut self, key: u32, mut reader: Box<Reader>) {
        self.steps += 1;
        self.readers.submit(move || {
            let step = reader.step();
            Done::Read(key, reader, step)
        });
    }

    /// A reader has made a step.
    pub(super) fn stepped(&mut self, key: u32, reader: Box<Reader>, step: Step) {
        let Some(reading) = self.readings.get_mut(&key) else {
            return;
        };
        let mut writes = false;
        match step {
            Step::More => return self.step(key, reader),
            Step::AtEnd(position) if reader.behind(position) => return self.step(key, reader),
            Step::Blocked => {
                writes = true;
                reading.state = State::Blocked(reader);
            }
            Step::AtEnd(_) => {
                let now = clock::now();
                reading.due = reader
                    .until()
                    .map(|until| Duration::from_nanos(until.saturating_sub(now)))
                    // The first time that is later.
                    .and_then(|left| Instant::now().checked_add(left + Duration::from_millis(1)));
                reading.state = State::AtEnd(reader);
            }
            Step::Ended => {
                if reader.unreadable > 0 {
                    self.journal.say(format!(
                        "container {}: {} entries of its log are not readable and were left out",
                        reading.container, reader.unreadable
                    ));
                }
                if let Some(session) = reading.session {
                    self.readings.remove(&key);
                    return self.recalled(session);
                }
                reading.state = State::Lingering;
                reading.due = Some(Instant::now() + LINGER);
                if let Err(error) = shutdown(&reading.socket, Shutdown::Write) {
                    return self.stop_reading(key, &error.into());
                }
            }
            Step::Gone(why) => return self.stop_reading(key, &why),
        }
        // What a session's client types is for the session.
        let interest = match (reading.session.is_none(), writes) {
            (false, false) => Interest::NONE,
            (reads, writes) => Interest::of(reads, writes),
        };
        if let Err(error) = reading.socket.set(interest) {
            self.stop_reading(key, &error.into());
        }
    }

    pub(super) fn on_reading(&mut self, key: u32, ready: Ready) {
        let Some(reading) = self.readings.get_mut(&key) else {
            return;
        };
        if ready.hangup {
            return self.stop_reading(key, &Gone::Closed);
        }
        if ready.read {
            // Nothing is expected; what a client says all the same is for nobody.
            match rustix::io::read(&reading.socket, &mut [0_u8; 4096]) {
                Ok(0) => return self.stop_reading(key, &Gone::Closed),
                Ok(_) | Err(Errno::AGAIN | Errno::INTR) => {}
                Err(error) => return self.stop_reading(key, &error.into()),
            }
        }
        if ready.write && matches!(reading.state, State::Blocked(_)) {
            // Nothing about room until it is asked for again.
            let interest = if reading.session.is_some() {
                Interest::NONE
            } else {
                Interest::READ
            };
            if let Err(error) = reading.socket.set(interest) {
                return self.stop_reading(key, &error.into());
            }
            self.go_on(key);
        }
    }

    /// Something has been logged, or the container has ended.
    pub(super) fn logged(&mut self, readers: &[u32]) {
        for key in readers {
            if let Some(Reading {
                state: State::AtEnd(_),
                ..
            }) = self.readings.get(key)
            {
                self.go_on(*key);
            }
        }
    }

    /// A time has come: for the end of lingering, or of what is wanted.
    pub(super) fn reading_due(&mut self, key: u32) {
        match self.readings.get_mut(&key) {
            Some(reading) if matches!(reading.state, State::AtEnd(_)) => {
                reading.due = None;
                self.go_on(key);
            }
            Some(reading) if matches!(reading.state, State::Lingering) => {
                self.stop_reading(key, &Gone::Closed);
            }
            Some(reading) => reading.due = None,
            None => {}
        }
    }

    fn go_on(&mut self, key: u32) {
        if let Some(reading) = self.readings.get_mut(&key) {
            match std::mem::replace(&mut reading.state, State::Busy) {
                State::Blocked(reader) | State::AtEnd(reader) => self.step(key, reader),
                other => reading.state = other,
            }
        }
    }

    /// Close a reader's connection. One that is on a worker is dropped when it comes back.
    fn stop_reading(&mut self, key: u32, why: &Gone) {
        let Some(reading) = self.readings.remove(&key) else {
            return;
        };
        if !matches!(why, Gone::Closed) {
            self.journal.say(format!(
                "a reader of the log of container {} is cut off: {why}",
                reading.container
            ));
        }
        // The client may have been quicker.
        let _ = shutdown(&reading.socket, Shutdown::Both);
        if let Some(process) = reading.process.and_then(|key| self.processes.get_mut(&key)) {
            process.readers.remove(&key);
        }
        if let Some(session) = reading.session {
            self.drop_session(session);
        }
    }

    /// Compress what a log has rotated.
    pub(super) fn compress(&mut self, container: &str, chores: Vec<crate::logs::Chore>) {
        if let Err(error) = self.readers.have(READERS) {
            self.journal
                .say(format!("cannot have a thread to compress logs: {error}"));
            return;
        }
        for chore in chores {
            let container = container.to_owned();
            self.steps += 1;
            self.readers.submit(move || {
                Done::Compressed(chore.run().err().map(|error| {
                    format!("{container}: a rotated log cannot be compressed: {error}")
                }))
            });
        }
    }
}
