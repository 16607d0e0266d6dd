//! A response body as a reader; the connection goes back to the pool after the last byte.

use std::io;

use super::client::Pool;
use super::connection::{Connection, Trouble};
use super::head::Framing;
use std::sync::Arc;

/// The body of one response. Dropped before its end, it closes the connection.
#[derive(Debug)]
pub(crate) struct Body {
    connection: Option<Connection>,
    state: State,
    keep_alive: bool,
    origin: String,
    pool: Arc<Pool>,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    /// This many bytes are left, of the body or (chunked) of the present chunk.
    Length(u64),
    /// The line end after a chunk comes next (not before the first), then a size line.
    ChunkSize {
        first: bool,
    },
    Chunk(u64),
    Trailers,
    Close,
    Done,
}

impl Body {
    pub(crate) fn new(
        connection: Connection,
        framing: Framing,
        keep_alive: bool,
        origin: String,
        pool: Arc<Pool>,
    ) -> Self {
        let state = match framing {
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::ChunkSize { first: true },
            Framing::Close => State::Close,
        };
        let keep_alive = keep_alive && framing != Framing::Close;
        let mut body = Self {
            connection: Some(connection),
            state,
            keep_alive,
            origin,
            pool,
        };
        if body.state == State::Length(0) {
            body.finish();
        }
        body
    }

    /// The bytes still to come where the framing tells.
    pub(crate) fn remaining(&self) -> Option<u64> {
        match self.state {
            State::Length(left) => Some(left),
            State::Done => Some(0),
            _ => None,
        }
    }

    /// Read some bytes; 0 at the end of the body, `UnexpectedEof` where the connection ends before it.
    pub(crate) fn read(&mut self, out: &mut [u8]) -> Result<usize, Trouble> {
        if out.is_empty() {
            return Ok(0);
        }
        loop {
            let Some(connection) = self.connection.as_mut() else {
                return Ok(0);
            };
            match self.state {
                State::Length(left) | State::Chunk(left) => {
                    let want = usize::try_from(left).unwrap_or(usize::MAX).min(out.len());
                    let count = connection.read(&mut out[..want])?;
                    if count == 0 {
                        return Err(truncated());
                    }
                    let left = left - count as u64;
                    let chunked = matches!(self.state, State::Chunk(_));
                    self.state = match (chunked, left) {
                        (true, 0) => State::ChunkSize { first: false },
                        (true, left) => State::Chunk(left),
                        (false, left) => State::Length(left),
                    };
                    if self.state == State::Length(0) {
                        self.finish();
                    }
                    return Ok(count);
                }
                State::ChunkSize { first } => {
                    if !first && !line(connection)?.is_empty() {
                        return Err(Trouble::Protocol("its chunked body is malformed"));
                    }
                    let line = line(connection)?;
                    self.state = match chunk_size(&line)? {
                        0 => State::Trailers,
                        size => State::Chunk(size),
                    };
                }
                State::Trailers => {
                    let mut lines = 0;
                    while !line(connection)?.is_empty() {
                        lines += 1;
                        if lines > 64 {
                            return Err(Trouble::Protocol(
                                "its chunked body has more than 64 trailers",
                            ));
                        }
                    }
                    self.finish();
                }
                State::Close => {
                    let count = connection.read(out)?;
                    if count == 0 {
                        self.finish();
                    }
                    return Ok(count);
                }
                State::Done => return Ok(0),
            }
        }
    }

    /// Read what is left, up to `limit` bytes; whether that was all.
    pub(crate) fn read_up_to(&mut self, limit: usize, out: &mut Vec<u8>) -> Result<bool, Trouble> {
        let mut chunk = [0; 16 * 1024];
        loop {
            let room = limit - out.len();
            if room == 0 {
                return Ok(self.read(&mut chunk[..1])? == 0);
            }
            let want = room.min(chunk.len());
            let count = self.read(&mut chunk[..want])?;
            if count == 0 {
                return Ok(true);
            }
            out.extend_from_slice(&chunk[..count]);
        }
    }

    fn finish(&mut self) {
        self.state = State::Done;
        if let Some(connection) = self.connection.take()
            && self.keep_alive
        {
            self.pool.put(std::mem::take(&mut self.origin), connection);
        }
    }
}

fn truncated() -> Trouble {
    Trouble::Broken(io::Error::new(
        io::ErrorKind::UnexpectedEof,
        "it was closed in the middle of the answer",
    ))
}

/// One line without its line end.
fn line(connection: &mut Connection) -> Result<Vec<u8>, Trouble> {
    let mut seen = 0;
    loop {
        let buffered = connection.buffered();
        if let Some(at) = buffered[seen..].iter().position(|&byte| byte == b'\n') {
            let line = &buffered[..seen + at];
            let line = line.strip_suffix(b"\r").unwrap_or(line).to_vec();
            connection.consume(seen + at + 1);
            return Ok(line);
        }
        seen = buffered.len();
        if connection.fill()? == 0 {
            return Err(truncated());
        }
    }
}

/// The size in a chunk's size line; extensions after `;` are skipped.
fn chunk_size(line: &[u8]) -> Result<u64, Trouble> {
    let digits = line
        .split(|&byte| byte == b';')
        .next()
        .unwrap_or(line)
        .trim_ascii();
    std::str::from_utf8(digits)
        .ok()
        .filter(|digits| {
            !digits.is_empty()
                && digits.len() <= 15
                && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
        })
        .and_then(|digits| u64::from_str_radix(digits, 16).ok())
        .ok_or(Trouble::Protocol("its chunked body is malformed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunk_sizes() {
        for (line, size) in [
            ("0", Some(0)),
            ("1a;name=x", Some(26)),
            ("FF ", Some(255)),
            ("", None),
            ("-1", None),
            ("+1", None),
            ("0x1", None),
            ("1234567890123456", None),
        ] {
            assert_eq!(chunk_size(line.as_bytes()).ok(), size, "{line}");
        }
    }
}
