//! Code lengths → decoding tables.
//!
//! A table is indexed by the next bits of the stream: a primary part for codes of up to
//! `BITS` bits, then one part for each group of longer codes with the same first `BITS` bits.
//!
//! ```text
//! entry   0-5   bits to use in all: the code and the extra bits behind it (or BITS, for a link)
//!         6     LITERAL
//!         7     EXCEPTION: none of length, distance or literal
//!         8-11  the code's own bits; of a link: the bits that index the part linked to
//!         14    LINK (an exception)      15 END of the block (an exception)
//!         16-31 the literal; or the base of the length or distance; or where the part linked to begins
//! ```
//! An exception that is neither link nor end is a code that is not assigned. Entries of two
//! literals were tried: making them costs more than they save on blocks of usual size.

use crate::error::Error;

pub(crate) const LITERAL: u32 = 1 << 6;
pub(crate) const EXCEPTION: u32 = 1 << 7;
pub(crate) const LINK: u32 = 1 << 14;
pub(crate) const END: u32 = 1 << 15;
/// A code that is not assigned; it claims a bit so that a truncated stream is told from a wrong one.
const UNASSIGNED: u32 = EXCEPTION | 1 | 1 << 8;

pub(crate) const MAX_LENGTH: usize = 15;
pub(crate) const SYMBOLS: usize = 288;
pub(crate) const DISTANCES: usize = 32;
pub(crate) const PRECODES: usize = 19;

pub(crate) const LITERAL_BITS: u32 = 11;
pub(crate) const DISTANCE_BITS: u32 = 8;
pub(crate) const PRECODE_BITS: u32 = 7;
// What is enough for the worst code lengths: zlib's `enough 288 11 15`, `32 8 15`, rounded up to
// powers of two, so that a masked index needs no check.
pub(crate) const LITERAL_SIZE: usize = 4096;
pub(crate) const DISTANCE_SIZE: usize = 512;
pub(crate) const PRECODE_SIZE: usize = 128;

/// What a code stands for, as the upper bits of its entry and the number of its extra bits.
pub(crate) type Meaning = (u32, u32);

/// RFC 1951, section 3.2.5, lengths.
pub(crate) fn literal_meaning(symbol: usize) -> Meaning {
    const BASE: [u16; 29] = [
        3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115,
        131, 163, 195, 227, 258,
    ];
    const EXTRA: [u8; 29] = [
        0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0,
    ];
    match symbol {
        0..256 => (LITERAL | (symbol as u32) << 16, 0),
        256 => (EXCEPTION | END, 0),
        257..286 => (
            u32::from(BASE[symbol - 257]) << 16,
            EXTRA[symbol - 257].into(),
        ),
        _ => (EXCEPTION, 0),
    }
}

/// RFC 1951, section 3.2.5, distances.
pub(crate) fn distance_meaning(symbol: usize) -> Meaning {
    match symbol {
        0..4 => ((symbol as u32 + 1) << 16, 0),
        4..30 => {
            let extra = symbol as u32 / 2 - 1;
            let base = ((2 + (symbol as u32 & 1)) << extra) + 1;
            (base << 16, extra)
        }
        _ => (EXCEPTION, 0),
    }
}

pub(crate) fn precode_meaning(symbol: usize) -> Meaning {
    ((symbol as u32) << 16, 0)
}

/// How much a set of code lengths may leave unassigned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gaps {
    None,
    /// Nothing, or all but a single code of one bit, as zlib takes it.
    Single,
}

