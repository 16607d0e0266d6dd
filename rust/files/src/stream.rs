//! Archives through a client's connection: the bodies of HTTP/1.1 messages (RFC 9112, section 7.1) on a socket that
//! the daemon has read the head from.
//!
//! The socket is asyncio's and does not block: whoever waits here waits in poll(2), in a thread of its own.

use std::io::{self, IoSlice, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use knarr_store::tar::Sink;
pub use knarr_sys::passing::duplicate;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

const BUFFER: usize = 256 * 1024;
/// The longest line of a chunk's length or of a trailer.
const LINE: usize = 4096;

/// How a body's end is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// By so many bytes.
    Length(u64),
    /// In chunks, each with its length before it.
    Chunked,
    /// By the end of the stream.
    Stream,
}

/// A body on its way in.
pub struct Incoming {
    socket: OwnedFd,
    buffer: Vec<u8>,
    start: usize,
    framing: Framing,
    /// Bytes left of the body, or of its chunk.
    left: u64,
    /// Where a chunk begins: a line end is due before all but the first.
    between: bool,
    ended: bool,
    count: u64,
    patience: Option<Duration>,
}

impl Incoming {
    /// A body whose first bytes have been read already. `patience` is how long the client may send nothing.
    #[must_use]
    pub fn new(
        socket: OwnedFd,
        initial: Vec<u8>,
        framing: Framing,
        patience: Option<Duration>,
    ) -> Self {
        let left = match framing {
            Framing::Length(length) => length,
            Framing::Chunked => 0,
            Framing::Stream => u64::MAX,
        };
        Self {
            socket,
            buffer: initial,
            start: 0,
            framing,
            left,
            between: false,
            ended: framing == Framing::Length(0),
            count: 0,
            patience,
        }
    }

    /// Whether the whole body has been read.
    #[must_use]
    pub fn ended(&self) -> bool {
        self.ended
    }

    /// Bytes that were read of the body.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// What was read beyond the body.
    #[must_use]
    pub fn rest(&self) -> &[u8] {
        &self.buffer[self.start..]
    }

    /// Reads and forgets what is left, at most so many bytes.
    pub fn drain(&mut self, limit: u64) -> io::Result<()> {
        let mut forgotten = vec![0; BUFFER];
        let mut count = 0;
        while count < limit {
            match self.read(&mut forgotten)? {
                0 => break,
                step => count += step as u64,
            }
        }
        Ok(())
    }

    /// Makes sure that something is at hand; false at the stream's end.
    fn fill(&mut self) -> io::Result<bool> {
        if self.start < self.buffer.len() {
            return Ok(true);
        }
        self.buffer.resize(BUFFER, 0);
        self.start = 0;
        let count = receive(&self.socket, &mut self.buffer, self.patience);
        self.buffer.truncate(*count.as_ref().unwrap_or(&0));
        Ok(count? > 0)
    }

    fn line(&mut self) -> io::Result<Vec<u8>> {
        let mut line = Vec::new();
        loop {
            if !self.fill()? {
                return Err(cut_off());
            }
            let here = &self.buffer[self.start..];
            let end = here.iter().position(|&byte| byte == b'\n');
            line.extend_from_slice(&here[..end.unwrap_or(here.len())]);
            self.start += end.map_or(here.len(), |end| end + 1);
            if line.len() > LINE {
                return Err(malformed("a line in the request's body is too long"));
            }
            if end.is_some() {
                if line.last() == Some(&b'\r') {
                    line.pop();
                }
                return Ok(line);
            }
        }
    }

    /// Reads a chunk's length; the trailers behind the last one.
    fn chunk(&mut self) -> io::Result<()> {
        if std::mem::replace(&mut self.between, true) && !self.line()?.is_empty() {
            return Err(malformed(
                "a chunk of the request's body does not end where it should",
            ));
        }
        let line = self.line()?;
        let digits = line
            .split(|&byte| byte == b';')
            .next()
            .unwrap_or_default()
            .trim_ascii();
        let length = str::from_utf8(digits)
            .ok()
            .filter(|digits| {
                !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
            })
            .and_then(|digits| u64::from_str_radix(digits, 16).ok());
        self.left =
            length.ok_or_else(|| malformed("a chunk of the request's body has no length"))?;
        if self.left == 0 {
            while !self.line()?.is_empty() {}
            self.ended = true;
        }
        Ok(())
    }
}

impl Read for Incoming {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.framing == Framing::Chunked && self.left == 0 && !self.ended {
            self.chunk()?;
        }
        if self.ended || into.is_empty() {
            return Ok(0);
        }
        let room = usize::try_from(self.left)
            .unwrap_or(usize::MAX)
            .min(into.len());
        let count = if self.start == self.buffer.len() && room >= BUFFER / 2 {
            // Large pieces need no copy.
            receive(&self.socket, &mut into[..room], self.patience)?
        } else if self.fill()? {
            let count = room.min(self.buffer.len() - self.start);
            into[..count].copy_from_slice(&self.buffer[self.start..self.start + count]);
            self.start += count;
            count
        } else {
            0
        };
        self.count += count as u64;
        match (count, self.framing) {
            (0, Framing::Stream) => self.ended = true,
            (0, _) => return Err(cut_off()),
            (_, Framing::Stream) => {}
            (count, framing) => {
                self.left -= count as u64;
                self.ended = self.left == 0 && framing != Framing::Chunked;
            }
        }
        Ok(count)
    }
}

