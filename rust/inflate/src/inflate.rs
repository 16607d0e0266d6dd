//! [`Inflate`]: the state machine of a DEFLATE stream.

use crate::bits::{Bits, Input};
use crate::copy;
use crate::error::Error;
use crate::fast::{self, Pause};
use crate::header::Header;
use crate::table::{
    self, DISTANCE_BITS, DISTANCE_SIZE, DISTANCES, END, EXCEPTION, Gaps, LINK, LITERAL,
    LITERAL_BITS, LITERAL_SIZE, Meaning, SYMBOLS,
};
use crate::{Progress, WINDOW};

/// The decoding tables of a block.
#[derive(Debug)]
pub(crate) struct Codes {
    pub(crate) literals: [u32; LITERAL_SIZE],
    pub(crate) distances: [u32; DISTANCE_SIZE],
    fixed: bool,
    literal_meanings: [Meaning; SYMBOLS],
    distance_meanings: [Meaning; DISTANCES],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Block,
    StoredHead,
    Stored(usize),
    Dynamic,
    Codes,
    /// A length was read, its distance not yet.
    Distance(usize),
    /// A match of which so many bytes are still to be copied.
    Match {
        distance: usize,
        left: usize,
    },
    End,
}

/// A decoder of one DEFLATE stream (RFC 1951).
#[derive(Debug)]
pub struct Inflate {
    pub(crate) bits: Bits,
    state: State,
    last: bool,
    codes: Box<Codes>,
    header: Box<Header>,
    /// Bytes of output that may be referred to, at most [`WINDOW`].
    window: usize,
}

impl Default for Inflate {
    fn default() -> Self {
        Self::new()
    }
}

impl Inflate {
    /// A decoder at the beginning of a stream.
    #[must_use]
    pub fn new() -> Self {
        let codes = Codes {
            literals: [0; LITERAL_SIZE],
            distances: [0; DISTANCE_SIZE],
            fixed: false,
            literal_meanings: std::array::from_fn(table::literal_meaning),
            distance_meanings: std::array::from_fn(table::distance_meaning),
        };
        Self {
            bits: Bits::default(),
            state: State::Block,
            last: false,
            codes: Box::new(codes),
            header: Box::new(Header::new()),
            window: 0,
        }
    }

    /// Begin another stream, after the end of this one; bits read ahead stay.
    pub(crate) fn restart(&mut self) {
        self.state = State::Block;
        self.last = false;
        self.window = 0;
    }

    /// Whether the stream has ended; its last byte may have left whole bytes in `bits`.
    #[must_use]
    pub fn ended(&self) -> bool {
        self.state == State::End
    }

    /// Decode from `input` to `output[start..]` until the one is used up, the other full, or the stream has ended.
    ///
    /// `output[..start]` ends with the bytes produced before: [`WINDOW`] of them, or all there are.
    /// After an error the decoder is of no use.
    ///
    /// # Errors
    /// What is wrong with the stream. A stream that ends too early is no error here: see [`Inflate::ended`].
    pub fn decode(
        &mut self,
        input: &[u8],
        output: &mut [u8],
        start: usize,
    ) -> Result<Progress, Error> {
        let mut input = Input::new(input);
        let start = start.min(output.len());
        let mut at = start;
        while self.step(&mut input, output, start, &mut at)? {}
        self.window = (self.window + (at - start)).min(WINDOW);
        Ok(Progress {
            consumed: input.position,
            produced: at - start,
        })
    }

    /// One state's work; false where it cannot go on.
    fn step(
        &mut self,
        input: &mut Input<'_>,
        output: &mut [u8],
        start: usize,
        at: &mut usize,
    ) -> Result<bool, Error> {
        match self.state {
            State::Block => {
                if self.last {
                    self.bits.align();
                    self.state = State::End;
                    return Ok(false);
                }
                if !self.bits.need(input, 3) {
                    return Ok(false);
                }
                self.last = self.bits.take(1) == 1;
                self.state = match self.bits.take(2) {
                    0 => {
                        self.bits.align();
                        State::StoredHead
                    }
                    1 => {
                        self.codes.use_fixed()?;
                        State::Codes
                    }
                    2 => {
                        self.header.reset();
                        State::Dynamic
                    }
                    _ => return Err(Error::BlockType),
                };
            }
            State::StoredHead => {
                if !self.bits.need(input, 32) {
                    return Ok(false);
                }
                let length = self.bits.take(16);
                if self.bits.take(16) != length ^ 0xffff {
                    return Err(Error::StoredLength);
                }
                self.state = State::Stored(length as usize);
            }
            State::Stored(left) => return Ok(self.copy_stored(left, input, output, at)),
            State::Dynamic => match self.header.read(&mut self.bits, input)? {
                None => return Ok(false),
                Some((literals, distances)) => {
                    self.codes.set(literals, distances)?;
                    self.codes.fixed = false;
                    self.state = State::Codes;
                }
            },
            State::Codes => {
                let base = start - start.min(self.window);
                let codes = &self.codes;
                match fast::run(codes, &mut self.bits, input, output, at, base)? {
                    Pause::EndOfBlock => self.state = State::Block,
                    Pause::Margin => return self.literal_or_length(input, output, at),
                }
            }
            State::Distance(length) => {
                let base = start - start.min(self.window);
                return self.distance(length, input, *at - base);
            }
            State::Match { distance, left } => {
                // Checked when it was read; this is for a caller that has lost the history since.
                if distance > *at {
                    return Err(Error::Distance);
                }
                let count = left.min(output.len() - *at);
                copy::exact(output, *at, distance, count);
                *at += count;
                if count < left {
                    let left = left - count;
                    self.state = State::Match { distance, left };
                    return Ok(false);
                }
                self.state = State::Codes;
            }
            State::End => return Ok(false),
        }
        Ok(true)
    }

