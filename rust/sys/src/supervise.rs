//! What a process needs that is the parent of others: signals as a descriptor, a look at zombies
//! without reaping them, and exit codes of processes that were never its children.
//!
//! Nothing here keeps state. Signals that [`signals`] blocks stay blocked in children until they
//! unblock them, as the child that interprets Steps does.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

/// How a process ended, as waitid(2) and `PIDFD_GET_INFO` tell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It called exit with this code.
    Exited(u8),
    /// This signal ended it.
    Killed(u8),
}

impl Ended {
    /// Read the status word of wait(2).
    #[must_use]
    pub fn from_wait_status(status: i32) -> Self {
        let signal = status & 0x7f;
        if signal == 0 {
            Self::Exited(u8::try_from((status >> 8) & 0xff).unwrap_or(u8::MAX))
        } else {
            Self::Killed(u8::try_from(signal).unwrap_or(u8::MAX))
        }
    }
}

/// Block the signals and return a nonblocking descriptor from which they can be read.
pub fn signals(numbers: &[i32]) -> io::Result<OwnedFd> {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigemptyset initialises the set it is given.
    let mut set = unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        set.assume_init()
    };
    for &number in numbers {
        // SAFETY: the set is initialised; a number that is no signal is an error, not undefined.
        if unsafe { libc::sigaddset(&raw mut set, number) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    // SAFETY: the set is initialised, and no old mask is asked for.
    let blocked =
        unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) };
    if blocked != 0 {
        return Err(io::Error::from_raw_os_error(blocked));
    }
    // SAFETY: the set is initialised; -1 asks for a new descriptor.
    let fd = unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just made this descriptor for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A child that has ended, left as it is (a zombie): its PID and how it ended. None where there is no such child.
pub fn peek_zombie() -> io::Result<Option<(i32, Ended)>> {
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: `info` is writable memory of the right type.
    if unsafe { libc::waitid(libc::P_ALL, 0, info.as_mut_ptr(), options) } != 0 {
        let error = io::Error::last_os_error();
        return if error.raw_os_error() == Some(libc::ECHILD) {
            Ok(None)
        } else {
            Err(error)
        };
    }
    // SAFETY: zeroed is a valid siginfo_t, and waitid may have filled it in.
    let info = unsafe { info.assume_init() };
    // SAFETY: after waitid the fields of SIGCHLD are the ones in use, or all zero without a child.
    let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
    if pid == 0 {
        return Ok(None);
    }
    let value = u8::try_from(status & 0xff).unwrap_or(u8::MAX);
    let ended = if info.si_code == libc::CLD_EXITED {
        Ended::Exited(value)
    } else {
        Ended::Killed(value)
    };
    Ok(Some((pid, ended)))
}

/// Send a signal by number, real-time signals included.
pub fn send_signal(pidfd: impl AsFd, number: i32) -> io::Result<()> {
    let fd = pidfd.as_fd().as_raw_fd();
    // SAFETY: no pointer but a null one is passed, and the descriptor lives through the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            fd,
            number,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Send a signal by number to every process of a group. The caller knows whose group it is: that of a child that has
/// not been reaped.
pub fn send_signal_to_group(leader: i32, number: i32) -> io::Result<()> {
    if leader <= 1 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: no pointer is passed; -1 and 0, which would mean everybody, are excluded above.
    if unsafe { libc::kill(-leader, number) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// The first version of the kernel's `struct pidfd_info`.
#[repr(C)]
#[derive(Default)]
struct PidfdInfo {
    mask: u64,
    cgroup: u64,
    ids: [u32; 11],
    exit_code: i32,
}

const PIDFD_INFO_EXIT: u64 = 1 << 3;
/// `_IOWR(0xff, 11, struct pidfd_info)`, with the size of the first version.
const PIDFD_GET_INFO: u64 = 0xc040_ff0b;

/// How a process that need not be a child ended. None while it runs or is not reaped yet; an error
/// where the kernel cannot tell (before Linux 6.15).
pub fn ended(pidfd: impl AsFd) -> io::Result<Option<Ended>> {
    let mut info = PidfdInfo {
        mask: PIDFD_INFO_EXIT,
        ..PidfdInfo::default()
    };
    let fd = pidfd.as_fd().as_raw_fd();
    // The request's type differs between C libraries.
    #[allow(clippy::cast_possible_truncation, clippy::unnecessary_cast)]
    // SAFETY: the request's number carries the size of the structure that the kernel reads and fills in.
    let result = unsafe { libc::ioctl(fd, PIDFD_GET_INFO as _, &raw mut info) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok((info.mask & PIDFD_INFO_EXIT != 0).then(|| Ended::from_wait_status(info.exit_code)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wait_statuses_are_read_as_the_kernel_writes_them() {
        assert_eq!(Ended::from_wait_status(0), Ended::Exited(0));
        assert_eq!(Ended::from_wait_status(3 << 8), Ended::Exited(3));
        assert_eq!(Ended::from_wait_status(9), Ended::Killed(9));
        assert_eq!(Ended::from_wait_status(0x8b), Ended::Killed(11));
    }

    #[test]
    fn the_structure_has_the_size_its_request_says() {
        assert_eq!(size_of::<PidfdInfo>(), 64);
        assert_eq!((PIDFD_GET_INFO >> 16) & 0x3fff, 64);
    }
}
