//! Image archives (OCI archives, and what `docker save` writes): every regular file becomes a blob.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::thread;

use crate::blob::{Verified, read};
use crate::decode::Compression;
use crate::digest::{Digest, Hasher};
use crate::durable::Written;
use crate::error::{Context, StoreError};
use crate::input::{Input, ReaderInput};
use crate::layer::{LayerError, LayerProblem, clean, parent};
use crate::limits::Limits;
use crate::pipeline::{COMPRESSED, Decode, Outlet, PLAIN_BUFFER, Stop, conduit};
use crate::store::Store;
use crate::tar::{Entry, EntryKind, Reader, TarError};

/// Entries of an image archive: a hundred times what an image of 500 layers needs.
const ENTRIES: u64 = 100_000;
/// Links from one to the next.
const LINKS: usize = 40;

/// A regular file of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its path, without "." and "..".
    pub name: String,
    /// Its blob.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
}

/// What has been read so far.
#[derive(Default)]
struct Contents {
    files: HashMap<Vec<u8>, (Digest, u64)>,
    links: HashMap<Vec<u8>, Vec<u8>>,
    /// Names in their order, and the blobs to publish.
    names: Vec<Vec<u8>>,
    blobs: Vec<Verified>,
}

impl Store {
    /// Takes every regular file of a tar archive (plain, gzip, zstd) in as a blob.
    ///
    /// A link, hard or symbolic, counts as the file that it leads to. Of several entries with one name the last one counts.
    pub fn read_archive(&self, path: &Path) -> Result<Vec<Member>, StoreError> {
        let directory = self.temporary("archive");
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&directory)
            .at("cannot create", &directory)?;
        let result = self.take_in(path, &directory);
        let cleared = self.delete_temporary(directory.file_name().unwrap_or_default());
        let members = result?;
        cleared?;
        Ok(members)
    }

    fn take_in(&self, path: &Path, directory: &Path) -> Result<Vec<Member>, StoreError> {
        let limits = Limits {
            entries: ENTRIES,
            ..Limits::default()
        };
        let contents = read_contents(path, directory, &limits)?;
        let mut members = Vec::new();
        for name in &contents.names {
            let (digest, size) = contents
                .resolve(name)
                .map_err(|problem| wrong(path, name, problem))?;
            let text = String::from_utf8(name.clone());
            let name = text.map_err(|_| wrong(path, name, TarError::Field("path").into()))?;
            members.push(Member { name, digest, size });
        }
        // Not what a later entry of the same name replaced.
        let wanted: HashSet<Digest> = members.iter().map(|member| member.digest).collect();
        let mut blobs = contents.blobs;
        blobs.retain(|blob| wanted.contains(&blob.digest()));
        let written = blobs.iter().map(|blob| Written {
            path: blob.path(),
            entries: 0,
        });
        self.settle(&written.collect::<Vec<_>>())?;
        for blob in &blobs {
            blob.publish(self)?;
        }
        self.sync_directory("blobs/sha256")?;
        Ok(members)
    }
}

fn wrong(path: &Path, entry: &[u8], problem: LayerProblem) -> StoreError {
    match problem {
        LayerProblem::Archive(TarError::Input(source)) => *source,
        problem => StoreError::Archive {
            path: path.to_owned(),
            source: LayerError {
                entry: entry.to_vec(),
                problem,
            },
        },
    }
}

fn read_contents(path: &Path, directory: &Path, limits: &Limits) -> Result<Contents, StoreError> {
    let mut file = File::open(path).at("cannot open", path)?;
    if !file.metadata().at("cannot look at", path)?.is_file() {
        return Err(StoreError::NotFile(path.to_owned()));
    }
    let mut start = [0; 16];
    let count = read(&mut file, &mut start, path)?;
    let compression =
        Compression::detect(&start[..count]).map_err(|source| StoreError::Stream {
            path: path.to_owned(),
            source,
        })?;
    let file = File::open(path).at("cannot open", path)?;
    if compression == Compression::Plain {
        return Contents::read(
            ReaderInput::new(file, path.display().to_string()),
            path,
            directory,
            limits,
        );
    }
    let (compressed, from_file) = conduit(COMPRESSED);
    let (plain, from_decode) = conduit(PLAIN_BUFFER);
    let wrap = |source| StoreError::Stream {
        path: path.to_owned(),
        source,
    };
    let decode = Decode {
        gzip: None,
        limits,
        hasher: None,
        wrap,
    };
    thread::scope(|scope| {
        scope.spawn(|| compressed.run(|outlet| feed(file, path, outlet)));
        scope.spawn(|| plain.run(|outlet| decode.run(from_file, outlet)));
        Contents::read(from_decode, path, directory, limits)
    })
}