    fn copy_stored(
        &mut self,
        mut left: usize,
        input: &mut Input<'_>,
        output: &mut [u8],
        at: &mut usize,
    ) -> bool {
        // Whole bytes that were read ahead come first.
        while left > 0 && self.bits.count >= 8 && *at < output.len() {
            output[*at] = self.bits.take(8).to_le_bytes()[0];
            *at += 1;
            left -= 1;
        }
        if self.bits.count < 8 {
            let rest = &input.data[input.position..];
            let count = left.min(rest.len()).min(output.len() - *at);
            output[*at..*at + count].copy_from_slice(&rest[..count]);
            input.position += count;
            *at += count;
            left -= count;
        }
        self.state = if left == 0 {
            State::Block
        } else {
            State::Stored(left)
        };
        left == 0
    }

    /// One literal or length, with the ends of the buffers in mind.
    fn literal_or_length(
        &mut self,
        input: &mut Input<'_>,
        output: &mut [u8],
        at: &mut usize,
    ) -> Result<bool, Error> {
        // At the end of the stream fewer bits than the longest code may be left.
        self.bits.need(input, 48);
        let index = self.bits.peek(LITERAL_BITS) as usize;
        let mut entry = self.codes.literals[index];
        let mut bits = self.bits;
        if entry & LINK != 0 {
            if bits.count <= LITERAL_BITS {
                return Ok(false);
            }
            bits.skip(LITERAL_BITS);
            let index = (entry >> 16) + bits.peek(entry >> 8 & 15);
            entry = self.codes.literals[index as usize & (LITERAL_SIZE - 1)];
        }
        if entry & LITERAL != 0 {
            let length = entry & 63;
            if bits.count < length || *at == output.len() {
                return Ok(false);
            }
            output[*at] = entry.to_le_bytes()[2];
            *at += 1;
            bits.skip(length);
            self.bits = bits;
            return Ok(true);
        }
        if bits.count < entry & 63 {
            return Ok(false);
        }
        if entry & EXCEPTION != 0 {
            if entry & END == 0 {
                return Err(Error::Code);
            }
            bits.skip(entry & 63);
            self.state = State::Block;
        } else {
            let code = entry >> 8 & 15;
            bits.skip(code);
            let extra = bits.take((entry & 63) - code);
            self.state = State::Distance((entry >> 16) as usize + extra as usize);
        }
        self.bits = bits;
        Ok(true)
    }

    fn distance(
        &mut self,
        length: usize,
        input: &mut Input<'_>,
        window: usize,
    ) -> Result<bool, Error> {
        self.bits.need(input, 48);
        let mut bits = self.bits;
        let mut entry = self.codes.distances[bits.peek(DISTANCE_BITS) as usize];
        if entry & LINK != 0 {
            if bits.count <= DISTANCE_BITS {
                return Ok(false);
            }
            bits.skip(DISTANCE_BITS);
            let index = (entry >> 16) + bits.peek(entry >> 8 & 15);
            entry = self.codes.distances[index as usize & (DISTANCE_SIZE - 1)];
        }
        if bits.count < entry & 63 {
            return Ok(false);
        }
        if entry & EXCEPTION != 0 {
            return Err(Error::Code);
        }
        let code = entry >> 8 & 15;
        bits.skip(code);
        let extra = bits.take((entry & 63) - code);
        let distance = (entry >> 16) as usize + extra as usize;
        if distance > window {
            return Err(Error::Distance);
        }
        self.bits = bits;
        self.state = State::Match {
            distance,
            left: length,
        };
        Ok(true)
    }
}

impl Codes {
    fn set(&mut self, literals: &[u8], distances: &[u8]) -> Result<(), Error> {
        let (table, meanings) = (&mut self.literals[..], &self.literal_meanings);
        table::build(table, LITERAL_BITS, literals, Gaps::Single, meanings)?;
        let (table, meanings) = (&mut self.distances[..], &self.distance_meanings);
        table::build(table, DISTANCE_BITS, distances, Gaps::Single, meanings)
    }

    /// RFC 1951, section 3.2.6.
    fn use_fixed(&mut self) -> Result<(), Error> {
        if self.fixed {
            return Ok(());
        }
        let mut lengths = [8; SYMBOLS];
        lengths[144..256].fill(9);
        lengths[256..280].fill(7);
        self.set(&lengths, &[5; DISTANCES])?;
        self.fixed = true;
        Ok(())
    }
}
