//! Held against zlib-rs: the same bytes from whole streams, the same verdict on damaged ones,
//! whatever the sizes of the pieces that input and output come in.

use std::io::Write;

use flate2::write::{DeflateEncoder, GzEncoder};
use flate2::{Compression, Decompress, FlushDecompress, GzBuilder, Status};
use knarr_inflate::{Error, Gzip, Inflate, WINDOW};

/// A generator of reproducible noise (xorshift64*).
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit.max(1) as u64).unwrap()
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[7]
    }
}

/// Data of several kinds: noise, runs, words, near and far repetitions.
fn data(noise: &mut Noise) -> Vec<u8> {
    let length = noise.below(200_000);
    let kind = noise.below(6);
    let mut data = Vec::with_capacity(length + 300);
    while data.len() < length {
        match kind {
            0 => data.push(noise.byte()),
            1 => data.extend(vec![noise.byte(); noise.below(400)]),
            2 => data.extend_from_slice(
                [b"the ".as_slice(), b"quick ", b"brown ", b"fox\n"][noise.below(4)],
            ),
            3 => data.push(noise.byte() & 3),
            _ => {
                let distance = 1 + noise.below(if kind == 4 { 40 } else { 33_000 });
                if distance <= data.len() && noise.below(3) > 0 {
                    let length = 3 + noise.below(300);
                    for _ in 0..length {
                        data.push(data[data.len() - distance]);
                    }
                } else {
                    let count = noise.below(20);
                    data.extend((0..count).map(|_| noise.byte()));
                }
            }
        }
    }
    data
}

/// Bytes consumed, bytes produced, and whether the stream has ended.
type Stepped = (usize, usize, bool);

/// Decode with pieces of random sizes; the bytes that came out before an error count too.
fn decode(
    stream: &[u8],
    noise: &mut Noise,
    mut step: impl FnMut(&[u8], &mut [u8], usize) -> Result<Stepped, Error>,
) -> (Vec<u8>, Result<bool, Error>) {
    let largest_in = [1, 7, 100, 70_000][noise.below(4)];
    let largest_out = [1, 3, 300, 4000, 200_000][noise.below(5)];
    let mut buffer = vec![0; WINDOW + largest_out];
    let mut all = Vec::new();
    let (mut start, mut position) = (0, 0);
    loop {
        let mut ended;
        let size = (1 + noise.below(largest_in)).min(stream.len() - position);
        let mut piece = &stream[position..position + size];
        position += size;
        loop {
            let room = (start + 1 + noise.below(largest_out)).min(buffer.len());
            let (consumed, produced, end) = match step(piece, &mut buffer[..room], start) {
                Ok(done) => done,
                Err(error) => return (all, Err(error)),
            };
            assert!(consumed <= piece.len() && start + produced <= room);
            all.extend_from_slice(&buffer[start..start + produced]);
            piece = &piece[consumed..];
            start += produced;
            ended = end;
            let full = start == room;
            if start > WINDOW {
                buffer.copy_within(start - WINDOW..start, 0);
                start = WINDOW;
            }
            if ended || !full {
                assert!(
                    ended || piece.is_empty(),
                    "input is left though there is room"
                );
                break;
            }
        }
        if ended || position == stream.len() {
            return (all, Ok(ended));
        }
    }
}

fn raw(stream: &[u8], noise: &mut Noise) -> (Vec<u8>, Result<bool, Error>) {
    let mut inflate = Inflate::new();
    decode(stream, noise, |piece, output, start| {
        let step = inflate.decode(piece, output, start)?;
        Ok((step.consumed, step.produced, inflate.ended()))
    })
}

fn gzip(stream: &[u8], noise: &mut Noise) -> Result<Vec<u8>, Error> {
    let mut gzip = Gzip::new(true);
    let (bytes, result) = decode(stream, noise, |piece, output, start| {
        let step = gzip.decode(piece, output, start)?;
        Ok((step.consumed, step.produced, false))
    });
    result?;
    gzip.finish()?;
    Ok(bytes)
}

