//! A client attached to a process: its socket, what it wants, what it has not read yet.
//!
//! A session is *open* until its process has ended or it detaches; then *closing* while what it has not read is
//! sent; then *lingering*: our side is shut down, and what it still sends is thrown away until it closes
//! its side, because closing a socket with unread input would take the last output from the client.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendFlags, Shutdown, sendmsg, shutdown};

use crate::poll::{Interest, Watched};
use crate::protocol::Target;
use crate::streams::{Detach, Overrun, Spill, Stream, header, widen_socket};

/// The most that is kept for a client in a file.
pub const LAG_BYTES: u64 = 256 * 1024 * 1024;
/// The most that is sent to one client before others have their turn.
const TURN_BYTES: usize = 1024 * 1024;

/// Where a session is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Output is coming.
    Open,
    /// No more is coming; what there is is being sent.
    Closing,
    /// All has been sent.
    Lingering,
}

/// Why a client is let go.
#[derive(Debug, thiserror::Error)]
pub enum Gone {
    /// It has closed its connection.
    #[error("it has closed the connection")]
    Closed,
    /// It lags too far behind.
    #[error("{0}")]
    Overrun(#[from] Overrun),
    /// A process waits for it, and it reads nothing.
    #[error("a process waits for it, and it has read nothing for {} s", .0.as_secs())]
    Stalled(Duration),
    /// Its socket failed.
    #[error("its connection failed: {0}")]
    Failed(#[from] io::Error),
}

impl From<Errno> for Gone {
    fn from(error: Errno) -> Self {
        match error {
            Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN => Self::Closed,
            other => Self::Failed(other.into()),
        }
    }
}

/// An attached client.
#[derive(Debug)]
#[allow(clippy::struct_excessive_bools)] // each is a fact of its own
pub struct Session {
    /// The process.
    pub target: Target,
    /// Its key; None before the container has started.
    pub process: Option<u32>,
    /// Whether it may type.
    pub stdin: bool,
    /// Finds its detach keys.
    pub detach: Detach,
    /// What it has sent before the process could take it.
    pub initial: Vec<u8>,
    /// Where it is in its life.
    pub phase: Phase,
    /// Whether it will type no more.
    pub input_ended: bool,
    /// Whether it must wait until the process takes input.
    pub held: bool,
    /// Whether somebody else is sending it what has been logged; what is new waits until then.
    pub recalling: bool,
    /// Whether the process is run for it: one that writes faster than it reads has to wait, as in a pipeline. Others only
    /// look on, and are let go where they lag too far behind.
    pub awaited: bool,
    socket: Watched,
    wants: [bool; 2],
    multiplexed: bool,
    wide: bool,
    spill: Spill,
}

/// What a client asked for.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// Whether it types.
    pub stdin: bool,
    /// Output, error output.
    pub outputs: [bool; 2],
    /// Whether output is framed.
    pub multiplexed: bool,
}

impl Session {
    /// A session over a connected socket that does not block.
    #[must_use]
    pub fn new(
        target: Target,
        socket: Watched,
        wanted: Wanted,
        detach_keys: Vec<u8>,
        directory: Arc<Path>,
    ) -> Self {
        Self {
            target,
            process: None,
            stdin: wanted.stdin,
            detach: Detach::new(detach_keys),
            initial: Vec::new(),
            phase: Phase::Open,
            input_ended: false,
            held: true,
            recalling: false,
            awaited: false,
            socket,
            wants: wanted.outputs,
            multiplexed: wanted.multiplexed,
            wide: false,
            spill: Spill::new(directory, LAG_BYTES),
        }
    }

    /// What it wants of outputs, whether framed, and another descriptor of its connection.
    pub fn recall(&mut self) -> io::Result<([bool; 2], bool, OwnedFd)> {
        let socket = self.socket.as_fd().try_clone_to_owned()?;
        self.recalling = true;
        Ok((self.wants, self.multiplexed, socket))
    }

    /// Whether the process has to wait for it.
    #[must_use]
    pub fn holds_up(&self) -> bool {
        self.awaited && self.spill.is_nearly_full()
    }

    /// The output of a terminal is one stream, and never framed.
    pub fn raw(&mut self) {
        self.multiplexed = false;
    }

    /// Give it output. What it does not take at once is kept for it.
    pub fn offer(&mut self, stream: Stream, data: &[u8]) -> Result<(), Gone> {
        if self.phase != Phase::Open || !self.wants[stream.index()] || data.is_empty() {
            return Ok(());
        }
        let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
        let head = if self.multiplexed {
            header(stream, length).to_vec()
        } else {
            Vec::new()
        };
        let mut sent = 0;
        if self.spill.is_empty() && !self.recalling {
            let slices = [IoSlice::new(&head), IoSlice::new(data)];
            let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            match sendmsg(
                &self.socket,
                &slices,
                &mut SendAncillaryBuffer::default(),
                flags,
            ) {
                Ok(count) => sent = count,
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        if sent < head.len() + data.len() {
            if !self.wide {
                self.wide = true;
                widen_socket(&self.socket);
            }
            let from = sent.saturating_sub(head.len());
            self.spill.push(&head[sent.min(head.len())..])?;
            self.spill.push(&data[from..])?;
            self.watch()?;
        }
        Ok(())
    }

    /// Send what has been kept. True once nothing is left.
    pub fn flush(&mut self) -> Result<bool, Gone> {
        if self.recalling {
            return Ok(false);
        }
        let mut turn = 0;
        while !self.spill.is_empty() && turn < TURN_BYTES {
            let front = self.spill.front()?;
            let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            match rustix::net::send(&self.socket, front, flags) {
                Ok(count) => {
                    self.spill.advance(count);
                    turn += count;
                }
                Err(Errno::AGAIN | Errno::INTR) => break,
                Err(error) => return Err(error.into()),
            }
        }
        self.watch()?;
        Ok(self.spill.is_empty())
    }

    /// Read what the client has typed. None where there is nothing, an empty count at its end.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<Option<usize>, Gone> {
        match rustix::io::read(&self.socket, buffer) {
            Ok(count) => Ok(Some(count)),
            Err(Errno::AGAIN | Errno::INTR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// No more output will come. True where the client has got everything and only has to close.
    pub fn finish(&mut self) -> Result<bool, Gone> {
        if self.phase == Phase::Lingering {
            return Ok(false);
        }
        self.phase = Phase::Closing;
        if !self.flush()? {
            return Ok(false);
        }
        self.phase = Phase::Lingering;
        shutdown(&self.socket, Shutdown::Write)?;
        self.watch()?;
        Ok(true)
    }

    /// Be told of nothing until the next [`Session::watch`].
    pub fn silence(&mut self) {
        // A descriptor that is in the set can be taken out of it.
        let _ = self.socket.set(Interest::NONE);
    }

    /// Close both directions: the daemon may still have a copy of the connection.
    pub fn shut_down(&self) {
        // The client may have been quicker.
        let _ = shutdown(&self.socket, Shutdown::Both);
    }

    /// Wait for what makes sense now.
    pub fn watch(&mut self) -> io::Result<()> {
        let listens = !self.input_ended && (!self.held || self.phase != Phase::Open);
        self.socket.set(Interest::of(
            listens,
            !self.spill.is_empty() && !self.recalling,
        ))
    }
}
