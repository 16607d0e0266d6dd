//! The loop that does nearly all the work: no end of a buffer is near, so nothing is checked but
//! the data. One turn is up to three literal entries, or a length and a distance.

#![allow(clippy::inline_always)] // parts of one loop

use crate::bits::{Bits, Input};
use crate::copy;
use crate::error::Error;
use crate::inflate::Codes;
use crate::table::{
    DISTANCE_BITS, DISTANCE_SIZE, END, EXCEPTION, LINK, LITERAL, LITERAL_BITS, LITERAL_SIZE,
};

/// Input that the refill before the first turn and the two of a turn may look at: 7 + 7 + 8 bytes, rounded up.
const INPUT_MARGIN: usize = 24;
/// Output that one turn may write: three literals, a match and what it overwrites.
const OUTPUT_MARGIN: usize = 3 + 258 + copy::SLACK;

/// Why the loop ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Pause {
    /// A buffer's end is near.
    Margin,
    /// The block has ended.
    EndOfBlock,
}

#[inline(always)]
fn word(data: &[u8]) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&data[..8]);
    u64::from_le_bytes(bytes)
}

#[inline(always)]
fn margin(rest: &[u8], output: &[u8], out: usize) -> bool {
    rest.len() < INPUT_MARGIN || output.len() - out < OUTPUT_MARGIN
}

/// Decode while both buffers have room. `base` is where the output that may be referred to begins.
/// The numbers of bits are kept in the low 6 bits of `count`; the rest of it is noise from entries.
#[allow(clippy::too_many_lines)] // one loop, whose state must stay in registers
pub(crate) fn run(
    codes: &Codes,
    bits: &mut Bits,
    input: &mut Input<'_>,
    output: &mut [u8],
    at: &mut usize,
    base: usize,
) -> Result<Pause, Error> {
    let before = &input.data[input.position..];
    let mut rest = before;
    let output = &mut output[base..];
    let mut out = *at - base;
    let mut hold = bits.hold;
    let mut count = bits.count;
    let literals: &[u32; LITERAL_SIZE] = &codes.literals;
    let distances: &[u32; DISTANCE_SIZE] = &codes.distances;

    macro_rules! refill {
        () => {
            hold |= word(rest).wrapping_shl(count);
            rest = &rest[(!count >> 3 & 7) as usize..];
            count |= 56;
        };
    }
    macro_rules! spend {
        ($entry:expr) => {
            hold = hold.wrapping_shr($entry);
            count = count.wrapping_sub($entry);
        };
    }
    macro_rules! literal {
        () => {
            literals[(hold & ((1 << LITERAL_BITS) - 1)) as usize]
        };
    }
    macro_rules! emit {
        ($entry:expr) => {
            output[out] = $entry.to_le_bytes()[2];
            out += 1;
            spend!($entry);
        };
    }

    let mut result = Ok(Pause::Margin);
    if !margin(rest, output, out) {
        refill!();
        let mut entry = literal!();
        loop {
            if entry & LITERAL != 0 {
                emit!(entry);
                entry = literal!();
                if entry & LITERAL != 0 {
                    emit!(entry);
                    entry = literal!();
                    if entry & LITERAL != 0 {
                        emit!(entry);
                        refill!();
                        entry = literal!();
                        if margin(rest, output, out) {
                            break;
                        }
                        continue;
                    }
                }
            }
            // At least 56 - 2 * 11 = 34 bits are there: enough for any length and 14 bits more.
            if entry & EXCEPTION != 0 {
                if entry & LINK != 0 {
                    spend!(entry);
                    let mask = (1u64 << (entry >> 8 & 15)) - 1;
                    let index = (entry >> 16) as usize + (hold & mask) as usize;
                    entry = literals[index & (LITERAL_SIZE - 1)];
                    if entry & LITERAL != 0 {
                        emit!(entry);
                        refill!();
                        entry = literal!();
                        if margin(rest, output, out) {
                            break;
                        }
                        continue;
                    }
                }
                if entry & EXCEPTION != 0 {
                    if entry & END == 0 {
                        result = Err(Error::Code);
                    } else {
                        spend!(entry);
                        result = Ok(Pause::EndOfBlock);
                    }
                    break;
                }
            }
            let extra = hold & !(u64::MAX.wrapping_shl(entry));
            let length = (entry >> 16) as usize + extra.wrapping_shr(entry >> 8 & 15) as usize;
            spend!(entry);
            refill!();
            let mut entry_d = distances[(hold & ((1 << DISTANCE_BITS) - 1)) as usize];
            if entry_d & EXCEPTION != 0 {
                if entry_d & LINK == 0 {
                    result = Err(Error::Code);
                    break;
                }
                spend!(entry_d);
                let mask = (1u64 << (entry_d >> 8 & 15)) - 1;
                let index = (entry_d >> 16) as usize + (hold & mask) as usize;
                entry_d = distances[index & (DISTANCE_SIZE - 1)];
                if entry_d & EXCEPTION != 0 {
                    result = Err(Error::Code);
                    break;
                }
            }
            let extra = hold & !(u64::MAX.wrapping_shl(entry_d));
            let distance =
                (entry_d >> 16) as usize + extra.wrapping_shr(entry_d >> 8 & 15) as usize;
            spend!(entry_d);
            if distance > out {
                result = Err(Error::Distance);
                break;
            }
            // Look the next code up before the copy, which takes its time.
            refill!();
            entry = literal!();
            copy::fast(output, out, distance, length);
            out += length;
            if margin(rest, output, out) {
                break;
            }
        }
    }
    // Give back the bytes that were read ahead, but for those that an earlier input brought.
    count &= 63;
    let back = (count >> 3).min(u32::try_from(before.len() - rest.len()).unwrap_or(8));
    count -= back * 8;
    bits.hold = hold & ((1 << count) - 1);
    bits.count = count;
    input.position = input.data.len() - rest.len() - back as usize;
    *at = base + out;
    result
}
