//! The command line's side: archives of the user's own files.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use knarr_store::{ExtractOptions, Fidelity, Limits, Packer, extract_stream};
use rustix::fs::{Mode, OFlags, open};

use crate::error::FilesError;
use crate::stream::{Incoming, Outgoing};

fn directory(path: &Path) -> Result<OwnedFd, FilesError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    open(path, flags, Mode::empty()).map_err(|errno| FilesError::io("open", path, errno))
}

/// Writes what a directory has under a name ("." for the directory itself) as an archive whose paths begin with `shown`; its bytes.
pub fn pack_local(
    parent: &Path,
    name: &[u8],
    shown: &[u8],
    mut to: Outgoing,
) -> Result<u64, FilesError> {
    let opened = directory(parent)?;
    let name = CString::new(name).map_err(|error| {
        FilesError::io(
            "open",
            parent.join(std::ffi::OsStr::from_bytes(name)),
            std::io::Error::from(error),
        )
    })?;
    let mut packer = Packer::new(&mut to, Fidelity::Docker);
    packer.tree(opened.as_fd(), &name, shown)?;
    packer.finish()?;
    Ok(to.count())
}

/// Extracts an archive to a directory: what is made there is its user's own. `rename` is another beginning for the paths that begin so.
pub fn unpack_local(
    target: &Path,
    from: &mut Incoming,
    rename: Option<(Vec<u8>, Vec<u8>)>,
) -> Result<(), FilesError> {
    let opened = directory(target)?;
    let (user, group) = (rustix::process::geteuid(), rustix::process::getegid());
    let options = ExtractOptions {
        no_overwrite: true,
        owner: Some((user.as_raw(), group.as_raw())),
        no_attributes: !user.is_root(),
        whole: false,
        rename,
        shown: target.display().to_string(),
    };
    Ok(extract_stream(
        from,
        "the archive",
        opened,
        &options,
        &Limits::default(),
    )?)
}
