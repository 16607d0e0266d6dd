//! Bytes on disk: content-addressed blobs, layers and snapshots.
//!
//! ```text
//! <root>/blobs/sha256/<hex>         blobs as they were transported
//! <root>/snapshots/<hex>/           one layer's own files, named by its chain ID: an overlay lower directory
//! <root>/ingest/<hex>.partial       a blob on its way in, resumed after an interruption
//! <root>/tmp/                       work in progress and removals; emptied when the store is opened
//! ```
//!
//! Whatever has a final name is complete and was synced before it got that name. A process may be
//! killed between any two system calls: what it leaves in `ingest/` is resumed, what it leaves in
//! `tmp/` is deleted by the next [`Store::open`]. One process uses a store at a time (the daemon's
//! lock file sees to it); any number of its threads may.

mod archive;
mod blob;
mod changes;
mod claims;
mod clone;
mod commit;
mod compress;
mod copy_up;
mod decode;
mod digest;
mod durable;
mod error;
mod extract;
mod failpoint;
mod fetch;
mod input;
mod layer;
mod limits;
mod pack;
mod pipeline;
mod progress;
mod source;
mod store;
pub mod tar;
mod tree;
mod union;
mod unpack;

pub use archive::Member;
pub use blob::BlobWriter;
pub use changes::{ChangeKind, Changes, changes};
pub use clone::clone_tree;
pub use commit::PackedLayer;
pub use compress::{Compressed, Packing};
pub use decode::{
    Bzip2Decoder, Compression, DecodeError, Decoder, DecoderFactory, GzipDecoder, HISTORY,
    PlainDecoder, Step, XzDecoder, ZstdDecoder,
};
pub use digest::{Digest, DigestError, Hasher};
pub use error::{Classified, ErrorKind, StoreError, kind_of_io};
pub use extract::{ExtractError, ExtractOptions, extract, extract_stream, open_in_root};
pub use input::{Input, ReaderInput};
pub use layer::{Applied, LayerError, LayerProblem, apply};
pub use limits::Limits;
pub use pack::{Fidelity, PackError, Packer};
pub use progress::{LayerProgress, Phase, Progress};
pub use source::{LayerSource, LayerStream};
pub use store::Store;
pub use unpack::{Layer, UnpackOptions};
