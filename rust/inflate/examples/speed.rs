//! Time this decoder beside zlib-rs on gzip files: `speed FILE...`, best of five runs each.
//!
//! Input comes in pieces of 256 KiB and output goes to a buffer of 512 KiB with the window before it, as in a pull.

use std::error::Error;
use std::time::Instant;

use flate2::{Decompress, FlushDecompress, Status};
use knarr_inflate::{Gzip, WINDOW};

const PIECE: usize = 256 * 1024;
const OUTPUT: usize = 512 * 1024;
const RUNS: usize = 5;

fn ours(data: &[u8], checksum: bool) -> Result<u64, Box<dyn Error>> {
    let mut gzip = Gzip::new(checksum);
    let mut output = vec![0; WINDOW + OUTPUT];
    let (mut start, mut total) = (0, 0);
    for piece in data.chunks(PIECE) {
        let mut rest = piece;
        loop {
            let step = gzip.decode(rest, &mut output, start)?;
            rest = &rest[step.consumed..];
            total += step.produced as u64;
            start += step.produced;
            if start < output.len() {
                break;
            }
            output.copy_within(start - WINDOW.., 0);
            start = WINDOW;
        }
    }
    gzip.finish()?;
    Ok(total)
}

fn zlib_rs(data: &[u8]) -> Result<u64, Box<dyn Error>> {
    let mut member = Decompress::new_gzip(15);
    let mut output = vec![0; OUTPUT];
    for piece in data.chunks(PIECE) {
        let mut rest = piece;
        loop {
            let (before_in, before_out) = (member.total_in(), member.total_out());
            let status = member.decompress(rest, &mut output, FlushDecompress::None)?;
            rest = &rest[usize::try_from(member.total_in() - before_in)?..];
            let produced = member.total_out() - before_out;
            if status == Status::StreamEnd || (rest.is_empty() && produced < OUTPUT as u64) {
                break;
            }
        }
    }
    Ok(member.total_out())
}

/// The best times of several functions, run in turn so that a noisy machine treats them alike.
fn best<const N: usize>(
    runs: [&dyn Fn() -> Result<u64, Box<dyn Error>>; N],
) -> Result<([f64; N], u64), Box<dyn Error>> {
    let mut best = [f64::INFINITY; N];
    let mut bytes = None;
    for _ in 0..RUNS {
        for (best, run) in best.iter_mut().zip(runs) {
            let begin = Instant::now();
            let found = run()?;
            *best = best.min(begin.elapsed().as_secs_f64());
            assert_eq!(*bytes.get_or_insert(found), found);
        }
    }
    Ok((best, bytes.unwrap_or(0)))
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut all = [0.0; 3];
    for path in std::env::args().skip(1) {
        let data = std::fs::read(&path)?;
        let runs: [&dyn Fn() -> _; 3] = [&|| ours(&data, false), &|| ours(&data, true), &|| {
            zlib_rs(&data)
        }];
        let (times, bytes) = best(runs)?;
        let [plain, checked, zlib] = times;
        all.iter_mut()
            .zip(times)
            .for_each(|(all, time)| *all += time);
        #[allow(clippy::cast_precision_loss)]
        let size = bytes as f64 / 1e6;
        println!(
            "{size:.1} MB: {plain:.3} s ({:.0} MB/s), with CRC {checked:.3} s; zlib-rs {zlib:.3} s ({:.0} MB/s): {:.2}x",
            size / plain,
            size / zlib,
            zlib / plain,
        );
    }
    println!(
        "in all: {:.3} s, with CRC {:.3} s; zlib-rs {:.3} s: {:.2}x",
        all[0],
        all[1],
        all[2],
        all[2] / all[0]
    );
    Ok(())
}
