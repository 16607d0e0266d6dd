//! Layers into snapshots: several side by side, one sync, and then their names.
//!
//! Until the end every snapshot is a directory in `tmp/` and every new blob a file in `ingest/`. Then, lowest layer
//! first, what needs the lower layers is fixed up; all of it is made durable at once; renames give names; the two directories are
//! synced. A kill before the renames leaves partial blobs to resume from and directories to sweep; one between them leaves
//! complete blobs and complete snapshots, each with all that are below it.

use std::convert::Infallible;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crate::blob::Verified;
use crate::decode::DecoderFactory;
use crate::digest::{Digest, Hasher};
use crate::durable::Written;
use crate::error::{Classified, Context, ErrorKind, StoreError};
use crate::failpoint::reached;
use crate::fetch::Fetch;
use crate::layer::{self, Applied};
use crate::limits::Limits;
use crate::pipeline::{COMPRESSED, Decode, PLAIN_BUFFER, conduit};
use crate::progress::{LayerProgress, Phase, Progress};
use crate::source::LayerSource;
use crate::store::Store;

/// Layers unpacked at once.
const PARALLEL: usize = 4;
/// Compressed bytes after which the disk is set to work, and how often they are looked at.
const EARLY_BYTES: u64 = 24 << 20;
const EARLY_POLL: Duration = Duration::from_millis(50);

/// One layer of an image.
#[derive(Debug, Clone)]
pub struct Layer {
    /// The blob as it is transported.
    pub digest: Digest,
    /// The blob's size in bytes.
    pub size: u64,
    /// The descriptor's media type. The compression is told by the stream's first bytes.
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

/// A layer on its way.
struct Task<'a> {
    layer: &'a Layer,
    progress: Arc<LayerProgress>,
}

/// A layer's directory in `tmp/`, deleted unless it gets its name.
struct Draft<'a> {
    store: &'a Store,
    path: PathBuf,
    applied: Applied,
    published: bool,
}

impl Drop for Draft<'_> {
    fn drop(&mut self) {
        if !self.published {
            // The error that led here matters more; the next sweep takes what is left.
            let _left = self
                .store
                .delete_temporary(self.path.file_name().unwrap_or_default());
        }
    }
}

/// What all the threads of one call share.
struct Unpacking<'a> {
    store: &'a Store,
    options: UnpackOptions<'a>,
    limits: &'a Limits,
    progress: &'a Progress,
    /// One layer failed: the others end soon.
    failed: AtomicBool,
}

impl Store {
    /// Makes the snapshots of an image's layers, lowest first; the bytes that each holds unpacked.
    ///
    /// A snapshot that exists is kept; a blob that exists is read; anything else is fetched from the
    /// source, hashed, decoded, hashed and written as one pipeline, layers side by side, resumed
    /// after an interruption, and ends with one sync. Nobody may remove the layers' blobs and snapshots meanwhile.
    pub fn unpack(
        &self,
        layers: &[Layer],
        options: UnpackOptions<'_>,
        progress: &Progress,
    ) -> Result<Vec<u64>, StoreError> {
        let defaults = Limits::default();
        let limits = options.limits.unwrap_or(&defaults);
        check_chain(layers, limits)?;
        let counters: Vec<_> = layers
            .iter()
            .map(|layer| progress.add(layer.digest, layer.size))
            .collect();
        // In the order that claims.rs asks for. What somebody else made while we waited exists then.
        let mut claims = Vec::new();
        let mut tasks: Vec<Option<Task<'_>>> = Vec::new();
        for (layer, counter) in layers.iter().zip(&counters) {
            if self.has_snapshot(&layer.chain_id)? {
                counter.enter(Phase::Exists, layer.size);
                tasks.push(None);
                continue;
            }
            let claim = self.snapshot_claims.take(layer.chain_id, progress)?;
            if self.has_snapshot(&layer.chain_id)? {
                counter.enter(Phase::Exists, layer.size);
                tasks.push(None);
                continue;
            }
            claims.push(claim);
            tasks.push(Some(Task {
                layer,
                progress: Arc::clone(counter),
            }));
        }
        let mut blobs: Vec<Digest> = tasks
            .iter()
            .flatten()
            .map(|task| task.layer.digest)
            .collect();
        blobs.sort_unstable();
        blobs.dedup();
        for &blob in &blobs {
            claims.push(self.blob_claims.take(blob, progress)?);
        }
        let unpacking = Unpacking {
            store: self,
            options,
            limits,
            progress,
            failed: AtomicBool::new(false),
        };
        let made = unpacking
            .run(&tasks, &blobs)
            .and_then(|(drafts, verified)| {
                progress.check()?;
                self.publish(layers, drafts, &verified)
            });
        if made.as_ref().is_err_and(StoreError::is_full) {
            // What could be resumed would keep the disk full.
            blobs
                .iter()
                .try_for_each(|blob| self.remove_partial(blob))?;
        }
        let sizes = made?;
        for task in tasks.iter().flatten() {
            task.progress.enter(Phase::Done, task.layer.size);
            task.progress.advance(task.layer.size);
        }
        Ok(sizes)
    }

