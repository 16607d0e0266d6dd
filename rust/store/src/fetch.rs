//! The head of the pipeline: a blob's bytes from the store, from what an earlier attempt left, or from a source.

use std::fs::File;

use crate::blob::{BlobWriter, Verified, read};
use crate::digest::Digest;
use crate::error::{Context, StoreError};
use crate::pipeline::{Outlet, Stop};
use crate::progress::{LayerProgress, Phase, Progress};
use crate::source::LayerSource;
use crate::store::Store;
use crate::unpack::Layer;

/// Bytes that tell the compression: of a first buffer, and of what an earlier attempt left.
const LEAST: u64 = 4096;

/// One blob that is wanted.
pub(crate) struct Fetch<'a> {
    pub(crate) store: &'a Store,
    pub(crate) layer: &'a Layer,
    pub(crate) source: Option<&'a dyn LayerSource>,
    pub(crate) progress: &'a LayerProgress,
    /// Forget what an earlier attempt left.
    pub(crate) afresh: bool,
}

impl Fetch<'_> {
    /// Sends all bytes; the blob that was completed, where the store did not have it. `check` is asked before each buffer.
    pub(crate) fn run(
        &self,
        outlet: &mut Outlet,
        check: impl Fn() -> Result<(), StoreError>,
    ) -> Result<Option<Verified>, Stop> {
        if self.store.blob_size(&self.layer.digest)?.is_some() {
            self.read_stored(outlet, check)?;
            return Ok(None);
        }
        self.progress.enter(Phase::Downloading, self.layer.size);
        let mut writer = BlobWriter::begin(self.store, self.layer.digest)?;
        // Too little to tell the compression by is not worth keeping, unless it is all.
        if self.afresh || writer.held()? < LEAST.min(self.layer.size) {
            writer.restart()?;
        }
        self.pump(outlet, &check, |buffer| writer.replay(buffer))?;
        if writer.offset() < self.layer.size {
            self.download(&mut writer, outlet, &check)?;
        }
        let found = writer.offset();
        if found != self.layer.size {
            if found > self.layer.size {
                writer.restart()?;
            }
            let (digest, expected) = (self.layer.digest, self.layer.size);
            return Err(StoreError::WrongSize {
                digest,
                expected,
                found,
            }
            .into());
        }
        let verified = writer.verify()?;
        self.progress.enter(Phase::Downloaded, self.layer.size);
        self.progress.advance(self.layer.size);
        Ok(Some(verified))
    }

    fn read_stored(
        &self,
        outlet: &mut Outlet,
        check: impl Fn() -> Result<(), StoreError>,
    ) -> Result<(), Stop> {
        self.progress.enter(Phase::Extracting, self.layer.size);
        let path = self.store.blob_path(&self.layer.digest);
        let mut file = File::open(&path).at("cannot open", &path)?;
        self.pump(outlet, &check, |buffer| read(&mut file, buffer, &path))
    }

    fn download(
        &self,
        writer: &mut BlobWriter<'_>,
        outlet: &mut Outlet,
        check: &dyn Fn() -> Result<(), StoreError>,
    ) -> Result<(), Stop> {
        let Layer { digest, size, .. } = self.layer;
        let source = self.source.ok_or(StoreError::BlobMissing(*digest))?;
        let mut stream = source.open(digest, *size, writer.offset())?;
        self.pump(outlet, check, |buffer| {
            // Bytes beyond what was announced: a few are enough to know.
            if writer.offset() > *size {
                return Ok(0);
            }
            let count = stream.read(buffer)?;
            writer.write(&buffer[..count])?;
            Ok(count)
        })
    }

    /// Sends what `fill` puts into buffers until it has no more. The first buffer is sent with enough to tell the compression by:
    /// a network may begin with a single byte.
    fn pump(
        &self,
        outlet: &mut Outlet,
        check: &dyn Fn() -> Result<(), StoreError>,
        mut fill: impl FnMut(&mut [u8]) -> Result<usize, StoreError>,
    ) -> Result<(), Stop> {
        let (mut more, mut least) = (true, LEAST);
        while more {
            let mut buffer = outlet.buffer()?;
            let mut end = 0;
            while more && (end as u64) < least {
                check()?;
                let count = fill(&mut buffer[end..])?;
                self.progress.advance(count as u64);
                end += count;
                more = count > 0;
            }
            outlet.send(buffer, 0, end)?;
            least = 1;
        }
        Ok(())
    }
}

impl Store {
    /// Fetches a blob for itself, without unpacking it; one that is there is kept. Resumed after an interruption.
    pub fn fetch(
        &self,
        digest: Digest,
        size: u64,
        source: &dyn LayerSource,
        progress: &Progress,
    ) -> Result<(), StoreError> {
        let _claim = self.blob_claims.take(digest, progress)?;
        if self.blob_size(&digest)?.is_some() {
            return Ok(());
        }
        let fetched = self.fetch_now(digest, size, source, progress);
        if fetched.as_ref().is_err_and(StoreError::is_full) {
            // What could be resumed would keep the disk full.
            self.remove_partial(&digest)?;
        }
        fetched
    }

    fn fetch_now(
        &self,
        digest: Digest,
        size: u64,
        source: &dyn LayerSource,
        progress: &Progress,
    ) -> Result<(), StoreError> {
        let mut writer = BlobWriter::resume(self, digest)?;
        if writer.offset() > size {
            writer.restart()?;
        }
        if writer.offset() < size {
            let mut stream = source.open(&digest, size, writer.offset())?;
            let mut buffer = vec![0; 128 * 1024];
            while writer.offset() <= size {
                progress.check()?;
                let count = stream.read(&mut buffer)?;
                if count == 0 {
                    break;
                }
                writer.write(&buffer[..count])?;
            }
        }
        let found = writer.offset();
        if found != size {
            if found > size {
                writer.restart()?;
            }
            let expected = size;
            return Err(StoreError::WrongSize {
                digest,
                expected,
                found,
            });
        }
        writer.commit()
    }
}
