//! A layer: a tar archive of changes, applied to a directory of its own that overlay takes as a lower one.
//!
//! What an archive says and what becomes of it (OCI image specification, "Image Layer Filesystem Changeset"):
//!
//! | in the archive | on disk |
//! | --- | --- |
//! | `.wh.name` | a character device 0:0 called `name`; where the layer itself has a directory `name`, that becomes opaque |
//! | `.wh..wh..opq` | `trusted.overlay.opaque=y` on its directory |
//! | `.wh..wh.` and anything else | nothing: another driver's bookkeeping |
//! | a character device 0:0 | the same as `.wh.name`, which is what overlay would make of it |
//! | `/a`, `./a`, `a/./b`, `a/../b` | `a`, `a`, `a/b`, `b` |
//! | `../a`, `a/../../b` | refused |
//! | an entry below a symbolic link | what the link points to, seen from the layer's own root |
//! | a name for the second time | the later entry wins; two directories are one |
//! | a directory that takes a file's or whiteout's place | opaque: nothing of lower layers shows through |
//! | a parent that has no entry | made; its attributes come from the lower layers in [`fixup`] |
//! | a hard link to what only a lower layer has | a copy, made in [`fixup`] |
//! | `trusted.*`, `user.overlay.*` and other attributes that act on the host | dropped, see [`attributes`] |
//!
//! The way back, from a container's changes to an archive, is [`diff`].
//!
//! Everything happens below the directory's descriptor, in a directory that nobody else reaches until it is complete.

mod apply;
mod attributes;
mod diff;
mod directories;
mod fixup;
pub(crate) mod object;
mod path;

use std::io;

pub(crate) use apply::own;
pub use apply::{Applied, apply};
pub(crate) use attributes::{
    DEFAULT_ACL, accepted as keeps_attribute, set as set_attribute, wanted as wanted_attributes,
};
pub(crate) use diff::pack_upper;
pub(crate) use directories::{is_whiteout, open_directory, times};
pub(crate) use fixup::{copy, copy_attributes, fix_up, times_of};
pub(crate) use path::{clean, join, split};

use rustix::io::Errno;

use crate::error::{Classified, ErrorKind, explain, kind_of_io};
use crate::tar::TarError;

/// Why a layer could not be applied, and at which entry.
#[derive(Debug, thiserror::Error)]
#[error("{}{problem}", place(.entry))]
pub struct LayerError {
    /// The entry, or the last one that was read; empty before the first.
    pub entry: Vec<u8>,
    /// What is wrong with it.
    pub problem: LayerProblem,
}

/// "entry x: ", or nothing before the first entry.
fn place(entry: &[u8]) -> String {
    if entry.is_empty() {
        String::new()
    } else {
        format!("entry \"{}\": ", entry.escape_ascii())
    }
}

/// A path of an archive for a message: printable, and its end alone where it is long.
fn shown(path: &[u8]) -> String {
    const MOST: usize = 200;
    match path.len() {
        0..=MOST => path.escape_ascii().to_string(),
        long => format!("...{}", path[long - MOST..].escape_ascii()),
    }
}

/// A clean path's directory.
pub(crate) fn parent(path: &[u8]) -> &[u8] {
    path::split(path).0
}

/// What can be wrong with a layer's entry.
#[derive(Debug, thiserror::Error)]
pub enum LayerProblem {
    /// The archive cannot be read here or right behind.
    #[error(transparent)]
    Archive(#[from] TarError),
    /// The path leads out of the layer.
    #[error("its path leads out of the root directory")]
    Escape,
    /// A path or one of its names is too long.
    #[error("a path is longer than {0} bytes, or a name longer than 255")]
    TooLong(usize),
    /// A name begins like a whiteout where it cannot be one.
    #[error("its path uses a name that begins with \".wh.\", which is reserved for whiteouts")]
    Reserved,
    /// A whiteout that names nothing.
    #[error("it is a whiteout without a name")]
    Whiteout,
    /// Something that is no directory is in the way.
    #[error("\"{}\" is not a directory", shown(.0))]
    NotDirectory(Vec<u8>),
    /// Symbolic links lead in a circle.
    #[error("too many symbolic links in its path")]
    Loop,
    /// A link that cannot be made.
    #[error("it links to \"{}\", which {reason}", shown(.target))]
    Link {
        /// Where to.
        target: Vec<u8>,
        /// Why not there.
        reason: &'static str,
    },
    /// Directories, whiteouts and links take more memory than allowed.
    #[error("the layer has more directories and links than can be kept in {0} bytes")]
    Memory(usize),
    /// An attribute that the file system refuses.
    #[error("cannot set its extended attribute {name}: {source}")]
    Attribute {
        /// The attribute.
        name: String,
        /// Why not.
        source: io::Error,
    },
    /// A system call failed.
    #[error("cannot {doing}: {}", explain(.source))]
    Io {
        /// What failed: "create it".
        doing: &'static str,
        /// Why.
        source: io::Error,
    },
}

impl Classified for LayerError {
    fn kind(&self) -> ErrorKind {
        match &self.problem {
            LayerProblem::Archive(source) => source.kind(),
            LayerProblem::Io { source, .. } | LayerProblem::Attribute { source, .. } => {
                match Errno::from_io_error(source) {
                    // A name that the file system does not take comes from the archive.
                    Some(Errno::NAMETOOLONG) => ErrorKind::Corrupt,
                    // The archive is in order, and the file system cannot hold it.
                    Some(Errno::OPNOTSUPP | Errno::MLINK | Errno::FBIG) => ErrorKind::Unsupported,
                    // Nothing here is missing because of the caller.
                    Some(Errno::NOENT) => ErrorKind::Internal,
                    _ => kind_of_io(source),
                }
            }
            _ => ErrorKind::Corrupt,
        }
    }
}

/// Says what a failed system call was for.
pub(crate) trait Doing<T> {
    fn doing(self, doing: &'static str) -> Result<T, LayerProblem>;
}

impl<T> Doing<T> for Result<T, Errno> {
    fn doing(self, doing: &'static str) -> Result<T, LayerProblem> {
        self.map_err(|errno| LayerProblem::Io {
            doing,
            source: errno.into(),
        })
    }
}