/// What zlib-rs makes of a raw stream: the bytes, and whether it ended (true), goes on (false) or is wrong (None).
fn reference(stream: &[u8]) -> (Vec<u8>, Option<bool>) {
    let mut zlib = Decompress::new(false);
    let mut bytes = Vec::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        let (position, before) = (zlib.total_in(), zlib.total_out());
        let rest = &stream[usize::try_from(position).unwrap()..];
        let status = zlib.decompress(rest, &mut buffer, FlushDecompress::None);
        let produced = usize::try_from(zlib.total_out() - before).unwrap();
        bytes.extend_from_slice(&buffer[..produced]);
        match status {
            Err(_) => return (bytes, None),
            Ok(Status::StreamEnd) => return (bytes, Some(true)),
            Ok(_) if produced == 0 && zlib.total_in() == position => return (bytes, Some(false)),
            Ok(_) => {}
        }
    }
}

fn deflate(data: &[u8], level: u32) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::new(level));
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn whole_streams_give_their_bytes() {
    let mut noise = Noise(0x1234_5678_9abc_def1);
    for round in 0..300 {
        let data = data(&mut noise);
        let level = u32::try_from(noise.below(10)).unwrap();
        let stream = deflate(&data, level);
        let (bytes, result) = raw(&stream, &mut noise);
        assert_eq!(result, Ok(true), "round {round}, level {level}");
        assert!(bytes == data, "round {round}, level {level}: other bytes");
    }
}

#[test]
fn damaged_streams_get_the_same_verdict() {
    let mut noise = Noise(0xfeed_beef_1234_5677);
    let (mut wrong, mut cut) = (0, 0);
    for round in 0..3000 {
        let mut data = data(&mut noise);
        data.truncate(3000);
        let mut stream = deflate(&data, u32::try_from(noise.below(10)).unwrap());
        for _ in 0..=noise.below(3) {
            let at = noise.below(stream.len());
            stream[at] ^= 1 << noise.below(8);
        }
        if noise.below(4) == 0 {
            stream.truncate(noise.below(stream.len()));
        }
        let (expected, verdict) = reference(&stream);
        let (bytes, result) = raw(&stream, &mut noise);
        assert_eq!(result.ok(), verdict, "round {round}");
        match verdict {
            // How much comes out before an error is found depends on the pieces.
            None => wrong += 1,
            Some(ended) => {
                cut += u32::from(!ended);
                assert!(bytes == expected, "round {round}: other bytes");
            }
        }
        let common = bytes.len().min(expected.len());
        assert!(
            bytes[..common] == expected[..common],
            "round {round}: other bytes"
        );
    }
    assert!(
        wrong > 500 && cut > 100,
        "{wrong} wrong and {cut} cut streams are too few to mean much"
    );
}

#[test]
fn noise_gets_the_same_verdict() {
    let mut noise = Noise(0x0bad_cafe_0bad_cafe);
    let mut wrong = 0;
    for round in 0..20_000 {
        let length = 1 + noise.below(300);
        let mut stream: Vec<u8> = (0..length).map(|_| noise.byte()).collect();
        // A dynamic block, more often than chance has it, with a plausible number of codes.
        if noise.below(2) == 0 {
            stream[0] = stream[0] & 0xf8 | 0b100 | stream[0] & 1;
        }
        let (expected, verdict) = reference(&stream);
        let (bytes, result) = raw(&stream, &mut noise);
        assert_eq!(result.ok(), verdict, "round {round}: {stream:?}");
        wrong += u32::from(verdict.is_none());
        let common = bytes.len().min(expected.len());
        assert!(
            bytes[..common] == expected[..common],
            "round {round}: other bytes"
        );
    }
    assert!(wrong > 1000, "only {wrong} wrong streams");
}

