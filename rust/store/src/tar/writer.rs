//! Writing tar archives: POSIX ustar, with a pax header before an entry for what ustar has no room for.
//!
//! | what | where it stands |
//! | --- | --- |
//! | a path that does not fit name and prefix, a link of more than 100 bytes | pax `path`, `linkpath` |
//! | an owner above 2,097,151, a size from 8 GiB on | pax `uid`, `gid`, `size` |
//! | a time before the epoch, beyond 2242, or with nanoseconds | pax `mtime` |
//! | extended attributes | pax `SCHILY.xattr.<name>` |
//! | a sparse file | pax `GNU.sparse.*`, format 1.0: its map stands before its data |
//!
//! Bytes gather in one buffer and leave it in large pieces: a small file costs no write of its own, and a file's bytes are
//! read right into it.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::io::Errno;

use super::header::BLOCK;
use super::{Entry, EntryKind, Piece, Time};

const BUFFER: usize = 256 * 1024;

/// Where an archive goes.
pub trait Sink {
    /// Takes all of the bytes.
    fn take(&mut self, bytes: &[u8]) -> io::Result<()>;
}

impl Sink for Vec<u8> {
    fn take(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.extend_from_slice(bytes);
        Ok(())
    }
}

impl<S: Sink + ?Sized> Sink for &mut S {
    fn take(&mut self, bytes: &[u8]) -> io::Result<()> {
        (**self).take(bytes)
    }
}

/// Why an archive could not be written on.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// A file's bytes cannot be read.
    #[error("cannot read it: {0}")]
    Read(io::Error),
    /// The archive's bytes go nowhere.
    #[error("cannot write the archive: {0}")]
    Write(io::Error),
}

/// Writes an archive's entries one after the other.
///
/// A file's entry is followed by exactly the bytes that it announces: [`Writer::data`], [`Writer::file`] or [`Writer::pieces`].
pub struct Writer<S> {
    sink: S,
    buffer: Box<[u8]>,
    filled: usize,
}

impl<S: Sink> Writer<S> {
    /// Begins an archive.
    pub fn new(sink: S) -> Self {
        Self {
            sink,
            buffer: vec![0; BUFFER].into(),
            filled: 0,
        }
    }

    /// Writes an entry's headers. `entry.size` is what will follow; a sparse file's map is written here.
    pub fn entry(&mut self, entry: &Entry) -> Result<(), WriteError> {
        let mut pax = Vec::new();
        let mut block = [0; BLOCK];
        let map = entry.sparse.as_ref().map(|(_, pieces)| sparse_map(pieces));
        let stored = entry.size + map.as_ref().map_or(0, |map| map.len() as u64);
        fill(&mut block, entry, stored, &mut pax);
        if !pax.is_empty() {
            let mut before = [0; BLOCK];
            let mut name = b"PaxHeaders/".to_vec();
            let last = entry
                .path
                .rsplit(|&byte| byte == b'/')
                .find(|name| !name.is_empty());
            name.extend_from_slice(last.unwrap_or_default());
            name.truncate(100);
            before[..name.len()].copy_from_slice(&name);
            octal(&mut before[100..108], 0o644);
            octal(&mut before[108..116], 0);
            octal(&mut before[116..124], 0);
            octal(&mut before[124..136], pax.len() as u64);
            octal(&mut before[136..148], 0);
            before[156] = b'x';
            seal(&mut before);
            self.data(&before)?;
            self.data(&pax)?;
            self.pad(pax.len() as u64)?;
        }
        self.data(&block)?;
        match map {
            Some(map) => self.data(&map),
            None => Ok(()),
        }
    }

    /// Writes bytes.
    pub fn data(&mut self, mut bytes: &[u8]) -> Result<(), WriteError> {
        while !bytes.is_empty() {
            if self.filled == self.buffer.len() {
                self.flush()?;
            }
            let count = bytes.len().min(self.buffer.len() - self.filled);
            self.buffer[self.filled..self.filled + count].copy_from_slice(&bytes[..count]);
            self.filled += count;
            bytes = &bytes[count..];
        }
        Ok(())
    }

    /// Writes a file's first `length` bytes and what fills their last block. A file that has become shorter meanwhile is
    /// filled with zeros, as GNU tar does it: its entry has said already how many there are.
    pub fn file(&mut self, file: BorrowedFd<'_>, length: u64) -> Result<(), WriteError> {
        self.range(file, 0, length)?;
        self.pad(length)
    }