/// A body on its way out. The last chunk, which is empty, is for whoever sent the head to send.
pub struct Outgoing {
    socket: OwnedFd,
    framing: Framing,
    count: u64,
}

impl Outgoing {
    /// A body behind a head that has been sent.
    #[must_use]
    pub fn new(socket: OwnedFd, framing: Framing) -> Self {
        Self {
            socket,
            framing,
            count: 0,
        }
    }

    /// Bytes that were written of the body.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }
}

impl Sink for Outgoing {
    fn take(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.count += bytes.len() as u64;
        match self.framing {
            _ if bytes.is_empty() => Ok(()),
            Framing::Chunked => {
                let length = format!("{:x}\r\n", bytes.len());
                send(&self.socket, &[length.as_bytes(), bytes, b"\r\n"])
            }
            Framing::Length(_) | Framing::Stream => send(&self.socket, &[bytes]),
        }
    }
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn cut_off() -> io::Error {
    io::Error::new(
        io::ErrorKind::UnexpectedEof,
        "the request's body ends too early",
    )
}

fn wait(socket: &OwnedFd, flags: PollFlags, patience: Option<Duration>) -> io::Result<()> {
    let timeout = patience.map(|patience| Timespec {
        tv_sec: i64::try_from(patience.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: patience.subsec_nanos().into(),
    });
    loop {
        let mut waiting = [PollFd::from_borrowed_fd(socket.as_fd(), flags)];
        match poll(&mut waiting, timeout.as_ref()) {
            Err(Errno::INTR) => {}
            Ok(0) => {
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "nothing of the request's body came for a while",
                ));
            }
            other => return Ok(other.map(drop)?),
        }
    }
}

fn receive(socket: &OwnedFd, into: &mut [u8], patience: Option<Duration>) -> io::Result<usize> {
    loop {
        match rustix::io::read(socket, &mut *into) {
            Err(Errno::AGAIN) => wait(socket, PollFlags::IN, patience)?,
            Err(Errno::INTR) => {}
            other => return Ok(other?),
        }
    }
}

fn send(socket: &OwnedFd, parts: &[&[u8]]) -> io::Result<()> {
    let mut slices: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
    let mut left = slices.as_mut_slice();
    while !left.is_empty() {
        match rustix::io::writev(socket, left) {
            Err(Errno::AGAIN) => wait(socket, PollFlags::OUT, None)?,
            Err(Errno::INTR) => {}
            other => IoSlice::advance_slices(&mut left, other?),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    use super::*;

    fn body(sent: &[u8], initial: usize, framing: Framing) -> (io::Result<Vec<u8>>, Vec<u8>, bool) {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        theirs.set_nonblocking(true).unwrap();
        let (first, then) = sent.split_at(initial.min(sent.len()));
        ours.write_all(then).unwrap();
        drop(ours);
        let mut incoming = Incoming::new(
            theirs.into(),
            first.to_vec(),
            framing,
            Some(Duration::from_secs(5)),
        );
        let mut found = Vec::new();
        let result = incoming.read_to_end(&mut found).map(|_| found);
        (result, incoming.rest().to_vec(), incoming.ended())
    }

    #[test]
    fn a_body_ends_where_it_says() {
        let chunked = b"5\r\nhello\r\n6;x=y\r\n world\r\n0\r\nTrailer: a\r\n\r\nGET /";
        for initial in 0..chunked.len() {
            let (found, rest, ended) = body(chunked, initial, Framing::Chunked);
            assert_eq!(found.unwrap(), b"hello world");
            assert!(ended);
            // Whatever has not been read is still in the socket.
            assert!(b"GET /".starts_with(&rest[..]));
        }
        let (found, rest, ended) = body(b"helloGET", 3, Framing::Length(5));
        assert_eq!(
            (found.unwrap().as_slice(), rest.as_slice(), ended),
            (&b"hello"[..], &b"GET"[..], true)
        );
        assert_eq!(body(b"hello", 2, Framing::Stream).0.unwrap(), b"hello");
    }

    #[test]
    fn a_body_that_is_none_is_refused() {
        let cases: [(&[u8], Framing); 8] = [
            (b"", Framing::Chunked),
            (b"5\r\nhel", Framing::Chunked),
            (b"5\r\nhello\r\n", Framing::Chunked),
            (b"5\r\nhelloX\r\n0\r\n\r\n", Framing::Chunked),
            (b"-5\r\nhello\r\n", Framing::Chunked),
            (b"\r\n", Framing::Chunked),
            (b"11111111111111111\r\n", Framing::Chunked),
            (b"hell", Framing::Length(5)),
        ];
        for (sent, framing) in cases {
            assert!(
                body(sent, 0, framing).0.is_err(),
                "{:?}",
                String::from_utf8_lossy(sent)
            );
        }
    }

    #[test]
    fn a_silent_client_is_not_waited_for_forever() {
        let (_ours, theirs) = UnixStream::pair().unwrap();
        theirs.set_nonblocking(true).unwrap();
        let mut incoming = Incoming::new(
            theirs.into(),
            Vec::new(),
            Framing::Length(1),
            Some(Duration::from_millis(10)),
        );
        assert_eq!(
            incoming.read(&mut [0; 8]).unwrap_err().kind(),
            io::ErrorKind::TimedOut
        );
    }
}
