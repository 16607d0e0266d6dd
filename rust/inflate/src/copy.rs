//! Matches: bytes that repeat what is already in the output.

#![allow(clippy::inline_always)] // a call for each match costs a tenth of the speed

/// So many bytes behind a match may be overwritten by [`fast`].
pub(crate) const SLACK: usize = 32;

/// Copy a match in pieces of fixed size, writing up to [`SLACK`] bytes behind it. The caller has
/// checked `distance` against `at`, and that the output goes on for `length + SLACK` bytes.
#[inline(always)]
pub(crate) fn fast(output: &mut [u8], at: usize, distance: usize, length: usize) {
    let mut from = at - distance;
    let mut to = at;
    let end = at + length;
    if distance >= 32 {
        let (before, after) = output.split_at_mut(at);
        let found = before[at - distance..].first_chunk::<32>();
        if let (Some(found), Some(room)) = (found, after.first_chunk_mut::<32>()) {
            *room = *found;
        }
        while to + 32 < end {
            from += 32;
            to += 32;
            piece::<32>(output, from, to);
        }
    } else if distance >= 8 {
        loop {
            piece::<8>(output, from, to);
            piece::<8>(output, from + 8, to + 8);
            from += 16;
            to += 16;
            if to >= end {
                break;
            }
        }
    } else if distance == 1 {
        let byte = output[from];
        output[to..end].fill(byte);
    } else {
        // Each piece is right in its first `distance` bytes.
        while to < end {
            piece::<8>(output, from, to);
            from += distance;
            to += distance;
        }
    }
}

#[inline(always)]
fn piece<const SIZE: usize>(output: &mut [u8], from: usize, to: usize) {
    let mut bytes = [0; SIZE];
    bytes.copy_from_slice(&output[from..from + SIZE]);
    output[to..to + SIZE].copy_from_slice(&bytes);
}

/// Copy exactly `length` bytes.
pub(crate) fn exact(output: &mut [u8], at: usize, distance: usize, length: usize) {
    if distance >= length {
        output.copy_within(at - distance..at - distance + length, at);
    } else {
        for index in at..at + length {
            output[index] = output[index - distance];
        }
    }
}
