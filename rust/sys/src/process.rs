//! Properties of this process and its threads.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};

/// All signals blocked in this thread until dropped.
#[derive(Debug)]
pub struct Interruption {
    before: libc::sigset_t,
}

impl Interruption {
    /// Block them.
    pub fn block() -> io::Result<Self> {
        let mut all = MaybeUninit::uninit();
        let mut before = MaybeUninit::uninit();
        // SAFETY: sigfillset initialises the set, pthread_sigmask the old one.
        unsafe {
            libc::sigfillset(all.as_mut_ptr());
            let error = libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
            if error != 0 {
                return Err(io::Error::from_raw_os_error(error));
            }
            Ok(Self {
                before: before.assume_init(),
            })
        }
    }
}

impl Drop for Interruption {
    fn drop(&mut self) {
        // SAFETY: a mask that the kernel gave us.
        unsafe {
            libc::pthread_sigmask(
                libc::SIG_SETMASK,
                &raw const self.before,
                std::ptr::null_mut(),
            )
        };
    }
}

fn prctl(option: i32, value: u64) -> io::Result<i32> {
    // SAFETY: the options used here take no pointers.
    let result = unsafe { libc::prctl(option, value, 0, 0, 0) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// Have all threads allocate from one heap: each further one is a mapping that every clone copies.
pub fn one_heap() {
    // SAFETY: takes no pointers. It can only fail for a number that glibc does not know.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1)
    };
}

/// Become the reaper of orphaned descendants.
pub fn become_subreaper() -> io::Result<()> {
    prctl(libc::PR_SET_CHILD_SUBREAPER, 1).map(drop)
}

/// Keep others of the same user from tracing this process or opening its executable through /proc.
pub fn forbid_tracing() -> io::Result<()> {
    prctl(libc::PR_SET_DUMPABLE, 0).map(drop)
}

/// Get `signal` when the parent dies.
pub fn die_with_parent(signal: i32) -> io::Result<()> {
    prctl(libc::PR_SET_PDEATHSIG, u64::from(signal.cast_unsigned())).map(drop)
}

/// Whether this process's bounding set holds the capability; `None` beyond the kernel's last.
#[must_use]
pub fn in_bounding_set(capability: u32) -> Option<bool> {
    prctl(libc::PR_CAPBSET_READ, u64::from(capability))
        .ok()
        .map(|found| found == 1)
}

/// The permitted capability set of this thread.
pub fn permitted_capabilities() -> io::Result<u64> {
    let header = [0x2008_0522u32, 0];
    let mut data = [0u32; 6];
    // SAFETY: a version 3 header and room for its two structures.
    let result = unsafe { libc::syscall(libc::SYS_capget, header.as_ptr(), data.as_mut_ptr()) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(u64::from(data[1]) | u64::from(data[4]) << 32)
}

/// This thread's capability to go beyond limits of quotas, given up until dropped: what is written meanwhile counts as anybody's.
#[derive(Debug)]
pub struct Limited {
    before: [u32; 6],
}

impl Limited {
    /// Give it up.
    pub fn begin() -> io::Result<Self> {
        let header = [0x2008_0522u32, 0];
        let mut before = [0u32; 6];
        // SAFETY: a version 3 header and room for its two structures.
        let result =
            unsafe { libc::syscall(libc::SYS_capget, header.as_ptr(), before.as_mut_ptr()) };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        let mut without = before;
        without[0] &= !(1 << CAP_SYS_RESOURCE);
        set_capabilities(&without)?;
        Ok(Self { before })
    }
}

impl Drop for Limited {
    fn drop(&mut self) {
        // A capability that is still permitted can always be made effective again.
        let _ = set_capabilities(&self.before);
    }
}

const CAP_SYS_RESOURCE: u32 = 24;

fn set_capabilities(sets: &[u32; 6]) -> io::Result<()> {
    let header = [0x2008_0522u32, 0];
    // SAFETY: a version 3 header and its two structures.
    if unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), sets.as_ptr()) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Soft and hard limit of a resource of this process.
pub fn rlimit(resource: u32) -> io::Result<(u64, u64)> {
    let mut limit = MaybeUninit::<libc::rlimit>::uninit();
    // SAFETY: getrlimit fills the structure.
    unsafe {
        if libc::getrlimit(resource, limit.as_mut_ptr()) != 0 {
            return Err(io::Error::last_os_error());
        }
        let limit = limit.assume_init();
        Ok((limit.rlim_cur, limit.rlim_max))
    }
}

/// Move the calling thread into a namespace (`CLONE_NEW*` as kind; for PIDs: its future children).
pub fn join_namespace(namespace: BorrowedFd<'_>, kind: i32) -> io::Result<()> {
    // SAFETY: takes no pointers.
    if unsafe { libc::setns(namespace.as_raw_fd(), kind) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Give the calling thread new namespaces of its own.
pub fn unshare(kinds: i32) -> io::Result<()> {
    // SAFETY: takes no pointers.
    if unsafe { libc::unshare(kinds) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Replace this process by the program that a descriptor names, with the same environment. Returns
/// only where that failed.
#[must_use]
pub fn execute(program: BorrowedFd<'_>, arguments: &[std::ffi::CString]) -> io::Error {
    let mut pointers: Vec<*const libc::c_char> =
        arguments.iter().map(|text| text.as_ptr()).collect();
    pointers.push(std::ptr::null());
    // SAFETY: C strings, and arrays that end with null pointers; nobody changes the environment meanwhile.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            program.as_raw_fd(),
            c"".as_ptr(),
            pointers.as_ptr(),
            libc::environ,
            libc::AT_EMPTY_PATH,
        )
    };
    io::Error::last_os_error()
}
