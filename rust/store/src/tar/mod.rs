//! Reading and writing tar archives: POSIX ustar and pax (IEEE Std 1003.1, pax), GNU tar's extensions, and star's.
//!
//! [`Reader`] goes through a stream once, forward, and copies no file data. It checks what it reads
//! and decides nothing about files: paths come out as they stand in the archive. [`Writer`] writes what every reader of
//! the last thirty years knows, and pax records where it must.

mod header;
mod pax;
mod reader;
mod sparse;
mod writer;

pub use reader::Reader;
pub use writer::{Sink, WriteError, Writer};

use crate::error::{Classified, ErrorKind, StoreError};

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file; its data follows.
    File,
    /// Another name of an earlier file.
    HardLink,
    /// A symbolic link.
    Symlink,
    /// A character device with major and minor number.
    CharDevice(u32, u32),
    /// A block device with major and minor number.
    BlockDevice(u32, u32),
    /// A directory.
    Directory,
    /// A named pipe.
    Fifo,
}

/// A moment: seconds since the epoch, and nanoseconds (0 to 999,999,999) after them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time {
    /// Seconds, possibly before the epoch.
    pub seconds: i64,
    /// Nanoseconds after `seconds`.
    pub nanoseconds: u32,
}

/// One piece of a sparse file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Where in the file.
    pub offset: u64,
    /// How many bytes.
    pub length: u64,
}

/// One entry of an archive.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The path as it stands in the archive; no NUL, not empty.
    pub path: Vec<u8>,
    /// Where a link points to, as it stands in the archive.
    pub link: Vec<u8>,
    /// What it is.
    pub kind: EntryKind,
    /// Permission bits with set-user-ID, set-group-ID and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes of data in the archive.
    pub size: u64,
    /// Modification time.
    pub mtime: Time,
    /// Extended attributes: name and value.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// The file's real size and the pieces whose data the archive has, in ascending order.
    pub sparse: Option<(u64, Vec<Piece>)>,
}

impl Default for Entry {
    fn default() -> Self {
        Self {
            path: Vec::new(),
            link: Vec::new(),
            kind: EntryKind::File,
            mode: 0,
            uid: 0,
            gid: 0,
            size: 0,
            mtime: Time::default(),
            xattrs: Vec::new(),
            sparse: None,
        }
    }
}

/// What is wrong with an archive.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// The stream ends inside something.
    #[error("the archive is truncated in {0}")]
    Truncated(&'static str),
    /// A header's checksum does not hold.
    #[error("a header's checksum does not hold: this is no tar archive, or a damaged one")]
    Checksum,
    /// A field is no number, or one out of range.
    #[error("the field {0} is malformed")]
    Field(&'static str),
    /// A pax header breaks its format.
    #[error("a pax header is malformed: {0}")]
    Pax(&'static str),
    /// A sparse file's map breaks its format.
    #[error("a sparse file's map is malformed: {0}")]
    Sparse(&'static str),
    /// Something exceeds its limit.
    #[error("{what} exceeds the limit of {limit}")]
    Limit {
        /// What: "a pax header's size".
        what: &'static str,
        /// The most that is allowed.
        limit: u64,
    },
    /// An entry of a type that is not supported.
    #[error("an entry has the unsupported type {:?}", char::from(*.0))]
    Type(u8),
    /// The stream itself failed.
    #[error(transparent)]
    Input(Box<StoreError>),
}

impl From<StoreError> for TarError {
    fn from(error: StoreError) -> Self {
        Self::Input(Box::new(error))
    }
}

impl Classified for TarError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Type(_) => ErrorKind::Unsupported,
            Self::Input(source) => source.kind(),
            _ => ErrorKind::Corrupt,
        }
    }
}
