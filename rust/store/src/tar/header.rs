//! One 512-byte header block.
//!
//! ```text
//!   0 name 100   100 mode 8   108 uid 8   116 gid 8   124 size 12   136 mtime 12   148 checksum 8
//! 156 type 1     157 link 100 257 magic 6 263 version 2             329 major 8    337 minor 8
//! 345 prefix 155 (ustar; star: 131 and "tar\0" at 508)
//! 386 four sparse pieces of 24   482 more sparse blocks follow   483 real size 12   (old GNU sparse)
//! ```

use super::{Piece, TarError, Time};

pub(super) const BLOCK: usize = 512;

/// A header block whose checksum holds.
pub(super) struct Header<'a>(&'a [u8; BLOCK]);

impl<'a> Header<'a> {
    /// Checks the checksum: of unsigned bytes, or of signed ones as some old programs wrote it.
    pub(super) fn parse(block: &'a [u8; BLOCK]) -> Result<Self, TarError> {
        let expected = number(&block[148..156]).ok_or(TarError::Checksum)?;
        let mut unsigned: i64 = 0;
        let mut signed: i64 = 0;
        for (at, &byte) in block.iter().enumerate() {
            let byte = if (148..156).contains(&at) { b' ' } else { byte };
            unsigned += i64::from(byte);
            signed += i64::from(byte.cast_signed());
        }
        if expected == unsigned || expected == signed {
            Ok(Self(block))
        } else {
            Err(TarError::Checksum)
        }
    }

    pub(super) fn type_flag(&self) -> u8 {
        self.0[156]
    }

    /// GNU's magic: the prefix field holds other things there.
    pub(super) fn is_gnu(&self) -> bool {
        &self.0[257..265] == b"ustar  \0"
    }

    /// Name with its prefix, where the format has one.
    pub(super) fn path(&self, into: &mut Vec<u8>) {
        into.clear();
        if &self.0[257..262] == b"ustar" && !self.is_gnu() {
            let prefix = if &self.0[508..512] == b"tar\0" {
                text(&self.0[345..476])
            } else {
                text(&self.0[345..500])
            };
            if !prefix.is_empty() {
                into.extend_from_slice(prefix);
                into.push(b'/');
            }
        }
        into.extend_from_slice(text(&self.0[..100]));
    }

    pub(super) fn link(&self) -> &'a [u8] {
        text(&self.0[157..257])
    }

    pub(super) fn mode(&self) -> Result<u32, TarError> {
        // Some programs store the file's type as well.
        let mode = number(&self.0[100..108]).ok_or(TarError::Field("mode"))?;
        Ok(u32::try_from(mode & 0o7777).unwrap_or(0))
    }

    pub(super) fn uid(&self) -> Result<u32, TarError> {
        owner(number(&self.0[108..116]), "uid")
    }

    pub(super) fn gid(&self) -> Result<u32, TarError> {
        owner(number(&self.0[116..124]), "gid")
    }

    pub(super) fn size(&self) -> Result<u64, TarError> {
        number(&self.0[124..136])
            .and_then(|size| u64::try_from(size).ok())
            .ok_or(TarError::Field("size"))
    }

    pub(super) fn mtime(&self) -> Result<Time, TarError> {
        let seconds = number(&self.0[136..148]).ok_or(TarError::Field("mtime"))?;
        Ok(Time {
            seconds,
            nanoseconds: 0,
        })
    }

    /// Major and minor number, within what the kernel can hold.
    pub(super) fn device(&self) -> Result<(u32, u32), TarError> {
        let field = |range: std::ops::Range<usize>, name, bits: u32| {
            number(&self.0[range])
                .and_then(|value| u32::try_from(value).ok())
                .filter(|value| value >> bits == 0)
                .ok_or(TarError::Field(name))
        };
        Ok((
            field(329..337, "devmajor", 12)?,
            field(337..345, "devminor", 20)?,
        ))
    }

    /// The first pieces of an old GNU sparse file, whether more blocks follow, and the real size.
    pub(super) fn old_sparse(&self, pieces: &mut Vec<Piece>) -> Result<(bool, u64), TarError> {
        sparse_pieces(&self.0[386..482], pieces)?;
        let real = number(&self.0[483..495]).and_then(|size| u64::try_from(size).ok());
        Ok((self.0[482] != 0, real.ok_or(TarError::Field("realsize"))?))
    }
}

