//! One entry in the form of Docker's `local` driver: a protobuf message (moby's `LogEntry`) between two copies of its
//! length, four bytes each in network order, so that a file can be read from either end.
//!
//! ```text
//! LogEntry                    1 source: string, 2 time_nano: int64, 3 line: bytes, 4 partial: bool,
//!                             5 partial_log_metadata: Partial, 6 attrs: repeated Attribute
//! PartialLogEntryMetadata     1 last: bool, 2 id: string, 3 ordinal: int32
//! LogAttr                     1 key: string, 2 value: string
//! ```
//!
//! What is zero or empty is left out, as proto3 does. No message is empty: each has a source.

use std::collections::BTreeMap;

use super::entry::{Entry, Part};
use crate::streams::Stream;

/// Bytes of a length.
pub const LENGTH: usize = 4;
/// The longest message that is taken for one (Docker's own bound).
pub const LONGEST: usize = 1_000_000;

const VARINT: u8 = 0;
const BYTES: u8 = 2;

/// Append one entry; `attributes` as [`attributes`] gives them.
pub fn entry(out: &mut Vec<u8>, entry: &Entry<'_>, attributes: &[u8]) {
    out.reserve(entry.line.len() + attributes.len() + 140);
    let begin = out.len();
    out.extend_from_slice(&[0; LENGTH]);
    bytes(out, 1, entry.stream.name().as_bytes());
    number(out, 2, entry.time);
    bytes(out, 3, entry.line);
    if let Some(part) = entry.part {
        number(out, 4, 1);
        let mut inner = Vec::with_capacity(80);
        number(&mut inner, 1, part.last.into());
        bytes(&mut inner, 2, part.id.as_bytes());
        number(&mut inner, 3, part.ordinal.into());
        bytes(out, 5, &inner);
    }
    out.extend_from_slice(attributes);
    let length = u32::try_from(out.len() - begin - LENGTH)
        .unwrap_or(u32::MAX)
        .to_be_bytes();
    out[begin..begin + LENGTH].copy_from_slice(&length);
    out.extend_from_slice(&length);
}

/// The attributes of every entry, encoded.
#[must_use]
pub fn attributes(pairs: &BTreeMap<String, String>) -> Vec<u8> {
    let mut out = Vec::new();
    for (key, value) in pairs {
        let mut inner = Vec::new();
        bytes(&mut inner, 1, key.as_bytes());
        bytes(&mut inner, 2, value.as_bytes());
        bytes(&mut out, 6, &inner);
    }
    out
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

fn number(out: &mut Vec<u8>, field: u8, value: u64) {
    if value != 0 {
        out.push(field << 3 | VARINT);
        varint(out, value);
    }
}

fn bytes(out: &mut Vec<u8>, field: u8, value: &[u8]) {
    if !value.is_empty() {
        out.push(field << 3 | BYTES);
        varint(out, u64::try_from(value.len()).unwrap_or(u64::MAX));
        out.extend_from_slice(value);
    }
}

/// A message's fields, one after another; None where it is not protobuf.
struct Fields<'a>(&'a [u8]);

enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    /// Of a kind that no field of ours has.
    Other,
}

impl<'a> Fields<'a> {
    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for (index, byte) in self.0.iter().take(10).enumerate() {
            value |= u64::from(byte & 0x7f).checked_shl(u32::try_from(index).ok()? * 7)?;
            if byte & 0x80 == 0 {
                self.0 = &self.0[index + 1..];
                return Some(value);
            }
        }
        None
    }

    fn take(&mut self, length: u64) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(usize::try_from(length).ok()?)?;
        self.0 = tail;
        Some(head)
    }

    /// The next field's number and value.
    fn next(&mut self) -> Option<(u64, Value<'a>)> {
        let tag = self.varint()?;
        let value = match tag & 7 {
            0 => Value::Number(self.varint()?),
            1 => self.take(8).map(|_| Value::Other)?,
            2 => {
                let length = self.varint()?;
                Value::Bytes(self.take(length)?)
            }
            5 => self.take(4).map(|_| Value::Other)?,
            _ => return None,
        };
        Some((tag >> 3, value))
    }
}

