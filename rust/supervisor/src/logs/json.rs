//! One log entry as a line of JSON, byte for byte as Docker writes it.
//!
//! Docker escapes what HTML would take for markup and the two line separators of Unicode, and
//! writes U+FFFD for each byte that is not part of valid UTF-8 (pkg `jsonlog` of moby).

use std::collections::BTreeMap;

use super::entry::Entry;

/// What a byte needs: 0 nothing, 1 an escape, 2 a look at the character it begins.
const CLASS: [u8; 256] = classes();

const fn classes() -> [u8; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        if byte < 0x20 || byte == b'"' as usize || byte == b'\\' as usize {
            table[byte] = 1;
        }
        if byte == b'<' as usize || byte == b'>' as usize || byte == b'&' as usize {
            table[byte] = 1;
        }
        if byte >= 0x80 {
            table[byte] = 2;
        }
        byte += 1;
    }
    table
}

/// Append one entry; `attributes` as [`attributes`] gives them.
pub fn entry(out: &mut Vec<u8>, entry: &Entry<'_>, attributes: &[u8], time: &str) {
    out.reserve(entry.line.len() + attributes.len() + 80);
    out.extend_from_slice(b"{\"log\":\"");
    escape(out, entry.line);
    if entry.complete() {
        out.extend_from_slice(b"\\n");
    }
    out.extend_from_slice(b"\",\"stream\":\"");
    out.extend_from_slice(entry.stream.name().as_bytes());
    out.push(b'"');
    out.extend_from_slice(attributes);
    out.extend_from_slice(b",\"time\":\"");
    out.extend_from_slice(time.as_bytes());
    out.extend_from_slice(b"\"}\n");
}

/// The attributes of every entry, as a member of its object; nothing where there are none.
#[must_use]
pub fn attributes(pairs: &BTreeMap<String, String>) -> Vec<u8> {
    let mut out = Vec::new();
    for (key, value) in pairs {
        out.extend_from_slice(if out.is_empty() {
            b",\"attrs\":{\""
        } else {
            b",\""
        });
        escape(&mut out, key.as_bytes());
        out.extend_from_slice(b"\":\"");
        escape(&mut out, value.as_bytes());
        out.push(b'"');
    }
    if !out.is_empty() {
        out.push(b'}');
    }
    out
}

fn escape(out: &mut Vec<u8>, text: &[u8]) {
    let mut start = 0;
    let mut at = 0;
    while at < text.len() {
        let byte = text[at];
        match CLASS[usize::from(byte)] {
            0 => {
                at += 1;
                continue;
            }
            1 => {
                out.extend_from_slice(&text[start..at]);
                escape_ascii(out, byte);
                at += 1;
            }
            _ => {
                let length = character(&text[at..]);
                let separator = length == 3
                    && text[at..at + 2] == [0xe2, 0x80]
                    && matches!(text[at + 2], 0xa8 | 0xa9);
                if length > 0 && !separator {
                    at += length;
                    continue;
                }
                out.extend_from_slice(&text[start..at]);
                let written: &[u8] = match (length, text.get(at + 2)) {
                    (0, _) => b"\\ufffd",
                    (_, Some(0xa8)) => b"\\u2028",
                    _ => b"\\u2029",
                };
                out.extend_from_slice(written);
                at += length.max(1);
            }
        }
        start = at;
    }
    out.extend_from_slice(&text[start..]);
}

fn escape_ascii(out: &mut Vec<u8>, byte: u8) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    match byte {
        b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
        b'\n' => out.extend_from_slice(b"\\n"),
        b'\r' => out.extend_from_slice(b"\\r"),
        _ => {
            out.extend_from_slice(b"\\u00");
            out.push(HEX[usize::from(byte >> 4)]);
            out.push(HEX[usize::from(byte & 15)]);
        }
    }
}

/// The length of the well-formed UTF-8 character (Unicode, table 3-7) that text begins with, or 0.
pub fn character(text: &[u8]) -> usize {
    let (length, second) = match text[0] {
        0x00..=0x7f => return 1,
        0xc2..=0xdf => (2, 0x80..=0xbf),
        0xe0 => (3, 0xa0..=0xbf),
        0xed => (3, 0x80..=0x9f),
        0xe1..=0xef => (3, 0x80..=0xbf),
        0xf0 => (4, 0x90..=0xbf),
        0xf4 => (4, 0x80..=0x8f),
        0xf1..=0xf3 => (4, 0x80..=0xbf),
        _ => return 0,
    };
    let tail = |index: usize| {
        text.get(index)
            .is_some_and(|byte| (0x80..=0xbf).contains(byte))
    };
    let good = text.get(1).is_some_and(|byte| second.contains(byte)) && (2..length).all(tail);
    if good { length } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn escaped(text: &[u8]) -> String {
        let mut out = Vec::new();
        escape(&mut out, text);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn escapes_as_docker_does() {
        for (raw, expected) in [
            (&b"plain text"[..], "plain text"),
            (b"", ""),
            (b"a\"b\\c", "a\\\"b\\\\c"),
            (b"tab\tcr\rbell\x07", "tab\\u0009cr\\rbell\\u0007"),
            (b"\x1b[31mred", "\\u001b[31mred"),
            (b"<a&b>", "\\u003ca\\u0026b\\u003e"),
            ("h\u{e4}llo \u{1f600}".as_bytes(), "h\u{e4}llo \u{1f600}"),
            (
                "\u{2028}x\u{2029}\u{2027}".as_bytes(),
                "\\u2028x\\u2029\u{2027}",
            ),
            (b"a\xffb", "a\\ufffdb"),
            (b"\xe2\x82", "\\ufffd\\ufffd"),
            (b"\xc0\xaf", "\\ufffd\\ufffd"),
            (b"\xed\xa0\x80", "\\ufffd\\ufffd\\ufffd"),
            (b"\xf4\x90\x80\x80", "\\ufffd\\ufffd\\ufffd\\ufffd"),
            (b"\x7f", "\x7f"),
        ] {
            assert_eq!(escaped(raw), expected, "{raw:?}");
        }
    }

    #[test]
    fn every_byte_string_becomes_valid_json_of_the_same_text() {
        let mut seed = 1_u32;
        for length in 0..400 {
            let text: Vec<u8> = (0..length)
                .map(|_| {
                    seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    u8::try_from(seed >> 24).unwrap()
                })
                .collect();
            let mut out = Vec::new();
            let pairs = BTreeMap::from([(String::from("a\"<"), String::from("\n"))]);
            let whole = Entry {
                stream: crate::streams::Stream::Stdout,
                time: 0,
                line: &text,
                part: None,
            };
            entry(&mut out, &whole, &attributes(&pairs), "t");
            let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
            assert_eq!(value["attrs"]["a\"<"], "\n");
            let read = value["log"].as_str().unwrap();
            assert!(read.ends_with('\n'));
            if let Ok(valid) = std::str::from_utf8(&text) {
                assert_eq!(read.strip_suffix('\n').unwrap(), valid);
            }
        }
    }
}
