//! Plain bytes that are read in place, without a copy, from whatever produces them.

use std::io::{self, Read};

use crate::error::{Context, StoreError};

/// A stream of bytes whose buffer the reader may look into.
pub trait Input {
    /// The bytes at hand, at least one unless the stream has ended.
    fn fill(&mut self) -> Result<&[u8], StoreError>;

    /// Takes bytes that [`Input::fill`] showed.
    fn consume(&mut self, count: usize);
}

impl Input for &[u8] {
    fn fill(&mut self) -> Result<&[u8], StoreError> {
        Ok(self)
    }

    fn consume(&mut self, count: usize) {
        *self = &self[count..];
    }
}

impl<I: Input + ?Sized> Input for &mut I {
    fn fill(&mut self) -> Result<&[u8], StoreError> {
        (**self).fill()
    }

    fn consume(&mut self, count: usize) {
        (**self).consume(count);
    }
}

/// Any reader as an input, through a buffer of its own.
pub struct ReaderInput<R> {
    reader: R,
    name: String,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
}

impl<R: Read> ReaderInput<R> {
    /// `name` is what messages call the source: a path.
    pub fn new(reader: R, name: impl Into<String>) -> Self {
        Self {
            reader,
            name: name.into(),
            buffer: vec![0; 128 * 1024].into(),
            start: 0,
            end: 0,
        }
    }
}

impl<R: Read> Input for ReaderInput<R> {
    fn fill(&mut self) -> Result<&[u8], StoreError> {
        if self.start == self.end {
            self.start = 0;
            self.end = loop {
                match self.reader.read(&mut self.buffer) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    other => break other.at("cannot read", &self.name)?,
                }
            };
        }
        Ok(&self.buffer[self.start..self.end])
    }

    fn consume(&mut self, count: usize) {
        debug_assert!(count <= self.end - self.start);
        self.start += count;
    }
}
