//! One layer's way from compressed bytes to files: three threads and two bounded channels of reused buffers.
//!
//! ```text
//! fetch (source or blob file; hashes what is new, keeps it in ingest/)
//!   └─ compressed chunks ─> decode (decompresses, hashes: the diff ID)
//!                             └─ plain chunks ─> apply (the calling thread: files)
//! ```
//!
//! An error travels downstream in the channel, behind the bytes before it; the applying thread returns it. When the applying thread fails
//! first, its end of the channel closes and the others stop in silence.

use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

use crate::decode::{
    Bzip2Decoder, Compression, DecodeError, Decoder, DecoderFactory, GzipDecoder, HISTORY,
    PlainDecoder, XzDecoder, ZstdDecoder,
};
use crate::digest::{Digest, Hasher};
use crate::error::StoreError;
use crate::input::Input;
use crate::limits::Limits;

/// Chunks under way in one channel.
const DEPTH: usize = 4;
/// Bytes of a compressed chunk.
pub(crate) const COMPRESSED: usize = 128 * 1024;
/// Bytes of a plain chunk, beside the history before it.
const PLAIN: usize = 256 * 1024;

/// Bytes in a buffer that goes back to where it came from.
struct Chunk {
    data: Vec<u8>,
    start: usize,
    end: usize,
}

/// The producing end of a channel.
pub(crate) struct Outlet {
    forward: SyncSender<Result<Chunk, StoreError>>,
    back: Receiver<Vec<u8>>,
    made: usize,
    size: usize,
}

/// The consuming end of a channel.
pub(crate) struct Inlet {
    forward: Receiver<Result<Chunk, StoreError>>,
    back: Sender<Vec<u8>>,
    current: Option<Chunk>,
}

/// The other end is gone, for a reason that it reports itself.
pub(crate) struct Closed;

/// Why a thread of the pipeline ends early.
pub(crate) enum Stop {
    /// Nobody takes what it makes.
    Closed,
    /// Something to tell the other end.
    Failed(StoreError),
}

impl From<Closed> for Stop {
    fn from(_: Closed) -> Self {
        Self::Closed
    }
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        Self::Failed(error)
    }
}

/// A channel of buffers of one size.
pub(crate) fn conduit(size: usize) -> (Outlet, Inlet) {
    let (forward_in, forward_out) = sync_channel(DEPTH);
    let (back_in, back_out) = channel();
    let outlet = Outlet {
        forward: forward_in,
        back: back_out,
        made: 0,
        size,
    };
    (
        outlet,
        Inlet {
            forward: forward_out,
            back: back_in,
            current: None,
        },
    )
}

impl Outlet {
    /// A buffer to fill; waits until one comes back.
    pub(crate) fn buffer(&mut self) -> Result<Vec<u8>, Closed> {
        if let Ok(buffer) = self.back.try_recv() {
            return Ok(buffer);
        }
        if self.made < DEPTH + 2 {
            self.made += 1;
            return Ok(vec![0; self.size]);
        }
        self.back.recv().map_err(|_| Closed)
    }

    pub(crate) fn send(&self, data: Vec<u8>, start: usize, end: usize) -> Result<(), Closed> {
        self.forward
            .send(Ok(Chunk { data, start, end }))
            .map_err(|_| Closed)
    }

    /// Runs a thread's work; its error goes to the other end.
    pub(crate) fn run<T>(mut self, work: impl FnOnce(&mut Self) -> Result<T, Stop>) -> Option<T> {
        match work(&mut self) {
            Ok(value) => Some(value),
            Err(Stop::Closed) => None,
            Err(Stop::Failed(error)) => {
                // Where nobody hears it, the one that closed has an error of its own.
                let _told = self.forward.send(Err(error));
                None
            }
        }
    }
}

