//! Blobs: a digest names a file whose bytes have it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::digest::{Digest, Hasher};
use crate::error::{Context, StoreError};
use crate::failpoint::reached;
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

/// A blob whose bytes are verified and which waits for a sync and its name.
pub(crate) struct Verified {
    digest: Digest,
    path: PathBuf,
}

impl<'a> BlobWriter<'a> {
    /// Opens what an earlier attempt left, or begins. Nothing is read yet.
    pub(crate) fn begin(store: &'a Store, digest: Digest) -> Result<Self, StoreError> {
        let path = store.partial_path(&digest);
        let mut options = OpenOptions::new();
        let file = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .at("cannot open", &path)?;
        Ok(Self {
            store,
            digest,
            file,
            path,
            hasher: Hasher::new(),
            offset: 0,
        })
    }

    /// Opens what an earlier attempt left, and goes to its end.
    pub(crate) fn resume(store: &'a Store, digest: Digest) -> Result<Self, StoreError> {
        let mut writer = Self::begin(store, digest)?;
        let mut buffer = vec![0; 128 * 1024];
        while writer.replay(&mut buffer)? > 0 {}
        Ok(writer)
    }

    /// Bytes that an earlier attempt left.
    pub(crate) fn held(&self) -> Result<u64, StoreError> {
        Ok(self.file.metadata().at("cannot look at", &self.path)?.len())
    }

    /// Reads and hashes what is there already, a buffer at a time; 0 at its end.
    pub(crate) fn replay(&mut self, buffer: &mut [u8]) -> Result<usize, StoreError> {
        let count = read(&mut self.file, buffer, &self.path)?;
        self.hasher.update(&buffer[..count]);
        self.offset += count as u64;
        Ok(count)
    }

    /// Bytes that are there: fetch from here on.
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

    /// Forgets all that is there and begins again.
    pub(crate) fn restart(&mut self) -> Result<(), StoreError> {
        self.file.set_len(0).at("cannot truncate", &self.path)?;
        self.file
            .seek(SeekFrom::Start(0))
            .at("cannot rewind", &self.path)?;
        self.hasher = Hasher::new();
        self.offset = 0;
        Ok(())
    }

    /// Verifies the digest; bytes with another one are deleted.
    pub(crate) fn verify(self) -> Result<Verified, StoreError> {
        let found = self.hasher.finish();
        if found == self.digest {
            return Ok(Verified {
                digest: self.digest,
                path: self.path,
            });
        }
        fs::remove_file(&self.path).at("cannot remove", &self.path)?;
        Err(StoreError::WrongDigest {
            what: "blob",
            expected: self.digest,
            found,
        })
    }

    /// Verifies the digest, makes the bytes durable and gives the blob its name. Bytes with another digest are deleted.
    pub fn commit(self) -> Result<(), StoreError> {
        self.file.sync_data().at("cannot sync", &self.path)?;
        let store = self.store;
        self.verify()?.publish(store)?;
        store.sync_directory("blobs/sha256")
    }
}

impl Verified {
    /// A file with a digest that was just computed from it.
    pub(crate) fn new(digest: Digest, path: PathBuf) -> Self {
        Self { digest, path }
    }

    pub(crate) fn digest(&self) -> Digest {
        self.digest
    }

    /// Where it is until then.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Gives the blob its name; its bytes must have been synced.
    pub(crate) fn publish(&self, store: &Store) -> Result<(), StoreError> {
        let target = store.blob_path(&self.digest);
        reached("store.blob.publish")
            .and_then(|()| fs::rename(&self.path, &target))
            .at("cannot rename into place", &target)
    }
}

/// One read that is not interrupted.
pub(crate) fn read(
    source: &mut impl Read,
    buffer: &mut [u8],
    path: &Path,
) -> Result<usize, StoreError> {
    loop {
        match source.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other.at("cannot read", path),
        }
    }
}

