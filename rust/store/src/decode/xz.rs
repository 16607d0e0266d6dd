//! xz, one stream or several, within bounded memory.

use lzma_rust2::{Action, Status, XzStream};

use super::{DecodeError, Decoder, Step};

const NAME: &str = "xz";
/// KiB of one block's dictionary: `xz -9` needs 65 MiB.
const MEMORY: u32 = 256 << 10;

/// Decodes xz, its checks verified.
pub struct XzDecoder {
    stream: XzStream,
    ended: bool,
}

impl Default for XzDecoder {
    fn default() -> Self {
        Self {
            stream: XzStream::new_mem_limit(true, MEMORY),
            ended: false,
        }
    }
}

impl Decoder for XzDecoder {
    fn decode(
        &mut self,
        input: &[u8],
        last: bool,
        output: &mut [u8],
        start: usize,
    ) -> Result<Step, DecodeError> {
        if self.ended {
            return if input.is_empty() {
                Ok(Step {
                    consumed: 0,
                    produced: 0,
                })
            } else {
                Err(DecodeError::Malformed(
                    NAME,
                    "something follows its end".into(),
                ))
            };
        }
        let action = if last { Action::Finish } else { Action::Run };
        let step = self
            .stream
            .process(input, &mut output[start..], action)
            .map_err(|error| match (last, error.kind()) {
                (true, std::io::ErrorKind::UnexpectedEof) => DecodeError::Truncated(NAME),
                _ => DecodeError::Malformed(NAME, error.to_string()),
            })?;
        self.ended = matches!(step.status, Status::StreamEnd);
        Ok(Step {
            consumed: step.bytes_consumed,
            produced: step.bytes_produced,
        })
    }

    fn finish(&mut self) -> Result<(), DecodeError> {
        if self.ended {
            Ok(())
        } else {
            Err(DecodeError::Truncated(NAME))
        }
    }
}
