//! Decoding: messages, acknowledgements and attributes. Nothing is trusted to be as long as it says.

use std::io;

use super::{HEADER, aligned};

const KIND_NOOP: u16 = 1;
const KIND_ERROR: u16 = 2;
const KIND_DONE: u16 = 3;
const FLAG_DUMP_INTERRUPTED: u16 = 0x10;
const FLAG_CAPPED: u16 = 0x100;
const FLAG_ACK_ATTRIBUTES: u16 = 0x200;
const ERROR_ATTRIBUTE_TEXT: u16 = 1;

/// One message of the kernel's.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    /// The port of the socket through which it was asked for.
    pub(crate) port: u32,
    pub(crate) sequence: u32,
    pub(crate) content: Content,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// An object, of a type, and its bytes after the header.
    Object {
        kind: u16,
        body: Vec<u8>,
        interrupted: bool,
    },
    /// A request succeeded (0), or failed with an errno and perhaps an explanation.
    Status { errno: i32, detail: Option<String> },
    /// A dump's end, with an errno or 0.
    Done { errno: i32, interrupted: bool },
}

impl Content {
    pub(crate) fn cause(errno: i32) -> io::Error {
        io::Error::from_raw_os_error(errno)
    }
}

/// Take one datagram apart; None where a length does not hold.
pub(crate) fn parse(mut bytes: &[u8], mut each: impl FnMut(Reply)) -> Option<()> {
    while bytes.len() >= HEADER {
        let length = usize::try_from(u32_ne(bytes)?).ok()?;
        let message = bytes
            .get(..length)
            .filter(|message| message.len() >= HEADER)?;
        let kind = u16::from_ne_bytes([message[4], message[5]]);
        let flags = u16::from_ne_bytes([message[6], message[7]]);
        let sequence = u32_ne(&message[8..])?;
        let port = u32_ne(&message[12..])?;
        let interrupted = flags & FLAG_DUMP_INTERRUPTED != 0;
        let body = &message[HEADER..];
        let content = match kind {
            KIND_NOOP => None,
            KIND_ERROR => Some(status(body, flags)?),
            KIND_DONE => Some(Content::Done {
                errno: errno(body).unwrap_or(0),
                interrupted,
            }),
            _ => Some(Content::Object {
                kind,
                body: body.to_vec(),
                interrupted,
            }),
        };
        if let Some(content) = content {
            each(Reply {
                port,
                sequence,
                content,
            });
        }
        bytes = bytes.get(aligned(length)..).unwrap_or_default();
    }
    bytes.is_empty().then_some(())
}

fn status(body: &[u8], flags: u16) -> Option<Content> {
    let errno = errno(body)?;
    let mut detail = None;
    if flags & FLAG_ACK_ATTRIBUTES != 0 {
        // The request's header follows, and its payload too unless the kernel cut it off.
        let request = usize::try_from(u32_ne(body.get(4..)?)?).ok()?;
        let skip = 4 + if flags & FLAG_CAPPED != 0 {
            HEADER
        } else {
            aligned(request)
        };
        for (kind, value) in attributes(body.get(skip..)?) {
            if kind == ERROR_ATTRIBUTE_TEXT {
                detail = text(value);
            }
        }
    }
    Some(Content::Status { errno, detail })
}

/// The kernel gives errors as negative numbers.
fn errno(body: &[u8]) -> Option<i32> {
    let bytes: [u8; 4] = body.get(..4)?.try_into().ok()?;
    i32::from_ne_bytes(bytes).checked_neg()
}

/// The attributes in a message's body, after its fixed header.
pub(crate) fn attributes(bytes: &[u8]) -> Attributes<'_> {
    Attributes { bytes }
}

/// Pairs of an attribute's type, without flags, and its value.
#[derive(Debug)]
pub(crate) struct Attributes<'a> {
    bytes: &'a [u8],
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let length = usize::from(u16::from_ne_bytes(self.bytes.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(self.bytes.get(2..4)?.try_into().ok()?) & 0x3fff;
        let value = self.bytes.get(4..length)?;
        self.bytes = self.bytes.get(aligned(length)..).unwrap_or_default();
        Some((kind, value))
    }
}

