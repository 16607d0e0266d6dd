//! What keeper and supervisor say to each other. Not for others: both are the same program.
//!
//! One JSON object a packet. Neither ever waits for the other: what the socket does not take at once is queued with its
//! descriptors.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::poll::{Interest, Watched};
use crate::protocol::Target;
use crate::wire::{self, Received};

/// The longest message: two IDs and some words.
const MESSAGE_BYTES: usize = 4096;

/// What a deposited descriptor is.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// The process.
    Pidfd,
    /// The write end of its input.
    Stdin,
    /// The read end of its output.
    Stdout,
    /// The read end of its error output.
    Stderr,
    /// The master of its terminal.
    Terminal,
    /// A socket that reserves one of its ports.
    Port,
    /// What its questions for names come to, by UDP.
    Names,
    /// The same, by TCP.
    NamesTcp,
    /// Its network namespace, where its links have to be deleted by hand.
    Namespace,
}

/// How a child of the keeper ended, in the form of wait(2)'s status word.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Ended {
    /// With this code.
    Exited(u8),
    /// By this signal.
    Killed(u8),
}

impl From<knarr_sys::supervise::Ended> for Ended {
    fn from(ended: knarr_sys::supervise::Ended) -> Self {
        match ended {
            knarr_sys::supervise::Ended::Exited(code) => Self::Exited(code),
            knarr_sys::supervise::Ended::Killed(signal) => Self::Killed(signal),
        }
    }
}

impl From<Ended> for knarr_sys::supervise::Ended {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::Exited(code) => Self::Exited(code),
            Ended::Killed(signal) => Self::Killed(signal),
        }
    }
}

/// A message. The comment says what descriptors go with it.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase", tag = "message", deny_unknown_fields)]
pub enum Message {
    /// First to either: which supervisor this is, and its PID. The listening socket and the lock.
    Welcome {
        /// 1, then one more for each supervisor.
        generation: u64,
        /// The other's PID.
        pid: i32,
        /// The limit of open files in force before it was raised: what containers get.
        files: u64,
    },
    /// Descriptors to hold, or held. One for each part.
    Deposit {
        /// Whose.
        target: Target,
        /// Its PID.
        pid: i32,
        /// What they are.
        parts: Vec<Part>,
    },
    /// Close these parts of a deposit; all if none are named.
    Withdraw {
        /// Whose.
        target: Target,
        /// Which.
        parts: Vec<Part>,
    },
    /// To a new supervisor or heir: that was all.
    Ready,
    /// To the supervisor: a process that only the keeper could reap has ended.
    Exited {
        /// Which.
        pid: i32,
        /// How.
        ended: Ended,
    },
    /// To the supervisor: the keeper was asked to end.
    End,
    /// To the keeper: the supervisor ends, and so shall it.
    Bye,
}

/// A connection to the other process.
#[derive(Debug)]
pub struct Link {
    socket: Watched,
    queue: VecDeque<(Vec<u8>, Vec<OwnedFd>)>,
}

impl Link {
    /// Over a connected socket that does not block.
    #[must_use]
    pub fn new(socket: Watched) -> Self {
        Self {
            socket,
            queue: VecDeque::new(),
        }
    }

    /// Send a message with copies of the descriptors. An error means that the other is gone.
    pub fn send(&mut self, message: &Message, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let packet = serde_json::to_vec(message)?;
        if self.queue.is_empty() {
            match wire::send(&self.socket, &packet, descriptors) {
                Ok(()) => return Ok(()),
                Err(Errno::AGAIN) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let copies = descriptors
            .iter()
            .map(BorrowedFd::try_clone_to_owned)
            .collect::<io::Result<_>>()?;
        self.queue.push_back((packet, copies));
        self.socket.set(Interest::of(true, true))
    }

    /// Send what has been queued, as far as the socket takes it.
    pub fn flush(&mut self) -> io::Result<()> {
        while let Some((packet, descriptors)) = self.queue.front() {
            let borrowed: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
            match wire::send(&self.socket, packet, &borrowed) {
                Ok(()) => self.queue.pop_front(),
                Err(Errno::AGAIN) => return Ok(()),
                Err(error) => return Err(error.into()),
            };
        }
        self.socket.set(Interest::READ)
    }

    /// The next message. None where there is none yet; an error where the other is gone.
    pub fn receive(&mut self) -> io::Result<Option<(Message, Vec<OwnedFd>)>> {
        receive(&self.socket)
    }
}

/// The next message of a socket.
pub fn receive(socket: impl AsFd) -> io::Result<Option<(Message, Vec<OwnedFd>)>> {
    let mut buffer = vec![0; MESSAGE_BYTES];
    match wire::receive(socket, &mut buffer)? {
        Received::Packet(length, descriptors) => Ok(Some((
            serde_json::from_slice(&buffer[..length])?,
            descriptors,
        ))),
        Received::Nothing => Ok(None),
        Received::Oversized => Err(io::Error::from(io::ErrorKind::InvalidData)),
        Received::End => Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
    }
}
