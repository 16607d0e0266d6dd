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
