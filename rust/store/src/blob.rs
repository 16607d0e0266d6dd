//! Blobs: a digest names a file whose bytes have it.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::PathBuf;

use crate::digest::{Digest, Hasher};
use crate::error::{Context, StoreError};
use crate::store::Store;

/// A blob on its way in: `ingest/<hex>.partial`, hashed as it grows, resumable.
pub struct BlobWriter<'a> {
    store: &'a Store,
    digest: Digest,
    file: File,
    path: PathBuf,
    hasher: Hasher,
    offset: u64,
}

impl<'a> BlobWriter<'a> {
    /// Opens what an earlier attempt left, or begins.
    pub(crate) fn open(store: &'a Store, digest: Digest) -> Result<Self, StoreError> {
        let path = store.partial_path(&digest);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .at("cannot open", &path)?;
        let mut hasher = Hasher::new();
        let mut offset = 0;
        let mut buffer = vec![0; 128 * 1024];
        loop {
            let count = file.read(&mut buffer).at("cannot read", &path)?;
            if count == 0 {
                break;
            }
            hasher.update(&buffer[..count]);
            offset += count as u64;
        }
        Ok(Self {
            store,
            digest,
            file,
            path,
            hasher,
            offset,
        })
    }

    /// Bytes that are there already: fetch from here on.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Appends bytes.
    pub fn write(&mut self, data: &[u8]) -> Result<(), StoreError> {
        self.file.write_all(data).at("cannot write", &self.path)?;
        self.hasher.update(data);
        self.offset += data.len() as u64;
        Ok(())
    }

    /// Verifies the digest, makes the bytes durable and gives the blob its name. Bytes with another digest are deleted.
    pub fn commit(self) -> Result<(), StoreError> {
        let found = self.hasher.finish();
        if found != self.digest {
            std::fs::remove_file(&self.path).at("cannot remove", &self.path)?;
            return Err(StoreError::WrongDigest {
                what: "blob",
                expected: self.digest,
                found,
            });
        }
        self.file.sync_data().at("cannot sync", &self.path)?;
        let target = self.store.blob_path(&self.digest);
        std::fs::rename(&self.path, &target).at("cannot rename into place", &target)?;
        self.store.sync_directory("blobs/sha256")
    }
}
