//! A dynamic block's code lengths (RFC 1951, section 3.2.7), read as far as there is input.

use crate::bits::{Bits, Input};
use crate::error::Error;
use crate::table::{self, Gaps, Meaning, PRECODE_BITS, PRECODE_SIZE, PRECODES};

const MAX_LITERALS: usize = 286;
const MAX_DISTANCES: usize = 30;
const ORDER: [usize; PRECODES] = [
    16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15,
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Counts,
    Precode(usize),
    Lengths,
}

/// The code lengths of literals and of distances.
pub(crate) type Lengths<'a> = (&'a [u8], &'a [u8]);

/// The lengths read so far.
#[derive(Debug)]
pub(crate) struct Header {
    stage: Stage,
    literals: usize,
    distances: usize,
    precodes: usize,
    precode_lengths: [u8; PRECODES],
    precode: [u32; PRECODE_SIZE],
    lengths: [u8; MAX_LITERALS + MAX_DISTANCES],
    read: usize,
}

impl Header {
    pub(crate) fn new() -> Self {
        Self {
            stage: Stage::Counts,
            literals: 0,
            distances: 0,
            precodes: 0,
            precode_lengths: [0; PRECODES],
            precode: [0; PRECODE_SIZE],
            lengths: [0; MAX_LITERALS + MAX_DISTANCES],
            read: 0,
        }
    }

    /// Begin another block.
    pub(crate) fn reset(&mut self) {
        self.stage = Stage::Counts;
        self.precode_lengths = [0; PRECODES];
        self.read = 0;
    }

    /// Read on: all the lengths, or None where the input ends before.
    pub(crate) fn read(
        &mut self,
        bits: &mut Bits,
        input: &mut Input<'_>,
    ) -> Result<Option<Lengths<'_>>, Error> {
        if self.stage == Stage::Counts {
            if !bits.need(input, 14) {
                return Ok(None);
            }
            self.literals = bits.take(5) as usize + 257;
            self.distances = bits.take(5) as usize + 1;
            self.precodes = bits.take(4) as usize + 4;
            if self.literals > MAX_LITERALS || self.distances > MAX_DISTANCES {
                return Err(Error::TooManyCodes);
            }
            self.stage = Stage::Precode(0);
        }
        while let Stage::Precode(at) = self.stage {
            if at == self.precodes {
                let meanings: [Meaning; PRECODES] = std::array::from_fn(table::precode_meaning);
                let table = &mut self.precode[..];
                table::build(
                    table,
                    PRECODE_BITS,
                    &self.precode_lengths,
                    Gaps::None,
                    &meanings,
                )?;
                self.stage = Stage::Lengths;
                break;
            }
            if !bits.need(input, 3) {
                return Ok(None);
            }
            self.precode_lengths[ORDER[at]] = u8::try_from(bits.take(3)).unwrap_or(0);
            self.stage = Stage::Precode(at + 1);
        }
        if !self.read_lengths(bits, input)? {
            return Ok(None);
        }
        let (literals, distances) = self.lengths[..self.read].split_at(self.literals);
        if literals[256] == 0 {
            return Err(Error::NoEndOfBlock);
        }
        Ok(Some((literals, distances)))
    }

    fn read_lengths(&mut self, bits: &mut Bits, input: &mut Input<'_>) -> Result<bool, Error> {
        let all = self.literals + self.distances;
        while self.read < all {
            // At the very end of a stream fewer bits than the longest code and repetition may be left.
            bits.need(input, PRECODE_BITS + 7);
            let entry = self.precode[bits.peek(PRECODE_BITS) as usize];
            let code = entry & 63;
            let symbol = entry >> 16;
            let (extra, base) = match symbol {
                16 => (2, 3),
                17 => (3, 3),
                18 => (7, 11),
                _ => (0, 1),
            };
            if bits.count < code + extra {
                return Ok(false);
            }
            bits.skip(code);
            let repeat = base + bits.take(extra) as usize;
            let length = match symbol {
                16 => {
                    let before = self.read.checked_sub(1).ok_or(Error::CodeRepeat)?;
                    self.lengths[before]
                }
                17 | 18 => 0,
                other => u8::try_from(other).unwrap_or(0),
            };
            let end = self.read + repeat;
            if end > all {
                return Err(Error::CodeRepeat);
            }
            self.lengths[self.read..end].fill(length);
            self.read = end;
        }
        Ok(true)
    }
}
