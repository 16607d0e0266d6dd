//! The supervisor as its keeper sees it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use knarr_sys::supervise::Ended;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, pidfd_open, pidfd_send_signal, waitpid,
};

use super::endpoint::Endpoint;
use crate::link::{Link, Message, receive};
use crate::options::{Options, Role};
use crate::poll::{Interest, Poll, Token};
use crate::roles::start;

/// How long a killed process may take to go.
const DYING: Timespec = Timespec {
    tv_sec: 5,
    tv_nsec: 0,
};

/// A running supervisor.
#[derive(Debug)]
pub struct Supervised {
    /// Its PID.
    pub pid: i32,
    /// What is said to it and heard of it.
    pub link: Link,
    /// Since when it runs.
    pub since: Instant,
    pidfd: OwnedFd,
}

/// A supervisor that has introduced itself, not yet in an event loop.
#[derive(Debug)]
pub struct Introduced {
    pid: i32,
    socket: OwnedFd,
    pidfd: OwnedFd,
}

impl Supervised {
    /// Start one.
    pub fn spawn(options: &Options, poll: &Rc<Poll>) -> io::Result<Self> {
        let (ours, theirs) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        rustix::io::ioctl_fionbio(&ours, true)?;
        let child = start(options, Role::Supervisor, theirs)?;
        let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
        let introduced = Introduced {
            pid,
            socket: ours,
            pidfd: open(pid)?,
        };
        introduced.watch(poll)
    }

    /// Make sure that it is gone; how it ended, if it was a child of ours.
    pub fn bury(self) -> Option<Ended> {
        // Both can only fail for a process that has gone already.
        let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
        let _ = poll(&mut [PollFd::new(&self.pidfd, PollFlags::IN)], Some(&DYING));
        let (_, status) = waitpid(Some(Pid::from_raw(self.pid)?), WaitOptions::NOHANG).ok()??;
        Some(Ended::from_wait_status(status.as_raw()))
    }
}

impl Introduced {
    /// Take it into an event loop.
    pub fn watch(self, poll: &Rc<Poll>) -> io::Result<Supervised> {
        let link = Link::new(poll.watch(self.socket, Token::Link, Interest::READ)?);
        Ok(Supervised {
            pid: self.pid,
            link,
            since: Instant::now(),
            pidfd: self.pidfd,
        })
    }
}

fn open(pid: i32) -> io::Result<OwnedFd> {
    let pid = Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidData)?;
    Ok(pidfd_open(pid, PidfdFlags::empty())?)
}

/// Be introduced by a supervisor whose keeper has died: the endpoint, the supervisor, and its generation and
/// limit of open files.
pub fn welcomed(
    options: &Options,
    socket: OwnedFd,
) -> io::Result<(Endpoint, Introduced, (u64, u64))> {
    let mut waiting = [PollFd::from_borrowed_fd(socket.as_fd(), PollFlags::IN)];
    let patience = Timespec::try_from(Duration::from_secs(10)).map_err(io::Error::other)?;
    poll(&mut waiting, Some(&patience))?;
    let Some((
        Message::Welcome {
            generation,
            pid,
            files,
        },
        descriptors,
    )) = receive(&socket)?
    else {
        return Err(io::Error::from(io::ErrorKind::InvalidData));
    };
    let [listener, lock] = <[OwnedFd; 2]>::try_from(descriptors)
        .map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    let endpoint = Endpoint::taken_over(lock, listener, options);
    Ok((
        endpoint,
        Introduced {
            pid,
            pidfd: open(pid)?,
            socket,
        },
        (generation, files),
    ))
}
