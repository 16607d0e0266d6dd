//! The errors of the store, and the closed vocabulary that every error of the engine falls into.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};

use crate::decode::DecodeError;
use crate::digest::{Digest, DigestError};
use crate::layer::{LayerError, LayerProblem};
use crate::pack::PackError;
use crate::tar::TarError;

/// The closed vocabulary of errors, as drawn in `knarr.errors`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The object named does not exist.
    NotFound,
    /// It exists already, is in use, or is in the wrong state.
    Conflict,
    /// The request itself is wrong.
    InvalidArgument,
    /// Credentials or policy refuse it.
    PermissionDenied,
    /// A registry wants credentials, or others than it was given.
    Unauthorized,
    /// Something that is needed does not answer, or is full.
    Unavailable,
    /// Bytes are not what their digest or format says.
    Corrupt,
    /// Known, and deliberately not done.
    Unsupported,
    /// A defect of ours.
    Internal,
}

/// An error that knows its place in the vocabulary.
pub trait Classified: Error + Send + Sync + 'static {
    /// The place in the vocabulary.
    fn kind(&self) -> ErrorKind;
}

/// What can go wrong with blobs and snapshots.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Not a digest.
    #[error(transparent)]
    Digest(#[from] DigestError),
    /// The blob is not in the store.
    #[error("blob {0} is not in the store; pull or load its image again")]
    BlobMissing(Digest),
    /// The blob is larger than the caller allows.
    #[error("blob {digest} has {size} bytes, more than the {limit} allowed here")]
    BlobTooLarge {
        /// Which blob.
        digest: Digest,
        /// Its size in bytes.
        size: u64,
        /// The most the caller takes.
        limit: u64,
    },
    /// Bytes do not have the digest they were announced with.
    #[error("{what} {expected} is corrupt: its bytes have the digest {found}")]
    WrongDigest {
        /// What was hashed: "blob", "unpacked layer".
        what: &'static str,
        /// The digest announced.
        expected: Digest,
        /// The digest of the bytes.
        found: Digest,
    },
    /// A blob is longer or shorter than announced.
    #[error("blob {digest} is corrupt: {expected} bytes were announced and {found} arrived")]
    WrongSize {
        /// Which blob.
        digest: Digest,
        /// Bytes announced.
        expected: u64,
        /// Bytes seen.
        found: u64,
    },
    /// A layer's compressed stream is malformed.
    #[error("layer {digest}: {source}")]
    Decode {
        /// The layer's blob.
        digest: Digest,
        /// What is wrong with it.
        source: DecodeError,
    },
    /// A layer's archive is malformed or hostile, or cannot be written.
    #[error("layer {digest}, unpacked to {}: {source}", .path.display())]
    Layer {
        /// The layer's blob.
        digest: Digest,
        /// The directory that it was unpacked to.
        path: PathBuf,
        /// What is wrong, and at which entry.
        source: LayerError,
    },
    /// An image archive is malformed or hostile.
    #[error("archive {}: {source}", .path.display())]
    Archive {
        /// The archive.
        path: PathBuf,
        /// What is wrong, and at which entry.
        source: LayerError,
    },
    /// A directory of an image cannot be copied.
    #[error("cannot fill {} from the image: {source}", .destination.display())]
    Copy {
        /// Where to.
        destination: PathBuf,
        /// What failed, and at which path below it.
        source: LayerError,
    },
    /// No layer can be made of a container's changes.
    #[error("cannot make a layer of it: {0}")]
    Pack(PackError),
    /// An image archive's compressed stream is malformed.
    #[error("archive {}: {source}", .path.display())]
    Stream {
        /// The archive.
        path: PathBuf,
        /// What is wrong with it.
        source: DecodeError,
    },
    /// A path where a regular file is needed.
    #[error("{} is not a regular file", .0.display())]
    NotFile(PathBuf),
    /// An image has more layers than allowed.
    #[error("the image has {layers} layers, more than the {limit} allowed")]
    TooManyLayers {
        /// The image's layers.
        layers: usize,
        /// The most that is allowed.
        limit: usize,
    },
    /// A layer of a kind that cannot be unpacked.
    #[error("layer {digest} has the media type {media_type:?}, which is not supported")]
    MediaType {
        /// The layer's blob.
        digest: Digest,
        /// Its media type.
        media_type: String,
    },
    /// A chain ID that does not follow from the diff IDs.
    #[error("layer {layer} has the chain ID {chain_id}, which should be {expected}")]
    WrongChain {
        /// The layer's blob.
        layer: Digest,
        /// What the caller says.
        chain_id: Digest,
        /// What follows from the diff IDs.
        expected: Digest,
    },
    /// A path that is not the store's to touch.
    #[error("{} is not below the data root {}", .path.display(), .root.display())]
    Outside {
        /// The path.
        path: PathBuf,
        /// The data root.
        root: PathBuf,
    },
    /// Whoever gives a layer's bytes failed.
    #[error("{0}")]
    Source(Box<dyn Classified>),
    /// The operation was cancelled through its progress.
    #[error("cancelled")]
    Cancelled,
    /// A system call failed.
    #[error("{doing} {}: {}", .path.display(), explain(.source))]
    Io {
        /// What was being done, in words that a path may follow.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

/// An operating system's error in words that say the way out where there is one.
pub(crate) fn explain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::StorageFull => {
            "the file system is full; free some space (for example with `knarr image prune`)".into()
        }
        io::ErrorKind::QuotaExceeded => {
            "the disk quota is used up; free some space or raise the quota".into()
        }
        io::ErrorKind::ReadOnlyFilesystem => "the file system is read-only".into(),
        _ => error.to_string(),
    }
}

