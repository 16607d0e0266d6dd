//! From clients to processes.

use std::io;

use super::Supervisor;
use crate::link::{Message, Part};
use crate::process::Fed;
use crate::protocol::Event;
use crate::streams::Typed;

impl Supervisor {
    /// A process can take more.
    pub(super) fn on_input(&mut self, key: u32) {
        let Some(process) = self.processes.get_mut(&key) else {
            return;
        };
        let fed = process.input.flush();
        self.fed(key, fed);
    }

    /// A client has typed.
    pub(super) fn typed(&mut self, session: u32, data: &[u8]) {
        let Some(found) = self.sessions.get_mut(&session) else {
            return;
        };
        let Some(key) = found.process.filter(|_| found.stdin) else {
            return;
        };
        let mut out = Vec::with_capacity(data.len());
        let typed = found.detach.feed(data, &mut out);
        self.feed(key, &out);
        if typed == Typed::Detached {
            let Some(found) = self.sessions.get_mut(&session) else {
                return;
            };
            // Input does not end with a client that will be back.
            found.stdin = false;
            let target = found.target.clone();
            self.publish(Event::Detach(&target));
            self.finish_session(session);
        }
    }

    /// A client will type no more.
    pub(super) fn typed_all(&mut self, session: u32) {
        let Some(found) = self.sessions.get_mut(&session) else {
            return;
        };
        if std::mem::replace(&mut found.input_ended, true) || !found.stdin {
            return;
        }
        let Some(key) = found.process else { return };
        let rest = found.detach.rest().to_vec();
        self.feed(key, &rest);
        let Some(process) = self.processes.get_mut(&key) else {
            return;
        };
        if process.stdin_once && !process.terminal {
            let ended = process
                .input
                .end()
                .map(|closed| if closed { Fed::None } else { Fed::Some });
            self.fed(key, ended);
        }
    }

    fn feed(&mut self, key: u32, data: &[u8]) {
        let Some(process) = self.processes.get_mut(&key).filter(|_| !data.is_empty()) else {
            return;
        };
        let fed = process.input.feed(data);
        self.fed(key, fed);
    }

    /// Hold up or release the clients, and let go of an input that is closed.
    fn fed(&mut self, key: u32, fed: io::Result<Fed>) {
        let Some(process) = self.processes.get_mut(&key) else {
            return;
        };
        let hold = match fed {
            Ok(Fed::Some) => process.input.is_full(),
            Ok(Fed::All | Fed::None) => false,
            Err(error) => {
                self.journal.say(format!(
                    "{}: its input cannot be written: {error}",
                    process.target
                ));
                false
            }
        };
        let closed = process.input.descriptor().is_none();
        let sessions: Vec<u32> = process.sessions.iter().copied().collect();
        if closed && !process.terminal {
            // As long as the keeper has a copy, the process does not see the end.
            let message = Message::Withdraw {
                target: process.target.clone(),
                parts: vec![Part::Stdin],
            };
            self.tell_keeper(&message, &[]);
        }
        for session in sessions {
            let Some(found) = self.sessions.get_mut(&session) else {
                continue;
            };
            found.held = hold;
            if let Err(error) = found.watch() {
                self.let_go(session, &error.into());
            }
        }
    }
}
