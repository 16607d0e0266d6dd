//! Clients attached to processes.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use knarr_runtime::Kind;
use rustix::net::SocketType;
use rustix::net::sockopt::socket_type;

use super::{ExecPhase, Phase, Supervisor};
use crate::poll::{Interest, Ready, Token};
use crate::protocol::{Attach, Failure, Id, Target};
use crate::session::{Phase as SessionPhase, Session, Wanted};

/// How long a client that has got everything may take to close its side.
pub(super) const LINGER: Duration = Duration::from_secs(5);
/// How much is read of a client at once.
const TYPED_BYTES: usize = 32 * 1024;

impl Supervisor {
    pub(super) fn attach(
        &mut self,
        attach: Attach,
        descriptors: Vec<OwnedFd>,
    ) -> Result<(), Failure> {
        let target = attach.target.clone();
        let (history, live) = (attach.history.clone(), attach.live);
        let key = self.attachable(&target)?;
        let early = matches!(key, Attachable::Early);
        let session = self.session(attach, descriptors, early)?;
        if let Some(file) = history
            && let Err(failure) = self.recall(session, file, key)
        {
            self.drop_session(session);
            return Err(failure);
        }
        match key {
            _ if !live => self.finish_session(session),
            Attachable::Running(key) => self.join(session, key),
            Attachable::Ended => self.finish_session(session),
            Attachable::Early => {
                self.early
                    .entry(target.container)
                    .or_default()
                    .insert(session);
            }
        }
        Ok(())
    }

    fn attachable(&self, target: &Target) -> Result<Attachable, Failure> {
        let container = self.containers.get(&target.container);
        let Some(exec) = &target.exec else {
            return Ok(match container.map(|container| &container.phase) {
                None | Some(Phase::Starting(_)) => Attachable::Early,
                Some(Phase::Running(key)) => Attachable::Running(*key),
                Some(Phase::Exited(_)) => Attachable::Ended,
            });
        };
        match container.and_then(|container| container.execs.get(exec)) {
            Some(ExecPhase::Running(key)) => Ok(Attachable::Running(*key)),
            Some(ExecPhase::Exited(_)) => Ok(Attachable::Ended),
            Some(ExecPhase::Starting) | None => Err(Failure::missing(target)),
        }
    }

    /// A session of nobody yet; `awaited`: the process will be run for it.
    pub(super) fn session(
        &mut self,
        attach: Attach,
        descriptors: Vec<OwnedFd>,
        awaited: bool,
    ) -> Result<u32, Failure> {
        let Attach {
            target,
            stdin,
            stdout,
            stderr,
            multiplexed,
            detach_keys,
            initial,
            ..
        } = attach;
        let invalid =
            |what: &str| Failure::new(Kind::InvalidArgument, format!("attach to {target}: {what}"));
        let Ok([socket]) = <[OwnedFd; 1]>::try_from(descriptors) else {
            return Err(invalid("one descriptor is needed: the client's connection"));
        };
        if socket_type(&socket) != Ok(SocketType::STREAM) {
            return Err(invalid("the descriptor is not a connected stream socket"));
        }
        let key = self.key();
        let unavailable = |error: std::io::Error| {
            Failure::new(Kind::Unavailable, format!("attach to {target}: {error}"))
        };
        rustix::io::ioctl_fionbio(&socket, true).map_err(|error| unavailable(error.into()))?;
        let socket = self
            .poll
            .watch(socket, Token::Attach(key), Interest::HANGUP)
            .map_err(unavailable)?;
        let wanted = Wanted {
            stdin,
            outputs: [stdout, stderr],
            multiplexed,
        };
        let mut session = Session::new(
            target,
            socket,
            wanted,
            detach_keys,
            Arc::clone(&self.spill_directory),
        );
        session.initial = initial;
        session.awaited = awaited;
        self.sessions.insert(key, session);
        Ok(key)
    }

