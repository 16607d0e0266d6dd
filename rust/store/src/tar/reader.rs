//! The walk through an archive: extension headers, entries, data, padding, end.

use super::header::{BLOCK, Header, sparse_pieces};
use super::pax::{Records, SparseRecords};
use super::sparse::{MapReader, check, too_many};
use super::{Entry, EntryKind, Piece, TarError};
use crate::input::Input;
use crate::limits::Limits;

/// Reads an archive's entries one after the other.
///
/// After [`Reader::next`] filled in a file's entry, [`Reader::data`] and [`Reader::consume`] give its bytes; what is
/// not taken is skipped. Once `next` gave false the stream has been read to its very end: whatever stands
/// behind the two blocks of zeros is ignored, as GNU tar does.
pub struct Reader<'l, I> {
    input: I,
    limits: &'l Limits,
    global: Records,
    remaining: u64,
    padding: u64,
    entries: u64,
    ended: bool,
}

/// A sparse file's real size, and its pieces.
type SparseFile = (u64, Vec<Piece>);

/// Names and attributes that came before the header they belong to.
#[derive(Default)]
struct Extensions {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    records: Records,
    any: bool,
}

impl<'l, I: Input> Reader<'l, I> {
    /// Begins at the start of a stream.
    pub fn new(input: I, limits: &'l Limits) -> Self {
        Self {
            input,
            limits,
            global: Records::default(),
            remaining: 0,
            padding: 0,
            entries: 0,
            ended: false,
        }
    }

    /// How many entries came so far.
    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// Goes on to the next entry and fills it in; whether there is one.
    pub fn next(&mut self, entry: &mut Entry) -> Result<bool, TarError> {
        if self.ended {
            return Ok(false);
        }
        self.skip(self.remaining + self.padding, "an entry's data")?;
        (self.remaining, self.padding) = (0, 0);
        let mut extensions = Extensions::default();
        loop {
            let mut block = [0; BLOCK];
            let there = self.read_block(&mut block)?;
            if !there || block.iter().all(|&byte| byte == 0) {
                if extensions.any {
                    return Err(TarError::Truncated("an extension header without its entry"));
                }
                self.ended = true;
                self.drain()?;
                return Ok(false);
            }
            let header = Header::parse(&block)?;
            match header.type_flag() {
                flag @ (b'x' | b'X' | b'g') => {
                    let records = Records::parse(&self.extension(&header)?)?;
                    if flag == b'g' {
                        self.global.extend(records);
                        if self.global.weight() as u64 > self.limits.extension {
                            return Err(self.too_long());
                        }
                    } else {
                        extensions.records.extend(records);
                        extensions.any = true;
                    }
                }
                flag @ (b'L' | b'K') => {
                    let mut name = self.extension(&header)?;
                    name.truncate(
                        name.iter()
                            .position(|&byte| byte == 0)
                            .unwrap_or(name.len()),
                    );
                    if flag == b'L' {
                        extensions.path = Some(name);
                    } else {
                        extensions.link = Some(name);
                    }
                    extensions.any = true;
                }
                // A volume's label.
                b'V' => {}
                flag => {
                    self.begin(&header, flag, extensions, entry)?;
                    return Ok(true);
                }
            }
        }
    }

    /// The entry's bytes at hand; none left when empty.
    pub fn data(&mut self) -> Result<&[u8], TarError> {
        if self.remaining == 0 {
            return Ok(&[]);
        }
        let buffer = self.input.fill()?;
        if buffer.is_empty() {
            return Err(TarError::Truncated("an entry's data"));
        }
        Ok(&buffer[..usize::try_from(self.remaining)
            .unwrap_or(usize::MAX)
            .min(buffer.len())])
    }

    /// Takes bytes that [`Reader::data`] showed.
    pub fn consume(&mut self, count: usize) {
        debug_assert!(count as u64 <= self.remaining);
        self.input.consume(count);
        self.remaining -= count as u64;
    }

    /// Makes the entry of a header and of what came before it.
    fn begin(
        &mut self,
        header: &Header<'_>,
        flag: u8,
        extensions: Extensions,
        entry: &mut Entry,
    ) -> Result<(), TarError> {
        self.entries += 1;
        if self.entries > self.limits.entries {
            return Err(TarError::Limit {
                what: "the number of entries",
                limit: self.limits.entries,
            });
        }
        header.path(&mut entry.path);
        entry.link.clear();
        entry.link.extend_from_slice(header.link());
        entry.mode = header.mode()?;
        entry.uid = header.uid()?;
        entry.gid = header.gid()?;
        entry.size = header.size()?;
        entry.mtime = header.mtime()?;
        entry.xattrs.clear();
        entry.sparse = None;
        entry.kind = match flag {
            b'0' | 0 | b'7' | b'S' => EntryKind::File,
            b'1' => EntryKind::HardLink,
            b'2' => EntryKind::Symlink,
            b'3' => header
                .device()
                .map(|(major, minor)| EntryKind::CharDevice(major, minor))?,
            b'4' => header
                .device()
                .map(|(major, minor)| EntryKind::BlockDevice(major, minor))?,
            b'5' | b'D' => EntryKind::Directory,
            b'6' => EntryKind::Fifo,
            other => return Err(TarError::Type(other)),
        };
        if let Some(path) = extensions.path {
            entry.path = path;
        }
        if let Some(link) = extensions.link {
            entry.link = link;
        }
        let mut sparse = SparseRecords::default();
        if !self.global.is_empty() {
            self.global.apply(entry, &mut sparse)?;
        }
        extensions.records.apply(entry, &mut sparse)?;
        if let Some(name) = sparse.name.take() {
            entry.path = name;
        }
        if entry.path.is_empty() || entry.path.contains(&0) {
            return Err(TarError::Field("path"));
        }
        if entry.link.contains(&0) || (entry.kind == EntryKind::Symlink && entry.link.is_empty()) {
            return Err(TarError::Field("linkpath"));
        }
        // Before ustar a directory was a file whose name ends with a slash.
        if flag == 0 && entry.path.ends_with(b"/") {
            entry.kind = EntryKind::Directory;
        }
        // Links, devices and directories have no data, whatever their size field says; GNU's dump directories have.
        if entry.kind != EntryKind::File && flag != b'D' {
            entry.size = 0;
        }
        if entry.size > self.limits.unpacked {
            return Err(self.too_large());
        }
        self.remaining = entry.size;
        self.padding = entry.size.next_multiple_of(BLOCK as u64) - entry.size;
        if entry.kind == EntryKind::File {
            entry.sparse = self.sparse_map(header, flag, &sparse)?;
        }
        Ok(())
    }

