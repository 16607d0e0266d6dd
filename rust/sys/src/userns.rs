//! User namespaces for mounts: nothing lives in one but its map of IDs.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};

use crate::pidfd;
use crate::process::Interruption;

/// So many IDs from `inside` on (of the file system) are those from `outside` on (of the host).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The first ID inside the namespace.
    pub inside: u32,
    /// The first ID outside.
    pub outside: u32,
    /// How many.
    pub size: u32,
}

/// A namespace with these maps of users and groups.
///
/// It needs a process to begin with, which does nothing and is gone when this returns.
pub fn with_maps(users: &[Range], groups: &[Range]) -> io::Result<OwnedFd> {
    let holder = Holder::start()?;
    let directory = format!("/proc/{}", holder.pid);
    fs::write(format!("{directory}/uid_map"), lines(users))?;
    fs::write(format!("{directory}/gid_map"), lines(groups))?;
    Ok(File::open(format!("{directory}/ns/user"))?.into())
}

fn lines(ranges: &[Range]) -> String {
    let line = |range: &Range| format!("{} {} {}", range.inside, range.outside, range.size);
    ranges.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// A process in a new user namespace, which waits to be killed.
struct Holder {
    pid: i32,
    pidfd: OwnedFd,
}

impl Holder {
    fn start() -> io::Result<Self> {
        let mut pidfd: i32 = -1;
        // SAFETY: all zeroes is a valid clone_args.
        let mut clone: libc::clone_args = unsafe { std::mem::zeroed() };
        clone.flags = u64::from((libc::CLONE_NEWUSER | libc::CLONE_PIDFD).cast_unsigned());
        clone.pidfd = (&raw mut pidfd) as u64;
        clone.exit_signal = libc::SIGCHLD.cast_unsigned().into();
        let parent = std::process::id();
        // No handler of ours may run in the child: it keeps every signal blocked but the one that ends it.
        let blocked = Interruption::block()?;
        // SAFETY: without CLONE_VM the child has its own copy of everything; it makes system calls only.
        let pid = unsafe {
            libc::syscall(
                libc::SYS_clone3,
                &raw const clone,
                size_of::<libc::clone_args>(),
            )
        };
        if pid == 0 {
            // SAFETY: these calls take no pointers but to a local of this frame.
            unsafe {
                libc::syscall(
                    libc::SYS_prctl,
                    libc::PR_SET_PDEATHSIG,
                    libc::SIGKILL,
                    0,
                    0,
                    0,
                );
                while libc::syscall(libc::SYS_getppid) == i64::from(parent) {
                    let second = [1i64, 0];
                    libc::syscall(libc::SYS_nanosleep, second.as_ptr(), 0);
                }
                loop {
                    libc::syscall(libc::SYS_exit_group, 0);
                }
            }
        }
        let error = io::Error::last_os_error();
        drop(blocked);
        if pid < 0 {
            return Err(error);
        }
        Ok(Self {
            pid: i32::try_from(pid).map_err(io::Error::other)?,
            // SAFETY: the kernel has just put a descriptor there.
            pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) },
        })
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // It has no other way to end, and is this process's own child: neither can fail.
        let _ = pidfd::signal(self.pidfd.as_fd(), libc::SIGKILL);
        let _ = pidfd::wait(self.pidfd.as_fd(), true, false);
    }
}
