//! A streaming decoder of DEFLATE (RFC 1951) and gzip (RFC 1952), built for throughput.
//!
//! ```text
//! gzip.rs    Gzip: headers, members one after another, trailers
//! inflate.rs Inflate: the state machine that may stop at any bit of input and byte of output
//! fast.rs    the loop that does nearly all the work while both buffers have room
//! copy.rs    matches: copies in pieces of fixed size
//! header.rs  a dynamic block's code lengths
//! table.rs   code lengths → decoding tables
//! bits.rs    bits from bytes
//! ```
//!
//! The caller's output buffer is the window: [`Gzip::decode`] writes behind `start` and copies
//! from what is before it, so that bytes are written once and nothing is kept here but tables
//! and fewer than 64 bits. Any input, whole or hostile, ends in bytes or an [`Error`]: every
//! access is checked, and no amount of memory depends on the data.

#![allow(clippy::cast_possible_truncation)] // of numbers of a few bits, as the format has them

mod bits;
mod copy;
mod error;
mod fast;
mod gzip;
mod header;
mod inflate;
mod table;

pub use error::Error;
pub use gzip::Gzip;
pub use inflate::Inflate;

/// The bytes of earlier output that a match may refer to.
pub const WINDOW: usize = 32 * 1024;

/// How far one call got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Bytes taken from the input.
    pub consumed: usize,
    /// Bytes written to the output.
    pub produced: usize,
}
