//! Cuts a stream of output into log entries.

use super::json::character;

/// The most output that one entry carries.
pub const ENTRY_BYTES: usize = 16 * 1024;

/// One stream's unfinished line: shorter than [`ENTRY_BYTES`], and no memory while there is none.
#[derive(Debug, Default)]
pub struct Lines {
    pending: Vec<u8>,
}

impl Lines {
    /// Take in output and give each entry to `emit`, with whether its line ends there.
    pub fn push(&mut self, mut data: &[u8], mut emit: impl FnMut(&[u8], bool)) {
        while let Some(end) = memchr::memchr(b'\n', data) {
            let rest = self.hold(&data[..end], &mut emit);
            if self.pending.is_empty() {
                emit(rest, true);
            } else {
                self.pending.extend_from_slice(rest);
                emit(&self.take(), true);
            }
            data = &data[end + 1..];
        }
        let rest = self.hold(data, &mut emit);
        self.pending.extend_from_slice(rest);
    }

    /// What is held back.
    pub fn pending(&self) -> &[u8] {
        &self.pending
    }

    /// What has been held back, for good.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.pending)
    }

    /// Emit full entries until what is pending and the rest of `part` are less than one; the rest.
    fn hold<'a>(&mut self, mut part: &'a [u8], emit: &mut impl FnMut(&[u8], bool)) -> &'a [u8] {
        while self.pending.len() + part.len() >= ENTRY_BYTES {
            let (head, tail) = part.split_at(ENTRY_BYTES - self.pending.len());
            if self.pending.is_empty() {
                let cut = whole_characters(head);
                emit(&part[..cut], false);
                part = &part[cut..];
                continue;
            }
            self.pending.extend_from_slice(head);
            let mut full = self.take();
            let cut = whole_characters(&full);
            emit(&full[..cut], false);
            full.drain(..cut);
            self.pending = full;
            part = tail;
        }
        part
    }
}

/// How much of a full entry to emit so that no character is torn: all of it, or up to 3 bytes less.
fn whole_characters(full: &[u8]) -> usize {
    for back in 1..=3.min(full.len()) {
        let at = full.len() - back;
        if full[at] >= 0xc0 {
            // A leading byte: the character is whole, or it is torn here, or it is not UTF-8 at all.
            let needs = match full[at] {
                0xc2..=0xdf => 2,
                0xe0..=0xef => 3,
                0xf0..=0xf4 => 4,
                _ => return full.len(),
            };
            return if needs > back && character_may_go_on(&full[at..]) {
                at
            } else {
                full.len()
            };
        }
        if full[at] < 0x80 {
            break;
        }
    }
    full.len()
}

/// Whether more bytes could make this beginning a character.
fn character_may_go_on(begin: &[u8]) -> bool {
    let mut whole = [0x80_u8; 4];
    whole[..begin.len()].copy_from_slice(begin);
    if begin.len() == 1 {
        // The second byte's range depends on the first; both ends of it are tried.
        let mut other = whole;
        other[1] = 0xbf;
        return character(&whole) > 0 || character(&other) > 0;
    }
    character(&whole) > 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(chunks: &[&[u8]]) -> (Vec<(Vec<u8>, bool)>, Vec<u8>) {
        let mut lines = Lines::default();
        let mut entries = Vec::new();
        for chunk in chunks {
            lines.push(chunk, |line, complete| {
                entries.push((line.to_vec(), complete));
            });
        }
        (entries, lines.take())
    }

    #[test]
    fn lines_are_joined_over_chunks() {
        let (entries, rest) = cut(&[b"one\ntw", b"o\n\nthr", b"ee"]);
        assert_eq!(
            entries,
            [
                (b"one".to_vec(), true),
                (b"two".to_vec(), true),
                (Vec::new(), true)
            ]
        );
        assert_eq!(rest, b"three");
    }

    #[test]
    fn a_long_line_is_cut_at_the_limit() {
        let long = vec![b'x'; 2 * ENTRY_BYTES + 5];
        for chunk in [
            1000,
            ENTRY_BYTES - 1,
            ENTRY_BYTES,
            ENTRY_BYTES + 1,
            long.len(),
        ] {
            let mut chunks: Vec<&[u8]> = long.chunks(chunk).collect();
            chunks.push(b"\nend");
            let (entries, rest) = cut(&chunks);
            let sizes: Vec<(usize, bool)> = entries
                .iter()
                .map(|(line, whole)| (line.len(), *whole))
                .collect();
            assert_eq!(
                sizes,
                [(ENTRY_BYTES, false), (ENTRY_BYTES, false), (5, true)],
                "chunks of {chunk}"
            );
            assert_eq!(rest, b"end");
        }
    }

    #[test]
    fn a_line_of_exactly_the_limit_ends_with_an_empty_entry() {
        let line = vec![b'x'; ENTRY_BYTES];
        let (entries, rest) = cut(&[&line, b"\n"]);
        assert_eq!(entries, [(line, false), (Vec::new(), true)]);
        assert!(rest.is_empty());
    }

    #[test]
    fn characters_are_not_torn() {
        for character in ["\u{e4}", "\u{20ac}", "\u{1f600}", "\u{ffff}", "\u{800}"] {
            for shift in 0..4 {
                let text = "x".repeat(shift)
                    + &character.repeat(2 * ENTRY_BYTES / character.len() + 2)
                    + "\n";
                for chunk in [777, text.len()] {
                    let chunks: Vec<&[u8]> = text.as_bytes().chunks(chunk).collect();
                    let (entries, _) = cut(&chunks);
                    assert!(
                        entries
                            .iter()
                            .all(|(line, _)| std::str::from_utf8(line).is_ok())
                    );
                    assert_eq!(entries.concat_lines(), text.trim_end().as_bytes());
                }
            }
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_cut_all_the_same() {
        let noise = vec![0x80; ENTRY_BYTES + 1];
        let (entries, rest) = cut(&[&noise]);
        assert_eq!(entries.len(), 1);
        assert_eq!(rest.len(), 1);
    }

    trait Concat {
        fn concat_lines(&self) -> Vec<u8>;
    }

    impl Concat for Vec<(Vec<u8>, bool)> {
        fn concat_lines(&self) -> Vec<u8> {
            self.iter().flat_map(|(line, _)| line.clone()).collect()
        }
    }
}
