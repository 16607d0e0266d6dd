//! The head of a response: status line, headers, and the framing of the body that follows.

use super::connection::Trouble;

const MAX_HEADERS: usize = 128;

/// Status and headers of one response.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) status: u16,
    /// Whether the connection may serve another request after the body.
    pub(crate) keep_alive: bool,
    headers: Vec<(String, String)>,
}

/// How the length of a body is told (RFC 9112, section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    Length(u64),
    Chunked,
    /// Until the connection closes.
    Close,
}

impl Head {
    /// Parse a head from the start of `bytes`: the head and its length, or None where it is not complete yet.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Option<(Self, usize)>, Trouble> {
        let mut fields = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut parsed = httparse::Response::new(&mut fields);
        let length = match parsed.parse(bytes) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(_) => return Err(Trouble::Protocol("its answer is not HTTP/1.1")),
        };
        let headers: Vec<_> = parsed
            .headers
            .iter()
            .map(|field| {
                (
                    field.name.to_ascii_lowercase(),
                    String::from_utf8_lossy(field.value).trim().to_owned(),
                )
            })
            .collect();
        let status = parsed.code.unwrap_or(0);
        let mut head = Self {
            status,
            keep_alive: parsed.version == Some(1),
            headers,
        };
        let closes = head
            .tokens("connection")
            .any(|token| token.eq_ignore_ascii_case("close"));
        head.keep_alive &= !closes;
        Ok(Some((head, length)))
    }

    /// The first header of this (lower-case) name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(key, _)| key == name);
        found.next().map(|(_, value)| value.as_str())
    }

    /// Every header of this (lower-case) name.
    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.headers
            .iter()
            .filter(move |(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    fn tokens<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.all(name)
            .flat_map(|value| value.split(','))
            .map(str::trim)
    }

    /// The framing of the body after this head, which answers a GET or POST.
    pub(crate) fn framing(&self) -> Result<Framing, Trouble> {
        if self.status < 200 || matches!(self.status, 204 | 304) {
            return Ok(Framing::Length(0));
        }
        let mut codings = self.tokens("transfer-encoding").peekable();
        if codings.peek().is_some() {
            let known = codings.all(|coding| coding.eq_ignore_ascii_case("chunked"));
            return if known {
                Ok(Framing::Chunked)
            } else {
                Err(Trouble::Protocol(
                    "its answer has a transfer coding other than chunked",
                ))
            };
        }
        let mut length = None;
        for token in self.tokens("content-length") {
            let number = Some(token)
                .filter(|token| token.bytes().all(|byte| byte.is_ascii_digit()))
                .and_then(|token| token.parse::<u64>().ok())
                .ok_or(Trouble::Protocol("its Content-Length is not a number"))?;
            if length.is_some_and(|earlier| earlier != number) {
                return Err(Trouble::Protocol(
                    "it gives two different values of Content-Length",
                ));
            }
            length = Some(number);
        }
        Ok(length.map_or(Framing::Close, Framing::Length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framing(head: &str) -> Result<Framing, String> {
        let (head, _) = Head::parse(head.as_bytes()).unwrap().unwrap();
        head.framing().map_err(|error| error.to_string())
    }

    #[test]
    fn framings() {
        for (fields, expected) in [
            ("Content-Length: 5\r\n", Ok(Framing::Length(5))),
            (
                "Content-Length: 5\r\nContent-Length: 5\r\n",
                Ok(Framing::Length(5)),
            ),
            (
                "Transfer-Encoding: Chunked\r\nContent-Length: 5\r\n",
                Ok(Framing::Chunked),
            ),
            ("", Ok(Framing::Close)),
        ] {
            assert_eq!(
                framing(&format!("HTTP/1.1 200 OK\r\n{fields}\r\n")),
                expected,
                "{fields}"
            );
        }
        assert_eq!(
            framing("HTTP/1.1 204 No Content\r\n\r\n"),
            Ok(Framing::Length(0))
        );
    }

    #[test]
    fn refuses_ambiguous_framing() {
        for fields in [
            "Content-Length: 5\r\nContent-Length: 6\r\n",
            "Content-Length: -1\r\n",
            "Content-Length: 99999999999999999999\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
        ] {
            assert!(
                framing(&format!("HTTP/1.1 200 OK\r\n{fields}\r\n")).is_err(),
                "{fields}"
            );
        }
    }

    #[test]
    fn keep_alive() {
        for (head, expected) in [
            ("HTTP/1.1 200 OK\r\n\r\n", true),
            ("HTTP/1.1 200 OK\r\nConnection: foo, Close\r\n\r\n", false),
            ("HTTP/1.0 200 OK\r\n\r\n", false),
        ] {
            assert_eq!(
                Head::parse(head.as_bytes()).unwrap().unwrap().0.keep_alive,
                expected,
                "{head}"
            );
        }
    }

    #[test]
    fn partial_and_garbage() {
        assert!(
            Head::parse(b"HTTP/1.1 200 OK\r\nContent-")
                .unwrap()
                .is_none()
        );
        assert!(Head::parse(b"SSH-2.0-OpenSSH\r\n").is_err());
        assert!(
            Head::parse(format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(200)).as_bytes())
                .is_err()
        );
    }
}
