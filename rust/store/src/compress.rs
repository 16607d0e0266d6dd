//! Archives that are compressed on their way out.

use std::io::{self, Write};

use flate2::Compression as Level;
use flate2::write::GzEncoder;

use crate::tar::Sink;

/// gzip's and zstd's levels: quick ones, as a client waits.
const GZIP: u32 = 4;
const ZSTD: i32 = 3;
/// Compressed bytes that go out at once.
const PIECE: usize = 128 * 1024;

/// How an archive is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// Not at all.
    Plain,
    /// As gzip(1) does.
    Gzip,
    /// As zstd(1) does.
    Zstd,
}

/// A sink that compresses what it passes on.
pub struct Compressed<S: Sink> {
    encoder: Encoder<S>,
}

enum Encoder<S: Sink> {
    Plain(S),
    Gzip(GzEncoder<Gathered<S>>),
    Zstd(zstd::stream::write::Encoder<'static, Gathered<S>>),
}

impl<S: Sink> Compressed<S> {
    /// Begins.
    pub fn new(sink: S, packing: Packing) -> io::Result<Self> {
        let gathered = |sink| Gathered {
            sink,
            waiting: Vec::with_capacity(PIECE),
        };
        Ok(Self {
            encoder: match packing {
                Packing::Plain => Encoder::Plain(sink),
                Packing::Gzip => Encoder::Gzip(GzEncoder::new(gathered(sink), Level::new(GZIP))),
                Packing::Zstd => {
                    Encoder::Zstd(zstd::stream::write::Encoder::new(gathered(sink), ZSTD)?)
                }
            },
        })
    }

    /// Writes what is left.
    pub fn finish(self) -> io::Result<()> {
        match self.encoder {
            Encoder::Plain(_) => Ok(()),
            Encoder::Gzip(encoder) => encoder.finish()?.flush(),
            Encoder::Zstd(encoder) => encoder.finish()?.flush(),
        }
    }
}

impl<S: Sink> Sink for Compressed<S> {
    fn take(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.encoder {
            Encoder::Plain(sink) => sink.take(bytes),
            Encoder::Gzip(encoder) => encoder.write_all(bytes),
            Encoder::Zstd(encoder) => encoder.write_all(bytes),
        }
    }
}

/// Gathers an encoder's small pieces into larger ones.
struct Gathered<S: Sink> {
    sink: S,
    waiting: Vec<u8>,
}

impl<S: Sink> Write for Gathered<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.waiting.extend_from_slice(bytes);
        if self.waiting.len() >= PIECE {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sink.take(&self.waiting)?;
        self.waiting.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn what_goes_in_comes_out() {
        let data: Vec<u8> = (0..=255_u8).cycle().take(400_000).collect();
        for packing in [Packing::Plain, Packing::Gzip, Packing::Zstd] {
            let mut out = Vec::new();
            let mut sink = Compressed::new(&mut out, packing).unwrap();
            for piece in data.chunks(1000) {
                sink.take(piece).unwrap();
            }
            sink.finish().unwrap();
            let mut found = Vec::new();
            match packing {
                Packing::Plain => found = out,
                Packing::Gzip => {
                    let mut reader = flate2::read::GzDecoder::new(&out[..]);
                    reader.read_to_end(&mut found).unwrap();
                }
                Packing::Zstd => found = zstd::decode_all(&out[..]).unwrap(),
            }
            assert_eq!(found, data, "{packing:?}");
        }
    }
}