    /// Reads the map of a sparse file, wherever it stands.
    fn sparse_map(
        &mut self,
        header: &Header<'_>,
        flag: u8,
        records: &SparseRecords,
    ) -> Result<Option<SparseFile>, TarError> {
        let (real_size, pieces) = if flag == b'S' {
            let mut pieces = Vec::new();
            let (mut more, real_size) = header.old_sparse(&mut pieces)?;
            let mut block = [0; BLOCK];
            while more {
                if !self.read_block(&mut block)? {
                    return Err(TarError::Truncated("a sparse file's map"));
                }
                sparse_pieces(&block[..504], &mut pieces)?;
                if pieces.len() > self.limits.sparse_pieces {
                    return Err(too_many(self.limits));
                }
                more = block[504] != 0;
            }
            (real_size, pieces)
        } else if records.map_in_data() {
            let mut map = MapReader::default();
            let mut block = [0; BLOCK];
            loop {
                if self.remaining < BLOCK as u64 || !self.read_block(&mut block)? {
                    return Err(TarError::Truncated("a sparse file's map"));
                }
                self.remaining -= BLOCK as u64;
                if map.block(&block, self.limits)? {
                    break;
                }
            }
            (
                records
                    .real_size
                    .ok_or(TarError::Sparse("the file's size is missing"))?,
                map.pieces(self.limits)?,
            )
        } else if let Some(pieces) = records.map_in_header(self.limits)? {
            (
                records
                    .real_size
                    .ok_or(TarError::Sparse("the file's size is missing"))?,
                pieces,
            )
        } else {
            return Ok(None);
        };
        if real_size > self.limits.unpacked {
            return Err(self.too_large());
        }
        check(&pieces, real_size, self.remaining)?;
        Ok(Some((real_size, pieces)))
    }

    /// The body of an extension header.
    fn extension(&mut self, header: &Header<'_>) -> Result<Vec<u8>, TarError> {
        let size = header.size()?;
        if size > self.limits.extension {
            return Err(self.too_long());
        }
        let wanted = usize::try_from(size).map_err(|_| self.too_long())?;
        let mut body = Vec::new();
        while body.len() < wanted {
            let buffer = self.input.fill()?;
            if buffer.is_empty() {
                return Err(TarError::Truncated("an extension header"));
            }
            let count = buffer.len().min(wanted - body.len());
            body.extend_from_slice(&buffer[..count]);
            self.input.consume(count);
        }
        self.skip(
            size.next_multiple_of(BLOCK as u64) - size,
            "an extension header",
        )?;
        Ok(body)
    }

    fn too_large(&self) -> TarError {
        TarError::Limit {
            what: "the size of a file",
            limit: self.limits.unpacked,
        }
    }

    fn too_long(&self) -> TarError {
        TarError::Limit {
            what: "the size of a pax header or long name",
            limit: self.limits.extension,
        }
    }

    /// Reads a block; false when the stream ended just before it.
    fn read_block(&mut self, block: &mut [u8; BLOCK]) -> Result<bool, TarError> {
        let mut filled = 0;
        while filled < BLOCK {
            let buffer = self.input.fill()?;
            if buffer.is_empty() {
                return if filled == 0 {
                    Ok(false)
                } else {
                    Err(TarError::Truncated("a header"))
                };
            }
            let count = buffer.len().min(BLOCK - filled);
            block[filled..filled + count].copy_from_slice(&buffer[..count]);
            self.input.consume(count);
            filled += count;
        }
        Ok(true)
    }

    fn skip(&mut self, mut count: u64, what: &'static str) -> Result<(), TarError> {
        while count > 0 {
            let available = self.input.fill()?.len();
            if available == 0 {
                return Err(TarError::Truncated(what));
            }
            let step = available.min(usize::try_from(count).unwrap_or(usize::MAX));
            self.input.consume(step);
            count -= step as u64;
        }
        Ok(())
    }

    /// Reads to the end of the stream, so that whoever hashes it has seen all of it.
    fn drain(&mut self) -> Result<(), TarError> {
        loop {
            let count = self.input.fill()?.len();
            if count == 0 {
                return Ok(());
            }
            self.input.consume(count);
        }
    }
}
