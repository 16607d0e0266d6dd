//! Docker's multiplexed stream: each piece of output behind a header of eight bytes
//! (Engine API, `POST /containers/{id}/attach`, "Stream format").

use super::Stream;

/// The header of `length` bytes of a stream.
#[must_use]
pub fn header(stream: Stream, length: u32) -> [u8; 8] {
    let [a, b, c, d] = length.to_be_bytes();
    let kind = match stream {
        Stream::Stdout => 1,
        Stream::Stderr => 2,
    };
    [kind, 0, 0, 0, a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_names_stream_and_length() {
        assert_eq!(header(Stream::Stdout, 5), [1, 0, 0, 0, 0, 0, 0, 5]);
        assert_eq!(
            header(Stream::Stderr, 0x0102_0304),
            [2, 0, 0, 0, 1, 2, 3, 4]
        );
    }
}
