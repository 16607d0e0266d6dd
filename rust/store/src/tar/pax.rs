//! pax records: `<length> <key>=<value>\n`, the length counting the whole record.

use super::header::owner;
use super::{Entry, TarError, Time};

/// The records of one header, in order; an empty value takes the key's earlier ones back.
#[derive(Debug, Clone, Default)]
pub(super) struct Records(Vec<(Vec<u8>, Vec<u8>)>);

/// What the records say about a sparse file (GNU tar, "Storing Sparse Files").
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct SparseRecords {
    /// The file's name; the entry's own is made up, for programs that do not know sparse files.
    pub(super) name: Option<Vec<u8>>,
    pub(super) major: Option<u64>,
    pub(super) real_size: Option<u64>,
    /// Format 0.1: offsets and lengths in one record.
    pub(super) map: Option<Vec<u8>>,
    /// Format 0.0: one record each.
    pub(super) numbers: Vec<u64>,
}

impl Records {
    pub(super) fn parse(mut data: &[u8]) -> Result<Self, TarError> {
        let mut records = Vec::new();
        while !data.is_empty() {
            let blank = data
                .iter()
                .take(20)
                .position(|&byte| byte == b' ')
                .ok_or(TarError::Pax("a record has no length"))?;
            let length = decimal(&data[..blank])
                .and_then(|length| usize::try_from(length).ok())
                .filter(|&length| length > blank + 2 && length <= data.len())
                .ok_or(TarError::Pax("a record's length is wrong"))?;
            let (record, rest) = data.split_at(length);
            let body = record[blank + 1..]
                .strip_suffix(b"\n")
                .ok_or(TarError::Pax("a record does not end with its line"))?;
            let equals = body
                .iter()
                .position(|&byte| byte == b'=')
                .filter(|&at| at > 0);
            let equals = equals.ok_or(TarError::Pax("a record has no key"))?;
            records.push((body[..equals].to_vec(), body[equals + 1..].to_vec()));
            data = rest;
        }
        Ok(Self(records))
    }

