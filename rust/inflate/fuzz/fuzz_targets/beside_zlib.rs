//! Any bytes as a DEFLATE stream: the verdict and the bytes of zlib-rs, whatever the sizes of the pieces.

#![no_main]

use flate2::{Decompress, FlushDecompress, Status};
use knarr_inflate::{Inflate, WINDOW};
use libfuzzer_sys::fuzz_target;

const LIMIT: usize = 1 << 20;

/// Bytes, and: ended, goes on, or wrong.
fn reference(stream: &[u8]) -> (Vec<u8>, Option<bool>) {
    let mut zlib = Decompress::new(false);
    let mut bytes = vec![0; LIMIT];
    let status = zlib.decompress(stream, &mut bytes, FlushDecompress::None);
    bytes.truncate(usize::try_from(zlib.total_out()).unwrap());
    match status {
        Err(_) => (bytes, None),
        Ok(status) => (bytes, Some(status == Status::StreamEnd)),
    }
}

fuzz_target!(|data: &[u8]| {
    let [pieces, room, stream @ ..] = data else {
        return;
    };
    let (pieces, room) = (usize::from(*pieces) + 1, (usize::from(*room) + 1) * 8);
    let (expected, verdict) = reference(stream);
    if expected.len() >= LIMIT {
        return;
    }
    let mut inflate = Inflate::new();
    let mut output = vec![0; WINDOW + room];
    let (mut start, mut all, mut result) = (0, Vec::new(), Some(false));
    'stream: for piece in stream.chunks(pieces) {
        let mut rest = piece;
        loop {
            let Ok(step) = inflate.decode(rest, &mut output, start) else {
                result = None;
                break 'stream;
            };
            all.extend_from_slice(&output[start..start + step.produced]);
            rest = &rest[step.consumed..];
            start += step.produced;
            let full = start == output.len();
            if start > WINDOW {
                output.copy_within(start - WINDOW..start, 0);
                start = WINDOW;
            }
            if inflate.ended() {
                result = Some(true);
                break 'stream;
            }
            if !full {
                assert!(rest.is_empty());
                break;
            }
        }
    }
    if result.is_none() && verdict == Some(false) {
        // zlib reads on before it says that no code at all is none; whatever follows, it does.
        for byte in [0, 0xff, 0x55] {
            let longer = [stream, &[byte; 4096]].concat();
            assert_eq!(reference(&longer).1, None);
        }
        return;
    }
    assert_eq!(result, verdict);
    let common = if verdict.is_some() {
        expected.len()
    } else {
        all.len().min(expected.len())
    };
    assert!(all[..common] == expected[..common]);
});
