//! Archives of hostile names and links: whatever happens, nothing outside the layer's directory changes, no forbidden mark appears, and
//! all of it can be deleted again. Needs root, as devices and owners do.
#![no_main]

use std::fs;
use std::path::{Path, PathBuf};

use knarr_store::{Limits, apply};
use libfuzzer_sys::fuzz_target;

const NAMES: [&str; 24] = [
    "a", "b", "c", "a/b", "a/b/c", "./a", "/a", "..", "../x", "a/..", "a/../..", "a/../../x", ".wh.a", ".wh.b", "a/.wh.b", ".wh..wh..opq",
    "a/.wh..wh..opq", ".wh.", ".wh...", ".wh..wh.plnk", "b/outside", "c/a", "", "/",
];
const LINKS: [&str; 12] = ["a", "b", "a/b", "..", "../..", "../outside", "/outside", "/", ".", "../../../../outside/kept", "c", ".wh.a"];
const KINDS: &[u8] = b"0123456105S7x";

/// One entry out of four bytes.
fn entry(bytes: &[u8], archive: &mut Vec<u8>) {
    let mut block = [0_u8; 512];
    let name = NAMES[usize::from(bytes[0]) % NAMES.len()];
    let link = LINKS[usize::from(bytes[1]) % LINKS.len()];
    let kind = KINDS[usize::from(bytes[2]) % KINDS.len()];
    let size = if kind == b'0' || kind == b'7' { usize::from(bytes[3]) } else { 0 };
    block[..name.len()].copy_from_slice(name.as_bytes());
    block[100..107].copy_from_slice(if bytes[3] & 1 == 0 { b"0004755" } else { b"0000700" });
    block[108] = b'0' + (bytes[3] >> 5);
    block[124..135].copy_from_slice(format!("{size:011o}").as_bytes());
    block[156] = kind;
    block[157..157 + link.len()].copy_from_slice(link.as_bytes());
    block[257..263].copy_from_slice(b"ustar\0");
    block[336] = b'0' + (bytes[3] & 1);
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    archive.extend_from_slice(&block);
    archive.resize((archive.len() + size).next_multiple_of(512), b'x');
}

/// What is in a directory, links not followed.
fn names(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            found.extend(names(&entry.path()));
        }
        found.push(entry.path());
    }
    found.sort();
    found
}

fuzz_target!(|data: &[u8]| {
    let scratch = PathBuf::from(format!("/dev/shm/knarr-fuzz-{}", std::process::id()));
    let (outside, layer) = (scratch.join("outside"), scratch.join("layer"));
    fs::create_dir_all(&outside).unwrap();
    fs::write(outside.join("kept"), b"kept").unwrap();
    fs::create_dir(&layer).unwrap();
    let mut archive = Vec::new();
    for bytes in data.chunks_exact(4).take(64) {
        entry(bytes, &mut archive);
    }
    let result = apply(archive.as_slice(), &layer, &Limits::default());
    assert_eq!(fs::read(outside.join("kept")).unwrap(), b"kept");
    assert_eq!(names(&scratch).iter().filter(|path| !path.starts_with(&layer)).count(), 2, "something was made outside");
    for path in names(&layer) {
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(!name.starts_with(".wh."), "a whiteout came through as {}", path.display());
    }
    if let Ok(applied) = result {
        for path in applied.implicit {
            assert!(layer.join(std::str::from_utf8(&path).unwrap()).symlink_metadata().unwrap().is_dir());
        }
    }
    fs::remove_dir_all(&scratch).unwrap();
});