    /// Writes the pieces of a sparse file, and what fills the last block of all of them.
    pub fn pieces(&mut self, file: BorrowedFd<'_>, pieces: &[Piece]) -> Result<(), WriteError> {
        for piece in pieces {
            self.range(file, piece.offset, piece.length)?;
        }
        self.pad(pieces.iter().map(|piece| piece.length).sum())
    }

    /// Writes zeros up to the next block.
    pub fn pad(&mut self, length: u64) -> Result<(), WriteError> {
        self.zeros(length.next_multiple_of(BLOCK as u64) - length)
    }

    /// Ends the archive with two blocks of zeros; where it went.
    pub fn finish(mut self) -> Result<S, WriteError> {
        self.zeros(2 * BLOCK as u64)?;
        self.flush()?;
        Ok(self.sink)
    }

    fn range(&mut self, file: BorrowedFd<'_>, start: u64, length: u64) -> Result<(), WriteError> {
        let mut done = 0;
        while done < length {
            if self.filled == self.buffer.len() {
                self.flush()?;
            }
            let room = self.buffer.len() - self.filled;
            let wanted = usize::try_from(length - done)
                .unwrap_or(usize::MAX)
                .min(room);
            let place = &mut self.buffer[self.filled..self.filled + wanted];
            match rustix::io::pread(file, place, start + done) {
                Err(Errno::INTR) => {}
                Err(errno) => return Err(WriteError::Read(errno.into())),
                Ok(0) => return self.zeros(length - done),
                Ok(count) => {
                    self.filled += count;
                    done += count as u64;
                }
            }
        }
        Ok(())
    }

