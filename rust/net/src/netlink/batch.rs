//! Encoding: requests with their attributes, one after another in one buffer.

use std::borrow::Cow;

use super::{ACK, HEADER, REQUEST, aligned};

/// `NLA_F_NESTED`: this attribute holds attributes.
const NESTED: u16 = 0x8000;

/// Requests that go to the kernel in one call.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    bytes: Vec<u8>,
    requests: Vec<Request>,
    overflow: bool,
}

#[derive(Debug)]
struct Request {
    start: usize,
    doing: Cow<'static, str>,
}

impl Batch {
    pub(crate) fn new() -> Self {
        Self {
            bytes: Vec::with_capacity(1024),
            requests: Vec::with_capacity(4),
            overflow: false,
        }
    }

    /// Add a request. `doing` begins the message of its error: what is done, to which object.
    pub(crate) fn request(
        &mut self,
        doing: impl Into<Cow<'static, str>>,
        kind: u16,
        flags: u16,
        body: impl FnOnce(&mut Body<'_>),
    ) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes
            .extend_from_slice(&(flags | REQUEST).to_ne_bytes());
        self.bytes.extend_from_slice(&[0; 8]);
        body(&mut Body {
            bytes: &mut self.bytes,
            overflow: &mut self.overflow,
        });
        let length = u32::try_from(self.bytes.len() - start).unwrap_or(u32::MAX);
        self.bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes());
        self.requests.push(Request {
            start,
            doing: doing.into(),
        });
    }

    /// How many requests there are.
    pub(crate) fn len(&self) -> u32 {
        u32::try_from(self.requests.len()).unwrap_or(u32::MAX)
    }

    /// Whether an attribute was too long for its 16-bit length: the batch must not be sent.
    pub(crate) fn overflowed(&self) -> bool {
        self.overflow
    }

    /// What the request of that index was to do.
    pub(crate) fn doing(&self, index: u32) -> &str {
        let index = usize::try_from(index).unwrap_or(usize::MAX);
        self.requests
            .get(index)
            .map_or("send netlink requests", |request| &request.doing)
    }

    /// Ask for an acknowledgement of a request. (Failures are always reported.)
    pub(crate) fn acknowledge(&mut self, index: u32) {
        let Some(request) = usize::try_from(index)
            .ok()
            .and_then(|index| self.requests.get(index))
        else {
            return;
        };
        let flags = request.start + 6;
        let set = u16::from_ne_bytes([self.bytes[flags], self.bytes[flags + 1]]) | ACK;
        self.bytes[flags..flags + 2].copy_from_slice(&set.to_ne_bytes());
    }

    /// Number the requests from `first` on, and give the bytes to send.
    pub(crate) fn numbered(&mut self, first: u32) -> &[u8] {
        let mut sequence = first;
        for request in &self.requests {
            let at = request.start + 8;
            self.bytes[at..at + 4].copy_from_slice(&sequence.to_ne_bytes());
            sequence = sequence.wrapping_add(1);
        }
        &self.bytes
    }
}

/// The body of a request, or of a nested attribute, while it is written.
#[derive(Debug)]
pub(crate) struct Body<'a> {
    bytes: &'a mut Vec<u8>,
    overflow: &'a mut bool,
}

impl Body<'_> {
    /// The family's fixed header, which comes before the attributes.
    pub(crate) fn header(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.pad();
    }

    pub(crate) fn bytes(&mut self, kind: u16, value: &[u8]) {
        self.attribute(kind, |body| body.bytes.extend_from_slice(value));
    }

    /// Text with the NUL that the kernel's string attributes end with.
    pub(crate) fn text(&mut self, kind: u16, value: &str) {
        self.attribute(kind, |body| {
            body.bytes.extend_from_slice(value.as_bytes());
            body.bytes.push(0);
        });
    }

    pub(crate) fn u8(&mut self, kind: u16, value: u8) {
        self.bytes(kind, &[value]);
    }

    pub(crate) fn u32(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_ne_bytes());
    }

    pub(crate) fn u32_be(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_be_bytes());
    }

    pub(crate) fn i32_be(&mut self, kind: u16, value: i32) {
        self.bytes(kind, &value.to_be_bytes());
    }

    /// An attribute that holds attributes.
    pub(crate) fn nest(&mut self, kind: u16, inner: impl FnOnce(&mut Body<'_>)) {
        self.attribute(kind | NESTED, inner);
    }

    /// The same, with what it holds already encoded.
    pub(crate) fn nested_bytes(&mut self, kind: u16, value: &[u8]) {
        self.bytes(kind | NESTED, value);
    }

    fn attribute(&mut self, kind: u16, inner: impl FnOnce(&mut Body<'_>)) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 2]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        inner(&mut Body {
            bytes: self.bytes,
            overflow: self.overflow,
        });
        if let Ok(length) = u16::try_from(self.bytes.len() - start) {
            self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        } else {
            *self.overflow = true;
        }
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(aligned(self.bytes.len()), 0);
    }
}

const _: () = assert!(HEADER == 16, "Batch::request writes a header of 16 bytes");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn requests_are_encoded_as_the_kernel_reads_them() {
        let mut batch = Batch::new();
        batch.request("first", 0x10, 0x400, |body| {
            body.header(&[1, 2, 3, 4, 5, 6, 7, 8]);
            body.text(3, "eth0");
            body.nest(18, |body| {
                body.u8(1, 0xaa);
                body.u32(2, 0x0102_0304);
                body.u32_be(3, 0x0102_0304);
            });
        });
        batch.request("second", 0x11, 0, |_| {});
        batch.acknowledge(1);
        #[rustfmt::skip]
        let expected = [
            68, 0, 0, 0, 0x10, 0, 0x01, 0x04, 7, 0, 0, 0, 0, 0, 0, 0, // length, type, flags, sequence, port
            1, 2, 3, 4, 5, 6, 7, 8,
            9, 0, 3, 0, b'e', b't', b'h', b'0', 0, 0, 0, 0,           // text, padded
            28, 0, 18, 0x80,                                          // nested
            5, 0, 1, 0, 0xaa, 0, 0, 0,
            8, 0, 2, 0, 4, 3, 2, 1,
            8, 0, 3, 0, 1, 2, 3, 4,
            16, 0, 0, 0, 0x11, 0, 0x05, 0, 8, 0, 0, 0, 0, 0, 0, 0,
        ];
        let length = expected.len();
        let mut expected = expected.to_vec();
        expected[0] = u8::try_from(length - 16).unwrap();
        assert_eq!(batch.numbered(7), expected);
        assert_eq!((batch.doing(0), batch.doing(1)), ("first", "second"));
    }

    #[test]
    fn an_attribute_too_long_is_noticed() {
        let longest = vec![0; 65_531];
        let mut batch = Batch::new();
        batch.request("x", 1, 0, |body| body.bytes(1, &longest));
        assert!(!batch.overflowed());
        batch.request("x", 1, 0, |body| {
            body.nest(1, |body| body.bytes(1, &longest));
        });
        assert!(batch.overflowed());
    }
}
