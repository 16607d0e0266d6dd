//! zstd (RFC 8878) on its reference implementation: any number of frames, skippable ones among them.

use zstd::stream::raw::{DParameter, Decoder as Raw, InBuffer, Operation, OutBuffer};

use super::{DecodeError, Decoder, Step};

const NAME: &str = "zstd";
/// 128 MiB: what the strongest ordinary level needs.
const WINDOW_LOG: u32 = 27;

/// Decodes zstd.
pub struct ZstdDecoder {
    raw: Raw<'static>,
    /// Whether the last byte that was read ended a frame.
    complete: bool,
}

impl ZstdDecoder {
    /// A decoder at the start of a stream.
    pub fn new() -> Result<Self, DecodeError> {
        let mut raw = Raw::new().map_err(|error| malformed(&error))?;
        raw.set_parameter(DParameter::WindowLogMax(WINDOW_LOG))
            .map_err(|error| malformed(&error))?;
        Ok(Self {
            raw,
            complete: false,
        })
    }
}

fn malformed(error: &std::io::Error) -> DecodeError {
    DecodeError::Malformed(NAME, error.to_string())
}

impl Decoder for ZstdDecoder {
    fn decode(
        &mut self,
        input: &[u8],
        _last: bool,
        output: &mut [u8],
        start: usize,
    ) -> Result<Step, DecodeError> {
        let mut from = InBuffer::around(input);
        let mut to = OutBuffer::around(&mut output[start..]);
        // With the input used up, output may still be waiting inside.
        loop {
            let before = (from.pos(), to.pos());
            if self.complete && from.pos() == input.len() {
                break;
            }
            let hint = self
                .raw
                .run(&mut from, &mut to)
                .map_err(|error| malformed(&error))?;
            self.complete = hint == 0;
            if to.pos() == to.capacity() || (from.pos(), to.pos()) == before {
                break;
            }
        }
        Ok(Step {
            consumed: from.pos(),
            produced: to.pos(),
        })
    }

    fn finish(&mut self) -> Result<(), DecodeError> {
        if self.complete {
            Ok(())
        } else {
            Err(DecodeError::Truncated(NAME))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Everything a stream decodes to, through an output of so many bytes.
    fn decode(stream: &[u8], room: usize) -> Result<Vec<u8>, DecodeError> {
        let mut decoder = ZstdDecoder::new()?;
        let (mut at, mut plain, mut output) = (0, Vec::new(), vec![0; room]);
        loop {
            let step = decoder.decode(&stream[at..], at == stream.len(), &mut output, 0)?;
            at += step.consumed;
            plain.extend_from_slice(&output[..step.produced]);
            if at == stream.len() && step.produced == 0 {
                decoder.finish()?;
                return Ok(plain);
            }
        }
    }

    #[test]
    fn frames_are_one_stream_and_skippable_ones_are_skipped() {
        let frame = |data: &[u8]| zstd::encode_all(data, 3).unwrap();
        let zeros = vec![0; 300_000];
        let skippable = b"\x50\x2a\x4d\x18\x04\x00\x00\x00skip";
        let stream = [frame(b"one"), skippable.to_vec(), frame(&zeros), frame(b"")].concat();
        for room in [1, 1000, 1 << 20] {
            assert_eq!(
                decode(&stream, room).unwrap(),
                [b"one".as_slice(), &zeros].concat()
            );
        }
    }

    #[test]
    fn a_truncated_frame_is_told_from_a_malformed_one() {
        let frame = zstd::encode_all([7; 5000].as_slice(), 3).unwrap();
        for length in [1, 5, frame.len() - 1] {
            assert_eq!(
                decode(&frame[..length], 1 << 16),
                Err(DecodeError::Truncated(NAME)),
                "{length}"
            );
        }
        let mut wrong = frame;
        wrong[4] ^= 0xff;
        assert!(matches!(
            decode(&wrong, 1 << 16),
            Err(DecodeError::Malformed(..) | DecodeError::Truncated(_))
        ));
    }
}
