//! The parts of the new mount API that rustix lacks.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// `struct mount_attr` of `mount_setattr(2)`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct MountAttr {
    /// `MOUNT_ATTR_*` to set.
    pub set: u64,
    /// `MOUNT_ATTR_*` to clear.
    pub clear: u64,
    /// One of `MS_SHARED`, `MS_SLAVE`, `MS_PRIVATE`, `MS_UNBINDABLE`, or 0.
    pub propagation: u64,
    /// A user namespace for `MOUNT_ATTR_IDMAP`.
    pub userns: u64,
}

impl MountAttr {
    /// The bytes the kernel reads.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        [self.set, self.clear, self.propagation, self.userns]
            .iter()
            .flat_map(|word| word.to_ne_bytes())
            .collect()
    }
}

/// Change a mount, or with `recursive` a whole tree of them.
pub fn set_attributes(
    mount: BorrowedFd<'_>,
    path: &CStr,
    recursive: bool,
    attr: &MountAttr,
) -> io::Result<()> {
    let mut flags = libc::AT_EMPTY_PATH;
    if recursive {
        flags |= libc::AT_RECURSIVE;
    }
    // SAFETY: a C string and a structure of the size given.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            path.as_ptr(),
            flags,
            std::ptr::from_ref(attr),
            size_of::<MountAttr>(),
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
