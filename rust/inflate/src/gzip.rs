//! [`Gzip`]: members with headers and trailers around DEFLATE streams.

use crate::Progress;
use crate::bits::Input;
use crate::error::Error;
use crate::inflate::Inflate;

const HEADER_CRC: u8 = 1 << 1;
const EXTRA: u8 = 1 << 2;
const NAME: u8 = 1 << 3;
const COMMENT: u8 = 1 << 4;
const RESERVED: u8 = 0xe0;

/// What is read next; the order within a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The byte of the fixed header at this index.
    Fixed(usize),
    ExtraLength(u32, u32),
    Extra(u32),
    Name,
    Comment,
    HeaderCrc(u32, u32),
    Body,
    Checksum,
    Length,
    /// Behind a member: another one, padding, or the end.
    Between,
    /// In zeros behind the last member.
    Padding,
}

/// A decoder of gzip (RFC 1952): any number of members as one stream, zeros behind the last one passed over.
#[derive(Debug)]
pub struct Gzip {
    inflate: Inflate,
    stage: Stage,
    flags: u8,
    header_crc: crc32fast::Hasher,
    /// None where the contents are verified by other means.
    crc: Option<crc32fast::Hasher>,
    length: u32,
}

impl Gzip {
    /// A decoder that verifies the CRC-32 of each member's contents, or leaves that to the caller,
    /// who has a better digest of them. The length and the header's checksum are always verified.
    #[must_use]
    pub fn new(verify_checksum: bool) -> Self {
        Self {
            inflate: Inflate::new(),
            stage: Stage::Fixed(0),
            flags: 0,
            header_crc: crc32fast::Hasher::new(),
            crc: verify_checksum.then(crc32fast::Hasher::new),
            length: 0,
        }
    }

    /// Decode from `input` to `output[start..]` until the one is used up or the other full.
    ///
    /// `output[..start]` ends with the bytes produced before: [`crate::WINDOW`] of them, or all there are.
    /// After an error the decoder is of no use.
    ///
    /// # Errors
    /// What is wrong with the stream; that it ends too early comes from [`Gzip::finish`].
    pub fn decode(
        &mut self,
        input: &[u8],
        output: &mut [u8],
        start: usize,
    ) -> Result<Progress, Error> {
        let mut all = Input::new(input);
        let start = start.min(output.len());
        let mut at = start;
        loop {
            let more = match self.stage {
                Stage::Body => {
                    let step = self.inflate.decode(&input[all.position..], output, at)?;
                    all.position += step.consumed;
                    let new = &output[at..at + step.produced];
                    if let Some(crc) = &mut self.crc {
                        crc.update(new);
                    }
                    self.length = self.length.wrapping_add(low_32(new.len()));
                    at += step.produced;
                    if self.inflate.ended() {
                        self.stage = Stage::Checksum;
                    }
                    self.inflate.ended()
                }
                Stage::Checksum | Stage::Length => self.trailer(&mut all)?,
                _ => self.framing(&mut all)?,
            };
            if !more {
                return Ok(Progress {
                    consumed: all.position,
                    produced: at - start,
                });
            }
        }
    }

    /// Whether the stream may end here.
    ///
    /// # Errors
    /// [`Error::Truncated`] where it may not.
    pub fn finish(&self) -> Result<(), Error> {
        match self.stage {
            Stage::Between | Stage::Padding => Ok(()),
            _ => Err(Error::Truncated),
        }
    }

    /// One byte outside the contents; false where there is none.
    fn framing(&mut self, input: &mut Input<'_>) -> Result<bool, Error> {
        if !self.inflate.bits.need(input, 8) {
            return Ok(false);
        }
        let byte = self.inflate.bits.take(8).to_le_bytes()[0];
        if !matches!(
            self.stage,
            Stage::Between | Stage::Padding | Stage::HeaderCrc(..)
        ) {
            self.header_crc.update(&[byte]);
        }
        match self.stage {
            Stage::Between if byte == 0 => self.stage = Stage::Padding,
            Stage::Between => {
                self.header_crc.update(&[byte]);
                self.fixed(0, byte)?;
            }
            Stage::Padding if byte == 0 => {}
            Stage::Padding => return Err(Error::Magic),
            Stage::Fixed(index) => self.fixed(index, byte)?,
            Stage::ExtraLength(0, _) => self.stage = Stage::ExtraLength(1, byte.into()),
            Stage::ExtraLength(_, low) => match low | u32::from(byte) << 8 {
                0 => self.after(EXTRA),
                length => self.stage = Stage::Extra(length),
            },
            Stage::Extra(1) => self.after(EXTRA),
            Stage::Extra(left) => self.stage = Stage::Extra(left - 1),
            Stage::Name if byte == 0 => self.after(NAME),
            Stage::Comment if byte == 0 => self.after(COMMENT),
            Stage::HeaderCrc(0, _) => self.stage = Stage::HeaderCrc(1, byte.into()),
            Stage::HeaderCrc(_, low) => {
                let crc = std::mem::take(&mut self.header_crc).finalize();
                if crc & 0xffff != (low | u32::from(byte) << 8) {
                    return Err(Error::HeaderChecksum);
                }
                self.after(HEADER_CRC);
            }
            Stage::Name | Stage::Comment | Stage::Body | Stage::Checksum | Stage::Length => {}
        }
        Ok(true)
    }

    fn fixed(&mut self, index: usize, byte: u8) -> Result<(), Error> {
        match (index, byte) {
            (0, 0x1f) | (1, 0x8b) | (2, 8) | (4..=9, _) => {}
            (0 | 1, _) => return Err(Error::Magic),
            (3, flags) if flags & RESERVED == 0 => self.flags = flags,
            _ => return Err(Error::Header),
        }
        if index == 9 {
            self.after(0);
        } else {
            self.stage = Stage::Fixed(index + 1);
        }
        Ok(())
    }

    /// The stage behind an optional field of the header: the next field that the flags announce.
    fn after(&mut self, field: u8) {
        // In the order of the header; the checksum of the header comes last though its bit is low.
        let fields = [
            (EXTRA, Stage::ExtraLength(0, 0)),
            (NAME, Stage::Name),
            (COMMENT, Stage::Comment),
            (HEADER_CRC, Stage::HeaderCrc(0, 0)),
        ];
        let passed = fields.iter().position(|(flag, _)| *flag == field);
        let rest = &fields[passed.map_or(0, |index| index + 1)..];
        let next = rest.iter().find(|(flag, _)| self.flags & flag != 0);
        self.stage = next.map_or(Stage::Body, |(_, stage)| *stage);
        if self.stage == Stage::Body {
            self.header_crc = crc32fast::Hasher::new();
        }
    }

    fn trailer(&mut self, input: &mut Input<'_>) -> Result<bool, Error> {
        if !self.inflate.bits.need(input, 32) {
            return Ok(false);
        }
        let recorded = self.inflate.bits.take(32);
        if self.stage == Stage::Checksum {
            let crc = self.crc.as_mut().map(|crc| std::mem::take(crc).finalize());
            if crc.is_some_and(|crc| crc != recorded) {
                return Err(Error::Checksum);
            }
            self.stage = Stage::Length;
            return Ok(true);
        }
        if recorded != self.length {
            return Err(Error::Length);
        }
        self.length = 0;
        self.inflate.restart();
        self.stage = Stage::Between;
        Ok(true)
    }
}

/// A length modulo 2^32, as gzip records it.
fn low_32(length: usize) -> u32 {
    length as u32
}