/// Build the table of the codes with these lengths (0: no code) for `bits` of primary index.
pub(crate) fn build(
    table: &mut [u32],
    bits: u32,
    lengths: &[u8],
    gaps: Gaps,
    meanings: &[Meaning],
) -> Result<(), Error> {
    let mut counts = [0u16; MAX_LENGTH + 1];
    for &length in lengths {
        counts[usize::from(length & 15)] += 1;
    }
    let used = lengths.len() - usize::from(counts[0]);
    counts[0] = 0;
    let mut left = 1i32;
    for &count in &counts[1..] {
        left = left * 2 - i32::from(count);
        if left < 0 {
            return Err(Error::CodeLengths);
        }
    }
    let primary = 1usize << bits;
    if left > 0 {
        if gaps == Gaps::None || used > 1 || (used == 1 && counts[1] == 0) {
            return Err(Error::CodeLengths);
        }
        table[..primary].fill(UNASSIGNED);
    }
    if used == 0 {
        return Ok(());
    }
    // Symbols in the order of their codes.
    let mut offsets = [0u16; MAX_LENGTH + 2];
    for length in 1..=MAX_LENGTH {
        offsets[length + 1] = offsets[length] + counts[length];
    }
    let mut sorted = [0u16; SYMBOLS];
    for (symbol, &length) in lengths.iter().enumerate() {
        if length != 0 {
            let at = &mut offsets[usize::from(length & 15)];
            sorted[usize::from(*at)] = symbol as u16;
            *at += 1;
        }
    }
    if left > 0 {
        let entry = entry(meanings[usize::from(sorted[0])], 1);
        table[..primary]
            .iter_mut()
            .step_by(2)
            .for_each(|slot| *slot = entry);
        return Ok(());
    }
    fill(table, bits, &counts, &sorted[..used], meanings);
    Ok(())
}

fn entry((value, extra): Meaning, length: u32) -> u32 {
    value | length << 8 | (length + extra)
}

/// Fill a table with a complete code. Codes are kept with their first bit lowest, and counted up
/// from that end; the primary part grows by doubling as the codes get longer.
fn fill(
    table: &mut [u32],
    bits: u32,
    counts: &[u16; MAX_LENGTH + 1],
    sorted: &[u16],
    meanings: &[Meaning],
) {
    let primary = 1usize << bits;
    let mut left_of = *counts;
    let mut length = left_of.iter().position(|&count| count > 0).unwrap_or(1);
    let mut end = 1usize << length.min(bits as usize);
    let mut code = 0usize;
    let mut part = 0; // where the present linked part begins, and its index bits
    let mut part_bits = 0;
    let mut part_of = usize::MAX;
    let mut free = primary;
    for &symbol in sorted {
        while left_of[length] == 0 {
            length += 1;
            if length <= bits as usize {
                table.copy_within(..end, end);
                end *= 2;
            }
        }
        left_of[length] -= 1;
        let meaning = meanings[usize::from(symbol)];
        if length <= bits as usize {
            table[code] = entry(meaning, length as u32);
        } else {
            let prefix = code & (primary - 1);
            if prefix != part_of {
                part_of = prefix;
                part = free;
                part_bits = linked_bits(length, bits as usize, &left_of);
                free += 1 << part_bits;
                table[prefix] =
                    EXCEPTION | LINK | (part as u32) << 16 | (part_bits as u32) << 8 | bits;
            }
            let own = length - bits as usize;
            let filled = entry(meaning, own as u32);
            let slots = table[part..part + (1 << part_bits)].iter_mut();
            slots
                .skip(code >> bits)
                .step_by(1 << own)
                .for_each(|slot| *slot = filled);
        }
        // The next code: add one at the end that is read last.
        let mask = (1usize << length) - 1;
        let gap = code ^ mask;
        if gap == 0 {
            break;
        }
        let bit = 1 << gap.ilog2();
        code = code & (bit - 1) | bit;
    }
    while end < primary {
        table.copy_within(..end, end);
        end *= 2;
    }
}

/// The index bits of a linked part that begins with a code of `length` bits, of which
/// `left[length]` more follow: as many as make it complete.
fn linked_bits(length: usize, bits: usize, left: &[u16; MAX_LENGTH + 1]) -> usize {
    let mut own = length - bits;
    let mut space = (1i32 << own) - 1 - i32::from(left[length]);
    while space > 0 && own + bits < MAX_LENGTH {
        own += 1;
        space = space * 2 - i32::from(left[own + bits]);
    }
    own
}