    fn zeros(&mut self, mut count: u64) -> Result<(), WriteError> {
        while count > 0 {
            if self.filled == self.buffer.len() {
                self.flush()?;
            }
            let room = self.buffer.len() - self.filled;
            let step = usize::try_from(count).unwrap_or(usize::MAX).min(room);
            self.buffer[self.filled..self.filled + step].fill(0);
            self.filled += step;
            count -= step as u64;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), WriteError> {
        let filled = std::mem::take(&mut self.filled);
        self.sink
            .take(&self.buffer[..filled])
            .map_err(WriteError::Write)
    }
}

/// Fills in an entry's own header, and gathers in `pax` what it has no room for.
fn fill(block: &mut [u8; BLOCK], entry: &Entry, stored: u64, pax: &mut Vec<u8>) {
    let mut path = entry.path.clone();
    if entry.kind == EntryKind::Directory && !path.ends_with(b"/") {
        path.push(b'/');
    }
    if let Some((real_size, _)) = &entry.sparse {
        record(pax, b"GNU.sparse.major", b"1");
        record(pax, b"GNU.sparse.minor", b"0");
        record(pax, b"GNU.sparse.name", &path);
        record(
            pax,
            b"GNU.sparse.realsize",
            real_size.to_string().as_bytes(),
        );
        // What a program shows that does not know sparse files.
        path.splice(..path.len(), b"GNUSparseFile.0".iter().copied());
    }
    if let Some(prefix) = split(&path) {
        if prefix > 0 {
            block[345..345 + prefix].copy_from_slice(&path[..prefix]);
            path.drain(..=prefix);
        }
    } else {
        record(pax, b"path", &path);
        path.truncate(100);
    }
    block[..path.len()].copy_from_slice(&path);
    octal(&mut block[100..108], u64::from(entry.mode & 0o7777));
    for (range, key, id) in [
        (108..116, &b"uid"[..], entry.uid),
        (116..124, b"gid", entry.gid),
    ] {
        if id > 0o7_777_777 {
            record(pax, key, id.to_string().as_bytes());
            octal(&mut block[range], 0);
        } else {
            octal(&mut block[range], u64::from(id));
        }
    }
    if stored > 0o77_777_777_777 {
        record(pax, b"size", stored.to_string().as_bytes());
        octal(&mut block[124..136], 0);
    } else {
        octal(&mut block[124..136], stored);
    }
    let seconds = u64::try_from(entry.mtime.seconds)
        .ok()
        .filter(|&seconds| seconds <= 0o77_777_777_777);
    if entry.mtime.nanoseconds != 0 || seconds.is_none() {
        record(pax, b"mtime", moment(entry.mtime).as_bytes());
    }
    octal(&mut block[136..148], seconds.unwrap_or(0));
    block[156] = match entry.kind {
        EntryKind::File => b'0',
        EntryKind::HardLink => b'1',
        EntryKind::Symlink => b'2',
        EntryKind::CharDevice(..) => b'3',
        EntryKind::BlockDevice(..) => b'4',
        EntryKind::Directory => b'5',
        EntryKind::Fifo => b'6',
    };
    if entry.link.len() > 100 {
        record(pax, b"linkpath", &entry.link);
    }
    let link = &entry.link[..entry.link.len().min(100)];
    block[157..157 + link.len()].copy_from_slice(link);
    let (major, minor) = match entry.kind {
        EntryKind::CharDevice(major, minor) | EntryKind::BlockDevice(major, minor) => {
            (major, minor)
        }
        _ => (0, 0),
    };
    octal(&mut block[329..337], u64::from(major));
    octal(&mut block[337..345], u64::from(minor));
    for (name, value) in &entry.xattrs {
        let mut key = b"SCHILY.xattr.".to_vec();
        key.extend_from_slice(name);
        record(pax, &key, value);
    }
    seal(block);
}

/// Where a path's prefix ends, 0 where it needs none; none where the header has no room for the path.
fn split(path: &[u8]) -> Option<usize> {
    if path.len() <= 100 {
        return Some(0);
    }
    // The name behind the slash has 1 to 100 bytes, the prefix before it at most 155.
    let from = path.len() - 101;
    let to = path.len().saturating_sub(2).min(155);
    (from..=to).find(|&at| path[at] == b'/' && at > 0)
}

/// Octal digits and a NUL.
fn octal(field: &mut [u8], value: u64) {
    let mut left = value;
    let end = field.len() - 1;
    field[end] = 0;
    for digit in field[..end].iter_mut().rev() {
        *digit = b'0' + (left & 7) as u8;
        left >>= 3;
    }
}

/// Magic, version and checksum.
fn seal(block: &mut [u8; BLOCK]) {
    block[257..265].copy_from_slice(b"ustar\x0000");
    block[148..156].fill(b' ');
    let sum: u64 = block.iter().map(|&byte| u64::from(byte)).sum();
    octal(&mut block[148..155], sum);
}

/// One pax record; its length counts its own digits.
fn record(pax: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    pax.extend_from_slice(length.to_string().as_bytes());
    pax.push(b' ');
    pax.extend_from_slice(key);
    pax.push(b'=');
    pax.extend_from_slice(value);
    pax.push(b'\n');
}

/// A time as pax writes it: `[-]seconds[.fraction]`.
fn moment(time: Time) -> String {
    let (mut seconds, mut nanoseconds) = (i128::from(time.seconds), time.nanoseconds);
    let sign = if seconds < 0 { "-" } else { "" };
    if seconds < 0 {
        seconds = -seconds;
        if nanoseconds > 0 {
            seconds -= 1;
            nanoseconds = 1_000_000_000 - nanoseconds;
        }
    }
    let text = format!("{sign}{seconds}.{nanoseconds:09}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// The map of a sparse file, format 1.0: a number a line, filled up to a block.
fn sparse_map(pieces: &[Piece]) -> Vec<u8> {
    let mut map = format!("{}\n", pieces.len()).into_bytes();
    for piece in pieces {
        map.extend_from_slice(format!("{}\n{}\n", piece.offset, piece.length).as_bytes());
    }
    map.resize(map.len().next_multiple_of(BLOCK), 0);
    map
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Limits;
    use crate::tar::Reader;

    fn round_trip(entry: &Entry, data: &[u8]) -> (Entry, Vec<u8>) {
        let mut writer = Writer::new(Vec::new());
        writer.entry(entry).unwrap();
        writer.data(data).unwrap();
        writer.pad(data.len() as u64).unwrap();
        let archive = writer.finish().unwrap();
        let limits = Limits::default();
        let mut reader = Reader::new(archive.as_slice(), &limits);
        let mut found = Entry::default();
        assert!(reader.next(&mut found).unwrap());
        let mut content = Vec::new();
        loop {
            let piece = reader.data().unwrap().to_vec();
            if piece.is_empty() {
                break;
            }
            reader.consume(piece.len());
            content.extend(piece);
        }
        assert!(!reader.next(&mut Entry::default()).unwrap());
        (found, content)
    }

    #[test]
    fn what_is_written_is_read_again() {
        let long = |count: usize| [b"directory/".repeat(count), vec![b'n'; 60]].concat();
        let times = [
            (0, 0),
            (1, 5),
            (-1, 0),
            (-2, 750_000_000),
            (-1, 1),
            (1 << 40, 7),
            (1_700_000_000, 120_000_000),
        ];
        for (number, (seconds, nanoseconds)) in times.into_iter().enumerate() {
            let entry = Entry {
                path: [
                    b"a".to_vec(),
                    long(4),
                    long(9),
                    long(15),
                    long(40),
                    vec![b'x'; 100],
                    vec![b'y'; 101],
                ][number]
                    .clone(),
                mode: 0o4751,
                uid: [0, 1000, 0o7_777_777, 0o10_000_000, u32::MAX - 1, 1, 2][number],
                gid: [u32::MAX - 1, 0, 1, 2, 3, 4, 5][number],
                size: 5,
                mtime: Time {
                    seconds,
                    nanoseconds,
                },
                xattrs: vec![
                    (b"user.a".to_vec(), b"1\n\0=2".to_vec()),
                    (b"user.b".to_vec(), vec![0xff; 1000]),
                ],
                ..Entry::default()
            };
            let (found, content) = round_trip(&entry, b"hello");
            assert_eq!(
                (&found.path, found.mode, found.uid, found.gid),
                (&entry.path, entry.mode, entry.uid, entry.gid)
            );
            assert_eq!(
                (found.mtime, &found.xattrs, found.kind),
                (entry.mtime, &entry.xattrs, entry.kind)
            );
            assert_eq!(content, b"hello");
        }
    }

    #[test]
    fn every_kind_and_a_sparse_file_come_back() {
        let kinds = [
            EntryKind::HardLink,
            EntryKind::Symlink,
            EntryKind::CharDevice(4095, 1_048_575),
            EntryKind::BlockDevice(8, 0),
            EntryKind::Fifo,
        ];
        for kind in kinds {
            let link = if matches!(kind, EntryKind::HardLink | EntryKind::Symlink) {
                vec![b'l'; 150]
            } else {
                Vec::new()
            };
            let entry = Entry {
                path: b"it".to_vec(),
                link,
                kind,
                ..Entry::default()
            };
            let (found, _) = round_trip(&entry, b"");
            assert_eq!((found.kind, found.link), (entry.kind, entry.link));
        }
        let pieces = vec![
            Piece {
                offset: 4096,
                length: 3,
            },
            Piece {
                offset: 1 << 33,
                length: 4,
            },
        ];
        let entry = Entry {
            path: b"holes".to_vec(),
            size: 7,
            sparse: Some(((1 << 33) + 100, pieces)),
            ..Entry::default()
        };
        let (found, content) = round_trip(&entry, b"abcdefg");
        assert_eq!(
            (found.path, found.sparse, content),
            (entry.path, entry.sparse, b"abcdefg".to_vec())
        );
    }

    #[test]
    fn a_path_is_split_where_ustar_has_room_for_both_parts() {
        assert_eq!(split(&[b'a'; 100]), Some(0));
        assert_eq!(split(&[b'a'; 101]), None);
        let path = [vec![b'd'; 155], b"/".to_vec(), vec![b'n'; 100]].concat();
        assert_eq!(split(&path), Some(155));
        let path = [vec![b'd'; 156], b"/".to_vec(), vec![b'n'; 99]].concat();
        assert_eq!(split(&path), None);
        let path = [vec![b'd'; 120], b"/".to_vec()].concat();
        assert_eq!(split(&path), None, "a directory's own slash ends no prefix");
    }

    #[test]
    fn a_size_beyond_ustar_stands_in_pax() {
        let entry = Entry {
            path: b"big".to_vec(),
            size: 1 << 34,
            ..Entry::default()
        };
        let mut writer = Writer::new(Vec::new());
        writer.entry(&entry).unwrap();
        let archive = writer.finish().unwrap();
        let limits = Limits::default();
        let mut found = Entry::default();
        assert!(
            Reader::new(archive.as_slice(), &limits)
                .next(&mut found)
                .unwrap()
        );
        assert_eq!(found.size, 1 << 34);
    }
}