/// All bytes of a source, named by a path, into a pipeline.
pub(crate) fn feed(mut source: impl Read, path: &Path, outlet: &mut Outlet) -> Result<(), Stop> {
    loop {
        let mut buffer = outlet.buffer()?;
        let count = read(&mut source, &mut buffer, path)?;
        if count == 0 {
            return Ok(());
        }
        outlet.send(buffer, 0, count)?;
    }
}

impl Contents {
    fn read(
        input: impl Input,
        path: &Path,
        directory: &Path,
        limits: &Limits,
    ) -> Result<Self, StoreError> {
        let mut contents = Self::default();
        let mut reader = Reader::new(input, limits);
        let mut entry = Entry::default();
        let mut count = 0_u64;
        while reader
            .next(&mut entry)
            .map_err(|problem| wrong(path, &entry.path, problem.into()))?
        {
            let name = clean(&entry.path, limits.path)
                .map_err(|problem| wrong(path, &entry.path, problem))?;
            match entry.kind {
                EntryKind::File => {
                    count += 1;
                    let target = directory.join(count.to_string());
                    let (digest, size) = store_file(&mut reader, &entry, path, &target)?;
                    contents.blobs.push(Verified::new(digest, target));
                    contents.add(name.clone());
                    contents.links.remove(&name);
                    contents.files.insert(name, (digest, size));
                }
                EntryKind::HardLink | EntryKind::Symlink => {
                    let mut target = Vec::new();
                    if entry.kind == EntryKind::Symlink && !entry.link.starts_with(b"/") {
                        target.extend_from_slice(parent(&name));
                        target.push(b'/');
                    }
                    target.extend_from_slice(&entry.link);
                    let target = clean(&target, limits.path)
                        .map_err(|problem| wrong(path, &entry.path, problem))?;
                    contents.add(name.clone());
                    contents.files.remove(&name);
                    contents.links.insert(name, target);
                }
                _ => {}
            }
        }
        Ok(contents)
    }

    fn add(&mut self, name: Vec<u8>) {
        if !self.files.contains_key(&name) && !self.links.contains_key(&name) {
            self.names.push(name);
        }
    }

    /// The file that a name leads to.
    fn resolve(&self, name: &[u8]) -> Result<(Digest, u64), LayerProblem> {
        let mut here = name;
        for _ in 0..LINKS {
            if let Some(file) = self.files.get(here) {
                return Ok(*file);
            }
            let refused = || LayerProblem::Link {
                target: here.to_vec(),
                reason: "is no file of the archive",
            };
            here = self.links.get(here).ok_or_else(refused)?;
        }
        Err(LayerProblem::Loop)
    }
}

/// Writes one file's bytes to a temporary file, hashing them.
fn store_file<I: Input>(
    reader: &mut Reader<'_, I>,
    entry: &Entry,
    path: &Path,
    target: &PathBuf,
) -> Result<(Digest, u64), StoreError> {
    if entry.sparse.is_some() {
        return Err(wrong(path, &entry.path, TarError::Type(b'S').into()));
    }
    let mut file = File::create_new(target).at("cannot create", target)?;
    let mut hasher = Hasher::new();
    loop {
        let data = reader
            .data()
            .map_err(|problem| wrong(path, &entry.path, problem.into()))?;
        if data.is_empty() {
            return Ok((hasher.finish(), entry.size));
        }
        hasher.update(data);
        file.write_all(data).at("cannot write", target)?;
        let count = data.len();
        reader.consume(count);
    }
}
