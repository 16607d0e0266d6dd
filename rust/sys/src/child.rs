//! Cloning a child that interprets a program, and listening to what it reports.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use crate::interpret::{FAILED, Message, NOTE, WARNING, exit, interpret};
use crate::process::Interruption;
use crate::step::{Program, SLOTS};

/// Be born in the control group of `clone_args.cgroup` (include/uapi/linux/sched.h).
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Which namespaces, and where the child is born.
#[derive(Debug, Default)]
pub struct CloneArgs<'a> {
    /// `CLONE_NEW*`.
    pub namespaces: u64,
    /// A version 2 control group to be born in.
    pub cgroup: Option<BorrowedFd<'a>>,
}

/// What a child said.
#[derive(Debug)]
pub enum Report {
    /// A step failed, and the child has ended.
    Failed {
        /// Which step.
        step: usize,
        /// Its error number.
        errno: i32,
    },
    /// A step failed that need not succeed.
    Warning {
        /// Which step.
        step: usize,
        /// Its error number.
        errno: i32,
    },
    /// A note of the program.
    Note {
        /// The program's own number for it.
        kind: u32,
        /// A value.
        value: i64,
        /// A descriptor.
        descriptor: Option<OwnedFd>,
    },
    /// The child's end of the channel is closed: it executed its program, or it died.
    Closed,
}

/// A cloned child.
#[derive(Debug)]
pub struct Child {
    /// Its PID in the caller's namespace.
    pub pid: i32,
    /// The same, as a descriptor.
    pub pidfd: OwnedFd,
    /// The parent's end of the channel.
    pub channel: OwnedFd,
}

/// Clone a child that runs `program`. Slot 0 is the channel; `inputs` are the slots from 1 on.
///
/// Safe with threads about: the child makes nothing but system calls.
pub fn spawn(
    program: &mut Program,
    inputs: &[BorrowedFd<'_>],
    args: &CloneArgs<'_>,
) -> io::Result<Child> {
    if inputs.len() + 1 >= SLOTS {
        return Err(io::Error::from_raw_os_error(libc::E2BIG));
    }
    let (ours, theirs) = rustix::net::socketpair(
        rustix::net::AddressFamily::UNIX,
        rustix::net::SocketType::SEQPACKET,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )?;
    let mut numbers = Vec::with_capacity(inputs.len() + 1);
    numbers.push(theirs.as_raw_fd());
    numbers.extend(inputs.iter().map(AsRawFd::as_raw_fd));

    let mut pidfd: i32 = -1;
    // SAFETY: all zeroes is a valid clone_args.
    let mut clone: libc::clone_args = unsafe { std::mem::zeroed() };
    clone.flags = args.namespaces | u64::from(libc::CLONE_PIDFD.cast_unsigned());
    clone.pidfd = (&raw mut pidfd) as u64;
    clone.exit_signal = libc::SIGCHLD.cast_unsigned().into();
    if let Some(cgroup) = args.cgroup {
        clone.flags |= CLONE_INTO_CGROUP;
        clone.cgroup = cgroup.as_raw_fd().cast_unsigned().into();
    }
    let base = program.as_mut_ptr();
    let parents_end = ours.as_raw_fd();
    // No handler of ours may run in the child: it gets no signal until its dispositions are reset.
    let blocked = Interruption::block()?;
    // SAFETY: without CLONE_VM the child has its own copy of everything; it only interprets.
    let pid = unsafe {
        libc::syscall(
            libc::SYS_clone3,
            &raw const clone,
            size_of::<libc::clone_args>(),
        )
    };
    if pid == 0 {
        reset_signals();
        // With the parent's end open here, the parent's death would go unnoticed.
        // SAFETY: takes no pointers, and nothing in this process uses the descriptor.
        unsafe { libc::syscall(libc::SYS_close, parents_end) };
        // SAFETY: the program comes from a Builder, and this process runs nothing else.
        unsafe { interpret(base, &numbers) }
    }
    let error = io::Error::last_os_error();
    drop(blocked);
    if pid < 0 {
        return Err(error);
    }
    // SAFETY: the kernel has just put a descriptor there.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    let pid = i32::try_from(pid).map_err(io::Error::other)?;
    Ok(Child {
        pid,
        pidfd,
        channel: ours,
    })
}

/// In the child: every signal's default disposition, nothing blocked.
fn reset_signals() {
    // The kernel's sigaction: handler, flags, restorer, mask: all zeroes is SIG_DFL.
    let default = [0u64; 4];
    let mut signal = 1u64;
    while signal <= 64 {
        // SAFETY: a valid structure of the kernel's; SIGKILL and SIGSTOP fail and need no change.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), 0u64, 8u64) };
        signal += 1;
    }
    let none = 0u64;
    // SAFETY: a valid eight-byte set.
    let result = unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            &raw const none,
            0u64,
            8u64,
        )
    };
    if result != 0 {
        exit(125);
    }
}

impl Child {
    /// Wait for the child's next report.
    pub fn report(&self) -> io::Result<Report> {
        report(self.channel.as_fd())
    }

    /// Let a child go on that waits at a gate of its program.
    pub fn release(&self) -> io::Result<()> {
        rustix::net::send(&self.channel, &[1], rustix::net::SendFlags::NOSIGNAL)?;
        Ok(())
    }
}

/// Wait for the next report on a channel.
pub fn report(channel: BorrowedFd<'_>) -> io::Result<Report> {
    let mut bytes = [0u8; size_of::<Message>()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = rustix::net::RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        let mut vector = [io::IoSliceMut::new(&mut bytes)];
        match rustix::net::recvmsg(
            channel,
            &mut vector,
            &mut control,
            rustix::net::RecvFlags::CMSG_CLOEXEC,
        ) {
            Err(rustix::io::Errno::INTR) => {}
            // A child that died with unread data on its end resets the connection.
            Err(rustix::io::Errno::CONNRESET) => return Ok(Report::Closed),
            other => break other?.bytes,
        }
    };
    if received == 0 {
        return Ok(Report::Closed);
    }
    if received != bytes.len() {
        return Err(io::Error::from(io::ErrorKind::InvalidData));
    }
    let descriptor = control.drain().find_map(|message| match message {
        rustix::net::RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    let word =
        |at: usize| u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let (kind, step) = (word(0), word(4) as usize);
    let value = i64::from(word(8)) | i64::from(word(12)) << 32;
    let errno = i32::try_from(value).unwrap_or(libc::EIO);
    Ok(match kind {
        FAILED => Report::Failed { step, errno },
        WARNING => Report::Warning { step, errno },
        other => Report::Note {
            kind: other.wrapping_sub(NOTE),
            value,
            descriptor,
        },
    })
}
