//! What a stream can have wrong.

/// Why bytes are not a DEFLATE or gzip stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The input ended before the stream did.
    #[error("it ends early")]
    Truncated,
    /// Block type 3.
    #[error("a block has an unknown type")]
    BlockType,
    /// A stored block's length and its complement differ.
    #[error("a stored block's length does not match its complement")]
    StoredLength,
    /// More literal, length or distance codes than there are symbols.
    #[error("a block has too many codes")]
    TooManyCodes,
    /// Code lengths that make no prefix code, or an incomplete one.
    #[error("a block's code lengths make no complete code")]
    CodeLengths,
    /// A repetition of code lengths without a first one, or past the last one.
    #[error("a block's code lengths are repeated out of bounds")]
    CodeRepeat,
    /// No code for the end of the block.
    #[error("a block has no code for its end")]
    NoEndOfBlock,
    /// Bits that are no code.
    #[error("a code is not assigned")]
    Code,
    /// A distance to before the beginning.
    #[error("a distance reaches back before the beginning")]
    Distance,
    /// Not a gzip header.
    #[error("a member does not begin with a gzip header")]
    Magic,
    /// A compression method other than 8, or reserved flags.
    #[error("a member's header has an unknown method or flag")]
    Header,
    /// The header's own checksum does not hold.
    #[error("a member's header checksum does not hold")]
    HeaderChecksum,
    /// The CRC-32 of the contents does not hold.
    #[error("a member's checksum does not hold")]
    Checksum,
    /// The length of the contents is not the one recorded.
    #[error("a member's length is not the one recorded")]
    Length,
}
