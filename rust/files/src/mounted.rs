//! File systems of volumes: mounted on the host, where everybody sees them, for as long as a container uses them.
//!
//! mount(2) and not the newer calls: it takes any file system's options in one string, as people write them down, of
//! any length, and says what `mount` says. Everything here may take as long as a dead server likes: for threads of their own.

use std::ffi::CStr;
use std::io;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
use rustix::io::Errno;
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount as mount_at, mount_change,
    mount_remount, unmount as unmount_at,
};

const MOUNT_ROOT: u64 = 0x2000;

/// What is mounted, in the words of mount(2).
#[derive(Debug)]
pub struct FileSystem<'a> {
    /// A device, a directory, or what else the file system calls its source.
    pub source: &'a str,
    /// Its type; a bind has any.
    pub kind: &'a str,
    /// `MS_*`, those of propagation left out.
    pub flags: u32,
    /// `MS_SHARED`, `MS_SLAVE`, ..., with `MS_REC` where it is recursive; 0 for what the mount gets by itself.
    pub propagation: u32,
    /// The file system's own options.
    pub data: &'a CStr,
}

/// Mount it at a directory, unless something is mounted there already: so it may be asked for again. What was
/// half done is undone.
pub fn mount(place: &Path, wanted: &FileSystem<'_>) -> io::Result<()> {
    if is_mounted(place)? {
        return Ok(());
    }
    let flags = MountFlags::from_bits_retain(wanted.flags);
    mount_at(wanted.source, place, wanted.kind, flags, wanted.data)?;
    let finished = finish(place, wanted, flags);
    if finished.is_err() {
        // The error to tell is the one before it.
        let _ = unmount(place);
    }
    Ok(finished?)
}

/// What takes a call of its own: propagation, and the attributes of a bind.
fn finish(place: &Path, wanted: &FileSystem<'_>, flags: MountFlags) -> Result<(), Errno> {
    if wanted.propagation != 0 {
        mount_change(
            place,
            MountPropagationFlags::from_bits_retain(wanted.propagation),
        )?;
    }
    let ours = MountFlags::BIND | MountFlags::REC | MountFlags::SILENT;
    if flags.contains(MountFlags::BIND) && !(flags - ours).is_empty() {
        mount_remount(place, flags - MountFlags::REC, c"")?;
    }
    Ok(())
}

/// Unmount what is mounted at a directory; nothing is no error. It goes at once for whoever looks there, and
/// altogether with the last container that has it.
pub fn unmount(place: &Path) -> io::Result<()> {
    match unmount_at(place, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        // Not a mount point.
        Err(Errno::INVAL) => Ok(()),
        other => Ok(other?),
    }
}

fn is_mounted(place: &Path) -> Result<bool, Errno> {
    let flags = AtFlags::NO_AUTOMOUNT | AtFlags::SYMLINK_NOFOLLOW;
    let found = statx(CWD, place, flags, StatxFlags::empty())?;
    Ok(found.stx_attributes.bits() & MOUNT_ROOT != 0)
}