/// The pieces in a sparse block of 24 bytes each, up to the first empty one.
pub(super) fn sparse_pieces(fields: &[u8], pieces: &mut Vec<Piece>) -> Result<(), TarError> {
    for field in fields.chunks_exact(24) {
        if field[0] == 0 && field[12] == 0 {
            break;
        }
        let value = |part: &[u8]| number(part).and_then(|value| u64::try_from(value).ok());
        let (offset, length) = value(&field[..12])
            .zip(value(&field[12..]))
            .ok_or(TarError::Sparse("no number"))?;
        pieces.push(Piece { offset, length });
    }
    Ok(())
}

/// An owner that chown would take as "leave it" is none.
pub(super) fn owner(value: Option<i64>, field: &'static str) -> Result<u32, TarError> {
    value
        .and_then(|id| u32::try_from(id).ok())
        .filter(|&id| id != u32::MAX)
        .ok_or(TarError::Field(field))
}

/// Up to the first NUL.
fn text(field: &[u8]) -> &[u8] {
    field.split(|&byte| byte == 0).next().unwrap_or_default()
}

/// Octal digits between blanks and NULs (nothing at all is 0), or GNU's base 256: big-endian two's
/// complement behind a set high bit.
fn number(field: &[u8]) -> Option<i64> {
    let first = *field.first()?;
    if first & 0x80 != 0 {
        // The bit after the marker is the sign.
        let negative = first & 0x40 != 0;
        let mut value: i64 = if negative { -1 } else { 0 };
        for (at, &byte) in field.iter().enumerate() {
            let byte = match (at, negative) {
                (0, false) => byte & 0x7f,
                _ => byte,
            };
            let next = value.checked_mul(256)?;
            value = next.checked_add(i64::from(byte))?;
        }
        return Some(value);
    }
    let blank = |byte: &u8| *byte == b' ' || *byte == 0;
    let start = field
        .iter()
        .position(|byte| !blank(byte))
        .unwrap_or(field.len());
    let digits = &field[start..];
    let end = digits.iter().position(blank).unwrap_or(digits.len());
    digits[..end]
        .iter()
        .try_fold(0_i64, |value, digit| match digit {
            b'0'..=b'7' => value.checked_mul(8)?.checked_add(i64::from(digit - b'0')),
            _ => None,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_in_many_forms() {
        let cases: [(&[u8], Option<i64>); 14] = [
            (b"0000644\0", Some(0o644)),
            (b"   644 \0", Some(0o644)),
            (b"644", Some(0o644)),
            (b"\0\0\0\0\0\0\0\0", Some(0)),
            (b"        ", Some(0)),
            (b"644 9xx\0", Some(0o644)),
            (b"0000648\0", None),
            (b"-1\0\0\0\0\0\0", None),
            (b"\x80\0\0\0\0\0\x01\0", Some(256)),
            (b"\x80\0\0\0\xff\xff\xff\xff", Some(0xffff_ffff)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff", Some(-1)),
            (
                b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe",
                Some(-2),
            ),
            (b"\x80\x00\x00\x00\x80\x00\x00\x00\x00\x00\x00\x00", None),
            (b"777777777777", Some(0o777_777_777_777)),
        ];
        for (field, expected) in cases {
            assert_eq!(number(field), expected, "{field:?}");
        }
    }

    #[test]
    fn an_owner_of_minus_one_is_none() {
        assert!(owner(Some(i64::from(u32::MAX)), "uid").is_err());
        assert!(owner(Some(-1), "uid").is_err());
        assert_eq!(owner(Some(4_294_967_294), "uid").unwrap(), u32::MAX - 1);
    }
}
