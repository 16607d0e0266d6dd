//! What a slow client has not read yet: a little memory, then a nameless file, bounded.
//!
//! Invariants: bytes leave in the order they came in. `memory` holds the oldest, the file the rest: while the
//! file holds anything, new bytes go there. The file is a ring of [`Spill::limit`] bytes, so that it never
//! takes more of the disk, and goes away when it is empty.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{MemfdFlags, OFlags, memfd_create};

/// Bytes kept in memory before the file is used: room for what one read of a fast stream brings.
const MEMORY_BYTES: usize = 512 * 1024;

/// The client is too far behind, or there is nowhere to keep what it missed.
#[derive(Debug, thiserror::Error)]
pub enum Overrun {
    /// The bound has been reached.
    #[error("it lags by more than {0} bytes")]
    Limit(u64),
    /// The file failed.
    #[error("what it has not read cannot be kept: {0}")]
    File(#[from] io::Error),
}

/// A bounded first-in, first-out queue of bytes.
#[derive(Debug)]
pub struct Spill {
    directory: Arc<Path>,
    limit: u64,
    memory: Vec<u8>,
    sent: usize,
    file: Option<File>,
    begin: u64,
    length: u64,
}

impl Spill {
    /// An empty queue that keeps up to `limit` bytes in a file of `directory`'s file system.
    #[must_use]
    pub fn new(directory: Arc<Path>, limit: u64) -> Self {
        Self {
            directory,
            limit,
            memory: Vec::new(),
            sent: 0,
            file: None,
            begin: 0,
            length: 0,
        }
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.memory.is_empty() && self.length == 0
    }

    /// Whether its bound is near: what is in a pipe still has room, and not much more.
    #[must_use]
    pub fn is_nearly_full(&self) -> bool {
        self.length >= self.limit - self.limit / 4
    }

    /// Add bytes at the end.
    pub fn push(&mut self, data: &[u8]) -> Result<(), Overrun> {
        if self.length == 0 && self.memory.len() - self.sent + data.len() <= MEMORY_BYTES {
            self.memory.drain(..self.sent);
            self.sent = 0;
            self.memory.extend_from_slice(data);
            return Ok(());
        }
        self.append(data)
    }

    /// The bytes to send next; none if the queue is empty.
    pub fn front(&mut self) -> Result<&[u8], Overrun> {
        if self.memory.is_empty() && self.length > 0 {
            self.load()?;
        }
        Ok(&self.memory[self.sent..])
    }

    /// Drop what has been sent of [`Spill::front`].
    pub fn advance(&mut self, bytes: usize) {
        self.sent += bytes;
        if self.sent >= self.memory.len() {
            self.memory = Vec::new();
            self.sent = 0;
        }
    }

    fn append(&mut self, data: &[u8]) -> Result<(), Overrun> {
        let size = u64::try_from(data.len()).unwrap_or(u64::MAX);
        if self.length.saturating_add(size) > self.limit {
            return Err(Overrun::Limit(self.limit));
        }
        let end = (self.begin + self.length) % self.limit;
        let room = usize::try_from(self.limit - end).unwrap_or(usize::MAX);
        let (head, tail) = data.split_at(room.min(data.len()));
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(nameless(&self.directory)?),
        };
        file.write_all_at(head, end)?;
        file.write_all_at(tail, 0)?;
        self.length += size;
        Ok(())
    }

    fn load(&mut self) -> Result<(), Overrun> {
        let Some(file) = &self.file else {
            return Ok(());
        };
        let most = u64::try_from(MEMORY_BYTES).unwrap_or(u64::MAX);
        let take = self.length.min(self.limit - self.begin).min(most);
        self.memory
            .resize(usize::try_from(take).unwrap_or(MEMORY_BYTES), 0);
        if let Err(error) = file.read_exact_at(&mut self.memory, self.begin) {
            self.memory = Vec::new();
            return Err(error.into());
        }
        self.begin = (self.begin + take) % self.limit;
        self.length -= take;
        if self.length == 0 {
            (self.file, self.begin) = (None, 0);
        }
        Ok(())
    }
}

/// A file without a name: on the directory's disk, or in memory where its file system has no such files.
fn nameless(directory: &Path) -> io::Result<File> {
    let flags = i32::try_from(OFlags::TMPFILE.bits()).unwrap_or(0);
    let disk = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(flags)
        .mode(0o600)
        .open(directory);
    match disk {
        Ok(file) => Ok(file),
        Err(_) => Ok(File::from(memfd_create(
            "knarr-spill",
            MemfdFlags::CLOEXEC,
        )?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spill(limit: u64) -> Spill {
        Spill::new(Arc::from(std::env::temp_dir().as_path()), limit)
    }

    #[test]
    fn bytes_come_out_as_they_went_in() {
        let mut spill = spill(3_000_000);
        let (mut sent, mut received, mut byte) = (Vec::new(), Vec::new(), 0_u8);
        let mut from_file = 0;
        for round in 0..300_usize {
            let chunk: Vec<u8> = (0..(round * 370) % 90_000)
                .map(|_| {
                    byte = byte.wrapping_add(13);
                    byte
                })
                .collect();
            spill.push(&chunk).unwrap();
            sent.extend_from_slice(&chunk);
            from_file += usize::from(spill.file.is_some());
            while sent.len() - received.len() > 1_500_000 {
                let front = spill.front().unwrap();
                let take = front.len().min(70_000);
                received.extend_from_slice(&front[..take]);
                spill.advance(take);
            }
        }
        while !spill.is_empty() {
            let front = spill.front().unwrap().to_vec();
            received.extend_from_slice(&front);
            spill.advance(front.len());
        }
        assert!(
            sent == received,
            "{} bytes in, {} out",
            sent.len(),
            received.len()
        );
        assert!(from_file > 100, "the file was in use: {from_file}");
        assert!(spill.file.is_none());
        assert_eq!(spill.memory.capacity(), 0);
    }

    #[test]
    fn the_bound_holds() {
        let mut spill = spill(100_000);
        let chunk = [0; 10_000];
        let accepted = (0..100).take_while(|_| spill.push(&chunk).is_ok()).count();
        assert_eq!(accepted, (MEMORY_BYTES + 100_000) / 10_000);
        assert!(matches!(spill.push(&chunk), Err(Overrun::Limit(100_000))));
    }

    #[test]
    fn a_directory_that_is_missing_is_replaced_by_memory() {
        let mut spill = Spill::new(Arc::from(Path::new("/nonexistent")), 1_000_000);
        spill.push(&vec![7; 200_000]).unwrap();
        assert_eq!(spill.front().unwrap()[0], 7);
    }
}
