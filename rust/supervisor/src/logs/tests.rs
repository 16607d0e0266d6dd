//! Logs as files: format, rotation, repair, a full disk.

use std::fs;
use std::path::{Path, PathBuf};

use super::*;

pub struct Directory(pub PathBuf);

impl Directory {
    pub fn new(name: &str) -> Self {
        static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let process = std::process::id();
        let path = std::env::temp_dir().join(format!("knarr-log-{name}-{process}-{number}"));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn log(&self, max_size: u64, max_file: u32) -> Log {
        Log::open(options(self.0.join("log"), max_size, max_file), true).unwrap()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

fn options(path: PathBuf, max_size: u64, max_file: u32) -> LogOptions {
    let file = FileOptions {
        format: Format::JsonFile,
        path,
        max_size,
        max_file,
        compress: false,
    };
    LogOptions {
        file: Some(file),
        attributes: BTreeMap::new(),
        remote: None,
    }
}

fn entries(path: &Path) -> Vec<serde_json::Value> {
    let text = fs::read_to_string(path).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn entries_have_dockers_shape() {
    let directory = Directory::new("shape");
    let mut log = directory.log(0, 1);
    let mut scratch = Vec::new();
    assert!(
        log.write(Stream::Stdout, b"hello\nwor", &mut scratch)
            .is_none()
    );
    assert!(log.write(Stream::Stderr, b"oops\n", &mut scratch).is_none());
    assert!(log.end(Stream::Stdout, &mut scratch).is_none());
    let text = fs::read_to_string(directory.0.join("log")).unwrap();
    assert!(
        text.starts_with("{\"log\":\"hello\\n\",\"stream\":\"stdout\",\"time\":\"20"),
        "{text}"
    );
    let read: Vec<(String, String)> = entries(&directory.0.join("log"))
        .iter()
        .map(|entry| {
            (
                entry["log"].as_str().unwrap().to_owned(),
                entry["stream"].as_str().unwrap().to_owned(),
            )
        })
        .collect();
    let expected = [
        ("hello\n", "stdout"),
        ("oops\n", "stderr"),
        ("wor", "stdout"),
    ];
    assert_eq!(
        read,
        expected.map(|(line, stream)| (line.to_owned(), stream.to_owned()))
    );
}

#[test]
fn files_rotate_at_their_size_and_the_oldest_goes() {
    let directory = Directory::new("rotate");
    let mut log = directory.log(1000, 3);
    let mut scratch = Vec::new();
    let batch: Vec<u8> = (0..100)
        .flat_map(|n| format!("line {n}\n").into_bytes())
        .collect();
    assert!(log.write(Stream::Stdout, &batch, &mut scratch).is_none());
    let mut numbers = Vec::new();
    for name in ["log.2", "log.1", "log"] {
        let path = directory.0.join(name);
        assert!(fs::metadata(&path).unwrap().len() < 1100, "{name}");
        numbers.extend(
            entries(&path)
                .iter()
                .map(|entry| entry["log"].as_str().unwrap().trim().to_owned()),
        );
    }
    assert!(!directory.0.join("log.3").exists());
    let first = 100 - numbers.len();
    let expected: Vec<String> = (first..100).map(|n| format!("line {n}")).collect();
    assert_eq!(numbers, expected);
}

#[test]
fn one_file_is_begun_anew() {
    let directory = Directory::new("single");
    let mut log = directory.log(300, 1);
    let mut scratch = Vec::new();
    for n in 0..50 {
        assert!(
            log.write(Stream::Stdout, format!("{n}\n").as_bytes(), &mut scratch)
                .is_none()
        );
    }
    assert!(fs::metadata(directory.0.join("log")).unwrap().len() < 400);
    assert!(!directory.0.join("log.1").exists());
    assert_eq!(
        entries(&directory.0.join("log")).last().unwrap()["log"],
        "49\n"
    );
}

#[test]
fn a_torn_end_is_cut_off() {
    let directory = Directory::new("torn");
    let mut scratch = Vec::new();
    assert!(
        directory
            .log(0, 1)
            .write(Stream::Stdout, b"whole\n", &mut scratch)
            .is_none()
    );
    let path = directory.0.join("log");
    let mut text = fs::read(&path).unwrap();
    text.extend_from_slice(b"{\"log\":\"to");
    fs::write(&path, text).unwrap();
    assert!(
        directory
            .log(0, 1)
            .write(Stream::Stdout, b"next\n", &mut scratch)
            .is_none()
    );
    let lines: Vec<_> = entries(&path)
        .iter()
        .map(|entry| entry["log"].clone())
        .collect();
    assert_eq!(lines, ["whole\n", "next\n"]);
}

#[test]
fn a_full_disk_is_told_once_and_counted() {
    let mut log = Log::open(options(PathBuf::from("/dev/full"), 0, 1), true).unwrap();
    let mut scratch = Vec::new();
    assert!(
        log.write(Stream::Stdout, b"one\ntwo\n", &mut scratch)
            .is_some()
    );
    assert!(
        log.write(Stream::Stdout, b"three\n", &mut scratch)
            .is_none()
    );
    assert_eq!(log.dropped(), 3);
    assert!(scratch.is_empty());
}
