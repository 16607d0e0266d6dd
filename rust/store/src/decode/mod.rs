//! Compressed streams: the seam behind which gzip, zstd, bzip2, xz and plain bytes look alike.

mod bzip2;
mod gzip;
mod xz;
mod zstd;

use crate::error::{Classified, ErrorKind};

pub use bzip2::Bzip2Decoder;
pub use gzip::GzipDecoder;
pub use xz::XzDecoder;
pub use zstd::ZstdDecoder;

/// The bytes of earlier output that a decoder finds before the place it writes to: deflate's window.
pub const HISTORY: usize = 32 * 1024;

/// How far one call of [`Decoder::decode`] got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// Bytes taken from the input.
    pub consumed: usize,
    /// Bytes written to the output.
    pub produced: usize,
}

/// Turns compressed bytes into plain ones, one buffer at a time, reading concatenated members as one stream.
pub trait Decoder: Send {
    /// Reads from `input` and writes to `output[start..]`.
    ///
    /// `output[..start]` holds the last bytes that were produced, [`HISTORY`] of them or all there are:
    /// a decoder may copy from them, and need not. The call goes on until the input is used up or the
    /// output is full; the caller calls again while either is left. Nothing consumed and nothing produced with both left
    /// is a defect. `last` says that no input follows this one; the end of input in mid-stream is not an error of this call but
    /// of [`Decoder::finish`].
    fn decode(
        &mut self,
        input: &[u8],
        last: bool,
        output: &mut [u8],
        start: usize,
    ) -> Result<Step, DecodeError>;

    /// Called when all input was consumed and a call produced nothing more: [`DecodeError::Truncated`] in mid-stream.
    fn finish(&mut self) -> Result<(), DecodeError>;
}

/// Makes a decoder of one compression.
pub type DecoderFactory = fn() -> Box<dyn Decoder>;

/// How a blob is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    Plain,
    /// RFC 1952, one member or several.
    Gzip,
    /// RFC 8878, one frame or several.
    Zstd,
    /// One stream or several.
    Bzip2,
    /// One stream or several.
    Xz,
}

/// What is wrong with a compressed stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Its end is missing.
    #[error("the {0} stream is truncated")]
    Truncated(&'static str),
    /// Its bytes break the format, or a checksum in it does not hold.
    #[error("the {0} stream is malformed: {1}")]
    Malformed(&'static str, String),
    /// A compression that is known and not supported.
    #[error(
        "the stream is compressed with {0}, which is not supported; gzip, zstd, bzip2, xz and none are"
    )]
    Unsupported(&'static str),
    /// It unpacks to more than the limit.
    #[error("{compressed} compressed bytes unpack to more than {limit} bytes, which is the limit")]
    TooLarge {
        /// Compressed bytes read so far.
        compressed: u64,
        /// Bytes allowed for them.
        limit: u64,
    },
}

impl Classified for DecodeError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Unsupported(_) => ErrorKind::Unsupported,
            _ => ErrorKind::Corrupt,
        }
    }
}

impl Compression {
    /// Tells the compression from a stream's first bytes (sixteen are enough); they win over the media type, as they do elsewhere.
    pub fn detect(start: &[u8]) -> Result<Self, DecodeError> {
        const UNSUPPORTED: [(&[u8], &str); 2] =
            [(b"\x04\x22\x4d\x18", "lz4"), (b"\x1f\x9d", "compress")];
        if start.starts_with(&[0x1f, 0x8b]) {
            return Ok(Self::Gzip);
        }
        // A frame, or one of the sixteen skippable frames.
        if start.starts_with(&[0x28, 0xb5, 0x2f, 0xfd])
            || (start.len() >= 4 && start[0] & 0xf0 == 0x50 && start[1..4] == [0x2a, 0x4d, 0x18])
        {
            return Ok(Self::Zstd);
        }
        // A plain archive begins with a name, which may well begin with BZh: the block's magic number decides.
        if start.starts_with(b"BZh") && start.get(4..10) == Some(b"1AY&SY") {
            return Ok(Self::Bzip2);
        }
        if start.starts_with(b"\xfd7zXZ\0") {
            return Ok(Self::Xz);
        }
        match UNSUPPORTED
            .iter()
            .find(|(magic, _)| start.starts_with(magic))
        {
            Some((_, name)) => Err(DecodeError::Unsupported(name)),
            None => Ok(Self::Plain),
        }
    }
}

/// Bytes as they are.
#[derive(Debug, Default)]
pub struct PlainDecoder;

impl Decoder for PlainDecoder {
    fn decode(
        &mut self,
        input: &[u8],
        _last: bool,
        output: &mut [u8],
        start: usize,
    ) -> Result<Step, DecodeError> {
        let count = input.len().min(output.len() - start);
        output[start..start + count].copy_from_slice(&input[..count]);
        Ok(Step {
            consumed: count,
            produced: count,
        })
    }

    fn finish(&mut self) -> Result<(), DecodeError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_tells_its_compression_by_its_first_bytes() {
        let cases: [(&[u8], Result<Compression, &str>); 10] = [
            (b"", Ok(Compression::Plain)),
            (b"\x1f", Ok(Compression::Plain)),
            (b"\x1f\x8b\x08", Ok(Compression::Gzip)),
            (b"\x28\xb5\x2f\xfd", Ok(Compression::Zstd)),
            (b"\x5f\x2a\x4d\x18", Ok(Compression::Zstd)),
            (b"\xfd7zXZ\0", Ok(Compression::Xz)),
            (b"BZh91AY&SY..", Ok(Compression::Bzip2)),
            (b"BZhang/notes\0", Ok(Compression::Plain)),
            (b"\x04\x22\x4d\x18", Err("lz4")),
            (b"etc/passwd\0", Ok(Compression::Plain)),
        ];
        for (start, expected) in cases {
            assert_eq!(
                Compression::detect(start),
                expected.map_err(DecodeError::Unsupported),
                "{start:?}"
            );
        }
    }
}
