//! What is at a path, as the Engine API tells it.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use knarr_store::open_in_root;
use rustix::fs::{FileType, OFlags, Stat, fstat, readlinkat};
use rustix::io::Errno;

use crate::error::FilesError;

/// Links that one path may lead through.
const LINKS: usize = 255;

/// The header `X-Docker-Container-Path-Stat`, before it is JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathStat {
    /// The last name of the path that was asked for.
    pub name: String,
    /// Bytes.
    pub size: i64,
    /// Kind and permissions in Go's notation (`io/fs.FileMode`).
    pub mode: u32,
    /// Seconds and nanoseconds since the epoch.
    pub mtime: (i64, u32),
    /// What a symbolic link leads to in the end, as far as that exists; empty for anything else.
    pub target: String,
}

/// A path of a request, absolute and clean, and what of a trailing "/" or "/." it had.
pub(crate) struct Place {
    /// The path for the kernel: a trailing slash follows a link.
    path: String,
    /// The path's last name: what the entries of its archive begin with.
    pub(crate) shown: String,
}

impl Place {
    pub(crate) fn of(path: &str) -> Self {
        let mut names: Vec<&str> = Vec::new();
        for name in path.split('/') {
            match name {
                "" | "." => {}
                ".." => {
                    names.pop();
                }
                _ => names.push(name),
            }
        }
        let here = path.ends_with("/.") || path == ".";
        let mut clean = format!("/{}", names.join("/"));
        let shown = match names.last() {
            _ if here => ".",
            None => "/",
            Some(last) => last,
        };
        let shown = shown.to_owned();
        if (here || path.ends_with('/')) && !clean.ends_with('/') {
            clean.push('/');
        }
        Self { path: clean, shown }
    }

    /// The directory to pack from, and the name in it.
    pub(crate) fn open(&self, root: BorrowedFd<'_>) -> Result<(OwnedFd, CString), FilesError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let wrong = |errno| missing(&self.path, errno);
        let (above, name) = match self.path.trim_end_matches('/').rsplit_once('/') {
            // What a link leads to, and the root: from within.
            Some(_) if self.path.ends_with('/') => (self.path.as_str(), "."),
            None => ("/", "."),
            Some((above, name)) => (if above.is_empty() { "/" } else { above }, name),
        };
        let directory = open_in_root(root, above.as_bytes(), flags).map_err(wrong)?;
        let name = CString::new(name).map_err(|_| wrong(Errno::NOENT))?;
        Ok((directory, name))
    }
}

fn missing(path: &str, errno: Errno) -> FilesError {
    match errno {
        Errno::NOENT => FilesError::Missing(path.to_owned()),
        Errno::NOTDIR => FilesError::NoPath(path.to_owned()),
        errno => FilesError::io("open", path, errno),
    }
}

/// What is at a path below a root.
pub(crate) fn stat(root: BorrowedFd<'_>, path: &str) -> Result<PathStat, FilesError> {
    let place = Place::of(path);
    let wrong = |errno| missing(path, errno);
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let found = open_in_root(root, place.path.as_bytes(), flags).map_err(wrong)?;
    let stat = fstat(&found).map_err(wrong)?;
    let target = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Symlink => resolve(root, &place.path).map_err(wrong)?,
        _ => String::new(),
    };
    Ok(PathStat {
        name: place.shown,
        size: stat.st_size,
        mode: go_mode(&stat),
        mtime: (
            stat.st_mtime,
            u32::try_from(stat.st_mtime_nsec).unwrap_or(0),
        ),
        target,
    })
}

/// Where a path leads, every link followed below the root; what is missing stays as it was named.
fn resolve(root: BorrowedFd<'_>, path: &str) -> Result<String, Errno> {
    let names = |path: &[u8]| -> Vec<Vec<u8>> {
        path.split(|&byte| byte == b'/')
            .rev()
            .map(<[u8]>::to_vec)
            .collect()
    };
    let mut ahead = names(path.as_bytes());
    let mut here: Vec<Vec<u8>> = Vec::new();
    let mut links = 0;
    while let Some(name) = ahead.pop() {
        match name.as_slice() {
            b"" | b"." => continue,
            b".." => {
                here.pop();
                continue;
            }
            _ => {}
        }
        let above = [b"/".to_vec(), here.join(&b'/')].concat();
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let link = open_in_root(root, &above, flags)
            .and_then(|directory| readlinkat(directory.as_fd(), name.as_slice(), Vec::new()));
        match link {
            Ok(target) => {
                links += 1;
                if links > LINKS {
                    return Err(Errno::LOOP);
                }
                if target.as_bytes().starts_with(b"/") {
                    here.clear();
                }
                ahead.extend(names(target.as_bytes()));
            }
            Err(Errno::INVAL | Errno::NOENT | Errno::NOTDIR) => here.push(name),
            Err(errno) => return Err(errno),
        }
    }
    Ok(format!("/{}", String::from_utf8_lossy(&here.join(&b'/'))))
}

/// The bits of Go's `io/fs.FileMode`.
fn go_mode(stat: &Stat) -> u32 {
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => 1 << 31,
        FileType::Symlink => 1 << 27,
        FileType::BlockDevice => 1 << 26,
        FileType::CharacterDevice => 1 << 26 | 1 << 21,
        FileType::Fifo => 1 << 25,
        FileType::Socket => 1 << 24,
        FileType::RegularFile => 0,
        FileType::Unknown => 1 << 19,
    };
    let special = [(0o4000, 1 << 23), (0o2000, 1 << 22), (0o1000, 1 << 20)];
    let set: u32 = special
        .iter()
        .filter(|(bit, _)| stat.st_mode & bit != 0)
        .map(|(_, go)| go)
        .sum();
    kind | set | (stat.st_mode & 0o777)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned_and_keep_what_their_end_says() {
        let cases = [
            ("/a/b", "/a/b", "b"),
            ("a", "/a", "a"),
            ("/a/b/", "/a/b/", "b"),
            ("/a/b/.", "/a/b/", "."),
            ("/a/../b", "/b", "b"),
            ("/../../etc", "/etc", "etc"),
            ("/", "/", "/"),
            ("/.", "/", "."),
            (".", "/", "."),
            ("..", "/", "/"),
            ("//a//./b", "/a/b", "b"),
        ];
        for (path, clean, shown) in cases {
            let place = Place::of(path);
            assert_eq!(
                (place.path.as_str(), place.shown.as_str()),
                (clean, shown),
                "{path}"
            );
        }
    }
}
