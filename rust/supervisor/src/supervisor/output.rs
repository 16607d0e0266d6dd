//! From processes to logs and clients.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use knarr_runtime::Kind;
use rustix::io::Errno;
use rustix::process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};

use super::{Done, Supervisor};
use crate::logs::Log;
use crate::poll::{Interest, Token, Watched};
use crate::process::{Ends, Input, Process};
use crate::protocol::{Failure, Target};
use crate::records::State;
use crate::session::{Gone, Session};
use crate::streams::{PIPE_BYTES, Stream, widen_pipe};

/// What came of an attempt to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Something, and there may be more.
    More,
    /// Nothing now.
    Blocked,
    /// Nothing ever again.
    Closed,
}

impl Supervisor {
    /// Take a process into the event loop. One that cannot be is killed.
    #[allow(clippy::too_many_arguments)] // each is another thing, and nothing else has them together
    pub(super) fn supervise(
        &mut self,
        target: &Target,
        pid: i32,
        pidfd: &OwnedFd,
        child: bool,
        ends: Ends,
        state: &State,
        log: Option<Log>,
    ) -> Result<u32, Failure> {
        let key = self.key();
        let copy = pidfd.as_fd().try_clone_to_owned();
        let taken = copy
            .and_then(|copy| self.process(key, target.clone(), pid, copy, child, ends, state, log));
        match taken {
            Ok(process) => {
                if let Some(log) = &process.log {
                    let give = self.results.giver();
                    log.on_room(move || give(Done::Room(key)));
                }
                self.processes.insert(key, process);
                Ok(key)
            }
            Err(error) => {
                // It may have ended by itself; either way it is reaped here, as it is known nowhere else.
                let _ = pidfd_send_signal(pidfd, Signal::KILL);
                if child {
                    let _ = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED);
                }
                Err(Failure::new(
                    Kind::Unavailable,
                    format!("{target} cannot be supervised and was killed: {error}"),
                ))
            }
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn process(
        &self,
        key: u32,
        target: Target,
        pid: i32,
        pidfd: OwnedFd,
        child: bool,
        ends: Ends,
        state: &State,
        log: Option<Log>,
    ) -> io::Result<Process> {
        ends.unblock()?;
        let Ends {
            stdin,
            stdout,
            stderr,
            terminal,
        } = ends;
        let typed = terminal.as_ref().map(OwnedFd::try_clone).transpose()?;
        let watch = |fd: Option<OwnedFd>, token, interest| -> io::Result<Option<Watched>> {
            fd.map(|fd| self.poll.watch(fd, token, interest))
                .transpose()
        };
        let stdout = watch(
            terminal.or(stdout),
            Token::Output(key, Stream::Stdout),
            Interest::READ,
        )?;
        let stderr = watch(stderr, Token::Output(key, Stream::Stderr), Interest::READ)?;
        let input = Input::new(watch(typed.or(stdin), Token::Input(key), Interest::NONE)?);
        Ok(Process {
            target,
            pid,
            ticks: state.ticks,
            pidfd: watch(Some(pidfd), Token::Process(key), Interest::READ)?,
            child,
            terminal: state.terminal,
            stdin_once: state.stdin_once,
            input,
            outputs: [stdout, stderr],
            wide: [false; 2],
            held_up: false,
            log,
            sessions: std::collections::BTreeSet::new(),
            readers: std::collections::BTreeSet::new(),
            exit: None,
            announced: false,
            deadline: None,
        })
    }

    pub(super) fn on_output(&mut self, key: u32, stream: Stream) {
        if self.is_held_up(key) {
            return self.hold_up(key);
        }
        if self.read_output(key, stream) == Flow::Closed {
            self.output_closed(key, stream);
        }
    }

    fn output_closed(&mut self, key: u32, stream: Stream) {
        let Some(process) = self.processes.get_mut(&key) else {
            return;
        };
        process.close_output(stream);
        if process.exit.is_some() && process.drained() {
            if process.announced {
                self.processes.remove(&key);
            } else {
                self.announce(key);
            }
        }
    }

    /// Read everything that a process has written before it ended.
    pub(super) fn drain(&mut self, key: u32) {
        /// More than any pipe holds: somebody else still writes.
        const READS: usize = 64;
        for stream in Stream::ALL {
            for _ in 0..READS {
                match self.read_output(key, stream) {
                    Flow::More => {}
                    Flow::Blocked => break,
                    Flow::Closed => {
                        if let Some(process) = self.processes.get_mut(&key) {
                            process.close_output(stream);
                        }
                        break;
                    }
                }
            }
        }
    }

    /// Read once, and hand on what came.
    fn read_output(&mut self, key: u32, stream: Stream) -> Flow {
        let Self {
            processes,
            sessions,
            buffer,
            scratch,
            journal,
            ..
        } = self;
        let Some(process) = processes.get_mut(&key) else {
            return Flow::Blocked;
        };
        let Some(output) = &process.outputs[stream.index()] else {
            return Flow::Closed;
        };
        let count = match rustix::io::read(output, &mut *buffer) {
            // A terminal that nobody has open any more fails with EIO.
            Ok(0) | Err(Errno::IO) => return Flow::Closed,
            Ok(count) => count,
            Err(Errno::AGAIN | Errno::INTR) => return Flow::Blocked,
            Err(error) => {
                journal.say(format!(
                    "{}: its {} cannot be read: {error}",
                    process.target,
                    stream.name()
                ));
                return Flow::Closed;
            }
        };
        if process.announced {
            return Flow::More;
        }
        let wide = &mut process.wide[stream.index()];
        if count >= PIPE_BYTES && !*wide {
            *wide = true;
            widen_pipe(output);
        }
        let data = &buffer[..count];
        let mut chores = Vec::new();
        if let Some(log) = &mut process.log {
            if let Some(error) = log.write(stream, data, scratch) {
                journal.say(format!(
                    "{}: its log cannot be written: {error}; entries are dropped",
                    process.target
                ));
            }
            chores = log.chores();
            if log.is_full() {
                // Until there is room: the container waits, as it does with Docker's blocking mode.
                process.rest();
            }
        }
        let target = (!chores.is_empty()).then(|| process.target.to_string());
        let readers: Vec<u32> = process.readers.iter().copied().collect();
        let mut gone = Vec::new();
        for session in &process.sessions {
            if let Some(found) = sessions.get_mut(session)
                && let Err(why) = found.offer(stream, data)
            {
                gone.push((*session, why));
            }
        }
        for (session, why) in gone {
            self.let_go(session, &why);
        }
        self.logged(&readers);
        if let Some(target) = target {
            self.compress(&target, chores);
        }
        Flow::More
    }

    /// Whether a process has to wait for a client that it is run for.
    fn is_held_up(&self, key: u32) -> bool {
        self.processes.get(&key).is_some_and(|process| {
            let mut sessions = process.sessions.iter();
            sessions.any(|one| self.sessions.get(one).is_some_and(Session::holds_up))
        })
    }

    /// Have a process wait for its clients, as long as these read anything now and then.
    fn hold_up(&mut self, key: u32) {
        let Some(process) = self.processes.get_mut(&key) else {
            return;
        };
        process.held_up = true;
        process.rest();
        let due = Instant::now() + self.options.patience;
        for session in &process.sessions {
            if self.sessions.get(session).is_some_and(Session::holds_up) {
                self.stalled.entry(*session).or_insert(due);
            }
        }
    }

    /// A client that a process may wait for has read something.
    pub(super) fn went_on(&mut self, session: u32) {
        let Some(found) = self.sessions.get(&session) else {
            return;
        };
        let (key, waits) = (found.process, found.holds_up());
        if !waits {
            self.stalled.remove(&session);
        } else if let Some(due) = self.stalled.get_mut(&session) {
            *due = Instant::now() + self.options.patience;
        }
        if let Some(key) = key {
            self.caught_up(key);
        }
    }

    /// A client of a process has caught up, or gone.
    pub(super) fn caught_up(&mut self, key: u32) {
        let held_up = self.processes.get(&key).is_some_and(|one| one.held_up);
        if held_up && !self.is_held_up(key) {
            self.listen(key);
        }
    }

    /// Read a process's outputs again, where nothing else keeps us from it.
    pub(super) fn listen(&mut self, key: u32) {
        let waits = self.is_held_up(key);
        let Some(process) = self.processes.get_mut(&key) else {
            return;
        };
        process.held_up = waits;
        if waits || process.log.as_ref().is_some_and(Log::is_full) {
            return;
        }
        for output in process.outputs.iter_mut().flatten() {
            if let Err(error) = output.set(Interest::READ) {
                self.journal.say(format!(
                    "{}: its output cannot be read: {error}",
                    process.target
                ));
            }
        }
    }

    /// A client cannot be served any more.
    pub(super) fn let_go(&mut self, session: u32, why: &Gone) {
        if let (Some(found), false) = (self.sessions.get(&session), matches!(why, Gone::Closed)) {
            self.journal
                .say(format!("a client of {} is cut off: {why}", found.target));
        }
        self.drop_session(session);
    }
}
