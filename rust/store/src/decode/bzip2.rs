//! bzip2, one stream or several.

use bzip2::{Decompress, Status};

use super::{DecodeError, Decoder, Step};

const NAME: &str = "bzip2";

/// Decodes bzip2, its checksums verified.
pub struct Bzip2Decoder {
    stream: Decompress,
    /// Between streams: input may end here.
    between: bool,
}

impl Default for Bzip2Decoder {
    fn default() -> Self {
        Self {
            stream: Decompress::new(false),
            between: false,
        }
    }
}

impl Decoder for Bzip2Decoder {
    fn decode(
        &mut self,
        input: &[u8],
        _last: bool,
        output: &mut [u8],
        start: usize,
    ) -> Result<Step, DecodeError> {
        let (mut consumed, mut produced) = (0, 0);
        while start + produced < output.len() {
            if self.between {
                if consumed == input.len() {
                    break;
                }
                *self = Self::default();
            }
            let (read, written) = (self.stream.total_in(), self.stream.total_out());
            let status = self
                .stream
                .decompress(&input[consumed..], &mut output[start + produced..])
                .map_err(|error| DecodeError::Malformed(NAME, error.to_string()))?;
            let step = |now: u64, before: u64| usize::try_from(now - before).unwrap_or(0);
            let (taken, given) = (
                step(self.stream.total_in(), read),
                step(self.stream.total_out(), written),
            );
            consumed += taken;
            produced += given;
            match status {
                Status::StreamEnd => self.between = true,
                Status::MemNeeded => {
                    return Err(DecodeError::Malformed(
                        NAME,
                        "it needs too much memory".into(),
                    ));
                }
                _ if taken == 0 && given == 0 => break,
                _ => {}
            }
        }
        Ok(Step { consumed, produced })
    }

    fn finish(&mut self) -> Result<(), DecodeError> {
        if self.between {
            Ok(())
        } else {
            Err(DecodeError::Truncated(NAME))
        }
    }
}