/// Read a message without its lengths: the entry, with each attribute given to `attribute`. None if it is no entry.
pub fn decode<'a>(
    message: &'a [u8],
    mut attribute: impl FnMut(&'a str, &'a str),
) -> Option<Entry<'a>> {
    let mut fields = Fields(message);
    let (mut stream, mut time, mut line, mut partial) = (None, 0, &[][..], false);
    let mut part = Part {
        id: "",
        ordinal: 0,
        last: false,
    };
    while !fields.0.is_empty() {
        match fields.next()? {
            (1, Value::Bytes(b"stdout")) => stream = Some(Stream::Stdout),
            (1, Value::Bytes(b"stderr")) => stream = Some(Stream::Stderr),
            (2, Value::Number(value)) => time = value,
            (3, Value::Bytes(value)) => line = value,
            (4, Value::Number(value)) => partial = value != 0,
            (5, Value::Bytes(inner)) => {
                let mut fields = Fields(inner);
                while !fields.0.is_empty() {
                    match fields.next()? {
                        (1, Value::Number(value)) => part.last = value != 0,
                        (2, Value::Bytes(value)) => part.id = std::str::from_utf8(value).ok()?,
                        (3, Value::Number(value)) => part.ordinal = u32::try_from(value).ok()?,
                        _ => {}
                    }
                }
            }
            (6, Value::Bytes(inner)) => {
                let (mut key, mut value) = ("", "");
                let mut fields = Fields(inner);
                while !fields.0.is_empty() {
                    match fields.next()? {
                        (1, Value::Bytes(text)) => key = std::str::from_utf8(text).ok()?,
                        (2, Value::Bytes(text)) => value = std::str::from_utf8(text).ok()?,
                        _ => {}
                    }
                }
                attribute(key, value);
            }
            _ => {}
        }
    }
    Some(Entry {
        stream: stream?,
        time,
        line,
        part: partial.then_some(part),
    })
}

/// The message that `data` begins with: None while more is needed, an error where this is no length.
pub fn message(data: &[u8]) -> Option<Result<&[u8], NoMessage>> {
    let length = length(data)?;
    if length == 0 || length > LONGEST {
        return Some(Err(NoMessage));
    }
    let whole = data.get(..length + 2 * LENGTH)?;
    let (head, tail) = whole.split_at(LENGTH + length);
    Some(if tail == &whole[..LENGTH] {
        Ok(&head[LENGTH..])
    } else {
        Err(NoMessage)
    })
}

/// What is no message between its lengths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoMessage;

/// The length that `data` begins with.
#[must_use]
pub fn length(data: &[u8]) -> Option<usize> {
    let head: [u8; LENGTH] = data.get(..LENGTH)?.try_into().ok()?;
    usize::try_from(u32::from_be_bytes(head)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_those_of_docker() {
        // Written by moby's own encoder (daemon/logger/local), of the same message.
        let part = Part {
            id: "ab",
            ordinal: 3,
            last: true,
        };
        let mut out = Vec::new();
        let pairs = BTreeMap::from([("k".to_owned(), "v".to_owned())]);
        entry(
            &mut out,
            &Entry {
                stream: Stream::Stdout,
                time: 300,
                line: b"hi",
                part: Some(part),
            },
            &attributes(&pairs),
        );
        let message = b"\x0a\x06stdout\x10\xac\x02\x1a\x02hi\x20\x01\x2a\x08\x08\x01\x12\x02ab\x18\x03\x32\x06\x0a\x01k\x12\x01v";
        let length = u32::try_from(message.len()).unwrap().to_be_bytes();
        assert_eq!(out, [&length[..], message, &length[..]].concat());
    }

    #[test]
    fn what_is_written_is_read() {
        let long = vec![0xff; 70_000];
        for line in [&b""[..], b"x", b"\0\n\xff", &long] {
            for part in [
                None,
                Some(Part {
                    id: "some",
                    ordinal: 1,
                    last: false,
                }),
            ] {
                let wanted = Entry {
                    stream: Stream::Stderr,
                    time: u64::MAX / 3,
                    line,
                    part,
                };
                let mut out = Vec::new();
                let pairs = BTreeMap::from([
                    ("a".to_owned(), "1".to_owned()),
                    ("b".to_owned(), String::new()),
                ]);
                entry(&mut out, &wanted, &attributes(&pairs));
                let mut seen = Vec::new();
                let found = message(&out).unwrap().unwrap();
                assert_eq!(
                    decode(found, |key, value| seen.push((key, value))),
                    Some(wanted)
                );
                assert_eq!(seen, [("a", "1"), ("b", "")]);
                for cut in 0..out.len().min(300) {
                    assert_eq!(message(&out[..cut]), None);
                }
            }
        }
    }

    #[test]
    fn no_bytes_make_it_fail() {
        let mut seed = 7_u32;
        for length in 0..2000 {
            let noise: Vec<u8> = (0..length % 97)
                .map(|_| {
                    seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    // Small values make fields that nest.
                    u8::try_from(seed >> 24).unwrap() % 48
                })
                .collect();
            let _ = decode(&noise, |_, _| {});
        }
        assert_eq!(message(&[0; 16]), Some(Err(NoMessage)));
        assert_eq!(message(&[0xff; 16]), Some(Err(NoMessage)));
        assert_eq!(message(b"\0\0\0\x01xyyyy"), Some(Err(NoMessage)));
    }
}