/// The place of an operating system's error in the vocabulary.
#[must_use]
pub fn kind_of_io(error: &io::Error) -> ErrorKind {
    match error.kind() {
        io::ErrorKind::NotFound => ErrorKind::NotFound,
        io::ErrorKind::PermissionDenied => ErrorKind::PermissionDenied,
        io::ErrorKind::ResourceBusy => ErrorKind::Conflict,
        io::ErrorKind::StorageFull
        | io::ErrorKind::QuotaExceeded
        | io::ErrorKind::ReadOnlyFilesystem
        | io::ErrorKind::OutOfMemory => ErrorKind::Unavailable,
        _ => match error
            .raw_os_error()
            .map(rustix::io::Errno::from_raw_os_error)
        {
            Some(rustix::io::Errno::IO | rustix::io::Errno::MFILE | rustix::io::Errno::NFILE) => {
                ErrorKind::Unavailable
            }
            _ => ErrorKind::Internal,
        },
    }
}

impl StoreError {
    /// Whether the disk or a quota is used up.
    pub(crate) fn is_full(&self) -> bool {
        let source = match self {
            Self::Io { source, .. } => source,
            Self::Layer { source, .. } => match &source.problem {
                LayerProblem::Io { source, .. } => source,
                _ => return false,
            },
            _ => return false,
        };
        matches!(
            source.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
        )
    }

    /// A failure to apply a layer; what failed before it, in the stream that it read, comes out as itself.
    pub(crate) fn of_layer(digest: Digest, path: &Path, error: LayerError) -> Self {
        match error.problem {
            LayerProblem::Archive(TarError::Input(source)) => *source,
            problem => Self::Layer {
                digest,
                path: path.to_owned(),
                source: LayerError {
                    entry: error.entry,
                    problem,
                },
            },
        }
    }
}

impl Classified for StoreError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Digest(_)
            | Self::BlobTooLarge { .. }
            | Self::WrongChain { .. }
            | Self::Outside { .. }
            | Self::NotFile(_) => ErrorKind::InvalidArgument,
            Self::MediaType { .. } => ErrorKind::Unsupported,
            Self::BlobMissing(_) => ErrorKind::NotFound,
            Self::WrongDigest { .. } | Self::WrongSize { .. } | Self::TooManyLayers { .. } => {
                ErrorKind::Corrupt
            }
            Self::Layer { source, .. }
            | Self::Archive { source, .. }
            | Self::Copy { source, .. } => source.kind(),
            Self::Decode { source, .. } | Self::Stream { source, .. } => source.kind(),
            Self::Pack(source) => source.kind(),
            Self::Source(source) => source.kind(),
            Self::Cancelled => ErrorKind::Unavailable,
            Self::Io { source, .. } => kind_of_io(source),
        }
    }
}

/// Names the object and the action that a failed system call belongs to.
pub(crate) trait Context<T> {
    /// `doing` is followed by the path in the message: "cannot create".
    fn at(self, doing: &'static str, path: impl AsRef<Path>) -> Result<T, StoreError>;
}

impl<T, E: Into<io::Error>> Context<T> for Result<T, E> {
    fn at(self, doing: &'static str, path: impl AsRef<Path>) -> Result<T, StoreError> {
        self.map_err(|error| StoreError::Io {
            doing,
            path: path.as_ref().to_owned(),
            source: error.into(),
        })
    }
}