fn member(data: &[u8], builder: GzBuilder) -> Vec<u8> {
    let mut encoder: GzEncoder<Vec<u8>> = builder.write(Vec::new(), Compression::new(6));
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn members_follow_one_another() {
    let mut noise = Noise(42);
    for _ in 0..50 {
        let (mut stream, mut all) = (Vec::new(), Vec::new());
        for index in 0..=noise.below(4) {
            let data = data(&mut noise);
            let builder = match index {
                0 => GzBuilder::new(),
                1 => GzBuilder::new().filename("a name").comment("a comment"),
                _ => GzBuilder::new()
                    .extra(vec![7; noise.below(70_000)])
                    .mtime(1),
            };
            stream.extend(member(&data, builder));
            all.extend(data);
        }
        stream.extend(vec![0; noise.below(3) * 300]);
        assert!(gzip(&stream, &mut noise).unwrap() == all);
    }
}

#[test]
fn a_member_reaches_no_further_back_than_itself() {
    // A stored byte, then a match of three bytes at distance 1 (fixed codes): fine in the
    // first member, out of bounds where it comes first in the second.
    let first = member(b"abc", GzBuilder::new());
    let mut second = first[..10].to_vec();
    second.extend([0b0000_0011, 0b0000_0010, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    let (mut noise, stream) = (Noise(1), [first, second].concat());
    assert_eq!(gzip(&stream, &mut noise), Err(Error::Distance));
}

#[test]
fn gzip_errors_are_exact() {
    let mut noise = Noise(7);
    let good = member(b"hello, hello, hello", GzBuilder::new());
    let end = good.len();
    let changed = |at: usize, byte: u8| {
        let mut stream = good.clone();
        stream[at] ^= byte;
        stream
    };
    let mut with_crc = good[..3].to_vec();
    with_crc.push(2);
    with_crc.extend(&good[4..10]);
    let crc = crc32fast::hash(&with_crc).to_le_bytes();
    with_crc.extend(&crc[..2]);
    let wrong_crc = [&with_crc[..10], &[crc[0] ^ 1, crc[1]], &good[10..]].concat();
    with_crc.extend(&good[10..]);
    for (what, stream, expected) in [
        ("good", good.clone(), None),
        ("header checksum", with_crc, None),
        (
            "wrong header checksum",
            wrong_crc,
            Some(Error::HeaderChecksum),
        ),
        ("empty", vec![], Some(Error::Truncated)),
        ("no magic", changed(0, 1), Some(Error::Magic)),
        ("half the magic", changed(1, 1), Some(Error::Magic)),
        ("method", changed(2, 1), Some(Error::Header)),
        ("reserved flag", changed(3, 0x80), Some(Error::Header)),
        ("checksum", changed(end - 8, 1), Some(Error::Checksum)),
        ("length", changed(end - 1, 1), Some(Error::Length)),
        (
            "something behind",
            [good.as_slice(), b"x"].concat(),
            Some(Error::Magic),
        ),
        (
            "something behind the padding",
            [good.as_slice(), b"\0\0\x1f"].concat(),
            Some(Error::Magic),
        ),
    ] {
        let found = gzip(&stream, &mut noise).err();
        assert_eq!(found, expected, "{what}");
    }
    for length in 0..end {
        assert_eq!(
            gzip(&good[..length], &mut noise),
            Err(Error::Truncated),
            "{length} bytes of {end}"
        );
    }
}

#[test]
fn a_checksum_is_left_to_who_asks_for_that() {
    let mut stream = member(b"hello", GzBuilder::new());
    let at = stream.len() - 8;
    stream[at] ^= 1;
    let mut output = [0; 100];
    let step = Gzip::new(false).decode(&stream, &mut output, 0).unwrap();
    assert_eq!(&output[..step.produced], b"hello");
}

#[test]
fn too_little_history_is_an_error_and_no_panic() {
    let data = [vec![7; 1000], vec![9; 40_000]].concat();
    let stream = deflate(&data, 9);
    let mut inflate = Inflate::new();
    let mut output = vec![0; 500];
    let step = inflate.decode(&stream, &mut output, 0).unwrap();
    // Against the rules the output is now given without what was in it.
    let result = inflate.decode(&stream[step.consumed..], &mut output, 0);
    assert!(matches!(result, Ok(_) | Err(Error::Distance)));
    assert!(
        inflate
            .decode(&[], &mut output, 9999)
            .is_ok_and(|step| step.produced == 0)
    );
}
