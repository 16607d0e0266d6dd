//! Any bytes as an archive: no panic, no endless loop, no memory beyond the limits, and data that adds up.
#![no_main]

use knarr_store::Limits;
use knarr_store::tar::{Entry, Reader};
use libfuzzer_sys::fuzz_target;

/// Gives every block the checksum that a header would need: a fuzzer does not find it by itself.
fn with_checksums(data: &[u8]) -> Vec<u8> {
    let mut archive = data.to_vec();
    for block in archive.chunks_exact_mut(512) {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    archive
}

fuzz_target!(|data: &[u8]| {
    let Some((&first, data)) = data.split_first() else { return };
    let archive = if first & 1 == 0 { data.to_vec() } else { with_checksums(data) };
    let limits = Limits { entries: 10_000, ..Limits::default() };
    let mut reader = Reader::new(archive.as_slice(), &limits);
    let mut entry = Entry::default();
    while let Ok(true) = reader.next(&mut entry) {
        assert!(!entry.path.is_empty() && !entry.path.contains(&0) && !entry.link.contains(&0));
        let mut seen = 0;
        while let Ok(data) = reader.data() {
            let count = data.len();
            if count == 0 {
                break;
            }
            seen += count as u64;
            reader.consume(count);
        }
        assert!(seen <= entry.size);
        if let Some((real_size, pieces)) = &entry.sparse {
            assert!(pieces.iter().all(|piece| piece.offset + piece.length <= *real_size));
        }
    }
});
