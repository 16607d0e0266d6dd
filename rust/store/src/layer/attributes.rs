//! Extended attributes: which of an archive's are set, and how.
//!
//! | attribute | |
//! | --- | --- |
//! | `security.capability`, `system.posix_acl_access`, `system.posix_acl_default` | set |
//! | `user.*` | set, where the file system has them |
//! | `user.overlay.*` | dropped: they steer an overlay mounted with `userxattr` |
//! | `trusted.*` | dropped: `trusted.overlay.*` could redirect a directory to any other |
//! | other `security.*` (SELinux, IMA, EVM) | dropped: they describe the host that made the archive |

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::fs::{XattrFlags, fsetxattr, lsetxattr};
use rustix::io::Errno;

use super::LayerProblem;
use super::path::join;
use crate::tar::{Entry, EntryKind};

/// Inherited by what is created later, so it is set when a directory is complete.
pub(crate) const DEFAULT_ACL: &[u8] = b"system.posix_acl_default";

/// Whether a layer keeps an attribute.
pub(crate) fn accepted(name: &[u8]) -> bool {
    match name {
        b"security.capability" | b"system.posix_acl_access" | DEFAULT_ACL => true,
        _ => name.starts_with(b"user.") && !name.starts_with(b"user.overlay."),
    }
}

/// The attributes of an entry that are set.
pub(crate) fn wanted(entry: &Entry) -> impl Iterator<Item = (&[u8], &[u8])> {
    entry
        .xattrs
        .iter()
        .filter(|(name, _)| accepted(name))
        .map(|(name, value)| (name.as_slice(), value.as_slice()))
}

/// Sets one attribute of an open file or directory.
pub(crate) fn set(file: impl AsFd, name: &[u8], value: &[u8]) -> Result<(), LayerProblem> {
    tolerate(fsetxattr(file, name, value, XattrFlags::empty()), name)
}

/// Sets an entry's attributes on an object that cannot be opened: a link, a device, a pipe.
pub(super) fn set_by_name(
    directory: BorrowedFd<'_>,
    name: &[u8],
    entry: &Entry,
) -> Result<(), LayerProblem> {
    for (attribute, value) in wanted(entry) {
        // The kernel has no such attributes on these objects.
        if attribute.starts_with(b"user.")
            || (entry.kind == EntryKind::Symlink && attribute.starts_with(b"system."))
        {
            continue;
        }
        let path = join(
            format!("/proc/self/fd/{}", directory.as_raw_fd()).as_bytes(),
            name,
        );
        tolerate(
            lsetxattr(path.as_slice(), attribute, value, XattrFlags::empty()),
            attribute,
        )?;
    }
    Ok(())
}

/// A file system without user attributes or access lists still holds a working image; one that cannot
/// hold a capability does not.
fn tolerate(result: Result<(), Errno>, name: &[u8]) -> Result<(), LayerProblem> {
    match result {
        Err(Errno::OPNOTSUPP) if name != b"security.capability" => Ok(()),
        other => other.map_err(|errno| LayerProblem::Attribute {
            name: name.escape_ascii().to_string(),
            source: io::Error::from(errno),
        }),
    }
}
