//! Entries from bytes. Whatever the bytes are, what is no entry is left out and counted, never fatal.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Deserialize;

use super::entry::Format;
use super::local;
use super::time;
use crate::streams::Stream;

/// What some bytes began with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decoded {
    /// An entry of so many bytes; its text has been appended to the output.
    Entry {
        /// Bytes.
        used: usize,
        /// Which output it was.
        stream: Stream,
        /// Nanoseconds since the epoch; 0 where nobody asked.
        time: u64,
    },
    /// Too little to tell.
    More,
    /// So many bytes that are no entry.
    Skip(usize),
    /// Nothing that follows can be read.
    Broken,
}

/// What is wanted of an entry besides stream and text.
#[derive(Clone, Copy, Debug, Default)]
pub struct Details {
    /// Its time.
    pub time: bool,
    /// Its attributes.
    pub attributes: bool,
}

/// Reads entries in one form.
#[derive(Debug)]
pub struct Decoder {
    format: Format,
    wanted: Details,
    /// The attributes of the last entry as they stand in a json-file: as a rule those of the next.
    known: Vec<u8>,
    /// The same as clients see them: `key=value,key=value`, percent-encoded.
    pub attributes: String,
}

#[derive(Deserialize)]
struct Line {
    #[serde(default)]
    log: String,
    stream: String,
    time: String,
    #[serde(default)]
    attrs: BTreeMap<String, String>,
}

impl Decoder {
    /// A decoder of entries.
    #[must_use]
    pub fn new(format: Format, wanted: Details) -> Self {
        Self {
            format,
            wanted,
            known: Vec::new(),
            attributes: String::new(),
        }
    }

    /// Read the entry that `data` begins with, and append its text to `out`, with the newline of a complete line.
    pub fn next(&mut self, data: &[u8], out: &mut Vec<u8>) -> Decoded {
        match self.format {
            Format::JsonFile => {
                let before = out.len();
                if let Some(decoded) = self.usual(data, out) {
                    return decoded;
                }
                out.truncate(before);
                self.unusual(data, out)
            }
            Format::Local => self.local(data, out),
        }
    }

    /// A line exactly as Docker and we write it. None for any other.
    fn usual(&mut self, data: &[u8], out: &mut Vec<u8>) -> Option<Decoded> {
        let text = data.strip_prefix(b"{\"log\":\"")?;
        let rest = &text[unescape(text, out)?..];
        let rest = rest.strip_prefix(b",\"stream\":\"std")?;
        let (stream, rest) = match rest.split_first_chunk()? {
            (b"out\"", rest) => (Stream::Stdout, rest),
            (b"err\"", rest) => (Stream::Stderr, rest),
            _ => return None,
        };
        let rest = if rest.starts_with(b",\"attrs\":") {
            rest.strip_prefix(self.known.as_slice())
                .filter(|_| !self.known.is_empty())?
        } else {
            if self.wanted.attributes {
                self.attributes.clear();
                self.known.clear();
            }
            rest
        };
        let rest = rest.strip_prefix(b",\"time\":\"")?;
        let end = memchr::memchr(b'"', &rest[..rest.len().min(48)])?;
        let after = rest[end..].strip_prefix(b"\"}\n")?;
        let time = if self.wanted.time {
            time::parse(&rest[..end])?
        } else {
            0
        };
        Some(Decoded::Entry {
            used: data.len() - after.len(),
            stream,
            time,
        })
    }

    /// Any line.
    fn unusual(&mut self, data: &[u8], out: &mut Vec<u8>) -> Decoded {
        let Some(end) = memchr::memchr(b'\n', data) else {
            return Decoded::More;
        };
        let used = end + 1;
        // What a power cut has left may begin with zeros.
        let zeros = data[..end].iter().take_while(|byte| **byte == 0).count();
        let line = &data[zeros..end];
        let Ok(found) = serde_json::from_slice::<Line>(line) else {
            return Decoded::Skip(used);
        };
        let stream = match found.stream.as_str() {
            "stdout" => Stream::Stdout,
            "stderr" => Stream::Stderr,
            _ => return Decoded::Skip(used),
        };
        let Some(time) = time::parse(found.time.as_bytes()) else {
            return Decoded::Skip(used);
        };
        self.attributes.clear();
        self.known.clear();
        if !found.attrs.is_empty() {
            for (key, value) in &found.attrs {
                show(&mut self.attributes, key, value);
            }
            let object = super::json::attributes(&found.attrs);
            if memchr::memmem::find(line, &object).is_some() {
                self.known = object;
            }
        }
        out.extend_from_slice(found.log.as_bytes());
        Decoded::Entry { used, stream, time }
    }

