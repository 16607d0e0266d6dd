//! gzip (RFC 1952) on zlib-rs: any number of members, zeros behind the last one tolerated.

use flate2::{Decompress, FlushDecompress, Status};

use super::{DecodeError, Decoder, Step};

const NAME: &str = "gzip";
const WINDOW_BITS: u8 = 15;

/// Decodes gzip.
#[derive(Debug)]
pub struct GzipDecoder {
    member: Decompress,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Inside a member, or before the first.
    Inside,
    /// Behind a member: another one, or padding.
    Between,
    /// In the zeros behind the last member.
    Padding,
}

impl Default for GzipDecoder {
    fn default() -> Self {
        Self {
            member: Decompress::new_gzip(WINDOW_BITS),
            state: State::Inside,
        }
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
        let mut step = Step {
            consumed: 0,
            produced: 0,
        };
        while start + step.produced < output.len() {
            let rest = &input[step.consumed..];
            match (self.state, rest.first()) {
                // With the input used up, output may still be waiting inside.
                (State::Inside, _) => {}
                (_, None) => break,
                (_, Some(0)) => {
                    self.state = State::Padding;
                    step.consumed += rest
                        .iter()
                        .position(|&byte| byte != 0)
                        .unwrap_or(rest.len());
                    continue;
                }
                (State::Between, _) => *self = Self::default(),
                (State::Padding, _) => {
                    return Err(DecodeError::Malformed(
                        NAME,
                        "bytes follow its padding".into(),
                    ));
                }
            }
            let (before_in, before_out) = (self.member.total_in(), self.member.total_out());
            let status = self.member.decompress(
                rest,
                &mut output[start + step.produced..],
                FlushDecompress::None,
            );
            let status = status.map_err(|error| DecodeError::Malformed(NAME, error.to_string()))?;
            let consumed =
                usize::try_from(self.member.total_in() - before_in).unwrap_or(usize::MAX);
            let produced =
                usize::try_from(self.member.total_out() - before_out).unwrap_or(usize::MAX);
            step.consumed += consumed;
            step.produced += produced;
            if status == Status::StreamEnd {
                self.state = State::Between;
            } else if (consumed, produced) == (0, 0) {
                break;
            }
        }
        Ok(step)
    }

    fn finish(&mut self) -> Result<(), DecodeError> {
        if self.state == State::Inside {
            Err(DecodeError::Truncated(NAME))
        } else {
            Ok(())
        }
    }
}
