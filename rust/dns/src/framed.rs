//! Messages over TCP, each after its length in two bytes (RFC 1035, section 4.2.2; RFC 7766).

use std::io::{self, Read, Write};
use std::net::TcpStream;

/// What may wait for the other side to read it.
const OUTPUT_MAX: usize = 256 * 1024;
const READ: usize = 16 * 1024;

/// A connection that does not block.
#[derive(Debug)]
pub(crate) struct Framed {
    pub(crate) stream: TcpStream,
    input: Vec<u8>,
    output: Vec<u8>,
}

impl Framed {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            input: Vec::new(),
            output: Vec::new(),
        }
    }

    /// Read what there is, once. False at the end.
    pub(crate) fn fill(&mut self) -> io::Result<bool> {
        let mut buffer = [0; READ];
        match self.stream.read(&mut buffer) {
            Ok(count) => {
                self.input.extend(&buffer[..count]);
                Ok(count > 0)
            }
            Err(error) if is_temporary(&error) => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// The next message that is whole.
    pub(crate) fn next(&mut self) -> Option<Vec<u8>> {
        let [high, low, rest @ ..] = &self.input[..] else {
            return None;
        };
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let message = rest.get(..length)?.to_vec();
        self.input.drain(..length + 2);
        Some(message)
    }

    /// Send a message, or keep it until there is room. An error where the other side reads nothing.
    pub(crate) fn send(&mut self, message: &[u8]) -> io::Result<()> {
        let length = u16::try_from(message.len());
        let length = length.map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
        if self.output.len() + message.len() > OUTPUT_MAX {
            return Err(io::Error::from(io::ErrorKind::WriteZero));
        }
        self.output.extend(length.to_be_bytes());
        self.output.extend(message);
        self.flush()
    }

    /// Send what was kept.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        while !self.output.is_empty() {
            match self.stream.write(&self.output) {
                Ok(count) => drop(self.output.drain(..count)),
                Err(error) if is_temporary(&error) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Whether something waits to be sent.
    pub(crate) fn waits(&self) -> bool {
        !self.output.is_empty()
    }
}

/// Whether a later attempt may succeed. A connection that is not established yet cannot be written to.
pub(crate) fn is_temporary(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted | io::ErrorKind::NotConnected
    )
}
