//! The OCI distribution protocol (specification 1.1: pull, push, content discovery) over HTTP/1.1 and TLS.
//!
//! ```text
//! registry.rs   Registry: manifests, small blobs, opened blobs; the only public way in
//! stream.rs     BlobStream: one blob as a reader that reconnects and resumes
//! push.rs       blobs and manifests on their way to a registry
//! exchange.rs   one request with redirects, credentials and retries
//! auth.rs       the token cache and the token server's two protocols
//! challenge.rs  the grammar of WWW-Authenticate
//! manifest.rs   media types, and what is refused as a manifest
//! name.rs       what is a repository's name or a tag
//! refusal.rs    a registry's error answers in Docker's words
//! http/         connections, TLS, proxies, message heads and body framing
//! ```
//!
//! Invariants: bytes handed out as a manifest or small blob have the digest that was asked for
//! (streamed blobs are hashed by whoever consumes them); credentials are sent to the registry
//! that was named and to the token server it names, never after a redirect to another origin,
//! and to a token server only over https or loopback; whatever is read from
//! the network is bounded. Locks are held only to look into the token cache and
//! the pool of idle connections, never while waiting for the network.

mod auth;
mod challenge;
mod error;
mod exchange;
#[cfg(fuzzing)]
pub mod fuzzing;
mod http;
mod manifest;
mod name;
mod push;
mod refusal;
mod registry;
mod stream;

pub use error::RegistryError;
pub use manifest::Manifest;
pub use push::Upload;
pub use registry::{Options, Registry, Repository};
pub use stream::BlobStream;