    /// Join a session to a process that runs, or that has just ended.
    pub(super) fn join(&mut self, session: u32, key: u32) {
        let Some(found) = self.sessions.get_mut(&session) else {
            return;
        };
        let Some(process) = self
            .processes
            .get_mut(&key)
            .filter(|process| !process.announced)
        else {
            return self.finish_session(session);
        };
        process.sessions.insert(session);
        found.process = Some(key);
        found.held = process.input.is_full();
        // A terminal has one output, and what it echoes is output.
        if process.terminal {
            found.raw();
        }
        let initial = std::mem::take(&mut found.initial);
        if let Err(error) = found.watch() {
            return self.let_go(session, &error.into());
        }
        self.typed(session, &initial);
    }

    pub(super) fn on_session(&mut self, session: u32, ready: Ready) {
        if ready.write {
            let Some(found) = self.sessions.get_mut(&session) else {
                return;
            };
            match found.flush() {
                Ok(true) if found.phase == SessionPhase::Closing => self.finish_session(session),
                Ok(_) => self.went_on(session),
                Err(why) => return self.let_go(session, &why),
            }
        }
        if ready.read && !self.read_session(session) {
            return;
        }
        if ready.hangup {
            self.hung_up(session, ready.read);
        }
    }

    /// Read what a client has sent. False if the session has ended thereby.
    fn read_session(&mut self, session: u32) -> bool {
        let mut buffer = vec![0; TYPED_BYTES];
        let Some(found) = self.sessions.get_mut(&session) else {
            return false;
        };
        let phase = found.phase;
        match found.read(&mut buffer) {
            Ok(None) => true,
            Ok(Some(0)) if phase == SessionPhase::Lingering => {
                self.drop_session(session);
                false
            }
            Ok(Some(0)) => {
                self.typed_all(session);
                self.watch_session(session)
            }
            Ok(Some(count)) => {
                if phase == SessionPhase::Open {
                    self.typed(session, &buffer[..count]);
                }
                true
            }
            Err(why) => {
                self.let_go(session, &why);
                false
            }
        }
    }

    fn watch_session(&mut self, session: u32) -> bool {
        let Some(found) = self.sessions.get_mut(&session) else {
            return false;
        };
        match found.watch() {
            Ok(()) => true,
            Err(error) => {
                self.let_go(session, &error.into());
                false
            }
        }
    }

    /// The client has closed its connection, or lost it.
    fn hung_up(&mut self, session: u32, may_have_sent: bool) {
        let Some(found) = self.sessions.get_mut(&session) else {
            return;
        };
        let may_have_typed = found.phase == SessionPhase::Open
            && found.stdin
            && found.process.is_some()
            && !found.input_ended;
        if may_have_typed && found.held {
            // It has typed something that the process cannot take yet: be told nothing until it can.
            found.silence();
        } else if !(may_have_typed && may_have_sent) {
            self.drop_session(session);
        }
    }

    /// No more output will come: send what is left, then close.
    pub(super) fn finish_session(&mut self, session: u32) {
        let Some(found) = self.sessions.get_mut(&session) else {
            return;
        };
        self.stalled.remove(&session);
        match found.finish() {
            Ok(true) => {
                self.lingering.insert(session, Instant::now() + LINGER);
            }
            Ok(false) => {}
            Err(why) => return self.let_go(session, &why),
        }
        if let Some(key) = found.process.take()
            && let Some(process) = self.processes.get_mut(&key)
        {
            process.sessions.remove(&session);
            self.caught_up(key);
        }
    }

    /// Close a client's connection now.
    pub(super) fn drop_session(&mut self, session: u32) {
        self.typed_all(session);
        self.lingering.remove(&session);
        self.stalled.remove(&session);
        let Some(found) = self.sessions.remove(&session) else {
            return;
        };
        found.shut_down();
        if let Some(key) = found.process
            && let Some(process) = self.processes.get_mut(&key)
        {
            process.sessions.remove(&session);
            self.caught_up(key);
        }
        if let Some(early) = self.early.get_mut(&found.target.container) {
            early.remove(&session);
            if early.is_empty() {
                self.early.remove(&found.target.container);
            }
        }
    }

    /// A container will not start: its clients have nothing to wait for.
    pub(super) fn close_early(&mut self, container: &Id) {
        for session in self.early.remove(container).unwrap_or_default() {
            self.drop_session(session);
        }
    }
}

/// Where a client can be attached.
#[derive(Clone, Copy, Debug)]
pub(super) enum Attachable {
    Running(u32),
    Ended,
    Early,
}
