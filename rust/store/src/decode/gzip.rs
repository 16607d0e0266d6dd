//! gzip (RFC 1952) on our own decoder: any number of members, zeros behind the last one tolerated.

use knarr_inflate::{Error, Gzip};

use super::{DecodeError, Decoder, Step};

const NAME: &str = "gzip";

/// Decodes gzip, its checksums verified.
#[derive(Debug)]
pub struct GzipDecoder(Gzip);

impl Default for GzipDecoder {
    fn default() -> Self {
        Self(Gzip::new(true))
    }
}

fn wrong(error: Error) -> DecodeError {
    match error {
        Error::Truncated => DecodeError::Truncated(NAME),
        other => DecodeError::Malformed(NAME, other.to_string()),
    }
}

impl Decoder for GzipDecoder {
    fn decode(
        &mut self,
        input: &[u8],
        _last: bool,
        output: &mut [u8],
        start: usize,
    ) -> Result<Step, DecodeError> {
        let step = self.0.decode(input, output, start).map_err(wrong)?;
        Ok(Step {
            consumed: step.consumed,
            produced: step.produced,
        })
    }

    fn finish(&mut self) -> Result<(), DecodeError> {
        self.0.finish().map_err(wrong)
    }
}