    /// Fixes up, syncs and names what was made.
    fn publish(
        &self,
        layers: &[Layer],
        mut drafts: Vec<Option<Draft<'_>>>,
        verified: &[Verified],
    ) -> Result<Vec<u64>, StoreError> {
        let mut below: Vec<PathBuf> = Vec::new();
        for (layer, draft) in layers.iter().zip(&drafts) {
            let path = draft.as_ref().map_or_else(
                || self.snapshot_path(&layer.chain_id),
                |draft| draft.path.clone(),
            );
            if let Some(draft) = draft {
                let lower: Vec<PathBuf> = below.iter().rev().cloned().collect();
                layer::fix_up(&draft.path, &draft.applied, &lower)
                    .map_err(|source| StoreError::of_layer(layer.digest, &draft.path, source))?;
            }
            below.push(path);
        }
        if drafts.iter().any(Option::is_some) || !verified.is_empty() {
            let blobs = verified.iter().map(|blob| Written {
                path: blob.path(),
                entries: 0,
            });
            let made = drafts.iter().flatten();
            let trees = made.map(|draft| Written {
                path: &draft.path,
                entries: draft.applied.entries,
            });
            self.settle(&blobs.chain(trees).collect::<Vec<_>>())?;
            for blob in verified {
                blob.publish(self)?;
            }
            for (layer, draft) in layers.iter().zip(&mut drafts) {
                if let Some(draft) = draft {
                    let target = self.snapshot_path(&layer.chain_id);
                    reached("store.snapshot.publish")
                        .and_then(|()| fs::rename(&draft.path, &target))
                        .at("cannot rename into place", &target)?;
                    draft.published = true;
                }
            }
            reached("store.snapshot.sync").at("cannot sync", self.root())?;
            self.sync_directory("blobs/sha256")?;
            self.sync_directory("snapshots")?;
        }
        let sizes = layers
            .iter()
            .zip(&drafts)
            .map(|(layer, draft)| match draft {
                Some(draft) => Ok(draft.applied.bytes),
                None => self.content_bytes(&layer.chain_id),
            });
        sizes.collect()
    }
}

/// Each layer stands on the one before it, and is named after both.
fn check_chain(layers: &[Layer], limits: &Limits) -> Result<(), StoreError> {
    if layers.len() > limits.layers {
        return Err(StoreError::TooManyLayers {
            layers: layers.len(),
            limit: limits.layers,
        });
    }
    let mut parent: Option<Digest> = None;
    for layer in layers {
        if layer.media_type.ends_with("+encrypted") {
            let (digest, media_type) = (layer.digest, layer.media_type.clone());
            return Err(StoreError::MediaType { digest, media_type });
        }
        let expected = parent.map_or(layer.diff_id, |parent| {
            Digest::of(format!("{parent} {}", layer.diff_id).as_bytes())
        });
        if layer.parent != parent || layer.chain_id != expected {
            return Err(StoreError::WrongChain {
                layer: layer.digest,
                chain_id: layer.chain_id,
                expected,
            });
        }
        parent = Some(expected);
    }
    Ok(())
}

impl<'a> Unpacking<'a> {
    /// Makes a draft of every task. Layers that share a blob are made one after the other.
    fn run(
        &self,
        tasks: &[Option<Task<'_>>],
        blobs: &[Digest],
    ) -> Result<(Vec<Option<Draft<'a>>>, Vec<Verified>), StoreError> {
        let mut groups: Vec<(u64, Vec<usize>)> = Vec::new();
        for blob in blobs {
            let group = tasks
                .iter()
                .enumerate()
                .filter(|(_, task)| task.as_ref().is_some_and(|task| task.layer.digest == *blob));
            let group: Vec<usize> = group.map(|(index, _)| index).collect();
            let size = group
                .first()
                .and_then(|&index| tasks[index].as_ref())
                .map_or(0, |task| task.layer.size);
            groups.push((size, group));
        }
        // The largest layer first: it decides when the last one ends.
        groups.sort_by_key(|(size, _)| std::cmp::Reverse(*size));
        let next = AtomicUsize::new(0);
        let drafts: Mutex<Vec<Option<Draft<'a>>>> =
            Mutex::new(tasks.iter().map(|_| None).collect());
        let verified = Mutex::new(Vec::new());
        let error = Mutex::new(None);
        let fail = |problem| {
            if !self.failed.swap(true, Ordering::AcqRel) {
                *error.lock().unwrap_or_else(PoisonError::into_inner) = Some(problem);
            }
        };
        let (working, ended) = channel();
        thread::scope(|scope| {
            for _ in 0..PARALLEL.min(groups.len()) {
                let working: Sender<Infallible> = working.clone();
                let (groups, next, drafts, verified, fail) =
                    (&groups, &next, &drafts, &verified, &fail);
                scope.spawn(move || {
                    while let Some((_, group)) = groups.get(next.fetch_add(1, Ordering::Relaxed)) {
                        if let Err(problem) = self.make_group(tasks, group, drafts, verified) {
                            fail(problem);
                            break;
                        }
                    }
                    drop(working);
                });
            }
            drop(working);
            if let Err(problem) = self.sync_along(tasks, &ended) {
                fail(problem);
            }
        });
        match error.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err(error),
            None => Ok((
                drafts.into_inner().unwrap_or_else(PoisonError::into_inner),
                verified
                    .into_inner()
                    .unwrap_or_else(PoisonError::into_inner),
            )),
        }
    }

