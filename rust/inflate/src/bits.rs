//! Bits from bytes, the lowest bit of each byte first.

/// The part of the input that is not read yet.
#[derive(Debug)]
pub(crate) struct Input<'a> {
    pub(crate) data: &'a [u8],
    pub(crate) position: usize,
}

impl<'a> Input<'a> {
    pub(crate) fn new(data: &'a [u8]) -> Self {
        Self { data, position: 0 }
    }
}

/// Bits that were read and not yet used; they survive from one input buffer to the next.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Bits {
    /// Bits from `count` up are zero.
    pub(crate) hold: u64,
    /// At most 63.
    pub(crate) count: u32,
}

impl Bits {
    /// Read bytes until `wanted` bits (at most 56) are there; false where the input ends before.
    #[inline]
    pub(crate) fn need(&mut self, input: &mut Input<'_>, wanted: u32) -> bool {
        while self.count < wanted {
            let Some(&byte) = input.data.get(input.position) else {
                return false;
            };
            input.position += 1;
            self.hold |= u64::from(byte) << self.count;
            self.count += 8;
        }
        true
    }

    /// The lowest `count` bits (at most 32), without using them.
    #[inline]
    pub(crate) fn peek(self, count: u32) -> u32 {
        (self.hold & ((1 << count) - 1)) as u32
    }

    #[inline]
    pub(crate) fn skip(&mut self, count: u32) {
        self.hold >>= count;
        self.count -= count;
    }

    /// Use the lowest `count` bits, which must be there.
    #[inline]
    pub(crate) fn take(&mut self, count: u32) -> u32 {
        let value = self.peek(count);
        self.skip(count);
        value
    }

    /// Drop the bits before the next byte.
    pub(crate) fn align(&mut self) {
        self.skip(self.count & 7);
    }
}
