//! Finds the detach keys in what a client types.

/// What became of typed bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Typed {
    /// They go to the container.
    Passed,
    /// The keys were complete: whatever came after them is nobody's.
    Detached,
}

/// A matcher that holds back what may be the beginning of the keys.
///
/// Bytes are passed on in order, none twice, as soon as they can no longer be part of the keys.
#[derive(Debug, Default)]
pub struct Detach {
    keys: Vec<u8>,
    matched: usize,
}

impl Detach {
    /// A matcher for these keys; none never match.
    #[must_use]
    pub fn new(keys: Vec<u8>) -> Self {
        Self { keys, matched: 0 }
    }

    /// Take in typed bytes; what the container gets is appended to `out`.
    pub fn feed(&mut self, typed: &[u8], out: &mut Vec<u8>) -> Typed {
        if self.keys.is_empty() {
            out.extend_from_slice(typed);
            return Typed::Passed;
        }
        for &byte in typed {
            let mut held = self.keys[..self.matched].to_vec();
            held.push(byte);
            // The longest end of what is held that begins the keys stays held; what is before it is passed.
            let keep = (0..=held.len())
                .rev()
                .find(|length| self.keys.starts_with(&held[held.len() - length..]));
            self.matched = keep.unwrap_or(0);
            out.extend_from_slice(&held[..held.len() - self.matched]);
            if self.matched == self.keys.len() {
                self.matched = 0;
                return Typed::Detached;
            }
        }
        Typed::Passed
    }

    /// What is held back, now that nothing more will be typed.
    pub fn rest(&mut self) -> &[u8] {
        let held = std::mem::take(&mut self.matched);
        &self.keys[..held]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(keys: &[u8], chunks: &[&[u8]]) -> (Vec<u8>, bool) {
        let mut detach = Detach::new(keys.to_vec());
        let mut out = Vec::new();
        for chunk in chunks {
            if detach.feed(chunk, &mut out) == Typed::Detached {
                return (out, true);
            }
        }
        out.extend_from_slice(detach.rest());
        (out, false)
    }

    #[test]
    fn keys_are_found_in_any_chunks() {
        for (keys, chunks, out, detached) in [
            (
                &b"\x10\x11"[..],
                &[&b"ab\x10\x11cd"[..]][..],
                &b"ab"[..],
                true,
            ),
            (b"\x10\x11", &[b"ab\x10", b"\x11"], b"ab", true),
            (b"\x10\x11", &[b"\x10", b"x"], b"\x10x", false),
            (b"\x10\x11", &[b"\x10\x10\x11"], b"\x10", true),
            (b"aab", &[b"a", b"a", b"a", b"b"], b"a", true),
            (b"abac", &[b"ababac"], b"ab", true),
            (b"abac", &[b"aba"], b"aba", false),
            (b"", &[b"\x10\x11"], b"\x10\x11", false),
            (b"q", &[b"xq"], b"x", true),
        ] {
            assert_eq!(
                run(keys, chunks),
                (out.to_vec(), detached),
                "{keys:?} in {chunks:?}"
            );
        }
    }

    #[test]
    fn without_the_keys_every_byte_passes() {
        let typed: Vec<u8> = (0..2000_u32)
            .map(|n| {
                if n % 3 == 0 {
                    0x10
                } else {
                    u8::try_from(n % 7).unwrap()
                }
            })
            .collect();
        for chunk in [1, 2, 3, 500] {
            let chunks: Vec<&[u8]> = typed.chunks(chunk).collect();
            assert_eq!(run(b"\x10\x11", &chunks), (typed.clone(), false));
        }
    }
}