impl Store {
    /// A writer of the blob with this digest, at the end of what an earlier attempt left. One writer a digest at a time.
    pub fn blob_writer(&self, digest: Digest) -> Result<BlobWriter<'_>, StoreError> {
        BlobWriter::resume(self, digest)
    }

    /// Deletes what has arrived of a blob; nothing is no error.
    pub(crate) fn remove_partial(&self, digest: &Digest) -> Result<(), StoreError> {
        let path = self.partial_path(digest);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).at("cannot remove", &path)
            }
            _ => Ok(()),
        }
    }

    /// Stores bytes durably; their digest.
    pub fn put_blob(&self, data: &[u8]) -> Result<Digest, StoreError> {
        let digest = Digest::of(data);
        if self.blob_size(&digest)?.is_some() {
            return Ok(digest);
        }
        let temporary = self.temporary("blob");
        let result = File::create_new(&temporary)
            .and_then(|mut file| {
                file.write_all(data)?;
                file.sync_data()
            })
            .at("cannot write", &temporary)
            .and_then(|()| {
                Verified {
                    digest,
                    path: temporary.clone(),
                }
                .publish(self)
            });
        clear(&temporary, result)?;
        self.sync_directory("blobs/sha256")?;
        Ok(digest)
    }

    /// Copies a file in as a blob: its digest and size.
    pub fn put_file(&self, path: &Path) -> Result<(Digest, u64), StoreError> {
        let mut source = File::open(path).at("cannot open", path)?;
        let temporary = self.temporary("blob");
        let result = self.copy_in(&mut source, path, &temporary);
        let (digest, size) = clear(&temporary, result)?;
        self.sync_directory("blobs/sha256")?;
        Ok((digest, size))
    }

    fn copy_in(
        &self,
        source: &mut File,
        path: &Path,
        temporary: &Path,
    ) -> Result<(Digest, u64), StoreError> {
        let mut target = File::create_new(temporary).at("cannot create", temporary)?;
        let mut hasher = Hasher::new();
        let mut size = 0;
        let mut buffer = vec![0; 256 * 1024];
        loop {
            let count = read(source, &mut buffer, path)?;
            if count == 0 {
                break;
            }
            hasher.update(&buffer[..count]);
            target
                .write_all(&buffer[..count])
                .at("cannot write", temporary)?;
            size += count as u64;
        }
        target.sync_data().at("cannot sync", temporary)?;
        let digest = hasher.finish();
        Verified {
            digest,
            path: temporary.to_owned(),
        }
        .publish(self)?;
        Ok((digest, size))
    }

    /// A blob's size in bytes; none where the store does not have it.
    pub fn blob_size(&self, digest: &Digest) -> Result<Option<u64>, StoreError> {
        let path = self.blob_path(digest);
        match fs::symlink_metadata(&path) {
            Ok(metadata) => Ok(Some(metadata.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).at("cannot look at", &path),
        }
    }

    /// A blob's bytes, verified; at most `limit` of them.
    pub fn blob(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>, StoreError> {
        let size = self
            .blob_size(digest)?
            .ok_or(StoreError::BlobMissing(*digest))?;
        if size > limit {
            return Err(StoreError::BlobTooLarge {
                digest: *digest,
                size,
                limit,
            });
        }
        let path = self.blob_path(digest);
        let data = fs::read(&path).at("cannot read", &path)?;
        let found = Digest::of(&data);
        if found != *digest {
            return Err(StoreError::WrongDigest {
                what: "blob",
                expected: *digest,
                found,
            });
        }
        Ok(data)
    }

    /// All blobs and their sizes, in no order.
    pub fn blobs(&self) -> Result<Vec<(Digest, u64)>, StoreError> {
        let path = self.root().join("blobs/sha256");
        let mut blobs = Vec::new();
        for entry in fs::read_dir(&path).at("cannot list", &path)? {
            let entry = entry.at("cannot list", &path)?;
            // Anything with another name is not ours to count.
            let Some(digest) = entry
                .file_name()
                .to_str()
                .and_then(|name| Digest::from_hex(name).ok())
            else {
                continue;
            };
            match entry.metadata() {
                Ok(metadata) => blobs.push((digest, metadata.len())),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error).at("cannot look at", entry.path()),
            }
        }
        Ok(blobs)
    }

    /// Deletes a blob; one that is not there is no error.
    pub fn remove_blob(&self, digest: &Digest) -> Result<(), StoreError> {
        let path = self.blob_path(digest);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).at("cannot remove", &path)
            }
            _ => Ok(()),
        }
    }
}

/// Deletes a temporary file where what it was for has failed.
fn clear<T>(temporary: &Path, result: Result<T, StoreError>) -> Result<T, StoreError> {
    if result.is_err() {
        // The error that is being returned matters more; the next sweep takes what is left.
        let _left = fs::remove_file(temporary);
    }
    result
}