impl Input for Inlet {
    fn fill(&mut self) -> Result<&[u8], StoreError> {
        while self
            .current
            .as_ref()
            .is_none_or(|chunk| chunk.start == chunk.end)
        {
            if let Some(used) = self.current.take() {
                // The producer may have ended: then nobody needs the buffer.
                drop(self.back.send(used.data));
            }
            match self.forward.recv() {
                Ok(chunk) => self.current = Some(chunk?),
                Err(_) => return Ok(&[]),
            }
        }
        Ok(self
            .current
            .as_ref()
            .map_or(&[], |chunk| &chunk.data[chunk.start..chunk.end]))
    }

    fn consume(&mut self, count: usize) {
        if let Some(chunk) = &mut self.current {
            chunk.start += count;
        }
    }
}

/// The size of the buffers that [`decode`] sends.
pub(crate) const PLAIN_BUFFER: usize = HISTORY + PLAIN;

/// The decoder for a stream that begins with these bytes.
pub(crate) fn decoder_for(
    start: &[u8],
    gzip: Option<DecoderFactory>,
) -> Result<Box<dyn Decoder>, DecodeError> {
    Ok(match Compression::detect(start)? {
        Compression::Plain => Box::new(PlainDecoder),
        Compression::Gzip => gzip.map_or_else(
            || Box::new(GzipDecoder::default()) as Box<dyn Decoder>,
            |make| make(),
        ),
        Compression::Zstd => Box::new(ZstdDecoder::new()?),
        Compression::Bzip2 => Box::new(Bzip2Decoder::default()),
        Compression::Xz => Box::new(XzDecoder::default()),
    })
}

/// The middle of the pipeline: how a stream is decoded.
pub(crate) struct Decode<'a, W> {
    /// Another gzip decoder than the built-in one.
    pub(crate) gzip: Option<DecoderFactory>,
    pub(crate) limits: &'a Limits,
    /// Hashes what comes out.
    pub(crate) hasher: Option<Hasher>,
    /// Says whose stream it is.
    pub(crate) wrap: W,
}

impl<W: Fn(DecodeError) -> StoreError> Decode<'_, W> {
    /// Everything from `input`, decoded, to `outlet`; the digest of what came out, where there is a hasher.
    pub(crate) fn run(
        mut self,
        mut input: Inlet,
        outlet: &mut Outlet,
    ) -> Result<Option<Digest>, Stop> {
        let mut decoder = decoder_for(input.fill()?, self.gzip).map_err(&self.wrap)?;
        let (mut compressed, mut plain) = (0_u64, 0_u64);
        let mut buffer = outlet.buffer()?;
        let (mut start, mut end) = (0, 0);
        loop {
            let data = input.fill()?;
            let last = data.is_empty();
            let step = decoder
                .decode(data, last, &mut buffer, end)
                .map_err(&self.wrap)?;
            input.consume(step.consumed);
            end += step.produced;
            compressed += step.consumed as u64;
            plain += step.produced as u64;
            let limit = self.limits.unpacked_for(compressed);
            if plain > limit {
                return Err((self.wrap)(DecodeError::TooLarge { compressed, limit }).into());
            }
            if end == buffer.len() {
                self.hash(&buffer[start..end]);
                let mut next = outlet.buffer()?;
                next[..HISTORY].copy_from_slice(&buffer[end - HISTORY..end]);
                outlet.send(std::mem::replace(&mut buffer, next), start, end)?;
                (start, end) = (HISTORY, HISTORY);
            } else if last && step.produced == 0 {
                decoder.finish().map_err(&self.wrap)?;
                self.hash(&buffer[start..end]);
                outlet.send(buffer, start, end)?;
                return Ok(self.hasher.map(Hasher::finish));
            } else if step.consumed == 0 && step.produced == 0 {
                let stuck =
                    DecodeError::Malformed("compressed", "its decoder makes no progress".into());
                return Err((self.wrap)(stuck).into());
            }
        }
    }

    fn hash(&mut self, bytes: &[u8]) {
        if let Some(hasher) = &mut self.hasher {
            hasher.update(bytes);
        }
    }
}
