//! A process under supervision: a container's first, or an exec.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use rustix::io::Errno;

use crate::exits::Exit;
use crate::logs::Log;
use crate::poll::{Interest, Watched};
use crate::protocol::Target;
use crate::streams::Stream;

/// The most input that waits for a process before its clients are held up.
pub const INPUT_BYTES: usize = 64 * 1024;

/// A process, its streams and who is attached to them.
#[derive(Debug)]
#[allow(clippy::struct_excessive_bools)] // each is a fact of its own
pub struct Process {
    /// Which.
    pub target: Target,
    /// In the host's PID namespace.
    pub pid: i32,
    /// When it came to be, in ticks since boot.
    pub ticks: u64,
    /// The same, in the event loop until it has ended.
    pub pidfd: Option<Watched>,
    /// Whether it is our own child, which we must reap.
    pub child: bool,
    /// Whether its output is a terminal's.
    pub terminal: bool,
    /// Whether its input ends with its first client.
    pub stdin_once: bool,
    /// Where its input goes.
    pub input: Input,
    /// Where its outputs come from; None once at their end.
    pub outputs: [Option<Watched>; 2],
    /// Whether more room was made for an output.
    pub wide: [bool; 2],
    /// Whether its outputs are left alone until somebody has caught up.
    pub held_up: bool,
    /// Where its output is logged.
    pub log: Option<Log>,
    /// Keys of the sessions.
    pub sessions: BTreeSet<u32>,
    /// Keys of those who follow the log.
    pub readers: BTreeSet<u32>,
    /// How it ended. Its output may not have been drained yet.
    pub exit: Option<Exit>,
    /// Whether the exit has been announced. Whoever still holds its outputs is read from, for nobody.
    pub announced: bool,
    /// When to stop waiting: for the end of output, or for somebody to tell how it ended.
    pub deadline: Option<Instant>,
}

impl Process {
    /// Whether all of its output has been read.
    #[must_use]
    pub fn drained(&self) -> bool {
        self.outputs.iter().all(Option::is_none)
    }

    /// Leave its outputs alone: it waits once its pipes are full.
    pub fn rest(&mut self) {
        for output in self.outputs.iter_mut().flatten() {
            // A descriptor that is in the set can be taken out of it.
            let _ = output.set(Interest::NONE);
        }
    }

    /// Take an output from the event loop, for good.
    pub fn close_output(&mut self, stream: Stream) {
        self.outputs[stream.index()] = None;
    }
}

/// What came of giving input to a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fed {
    /// It has taken everything.
    All,
    /// Some waits: hold up the clients.
    Some,
    /// It takes no input any more.
    None,
}

/// The write end of a process's input and what waits to go there.
///
/// It is in the event loop only while something waits: a process that does not read costs nothing.
#[derive(Debug, Default)]
pub struct Input {
    pipe: Option<Watched>,
    queue: Vec<u8>,
    ends: bool,
}

impl Input {
    /// Over a descriptor that does not block and is watched for nothing.
    #[must_use]
    pub fn new(pipe: Option<Watched>) -> Self {
        Self {
            pipe,
            queue: Vec::new(),
            ends: false,
        }
    }

    /// Whether it takes input.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.pipe.is_some() && !self.ends
    }

    /// Whether clients have to wait.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.queue.len() >= INPUT_BYTES
    }

    /// Write, or keep for later.
    pub fn feed(&mut self, data: &[u8]) -> io::Result<Fed> {
        if !self.is_open() {
            return Ok(Fed::None);
        }
        self.queue.extend_from_slice(data);
        self.flush()
    }

    /// Write what waits.
    pub fn flush(&mut self) -> io::Result<Fed> {
        let Some(pipe) = &mut self.pipe else {
            return Ok(Fed::None);
        };
        let mut written = 0;
        let result = loop {
            if written == self.queue.len() {
                break Ok(Fed::All);
            }
            match rustix::io::write(&*pipe, &self.queue[written..]) {
                Ok(count) => written += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break Ok(Fed::Some),
                // The process has closed its input: nobody will ever read this.
                Err(Errno::PIPE | Errno::IO) => break Ok(Fed::None),
                Err(error) => break Err(error.into()),
            }
        };
        self.queue.drain(..written);
        if self.queue.is_empty() {
            self.queue = Vec::new();
        }
        match result {
            Ok(Fed::Some) => pipe.set(Interest::WRITE)?,
            Ok(Fed::All) if !self.ends => pipe.set(Interest::NONE)?,
            _ => self.close(),
        }
        result
    }

    /// Close it once everything has been written; whether it is closed now.
    pub fn end(&mut self) -> io::Result<bool> {
        self.ends = true;
        self.flush()?;
        Ok(self.pipe.is_none())
    }

    /// Close it now.
    pub fn close(&mut self) {
        *self = Self {
            ends: true,
            ..Self::default()
        };
    }

    /// The descriptor, while it is open.
    #[must_use]
    pub fn descriptor(&self) -> Option<&Watched> {
        self.pipe.as_ref()
    }
}

/// What a process is started with: our ends of its streams.
#[derive(Debug, Default)]
pub struct Ends {
    /// The write end of its input.
    pub stdin: Option<OwnedFd>,
    /// The read end of its output.
    pub stdout: Option<OwnedFd>,
    /// The read end of its error output.
    pub stderr: Option<OwnedFd>,
    /// The master of its terminal, instead of these.
    pub terminal: Option<OwnedFd>,
}

impl Ends {
    /// Make none of them block us. The other ends are files of their own and block as ever.
    pub fn unblock(&self) -> io::Result<()> {
        for fd in [&self.stdin, &self.stdout, &self.stderr, &self.terminal]
            .into_iter()
            .flatten()
        {
            rustix::io::ioctl_fionbio(fd.as_fd(), true)?;
        }
        Ok(())
    }
}