    fn local(&mut self, data: &[u8], out: &mut Vec<u8>) -> Decoded {
        let message = match local::message(data) {
            None => return Decoded::More,
            Some(Err(local::NoMessage)) => return Decoded::Broken,
            Some(Ok(message)) => message,
        };
        let used = message.len() + 2 * local::LENGTH;
        let wanted = self.wanted.attributes;
        self.attributes.clear();
        let mut pairs = Vec::new();
        let entry = local::decode(message, |key, value| {
            if wanted {
                pairs.push((key, value));
            }
        });
        let Some(entry) = entry else {
            return Decoded::Skip(used);
        };
        pairs.sort_unstable();
        for (key, value) in pairs {
            show(&mut self.attributes, key, value);
        }
        out.extend_from_slice(entry.line);
        if entry.complete() {
            out.push(b'\n');
        }
        Decoded::Entry {
            used,
            stream: entry.stream,
            time: entry.time,
        }
    }
}

/// Append a JSON string's text; how long the string is, with its closing quote. None where it does not end or is none.
fn unescape(text: &[u8], out: &mut Vec<u8>) -> Option<usize> {
    let mut at = 0;
    loop {
        let found = at + memchr::memchr2(b'"', b'\\', &text[at..])?;
        out.extend_from_slice(&text[at..found]);
        if text[found] == b'"' {
            return Some(found + 1);
        }
        let mut length = 2;
        match text.get(found + 1)? {
            b'n' => out.push(b'\n'),
            b'r' => out.push(b'\r'),
            b't' => out.push(b'\t'),
            b'b' => out.push(8),
            b'f' => out.push(12),
            plain @ (b'"' | b'\\' | b'/') => out.push(*plain),
            b'u' => {
                let first = unit(text, found)?;
                let mut code = u32::from(first);
                length = 6;
                if (0xd800..0xdc00).contains(&first) {
                    let second = unit(text, found + 6)?;
                    code = 0x10000
                        + ((u32::from(first) - 0xd800) << 10)
                        + u32::from(second)
                            .checked_sub(0xdc00)
                            .filter(|low| *low < 0x400)?;
                    length = 12;
                }
                let mut space = [0; 4];
                out.extend_from_slice(char::from_u32(code)?.encode_utf8(&mut space).as_bytes());
            }
            _ => return None,
        }
        at = found + length;
    }
}

/// The number of `\uXXXX` at a place.
fn unit(text: &[u8], at: usize) -> Option<u16> {
    let digits = text.get(at..at + 6)?.strip_prefix(b"\\u")?;
    digits.iter().try_fold(0, |value, digit| {
        Some(value << 4 | u16::try_from(char::from(*digit).to_digit(16)?).ok()?)
    })
}

