//! Processes by descriptor: signals, waiting, exit status.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// With this exit status.
    Exited(i32),
    /// By this signal.
    Killed(i32),
}

impl Ended {
    /// The status as shells know it: 128 and the number for a signal.
    #[must_use]
    pub const fn code(self) -> i32 {
        match self {
            Self::Exited(code) => code,
            Self::Killed(signal) => 128 + signal,
        }
    }
}

/// A descriptor of a running (or not yet reaped) process.
pub fn open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: takes no pointers.
    let raw = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if raw < 0 {
        return Err(io::Error::last_os_error());
    }
    let raw = i32::try_from(raw).map_err(io::Error::other)?;
    // SAFETY: a fresh descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// Send a signal.
pub fn signal(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    // SAFETY: no siginfo is passed.
    let result =
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, 0, 0) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// How a child ended; `None` while it runs (only where `block` is false). With `keep` it stays a
/// zombie, to be waited for again.
pub fn wait(pidfd: BorrowedFd<'_>, block: bool, keep: bool) -> io::Result<Option<Ended>> {
    let mut options = libc::WEXITED;
    if !block {
        options |= libc::WNOHANG;
    }
    if keep {
        options |= libc::WNOWAIT;
    }
    loop {
        let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
        // SAFETY: waitid fills the structure; all zeroes is a valid one.
        let (result, info) = unsafe {
            let result = libc::waitid(
                libc::P_PIDFD,
                pidfd.as_raw_fd().cast_unsigned(),
                info.as_mut_ptr(),
                options,
            );
            (result, info.assume_init())
        };
        if result != 0 {
            let error = io::Error::last_os_error();
            if error.kind() == io::ErrorKind::Interrupted {
                continue;
            }
            return Err(error);
        }
        // SAFETY: waitid succeeded, so the SIGCHLD fields (or zeroes) are there.
        let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
        return Ok(match (pid, info.si_code) {
            (0, _) => None,
            (_, libc::CLD_EXITED) => Some(Ended::Exited(status)),
            _ => Some(Ended::Killed(status)),
        });
    }
}