/// A string attribute's text up to its NUL.
pub(crate) fn text(value: &[u8]) -> Option<String> {
    let end = value
        .iter()
        .position(|&byte| byte == 0)
        .unwrap_or(value.len());
    String::from_utf8(value[..end].to_vec()).ok()
}

/// The 32-bit integer, in host order, that a value begins with.
pub(crate) fn u32_ne(value: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(value.get(..4)?.try_into().ok()?))
}

/// The 32-bit integer in network order (nftables).
pub(crate) fn u32_be(value: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(value.get(..4)?.try_into().ok()?))
}

/// The 64-bit one.
pub(crate) fn u64_be(value: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(value.get(..8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::super::Batch;
    use super::*;

    fn all(bytes: &[u8]) -> Option<Vec<Reply>> {
        let mut replies = Vec::new();
        parse(bytes, |reply| replies.push(reply))?;
        Some(replies)
    }

    fn message(kind: u16, flags: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
        let mut bytes = u32::try_from(HEADER + body.len())
            .unwrap()
            .to_ne_bytes()
            .to_vec();
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&flags.to_ne_bytes());
        bytes.extend_from_slice(&sequence.to_ne_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(body);
        bytes.resize(aligned(bytes.len()), 0);
        bytes
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        let mut batch = Batch::new();
        batch.request("x", 0x20, 0, |body| {
            body.header(&[9; 4]);
            body.text(1, "name");
            body.nest(2, |body| body.u32_be(3, 77));
        });
        let replies = all(batch.numbered(5)).unwrap();
        let [
            Reply {
                port: 0,
                sequence: 5,
                content:
                    Content::Object {
                        kind: 0x20, body, ..
                    },
            },
        ] = &replies[..]
        else {
            panic!("{replies:?}")
        };
        let found: Vec<_> = attributes(&body[4..]).collect();
        assert_eq!(text(found[0].1).as_deref(), Some("name"));
        assert_eq!(found[1].0, 2, "the nested flag is not part of the type");
        assert_eq!(
            attributes(found[1].1).next().map(|(_, value)| value),
            Some(&[0, 0, 0, 77][..])
        );
    }

    #[test]
    fn the_kernels_words_come_with_its_errors() {
        let mut body = (-17i32).to_ne_bytes().to_vec();
        body.extend_from_slice(&message(0x10, 0, 3, &[])[..]);
        body.extend_from_slice(&[8, 0, 2, 0, 1, 0, 0, 0]); // the offset
        body.extend_from_slice(&[9, 0, 1, 0, b'o', b'o', b'p', b's', 0, 0, 0, 0]);
        let replies = all(&message(
            KIND_ERROR,
            FLAG_CAPPED | FLAG_ACK_ATTRIBUTES,
            3,
            &body,
        ))
        .unwrap();
        let expected = Content::Status {
            errno: 17,
            detail: Some("oops".to_owned()),
        };
        assert_eq!(
            replies,
            [Reply {
                port: 0,
                sequence: 3,
                content: expected
            }]
        );
    }

    #[test]
    fn lengths_that_lie_are_refused() {
        let good = message(0x10, 0, 1, &[1, 2, 3, 4]);
        assert!(all(&good).is_some());
        assert_eq!(all(&[]), Some(vec![]));
        for length in [0u32, 15, 21, u32::MAX] {
            let mut bad = good.clone();
            bad[..4].copy_from_slice(&length.to_ne_bytes());
            assert_eq!(all(&bad), None, "length {length}");
        }
        for bytes in [
            &[][..],
            &[4],
            &[3, 0, 1, 0],
            &[9, 0, 1, 0, 1],
            &[0xff, 0xff, 1, 0],
        ] {
            assert_eq!(attributes(bytes).next(), None, "{bytes:?}");
        }
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let mut state = 1u64;
        for _ in 0..20_000 {
            let mut bytes = Vec::new();
            for _ in 0..state % 61 {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                let byte = state.to_be_bytes()[0];
                bytes.push(if byte < 128 { byte % 24 } else { byte });
            }
            state = state.wrapping_add(1);
            let _ = all(&bytes);
            assert!(attributes(&bytes).count() <= bytes.len() / 4 + 1);
        }
    }
}