    /// Adds a later header's records, which win.
    pub(super) fn extend(&mut self, other: Self) {
        for (key, value) in other.0 {
            if !key.starts_with(b"GNU.sparse.") {
                self.0.retain(|(earlier, _)| *earlier != key);
            }
            self.0.push((key, value));
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Bytes held.
    pub(super) fn weight(&self) -> usize {
        self.0
            .iter()
            .map(|(key, value)| key.len() + value.len() + 48)
            .sum()
    }

    /// Overrides what the entry has from its header. Empty values leave the header's.
    pub(super) fn apply(
        &self,
        entry: &mut Entry,
        sparse: &mut SparseRecords,
    ) -> Result<(), TarError> {
        for (key, value) in &self.0 {
            if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                entry.xattrs.retain(|(earlier, _)| earlier != name);
                if name.is_empty() || name.contains(&0) {
                    return Err(TarError::Pax("an attribute's name is empty or holds a NUL"));
                }
                entry.xattrs.push((name.to_vec(), value.clone()));
                continue;
            }
            if value.is_empty() {
                continue;
            }
            match key.as_slice() {
                b"path" => entry.path.clone_from(value),
                b"linkpath" => entry.link.clone_from(value),
                b"size" => entry.size = decimal(value).ok_or(TarError::Field("size"))?,
                b"uid" => {
                    entry.uid = owner(decimal(value).and_then(|id| i64::try_from(id).ok()), "uid")?;
                }
                b"gid" => {
                    entry.gid = owner(decimal(value).and_then(|id| i64::try_from(id).ok()), "gid")?;
                }
                b"mtime" => entry.mtime = time(value).ok_or(TarError::Field("mtime"))?,
                b"GNU.sparse.name" => sparse.name = Some(value.clone()),
                b"GNU.sparse.major" => sparse.major = Some(sparse_number(value)?),
                b"GNU.sparse.size" | b"GNU.sparse.realsize" => {
                    sparse.real_size = Some(sparse_number(value)?);
                }
                b"GNU.sparse.map" => sparse.map = Some(value.clone()),
                b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => {
                    sparse.numbers.push(sparse_number(value)?);
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn sparse_number(value: &[u8]) -> Result<u64, TarError> {
    decimal(value).ok_or(TarError::Sparse("no number"))
}

/// Decimal digits and nothing else.
pub(super) fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |value, digit| match digit {
        b'0'..=b'9' => value.checked_mul(10)?.checked_add(u64::from(digit - b'0')),
        _ => None,
    })
}

/// `[-]seconds[.fraction]`; digits after the ninth are cut off towards the past.
fn time(value: &[u8]) -> Option<Time> {
    let (negative, digits) = value
        .strip_prefix(b"-")
        .map_or((false, value), |rest| (true, rest));
    let mut parts = digits.splitn(2, |&byte| byte == b'.');
    let seconds = i64::try_from(decimal(parts.next()?)?).ok()?;
    let mut nanoseconds = 0;
    let mut more = false;
    if let Some(fraction) = parts.next() {
        if !fraction.iter().all(u8::is_ascii_digit) {
            return None;
        }
        for at in 0..9 {
            nanoseconds =
                nanoseconds * 10 + fraction.get(at).map_or(0, |digit| u32::from(digit - b'0'));
        }
        more = fraction.iter().skip(9).any(|&digit| digit != b'0');
    }
    if !negative {
        return Some(Time {
            seconds,
            nanoseconds,
        });
    }
    // -1.25 is two seconds before the epoch and 0.75 after that.
    let nanoseconds = nanoseconds + u32::from(more);
    Some(match nanoseconds {
        0 => Time {
            seconds: -seconds,
            nanoseconds: 0,
        },
        below => Time {
            seconds: -seconds - 1,
            nanoseconds: 1_000_000_000 - below,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_split_by_their_lengths() {
        let records =
            Records::parse(b"12 path=a=b\n20 comment=line\nline\n16 SCHILY.xattr=\n").unwrap_err();
        assert!(matches!(records, TarError::Pax(_)));
        let records = Records::parse(b"12 path=a=b\n22 comment=line\nline2\n").unwrap();
        assert_eq!(records.0[0], (b"path".to_vec(), b"a=b".to_vec()));
        assert_eq!(records.0[1], (b"comment".to_vec(), b"line\nline2".to_vec()));
    }

    #[test]
    fn malformed_records_are_refused() {
        let cases: [&[u8]; 10] = [
            b"path=a\n",
            b"11 path=a\n",
            b"8 path=a\n",
            b"3 \n",
            b"5 a=b\n",
            b"4294967296000000000000 a=b\n",
            b"0 a=b\n",
            b"6 =ab\n",
            b"-6 a=b\n",
            b"99999999999999999999999",
        ];
        for case in cases {
            assert!(
                Records::parse(case).is_err(),
                "{:?}",
                String::from_utf8_lossy(case)
            );
        }
    }

    #[test]
    fn times_have_nanoseconds_and_may_lie_before_the_epoch() {
        let at = |seconds, nanoseconds| {
            Some(Time {
                seconds,
                nanoseconds,
            })
        };
        let cases: [(&[u8], Option<Time>); 10] = [
            (b"0", at(0, 0)),
            (b"1234567890.123456789", at(1_234_567_890, 123_456_789)),
            (b"1.5", at(1, 500_000_000)),
            (b"1.", at(1, 0)),
            (b"1.1234567891", at(1, 123_456_789)),
            (b"-1.25", at(-2, 750_000_000)),
            (b"-7", at(-7, 0)),
            (b".5", None),
            (b"1.x", None),
            (b"99999999999999999999", None),
        ];
        for (text, expected) in cases {
            assert_eq!(time(text), expected, "{:?}", String::from_utf8_lossy(text));
        }
    }
}
