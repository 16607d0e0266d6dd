//! Maps of sparse files, in the four forms that GNU tar has written them.

use super::pax::{SparseRecords, decimal};
use super::{Piece, TarError};
use crate::limits::Limits;

impl SparseRecords {
    /// The map of formats 0.0 and 0.1, which have it in the pax header; none for format 1.0 and for ordinary files.
    pub(super) fn map_in_header(&self, limits: &Limits) -> Result<Option<Vec<Piece>>, TarError> {
        let numbers = match &self.map {
            Some(map) => {
                let numbers: Option<Vec<u64>> =
                    map.split(|&byte| byte == b',').map(decimal).collect();
                numbers.ok_or(TarError::Sparse("no number"))?
            }
            None if self.numbers.is_empty() => return Ok(None),
            None => self.numbers.clone(),
        };
        pair(&numbers, limits).map(Some)
    }

    /// Format 1.0: the map stands before the data.
    pub(super) fn map_in_data(&self) -> bool {
        self.major == Some(1)
    }
}

/// Reads the map of format 1.0 from a block at a time: lines of a count, then offset and length of each piece.
#[derive(Default)]
pub(super) struct MapReader {
    count: Option<u64>,
    numbers: Vec<u64>,
    partial: Vec<u8>,
}

impl MapReader {
    /// Takes one block; whether the map is complete (what is left of the block is padding).
    pub(super) fn block(&mut self, block: &[u8], limits: &Limits) -> Result<bool, TarError> {
        for &byte in block {
            if byte != b'\n' {
                if self.partial.len() >= 20 {
                    return Err(TarError::Sparse("a number is too long"));
                }
                self.partial.push(byte);
                continue;
            }
            let number = decimal(&self.partial).ok_or(TarError::Sparse("no number"))?;
            self.partial.clear();
            match self.count {
                None if number > limits.sparse_pieces as u64 => return Err(too_many(limits)),
                None => self.count = Some(number),
                Some(_) => self.numbers.push(number),
            }
            if self
                .count
                .is_some_and(|count| self.numbers.len() as u64 == count * 2)
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    pub(super) fn pieces(&self, limits: &Limits) -> Result<Vec<Piece>, TarError> {
        pair(&self.numbers, limits)
    }
}

fn pair(numbers: &[u64], limits: &Limits) -> Result<Vec<Piece>, TarError> {
    if !numbers.len().is_multiple_of(2) {
        return Err(TarError::Sparse("an offset has no length"));
    }
    if numbers.len() / 2 > limits.sparse_pieces {
        return Err(too_many(limits));
    }
    Ok(numbers
        .chunks_exact(2)
        .map(|pair| Piece {
            offset: pair[0],
            length: pair[1],
        })
        .collect())
}

pub(super) fn too_many(limits: &Limits) -> TarError {
    TarError::Limit {
        what: "the number of pieces of a sparse file",
        limit: limits.sparse_pieces as u64,
    }
}

/// Pieces ascend without overlap, end within the file, and add up to the data that the archive has.
pub(super) fn check(pieces: &[Piece], real_size: u64, stored: u64) -> Result<(), TarError> {
    let mut end = 0_u64;
    let mut data = 0_u64;
    for piece in pieces {
        if piece.offset < end {
            return Err(TarError::Sparse("pieces overlap or are out of order"));
        }
        end = piece
            .offset
            .checked_add(piece.length)
            .ok_or(TarError::Sparse("a piece ends beyond any file"))?;
        data += piece.length;
    }
    if end > real_size || i64::try_from(real_size).is_err() {
        return Err(TarError::Sparse("a piece ends beyond the file"));
    }
    if data != stored {
        return Err(TarError::Sparse("its pieces do not add up to its data"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_that_lies_is_refused() {
        let piece = |offset, length| Piece { offset, length };
        assert!(check(&[piece(0, 10), piece(20, 5), piece(100, 0)], 100, 15).is_ok());
        let cases: [(&[Piece], u64, u64); 6] = [
            (&[piece(0, 10), piece(5, 10)], 100, 20),
            (&[piece(20, 10), piece(0, 10)], 100, 20),
            (&[piece(95, 10)], 100, 10),
            (&[piece(u64::MAX, 10)], 100, 10),
            (&[piece(0, 10)], 100, 11),
            (&[piece(0, 10)], u64::MAX, 10),
        ];
        for (pieces, real, stored) in cases {
            assert!(check(pieces, real, stored).is_err(), "{pieces:?}");
        }
    }

    #[test]
    fn a_map_is_read_across_blocks() {
        let limits = Limits::default();
        let mut reader = MapReader::default();
        assert!(!reader.block(b"2\n0\n51", &limits).unwrap());
        assert!(reader.block(b"2\n1024\n512\n\0\0\0\0", &limits).unwrap());
        assert_eq!(
            reader.pieces(&limits).unwrap(),
            [
                Piece {
                    offset: 0,
                    length: 512
                },
                Piece {
                    offset: 1024,
                    length: 512
                }
            ]
        );
        assert!(MapReader::default().block(b"0\n", &limits).unwrap());
        assert!(MapReader::default().block(b"99999999\n", &limits).is_err());
        assert!(
            MapReader::default()
                .block(b"111111111111111111111111", &limits)
                .is_err()
        );
    }
}