/// Append an attribute as Docker's answers carry it: Go's `url.QueryEscape` of both sides.
fn show(out: &mut String, key: &str, value: &str) {
    if !out.is_empty() {
        out.push(',');
    }
    for (index, text) in [key, value].into_iter().enumerate() {
        if index == 1 {
            out.push('=');
        }
        for byte in text.bytes() {
            match byte {
                b' ' => out.push('+'),
                b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
                _ if byte.is_ascii_alphanumeric() => out.push(char::from(byte)),
                // Writing to a string cannot fail.
                _ => _ = write!(out, "%{byte:02X}"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::entry::{Encoder, Entry, Part};
    use super::*;

    const ALL: Details = Details {
        time: true,
        attributes: true,
    };

    fn pairs() -> BTreeMap<String, String> {
        [("b c", "1/2"), ("a", "x,\"=\u{e4}<")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into()
    }

    fn noise(seed: &mut u32, length: usize) -> Vec<u8> {
        (0..length)
            .map(|_| {
                *seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                seed.to_be_bytes()[0]
            })
            .collect()
    }

    #[test]
    fn what_is_written_is_read() {
        let mut seed = 3;
        for format in [Format::JsonFile, Format::Local] {
            for attributes in [BTreeMap::new(), pairs()] {
                let mut writes = Encoder::new(format, &attributes);
                let mut decoder = Decoder::new(format, ALL);
                for length in 0..600 {
                    let text = noise(&mut seed, length);
                    // json-file keeps text, and nothing else.
                    let text = match format {
                        Format::JsonFile => {
                            String::from_utf8_lossy(&text).into_owned().into_bytes()
                        }
                        Format::Local => text,
                    };
                    let part = (length % 3 == 0).then_some(Part {
                        id: "x",
                        ordinal: 2,
                        last: length % 2 == 0,
                    });
                    let entry = Entry {
                        stream: Stream::ALL[length % 2],
                        time: 1_700_000_000_000_000_000 + u64::try_from(length).unwrap() * 1001,
                        line: &text,
                        part,
                    };
                    let mut written = Vec::new();
                    writes.write(&mut written, &entry);
                    let whole = written.len();
                    written.extend_from_slice(b"{\"log\":");
                    let mut read = b"before".to_vec();
                    let found = decoder.next(&written, &mut read);
                    let expected = Decoded::Entry {
                        used: whole,
                        stream: entry.stream,
                        time: entry.time,
                    };
                    assert_eq!(found, expected, "{}", String::from_utf8_lossy(&written));
                    let mut expected = [b"before", &text[..]].concat();
                    if entry.complete() {
                        expected.push(b'\n');
                    }
                    assert_eq!(read, expected);
                    let shown = if attributes.is_empty() {
                        ""
                    } else {
                        "a=x%2C%22%3D%C3%A4%3C,b+c=1%2F2"
                    };
                    assert_eq!(decoder.attributes, shown);
                    for cut in (0..whole).step_by(7) {
                        assert_eq!(decoder.next(&written[..cut], &mut read), Decoded::More);
                    }
                }
            }
        }
    }

    #[test]
    fn lines_are_read_as_other_programs_write_them() {
        for (line, text) in [
            (
                r#"{"time":"1970-01-01T00:00:01Z","stream":"stderr","log":"a\tb"}"#,
                "a\tb",
            ),
            (r#"{"stream":"stderr","time":"1970-01-01T00:00:01Z"}"#, ""),
            (
                r#" { "log" : "\/\b\f" , "stream":"stderr","time":"1970-01-01T00:00:01Z", "more": 1}"#,
                "/\u{8}\u{c}",
            ),
            (
                r#"{"log":"\ud83d\ude00\u00e4","stream":"stderr","time":"1970-01-01T00:00:01Z"}"#,
                "\u{1f600}\u{e4}",
            ),
            (
                "\0\0\0{\"log\":\"x\",\"stream\":\"stderr\",\"time\":\"1970-01-01T01:00:01+01:00\"}",
                "x",
            ),
        ] {
            let mut out = Vec::new();
            let decoded =
                Decoder::new(Format::JsonFile, ALL).next(format!("{line}\n").as_bytes(), &mut out);
            let expected = Decoded::Entry {
                used: line.len() + 1,
                stream: Stream::Stderr,
                time: 1_000_000_000,
            };
            assert_eq!(
                (decoded, out.as_slice()),
                (expected, text.as_bytes()),
                "{line}"
            );
        }
    }

    #[test]
    fn what_is_no_entry_is_left_out() {
        for line in [
            "",
            "\0\0\0\0",
            "garbage",
            "{}",
            r#"{"log":"torn"#,
            r#"{"log":"\ud83d","stream":"stdout","time":"1970-01-01T00:00:01Z"}"#,
            r#"{"log":"x","stream":"stdin","time":"1970-01-01T00:00:01Z"}"#,
            r#"{"log":"x","stream":"stdout","time":"yesterday"}"#,
            r#"{"log":7,"stream":"stdout","time":"1970-01-01T00:00:01Z"}"#,
        ] {
            let mut out = Vec::new();
            let data = format!(
                "{line}\n{{\"log\":\"next\",\"stream\":\"stdout\",\"time\":\"1970-01-01T00:00:01Z\"}}\n"
            );
            let mut decoder = Decoder::new(Format::JsonFile, ALL);
            assert_eq!(
                decoder.next(data.as_bytes(), &mut out),
                Decoded::Skip(line.len() + 1),
                "{line}"
            );
            assert!(out.is_empty());
            assert!(matches!(
                decoder.next(&data.as_bytes()[line.len() + 1..], &mut out),
                Decoded::Entry { .. }
            ));
            assert_eq!(out, b"next");
        }
        assert_eq!(
            Decoder::new(Format::Local, ALL).next(&[0; 64], &mut Vec::new()),
            Decoded::Broken
        );
    }

    #[test]
    fn no_bytes_make_it_fail() {
        let mut seed = 11;
        for round in 0..4000_usize {
            let mut data = noise(&mut seed, round % 200);
            if round % 2 == 0 {
                // Damage something that was whole.
                let mut whole = Vec::new();
                let entry = Entry {
                    stream: Stream::Stdout,
                    time: 5,
                    line: b"some \"text\" \xff\n",
                    part: None,
                };
                Encoder::new(
                    if round % 4 == 0 {
                        Format::Local
                    } else {
                        Format::JsonFile
                    },
                    &pairs(),
                )
                .write(&mut whole, &entry);
                for byte in data.iter().take(3) {
                    let at = usize::from(*byte) % whole.len();
                    whole[at] ^= byte;
                }
                data = whole;
            }
            for format in [Format::JsonFile, Format::Local] {
                let mut out = Vec::new();
                match Decoder::new(format, ALL).next(&data, &mut out) {
                    Decoded::Entry { used, .. } | Decoded::Skip(used) => {
                        assert!(used > 0 && used <= data.len());
                    }
                    Decoded::More | Decoded::Broken => {}
                }
            }
        }
    }
}