    /// Syncs now and then while the workers work, so that the sync that they are followed by finds little left: the disk is
    /// not idle while the processors are busy, nor the other way round.
    fn sync_along(
        &self,
        tasks: &[Option<Task<'_>>],
        ended: &Receiver<Infallible>,
    ) -> Result<(), StoreError> {
        let mut synced = 0;
        while ended.recv_timeout(EARLY_POLL) == Err(RecvTimeoutError::Timeout) {
            let done: u64 = tasks
                .iter()
                .flatten()
                .map(|task| task.progress.read().1)
                .sum();
            if done.saturating_sub(synced) >= EARLY_BYTES {
                synced = done;
                self.store.sync()?;
            }
        }
        Ok(())
    }

    fn make_group(
        &self,
        tasks: &[Option<Task<'_>>],
        group: &[usize],
        drafts: &Mutex<Vec<Option<Draft<'a>>>>,
        verified: &Mutex<Vec<Verified>>,
    ) -> Result<(), StoreError> {
        let mut blob = None;
        for &index in group {
            let Some(task) = &tasks[index] else { continue };
            let (draft, new) = self.make(task)?;
            drafts.lock().unwrap_or_else(PoisonError::into_inner)[index] = Some(draft);
            blob = new.or(blob);
        }
        verified
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend(blob);
        Ok(())
    }

    /// Makes one layer. Should what an earlier attempt left of its blob be damaged, once more from the start.
    fn make(&self, task: &Task<'_>) -> Result<(Draft<'a>, Option<Verified>), StoreError> {
        let resumed = fs::metadata(self.store.partial_path(&task.layer.digest))
            .is_ok_and(|partial| partial.len() > 0);
        match self.attempt(task, false) {
            Err(error) if resumed && error.kind() == ErrorKind::Corrupt => self.attempt(task, true),
            other => other,
        }
    }

    fn attempt(
        &self,
        task: &Task<'_>,
        afresh: bool,
    ) -> Result<(Draft<'a>, Option<Verified>), StoreError> {
        let layer = task.layer;
        let path = self.store.temporary("layer");
        fs::create_dir(&path).at("cannot create", &path)?;
        let mut draft = Draft {
            store: self.store,
            path,
            applied: Applied::default(),
            published: false,
        };
        layer::own(&draft.path).at("cannot prepare", &draft.path)?;
        let (compressed, from_fetch) = conduit(COMPRESSED);
        let (plain, from_decode) = conduit(PLAIN_BUFFER);
        let source = self.options.source;
        let fetch = Fetch {
            store: self.store,
            layer,
            source,
            progress: &task.progress,
            afresh,
        };
        let wrap = |source| StoreError::Decode {
            digest: layer.digest,
            source,
        };
        let hasher = Some(Hasher::new());
        let decode = Decode {
            gzip: self.options.gzip,
            limits: self.limits,
            hasher,
            wrap,
        };
        let (verified, digest, applied) = thread::scope(|scope| {
            let fetching =
                scope.spawn(|| compressed.run(|outlet| fetch.run(outlet, || self.check())));
            let decoding = scope.spawn(|| plain.run(|outlet| decode.run(from_fetch, outlet)));
            let applied = layer::apply(from_decode, &draft.path, self.limits);
            (fetching.join(), decoding.join(), applied)
        });
        draft.applied =
            applied.map_err(|source| StoreError::of_layer(layer.digest, &draft.path, source))?;
        // Who read the stream to its end heard of every failure before it.
        let (Ok(Some(verified)), Ok(Some(Some(found)))) = (verified, digest) else {
            return Err(StoreError::Cancelled);
        };
        if found != layer.diff_id {
            return Err(StoreError::WrongDigest {
                what: "unpacked layer",
                expected: layer.diff_id,
                found,
            });
        }
        Ok((draft, verified))
    }

    fn check(&self) -> Result<(), StoreError> {
        if self.failed.load(Ordering::Acquire) {
            Err(StoreError::Cancelled)
        } else {
            self.progress.check()
        }
    }
}
