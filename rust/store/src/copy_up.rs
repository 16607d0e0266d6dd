//! A directory of an image, copied out of its layers: what a new volume begins with.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, linkat, mkdirat, open, openat};

use crate::error::{Context, StoreError};
use crate::layer::{LayerError, LayerProblem, copy, copy_attributes, join, open_directory, parent};
use crate::store::Store;
use crate::union::{Found, Union};

impl Store {
    /// Whether layers' directories (top-most first) have a directory at a path, resolved as `copy_up` does.
    pub fn has_directory<P: AsRef<Path>>(
        &self,
        lower: &[P],
        path: &Path,
    ) -> Result<bool, StoreError> {
        let union = Union::of(lower);
        let found = union
            .resolve(path.as_os_str().as_bytes())
            .at("cannot look up", path)?;
        let Some(top) = found else { return Ok(false) };
        Ok(union.list(&top).at("cannot read", path)?.is_some())
    }

    /// Copies a directory's content, and its own attributes, from layers' directories (top-most first) to an empty directory, with
    /// owners, modes, times, extended attributes and hard links. The path is resolved inside the layers' merged view. False where they have no
    /// such directory. After an error the destination holds a part: the caller removes it.
    pub fn copy_up<P: AsRef<Path>>(
        &self,
        lower: &[P],
        path: &Path,
        destination: &Path,
    ) -> Result<bool, StoreError> {
        let union = Union::of(lower);
        let found = union
            .resolve(path.as_os_str().as_bytes())
            .at("cannot look up", path)?;
        let Some(top) = found else { return Ok(false) };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let target = open(destination, flags, Mode::empty()).at("cannot open", destination)?;
        let mut copying = Copying {
            union,
            top,
            target,
            links: HashMap::new(),
        };
        let refused = |source| StoreError::Copy {
            destination: destination.to_owned(),
            source,
        };
        copying.run().map_err(refused)
    }
}

struct Copying {
    union: Union,
    top: Vec<u8>,
    target: OwnedFd,
    /// Files with several names, by their inode: the first copy's path.
    links: HashMap<(u64, u64), Vec<u8>>,
}

impl Copying {
    /// Directory by directory, then every directory's own attributes: copying into one changes its time.
    fn run(&mut self) -> Result<bool, LayerError> {
        let mut ahead = vec![Vec::new()];
        let mut directories = Vec::new();
        while let Some(path) = ahead.pop() {
            let failed = |problem| LayerError {
                entry: path.clone(),
                problem,
            };
            let Some(entries) = self
                .union
                .list(&join(&self.top, &path))
                .map_err(reading)
                .map_err(failed)?
            else {
                return Ok(false);
            };
            let target = open_directory(self.target.as_fd(), &path)
                .map_err(|errno| failed(writing(errno.into())))?;
            for (name, found) in entries {
                let below = join(&path, name.to_bytes());
                if found.file_type() == FileType::Directory {
                    let made = mkdirat(&target, &name, Mode::from_raw_mode(0o700));
                    made.map_err(|errno| LayerError {
                        entry: below.clone(),
                        problem: writing(errno.into()),
                    })?;
                    ahead.push(below);
                } else {
                    self.object(&target, &below, &found)
                        .map_err(|problem| LayerError {
                            entry: below,
                            problem,
                        })?;
                }
            }
            directories.push(path);
        }
        for path in directories {
            self.directory(&path).map_err(|problem| LayerError {
                entry: path,
                problem,
            })?;
        }
        Ok(true)
    }

    fn object(&mut self, target: &OwnedFd, path: &[u8], found: &Found) -> Result<(), LayerProblem> {
        let name = path.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
        if found.stat.st_nlink > 1 {
            let identity = (found.stat.st_dev, found.stat.st_ino);
            if let Some(first) = self.links.get(&identity) {
                let directory = open_directory(self.target.as_fd(), parent(first))
                    .map_err(|errno| writing(errno.into()))?;
                let first = first
                    .rsplit(|&byte| byte == b'/')
                    .next()
                    .unwrap_or_default();
                return linkat(&directory, first, target, name, AtFlags::empty())
                    .map_err(|errno| writing(errno.into()));
            }
            self.links.insert(identity, path.to_vec());
        }
        copy(found, target.as_fd(), name)
    }

    fn directory(&self, path: &[u8]) -> Result<(), LayerProblem> {
        let Some(found) = self.union.find(&join(&self.top, path)).map_err(reading)? else {
            return Err(reading(io::ErrorKind::NotFound.into()));
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let source = openat(&found.object, c".", flags, Mode::empty())
            .map_err(|errno| reading(errno.into()))?;
        let target =
            open_directory(self.target.as_fd(), path).map_err(|errno| writing(errno.into()))?;
        copy_attributes(&source, &found.stat, &target)
    }
}

fn reading(source: io::Error) -> LayerProblem {
    LayerProblem::Io {
        doing: "read it from the image",
        source,
    }
}

fn writing(source: io::Error) -> LayerProblem {
    LayerProblem::Io {
        doing: "create its copy",
        source,
    }
}
