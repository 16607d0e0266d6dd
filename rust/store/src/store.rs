//! The store: the directories of one data root, what is in them, and what goes out of them.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use rustix::fs::{FileType, Mode, OFlags, open, syncfs};

use crate::claims::Claims;
use crate::digest::Digest;
use crate::error::{Context, StoreError};
use crate::failpoint::reached;
use crate::tree::{self, Visit};

/// Partial blobs that are kept for a resumption: so many bytes in all, and so long.
const INGEST_BYTES: u64 = 32 << 30;
const INGEST_AGE: Duration = Duration::from_secs(7 * 24 * 3600);

/// Blobs and snapshots under one data root.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
    counter: AtomicU64,
    /// What was in `tmp/` before this store was opened.
    leftovers: Mutex<Vec<OsString>>,
    /// Snapshots that are being made.
    pub(crate) snapshot_claims: Claims,
    /// Blobs that are being made.
    pub(crate) blob_claims: Claims,
}

impl Store {
    /// Opens the store of a data root, making its directories where they are missing.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, StoreError> {
        let root = root.into();
        for name in ["blobs/sha256", "snapshots", "ingest", "tmp"] {
            let path = root.join(name);
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&path)
                .at("cannot create", &path)?;
        }
        let temporary = root.join("tmp");
        let leftovers = fs::read_dir(&temporary)
            .and_then(|entries| {
                entries
                    .map(|entry| Ok(entry?.file_name()))
                    .collect::<io::Result<Vec<_>>>()
            })
            .at("cannot list", &temporary)?;
        Ok(Self {
            root,
            counter: AtomicU64::new(0),
            leftovers: Mutex::new(leftovers),
            snapshot_claims: Claims::default(),
            blob_claims: Claims::default(),
        })
    }

    /// Deletes what an earlier process left in `tmp/`, and partial blobs that are too many or too old; how many objects went.
    ///
    /// Other operations may run meanwhile.
    pub fn sweep(&self) -> Result<u64, StoreError> {
        let leftovers = std::mem::take(
            &mut *self
                .leftovers
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        );
        let mut swept = leftovers.len() as u64;
        for name in leftovers {
            self.delete_temporary(&name)?;
        }
        let path = self.root.join("ingest");
        let mut partial = Vec::new();
        for entry in fs::read_dir(&path).at("cannot list", &path)? {
            let entry = entry.at("cannot list", &path)?;
            match entry
                .metadata()
                .and_then(|metadata| Ok((metadata.modified()?, metadata.len())))
            {
                Ok((modified, size)) => partial.push((modified, size, entry.path())),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error).at("cannot look at", entry.path()),
            }
        }
        // The newest first: they are the ones worth keeping.
        partial.sort_unstable_by(|a, b| b.cmp(a));
        let now = SystemTime::now();
        let mut kept = 0_u64;
        for (modified, size, path) in partial {
            kept += size;
            let old = now
                .duration_since(modified)
                .is_ok_and(|age| age > INGEST_AGE);
            if old || kept > INGEST_BYTES {
                match fs::remove_file(&path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        return Err(error).at("cannot remove", &path);
                    }
                    _ => swept += 1,
                }
            }
        }
        Ok(swept)
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

    /// Where a blob is while it arrives.
    pub(crate) fn partial_path(&self, digest: &Digest) -> PathBuf {
        self.root.join("ingest").join(digest.hex() + ".partial")
    }

    /// A name in `tmp/` that nothing has had before.
    pub(crate) fn temporary(&self, what: &str) -> PathBuf {
        let since = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default()
            .as_nanos();
        let count = self.counter.fetch_add(1, Ordering::Relaxed);
        self.root
            .join("tmp")
            .join(format!("{what}-{since:x}-{}-{count}", std::process::id()))
    }

    /// Whether the store has a snapshot.
    pub fn has_snapshot(&self, chain_id: &Digest) -> Result<bool, StoreError> {
        let path = self.snapshot_path(chain_id);
        fs::exists(&path).at("cannot look at", &path)
    }

    /// The chain IDs of all snapshots, in no order.
    pub fn snapshots(&self) -> Result<Vec<Digest>, StoreError> {
        let path = self.root.join("snapshots");
        let mut snapshots = Vec::new();
        for entry in fs::read_dir(&path).at("cannot list", &path)? {
            let name = entry.at("cannot list", &path)?.file_name();
            snapshots.extend(name.to_str().and_then(|name| Digest::from_hex(name).ok()));
        }
        Ok(snapshots)
    }

    /// Deletes a snapshot: renamed away first, so that it is never seen half gone. One that is not there is no error.
    pub fn remove_snapshot(&self, chain_id: &Digest) -> Result<(), StoreError> {
        self.discard(&self.snapshot_path(chain_id))
    }

    /// Deletes a directory below the data root: moved to `tmp/` first. One that is not there is no error.
    pub fn remove_tree(&self, path: &Path) -> Result<(), StoreError> {
        let inside = path.strip_prefix(&self.root).ok();
        let plain = |inside: &Path| {
            inside
                .components()
                .all(|part| matches!(part, std::path::Component::Normal(_)))
        };
        match inside {
            Some(inside) if inside.components().next().is_some() && plain(inside) => {
                self.discard(path)
            }
            _ => Err(StoreError::Outside {
                path: path.to_owned(),
                root: self.root.clone(),
            }),
        }
    }

    fn discard(&self, path: &Path) -> Result<(), StoreError> {
        let temporary = self.temporary("removed");
        match reached("store.tree.move").and_then(|()| fs::rename(path, &temporary)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error).at("cannot move away", path),
            Ok(()) => {
                reached("store.tree.delete").at("cannot delete", &temporary)?;
                self.delete_temporary(temporary.file_name().unwrap_or_default())
            }
        }
    }

    pub(crate) fn delete_temporary(&self, name: &std::ffi::OsStr) -> Result<(), StoreError> {
        let path = self.root.join("tmp");
        let directory = open_directory(&path)?;
        tree::remove_at(directory.as_fd(), name.as_bytes()).at("cannot delete", path.join(name))
    }

    /// Bytes allocated and inodes used below a directory and by itself, hard links counted once.
    pub fn usage(&self, path: &Path) -> Result<(u64, u64), StoreError> {
        let top = open_directory(path)?;
        let stat = rustix::fs::fstat(&top).at("cannot look at", path)?;
        let mut bytes = stat.st_blocks.cast_unsigned() * 512;
        let mut inodes = 1;
        let mut linked = HashSet::new();
        let counted = tree::walk(top.into(), |visit| {
            if let Visit::Enter(_, _, stat) = visit {
                let directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
                if directory || stat.st_nlink == 1 || linked.insert((stat.st_dev, stat.st_ino)) {
                    bytes += stat.st_blocks.cast_unsigned() * 512;
                    inodes += 1;
                }
            }
            Ok(())
        });
        counted.at("cannot measure", path)?;
        Ok((bytes, inodes))
    }

    /// Bytes of the regular files of a snapshot, holes included, hard links counted once.
    pub(crate) fn content_bytes(&self, chain_id: &Digest) -> Result<u64, StoreError> {
        let path = self.snapshot_path(chain_id);
        let mut bytes = 0;
        let mut linked = HashSet::new();
        let counted = tree::walk(open_directory(&path)?.into(), |visit| {
            if let Visit::Enter(_, _, stat) = visit {
                let file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
                if file && (stat.st_nlink == 1 || linked.insert(stat.st_ino)) {
                    bytes += stat.st_size.cast_unsigned();
                }
            }
            Ok(())
        });
        counted.at("cannot measure", &path)?;
        Ok(bytes)
    }

    /// Makes all that was written to the data root's file system durable.
    pub fn sync(&self) -> Result<(), StoreError> {
        syncfs(&open_directory(&self.root)?).at("cannot sync", &self.root)
    }

    /// Makes the names in one of the store's directories durable.
    pub(crate) fn sync_directory(&self, name: &str) -> Result<(), StoreError> {
        let path = self.root.join(name);
        File::open(&path)
            .and_then(|directory| directory.sync_all())
            .at("cannot sync", &path)
    }
}

fn open_directory(path: &Path) -> Result<File, StoreError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    open(path, flags, Mode::empty())
        .map(File::from)
        .at("cannot open", path)
}
