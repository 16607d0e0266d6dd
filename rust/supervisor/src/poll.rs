//! epoll with typed tokens.
//!
//! Invariant: a descriptor is taken out of the set before it is closed. The kernel does so by itself only for
//! the last copy of an open file, and here others hold copies of nearly everything.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};

use crate::streams::Stream;

/// What an event is about. The number is a key that is never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Token {
    /// The listening socket.
    Listener,
    /// The other of keeper and supervisor.
    Link,
    /// Signals to ourselves.
    Signals,
    /// A worker has finished something.
    Workers,
    /// A client's connection.
    Client(u32),
    /// A process has ended.
    Process(u32),
    /// A process has written.
    Output(u32, Stream),
    /// A process can take input.
    Input(u32),
    /// An attached client.
    Attach(u32),
    /// A client that reads a log.
    Logs(u32),
}

impl Token {
    fn encode(self) -> u64 {
        let (kind, key) = match self {
            Self::Listener => (0, 0),
            Self::Link => (1, 0),
            Self::Signals => (2, 0),
            Self::Workers => (3, 0),
            Self::Client(key) => (4, key),
            Self::Process(key) => (5, key),
            Self::Output(key, Stream::Stdout) => (6, key),
            Self::Output(key, Stream::Stderr) => (7, key),
            Self::Input(key) => (8, key),
            Self::Attach(key) => (9, key),
            Self::Logs(key) => (10, key),
        };
        kind << 32 | u64::from(key)
    }

    fn decode(value: u64) -> Option<Self> {
        let key = u32::try_from(value & 0xffff_ffff).ok()?;
        Some(match value >> 32 {
            0 => Self::Listener,
            1 => Self::Link,
            2 => Self::Signals,
            3 => Self::Workers,
            4 => Self::Client(key),
            5 => Self::Process(key),
            6 => Self::Output(key, Stream::Stdout),
            7 => Self::Output(key, Stream::Stderr),
            8 => Self::Input(key),
            9 => Self::Attach(key),
            10 => Self::Logs(key),
            _ => return None,
        })
    }
}

/// What is waited for. Hang-ups and errors are always told, except to [`Interest::NONE`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interest {
    read: bool,
    write: bool,
    hangup: bool,
}

impl Interest {
    /// Nothing at all.
    pub const NONE: Self = Self {
        read: false,
        write: false,
        hangup: false,
    };
    /// That the other side is gone.
    pub const HANGUP: Self = Self {
        read: false,
        write: false,
        hangup: true,
    };
    /// Something to read.
    pub const READ: Self = Self {
        read: true,
        write: false,
        hangup: true,
    };
    /// Room to write.
    pub const WRITE: Self = Self {
        read: false,
        write: true,
        hangup: true,
    };

    /// Reading and writing as given, and hang-ups.
    #[must_use]
    pub const fn of(read: bool, write: bool) -> Self {
        Self {
            read,
            write,
            hangup: true,
        }
    }

    fn flags(self) -> epoll::EventFlags {
        let mut flags = epoll::EventFlags::empty();
        flags.set(epoll::EventFlags::IN, self.read);
        flags.set(epoll::EventFlags::OUT, self.write);
        flags
    }
}

/// What has happened to a descriptor.
#[derive(Clone, Copy, Debug)]
pub struct Ready {
    /// Whose.
    pub token: Token,
    /// Something can be read, or the end is to be read.
    pub read: bool,
    /// Something can be written.
    pub write: bool,
    /// The other side is gone.
    pub hangup: bool,
}

/// A set of descriptors.
#[derive(Debug)]
pub struct Poll {
    epoll: OwnedFd,
}

impl Poll {
    /// An empty set.
    pub fn new() -> io::Result<Rc<Self>> {
        Ok(Rc::new(Self {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
        }))
    }

    /// Take a descriptor in.
    pub fn watch(
        self: &Rc<Self>,
        fd: OwnedFd,
        token: Token,
        interest: Interest,
    ) -> io::Result<Watched> {
        let mut watched = Watched {
            poll: Rc::clone(self),
            fd,
            token,
            interest: Interest::NONE,
        };
        watched.set(interest)?;
        Ok(watched)
    }

    /// Wait for events, at most this long.
    pub fn wait(&self, timeout: Option<Duration>) -> io::Result<Vec<Ready>> {
        let mut events = Vec::with_capacity(64);
        let timeout = timeout.map(|duration| Timespec {
            tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(duration.subsec_nanos()),
        });
        match epoll::wait(&self.epoll, spare_capacity(&mut events), timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(events.iter().filter_map(ready).collect())
    }
}

fn ready(event: &epoll::Event) -> Option<Ready> {
    let flags = event.flags;
    let hangup = flags.intersects(epoll::EventFlags::HUP | epoll::EventFlags::ERR);
    Some(Ready {
        token: Token::decode(event.data.u64())?,
        read: flags.contains(epoll::EventFlags::IN),
        write: flags.contains(epoll::EventFlags::OUT),
        hangup,
    })
}

/// A descriptor in the set; leaves it when dropped.
#[derive(Debug)]
pub struct Watched {
    poll: Rc<Poll>,
    fd: OwnedFd,
    token: Token,
    interest: Interest,
}

impl Watched {
    /// Change what is waited for.
    pub fn set(&mut self, interest: Interest) -> io::Result<()> {
        let data = epoll::EventData::new_u64(self.token.encode());
        match (self.interest.hangup, interest.hangup) {
            _ if self.interest == interest => {}
            (false, _) => epoll::add(&self.poll.epoll, &self.fd, data, interest.flags())?,
            (true, false) => epoll::delete(&self.poll.epoll, &self.fd)?,
            (true, true) => epoll::modify(&self.poll.epoll, &self.fd, data, interest.flags())?,
        }
        self.interest = interest;
        Ok(())
    }
}

impl AsFd for Watched {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        // It can only fail for a descriptor that is not in the set, which is what is wanted.
        let _ = self.set(Interest::NONE);
    }
}
