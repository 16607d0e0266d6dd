//! What can go wrong between us and a registry, in words that Docker's users know.

use std::time::Duration;

use knarr_store::{Classified, Digest, DigestError, ErrorKind, kind_of_io};

/// Every failure of this crate. `object` is `host/repository:tag`, `host/repository@digest`, or the
/// token server's URL.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// A host, repository, tag or option that cannot be one.
    #[error("{what} \"{name}\" is malformed: {expected}")]
    Malformed {
        /// "registry host", "repository name", "tag".
        what: &'static str,
        /// What was given, shortened.
        name: String,
        /// What is allowed, or wrong.
        expected: &'static str,
    },
    /// Not a digest.
    #[error(transparent)]
    Digest(#[from] DigestError),
    /// The registry does not know the manifest, or the whole repository.
    #[error("manifest for {object} not found: {detail}")]
    ManifestUnknown {
        /// The image.
        object: String,
        /// The registry's reason.
        detail: String,
    },
    /// The registry does not know the blob.
    #[error("blob {object} not found: {detail}")]
    BlobUnknown {
        /// Repository and digest.
        object: String,
        /// The registry's reason.
        detail: String,
    },
    /// The registry refuses the repository to us.
    #[error(
        "pull access denied for {repository}, repository does not exist or may require 'docker login': {detail}"
    )]
    Denied {
        /// The repository with its host.
        repository: String,
        /// Whether (other) credentials may help: 401 rather than 403.
        unauthorized: bool,
        /// The registry's reason.
        detail: String,
    },
    /// The registry takes nothing from us for this repository.
    #[error(
        "push access denied for {repository}, repository does not exist or may require authorization: {detail}"
    )]
    PushDenied {
        /// The repository with its host.
        repository: String,
        /// Whether (other) credentials may help: 401 rather than 403.
        unauthorized: bool,
        /// The registry's reason.
        detail: String,
    },
    /// The registry or its token server does not take the credentials.
    #[error("{server} refused the credentials for {repository}: {detail}; log in again")]
    BadCredentials {
        /// Who refused: a host or the token server's URL.
        server: String,
        /// The repository with its host.
        repository: String,
        /// The reason given.
        detail: String,
    },
    /// Credentials would have gone where they must not go.
    #[error("credentials for {host} were not sent to the token server {realm}: {cause}")]
    CredentialsWithheld {
        /// The registry.
        host: String,
        /// The token server it named.
        realm: String,
        /// Why not.
        cause: &'static str,
    },
    /// A redirect that is not followed.
    #[error("{object}: the redirect from {from} to {to} was refused: {cause}")]
    Redirect {
        /// What was asked for.
        object: String,
        /// Where the redirect came from.
        from: String,
        /// Where it pointed to.
        to: String,
        /// Why it was not followed.
        cause: &'static str,
    },
    /// No connection, no answer, or no end of the answer.
    #[error("{object}: {host} is unavailable: {cause}")]
    Unreachable {
        /// What was asked for.
        object: String,
        /// The host that was spoken to.
        host: String,
        /// What happened, after the last attempt.
        cause: String,
    },
    /// The server answered with a status that says "not now", or with one that makes no sense here.
    #[error("{object}: {host} answered {status}: {detail}")]
    Status {
        /// What was asked for.
        object: String,
        /// Who answered.
        host: String,
        /// The HTTP status.
        status: u16,
        /// The reason given.
        detail: String,
    },
    /// The server asks for more patience than a pull has.
    #[error("{object}: {host} limits its requests and asks to wait {} s: {detail}", .wait.as_secs())]
    RateLimited {
        /// What was asked for.
        object: String,
        /// Who answered.
        host: String,
        /// The time it asks for.
        wait: Duration,
        /// The reason given.
        detail: String,
    },
    /// The answer is a web page or the like.
    #[error(
        "{object}: {host} answered with {found} where {wanted} was expected: is it a registry, or does a proxy or login page stand in between?"
    )]
    NotARegistry {
        /// What was asked for.
        object: String,
        /// Who answered.
        host: String,
        /// The answer's content type.
        found: String,
        /// "a manifest", "a blob", "a token".
        wanted: &'static str,
    },
    /// Bytes with another digest than was asked for or announced.
    #[error("{object} is corrupt: its bytes have the digest {found}, not {expected}")]
    WrongDigest {
        /// What was asked for.
        object: String,
        /// The digest asked for or announced.
        expected: Digest,
        /// The digest of the bytes.
        found: Digest,
    },
    /// The registry has another number of bytes than the manifest promises.
    #[error("{object} is corrupt: {expected} bytes are promised, and {host} has {found}")]
    WrongSize {
        /// What was asked for.
        object: String,
        /// Who answered.
        host: String,
        /// The size promised.
        expected: u64,
        /// "12", "more than 12", "no more than 7".
        found: String,
    },
    /// More bytes than allowed.
    #[error("{object} is refused: it has more than the {limit} bytes allowed")]
    TooLarge {
        /// What was asked for.
        object: String,
        /// The limit in bytes.
        limit: u64,
    },
    /// A manifest that contradicts itself or is no JSON object.
    #[error("manifest for {object} is corrupt: {cause}")]
    BadManifest {
        /// The image.
        object: String,
        /// What is wrong.
        cause: String,
    },
    /// Something of a kind that is not supported.
    #[error("{object}: {what} is not supported{hint}")]
    Unsupported {
        /// What was asked for.
        object: String,
        /// What it turned out to be.
        what: String,
        /// Empty, or the way out with its punctuation.
        hint: &'static str,
    },
    /// What is to be sent cannot be read.
    #[error("{object} cannot be read from the disk: {cause}")]
    Source {
        /// What was to be sent.
        object: String,
        /// The system's reason.
        cause: std::io::Error,
    },
    /// Cancelled by the caller.
    #[error("cancelled")]
    Cancelled,
}

impl Classified for RegistryError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Malformed { .. } | Self::Digest(_) => ErrorKind::InvalidArgument,
            Self::ManifestUnknown { .. } | Self::BlobUnknown { .. } => ErrorKind::NotFound,
            Self::Denied {
                unauthorized: true, ..
            }
            | Self::PushDenied {
                unauthorized: true, ..
            }
            | Self::BadCredentials { .. } => ErrorKind::Unauthorized,
            Self::Denied { .. }
            | Self::PushDenied { .. }
            | Self::CredentialsWithheld { .. }
            | Self::Redirect { .. } => ErrorKind::PermissionDenied,
            Self::Unreachable { .. }
            | Self::Status { .. }
            | Self::RateLimited { .. }
            | Self::NotARegistry { .. }
            | Self::Cancelled => ErrorKind::Unavailable,
            Self::WrongDigest { .. }
            | Self::WrongSize { .. }
            | Self::TooLarge { .. }
            | Self::BadManifest { .. } => ErrorKind::Corrupt,
            Self::Unsupported { .. } => ErrorKind::Unsupported,
            Self::Source { cause, .. } => kind_of_io(cause),
        }
    }
}

/// A failed attempt: whether another one may help, and when.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Asking again would give the same.
    Final(RegistryError),
    /// Worth another attempt, not before the given time has passed.
    Transient(RegistryError, Duration),
}

impl From<RegistryError> for Failure {
    fn from(error: RegistryError) -> Self {
        Self::Final(error)
    }
}

/// At most 200 characters of what somebody sent, without control characters, for a message.
pub(crate) fn quote(text: &str) -> String {
    text.chars()
        .filter(|character| !character.is_control())
        .take(200)
        .collect()
}
