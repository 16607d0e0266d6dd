//! New layers: out of a container's writable directory, or out of an archive from outside. Both end as a blob
//! in the store, from which [`Store::unpack`] makes the snapshot as it does of any other.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::thread;

use flate2::Compression as Level;
use flate2::write::GzEncoder;

use crate::archive::feed;
use crate::blob::{Verified, read};
use crate::decode::Compression;
use crate::digest::{Digest, Hasher};
use crate::durable::Written;
use crate::error::{Context, StoreError};
use crate::input::Input;
use crate::layer::pack_upper;
use crate::limits::Limits;
use crate::pack::{Fidelity, Packer};
use crate::pipeline::{COMPRESSED, Decode, PLAIN_BUFFER, conduit};
use crate::store::Store;
use crate::tar::Sink;

/// Of what the levels save and cost, the one after which more time saves little.
const LEVEL: u32 = 4;

/// A layer that is in the store as a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackedLayer {
    /// The blob.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// The digest of the archive in it.
    pub diff_id: Digest,
    /// How it is compressed.
    pub compression: Compression,
}

impl Store {
    /// Makes a layer of what a writable directory has that the layers below it (the top-most first) have not; none where
    /// that is nothing. `made` are the paths that the engine makes for its mounts.
    pub fn put_layer(
        &self,
        upper: OwnedFd,
        lower: &[PathBuf],
        made: &[Vec<u8>],
    ) -> Result<Option<PackedLayer>, StoreError> {
        let draft = Draft::new(self.temporary("layer"));
        let blob = Blob::create(&draft.path)?;
        let packer = Packer::new(blob, Fidelity::Layer);
        let (entries, blob) = pack_upper(upper, lower, made, packer).map_err(StoreError::Pack)?;
        if entries == 0 {
            return Ok(None);
        }
        let layer = blob.finish().at("cannot write", &draft.path)?;
        self.keep(layer.digest, &draft.path)?;
        Ok(Some(layer))
    }

    /// Makes a blob of a layer's archive, whatever its compression: gzip and zstd stay as they are. The file goes.
    pub fn put_archive(&self, path: &Path) -> Result<PackedLayer, StoreError> {
        let source = Draft::new(path.to_owned());
        let mut file = File::open(path).at("cannot open", path)?;
        let mut start = [0; 16];
        let count = read(&mut file, &mut start, path)?;
        let wrap = |source| StoreError::Stream {
            path: path.to_owned(),
            source,
        };
        let compression = Compression::detect(&start[..count]).map_err(wrap)?;
        let draft = Draft::new(self.temporary("layer"));
        let kept = matches!(compression, Compression::Gzip | Compression::Zstd);
        let mut blob = if kept {
            None
        } else {
            Some(Blob::create(&draft.path)?)
        };
        let limits = Limits::default();
        let decode = Decode {
            gzip: None,
            limits: &limits,
            hasher: Some(Hasher::new()),
            wrap,
        };
        let file = File::open(path).at("cannot open", path)?;
        let mut hashing = Hashing {
            file,
            hasher: Hasher::new(),
            size: 0,
        };
        let (compressed, from_file) = conduit(COMPRESSED);
        let (plain, mut from_decode) = conduit(PLAIN_BUFFER);
        let (written, diff_id) = thread::scope(|scope| {
            scope.spawn(|| compressed.run(|outlet| feed(&mut hashing, path, outlet)));
            let decoding = scope.spawn(|| plain.run(|outlet| decode.run(from_file, outlet)));
            let written: Result<(), StoreError> = (|| {
                loop {
                    let data = from_decode.fill()?;
                    if data.is_empty() {
                        return Ok(());
                    }
                    if let Some(blob) = &mut blob {
                        blob.take(data).at("cannot write", &draft.path)?;
                    }
                    let count = data.len();
                    from_decode.consume(count);
                }
            })();
            drop(from_decode);
            (written, decoding.join())
        });
        written?;
        let Ok(Some(Some(diff_id))) = diff_id else {
            return Err(StoreError::Cancelled);
        };
        let layer = match blob {
            Some(blob) => blob.finish().at("cannot write", &draft.path)?,
            None => PackedLayer {
                digest: hashing.hasher.finish(),
                size: hashing.size,
                diff_id,
                compression,
            },
        };
        self.keep(layer.digest, if kept { &source.path } else { &draft.path })?;
        Ok(layer)
    }

    /// Gives a file the name of the blob that it is.
    fn keep(&self, digest: Digest, path: &Path) -> Result<(), StoreError> {
        self.settle(&[Written { path, entries: 0 }])?;
        Verified::new(digest, path.to_owned()).publish(self)?;
        self.sync_directory("blobs/sha256")
    }
}

/// A file that goes unless it has been renamed.
struct Draft {
    path: PathBuf,
}

impl Draft {
    fn new(path: PathBuf) -> Self {
        Self { path }
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // It has its name by now, or the error that led here matters more; the next sweep takes what is left.
        let _left = fs::remove_file(&self.path);
    }
}

/// Bytes of a file, hashed as they are read.
struct Hashing {
    file: File,
    hasher: Hasher,
    size: u64,
}

impl io::Read for Hashing {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        self.size += count as u64;
        Ok(count)
    }
}

/// Bytes into a file, hashed and counted.
struct Counting {
    file: File,
    hasher: Hasher,
    size: u64,
}

impl Write for Counting {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        self.size += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// An archive on its way into a gzip file, hashed before and after.
struct Blob {
    encoder: GzEncoder<Counting>,
    hasher: Hasher,
}

impl Blob {
    fn create(path: &Path) -> Result<Self, StoreError> {
        let file = File::create_new(path).at("cannot create", path)?;
        let counting = Counting {
            file,
            hasher: Hasher::new(),
            size: 0,
        };
        // Without a time or a name: equal archives make equal blobs.
        Ok(Self {
            encoder: GzEncoder::new(counting, Level::new(LEVEL)),
            hasher: Hasher::new(),
        })
    }

    fn finish(self) -> io::Result<PackedLayer> {
        let counting = self.encoder.finish()?;
        Ok(PackedLayer {
            digest: counting.hasher.finish(),
            size: counting.size,
            diff_id: self.hasher.finish(),
            compression: Compression::Gzip,
        })
    }
}

impl Sink for Blob {
    fn take(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hasher.update(bytes);
        self.encoder.write_all(bytes)
    }
}
