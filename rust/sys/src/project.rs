//! Project quotas: a limit on all that is below a directory, kept by ext4 and xfs (`quotactl(2)`, `ioctl_xfs_fssetxattr(2)`).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

const FSGETXATTR: libc::c_ulong = 0x801c_581f;
const FSSETXATTR: libc::c_ulong = 0x401c_5820;
/// What is made in a directory belongs to its project.
const INHERIT: u32 = 0x200;

const QUOTACTL_FD: libc::c_long = 443;
const PROJECT: u32 = 2;
const GET_QUOTA: u32 = 0x80_0007;
const SET_QUOTA: u32 = 0x80_0008;
const GET_STATE: u32 = 0x5805;
/// Of the state: limits of projects are enforced.
const ENFORCED: u16 = 1 << 5;
/// Of a quota: its limits of blocks are meant.
const BLOCK_LIMITS: u32 = 1;
const BLOCK: u64 = 1024;

/// `struct fsxattr`.
#[derive(Default)]
#[repr(C)]
struct Attributes {
    flags: u32,
    extent_size: u32,
    extents: u32,
    project: u32,
    copied_extent_size: u32,
    padding: [u8; 8],
}

/// `struct if_dqblk`.
#[derive(Default)]
#[repr(C)]
struct Quota {
    hard: u64,
    soft: u64,
    used: u64,
    hard_inodes: u64,
    soft_inodes: u64,
    used_inodes: u64,
    block_time: u64,
    inode_time: u64,
    valid: u32,
}

/// What a project may use and does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Bytes that it may use; 0 for any number.
    pub limit: u64,
    /// Bytes that it uses.
    pub used: u64,
}

fn quotactl<T>(file: BorrowedFd<'_>, command: u32, project: u32, about: &mut T) -> io::Result<()> {
    // SAFETY: the callers give the structure of the command, or one that is larger.
    let result = unsafe {
        libc::syscall(
            QUOTACTL_FD,
            file.as_raw_fd(),
            command << 8 | PROJECT,
            project,
            std::ptr::from_mut(about),
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Whether the file system that something open lies on holds projects to their limits. False also where the kernel (before
/// 5.14) cannot be asked.
#[must_use]
pub fn enforced(file: BorrowedFd<'_>) -> bool {
    // `struct fs_quota_stat` begins with a version and, at its third byte, the flags.
    let mut state = [0u64; 32];
    state[0] = 1;
    quotactl(file, GET_STATE, 0, &mut state).is_ok() && {
        let first = state[0].to_ne_bytes();
        u16::from_ne_bytes([first[2], first[3]]) & ENFORCED != 0
    }
}

fn attributes(file: BorrowedFd<'_>) -> io::Result<Attributes> {
    let mut found = Attributes::default();
    // SAFETY: the kernel fills the structure.
    if unsafe { libc::ioctl(file.as_raw_fd(), FSGETXATTR as _, &raw mut found) } == 0 {
        Ok(found)
    } else {
        Err(io::Error::last_os_error())
    }
}

/// The project that an open file or directory belongs to; 0 for none.
pub fn of(file: BorrowedFd<'_>) -> io::Result<u32> {
    Ok(attributes(file)?.project)
}

/// Make a directory a project's, and all that is made in it from now on.
pub fn assign(directory: BorrowedFd<'_>, project: u32) -> io::Result<()> {
    let mut wanted = attributes(directory)?;
    wanted.project = project;
    wanted.flags |= INHERIT;
    // SAFETY: the kernel reads the structure.
    if unsafe { libc::ioctl(directory.as_raw_fd(), FSSETXATTR as _, &raw mut wanted) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// What a project of a file system may use and does.
pub fn usage(file: BorrowedFd<'_>, project: u32) -> io::Result<Usage> {
    let mut quota = Quota::default();
    match quotactl(file, GET_QUOTA, project, &mut quota) {
        // xfs knows nothing of a project that nobody has used yet.
        Err(error) if error.raw_os_error() != Some(libc::ENOENT) => return Err(error),
        _ => {}
    }
    Ok(Usage {
        limit: quota.hard.saturating_mul(BLOCK),
        used: quota.used,
    })
}

/// Limit what a project may use, in bytes; 0 takes the limit away.
pub fn limit(file: BorrowedFd<'_>, project: u32, bytes: u64) -> io::Result<()> {
    let blocks = bytes.div_ceil(BLOCK);
    let mut quota = Quota {
        hard: blocks,
        soft: blocks,
        valid: BLOCK_LIMITS,
        ..Quota::default()
    };
    quotactl(file, SET_QUOTA, project, &mut quota)
}
