//! Keep a container from writing to this program through /proc/PID/exe (CVE-2019-5736).
//!
//! What a container executes as /proc/self/exe, or opens as /proc/1/exe in the instants before its
//! program begins, is this very file. So this process executes itself once more from a read-only
//! mount that is in nobody's mount table: no descriptor obtained through it can ever be written to.

use std::ffi::CString;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt;

use knarr_sys::mount::{MountAttr, set_attributes};
use rustix::fs::{CWD, StatVfsMountFlags, statvfs};
use rustix::mount::{OpenTreeFlags, open_tree};

use crate::error::{Kind, LaunchError};
use crate::plan::errno_text;

/// Go on only in a process whose executable can't be written to.
pub fn executable() -> Result<(), LaunchError> {
    const RDONLY: u64 = 1;
    let failed = |errno: i32| {
        LaunchError::new(
            Kind::Unavailable,
            format!(
                "execute this program from a read-only mount: {}",
                errno_text(errno)
            ),
        )
    };
    let path = "/proc/self/exe";
    if statvfs(path)
        .map_err(|errno| failed(errno.raw_os_error()))?
        .f_flag
        .contains(StatVfsMountFlags::RDONLY)
    {
        return Ok(());
    }
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = open_tree(CWD, path, flags).map_err(|errno| failed(errno.raw_os_error()))?;
    let attr = MountAttr {
        set: RDONLY,
        ..MountAttr::default()
    };
    set_attributes(tree.as_fd(), c"", false, &attr)
        .map_err(|error| failed(error.raw_os_error().unwrap_or(0)))?;
    let arguments: Result<Vec<CString>, _> = std::env::args_os()
        .map(|text| CString::new(text.into_vec()))
        .collect();
    let arguments = arguments.map_err(|_| failed(libc::EINVAL))?;
    let error = knarr_sys::process::execute(tree.as_fd(), &arguments);
    Err(failed(error.raw_os_error().unwrap_or(0)))
}
