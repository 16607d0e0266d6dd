//! Reading logs: over rotated and compressed files, with every filter, while they are written, and when they are damaged.

use std::fs;
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::thread::JoinHandle;

use super::tests::Directory;
use super::*;
use crate::session::Gone;

const FORMATS: [Format; 2] = [Format::JsonFile, Format::Local];

fn options(directory: &Directory, format: Format, max_size: u64, max_file: u32) -> FileOptions {
    FileOptions {
        format,
        path: directory.0.join("log"),
        max_size,
        max_file,
        compress: false,
    }
}

fn log(file: &FileOptions) -> Log {
    let options = LogOptions {
        file: Some(file.clone()),
        attributes: BTreeMap::from([("k".to_owned(), "v w".to_owned())]),
        remote: None,
    };
    Log::open(options, true).unwrap()
}

fn say(log: &mut Log, numbers: std::ops::Range<u32>) {
    for number in numbers {
        let stream = Stream::ALL[usize::from(number % 5 == 4)];
        let text = format!("line {number}\n");
        assert!(
            log.write(stream, text.as_bytes(), &mut Vec::new())
                .is_none()
        );
        for chore in log.chores() {
            chore.run().unwrap();
        }
    }
}

fn wanted() -> Wanted {
    Wanted {
        outputs: [true, true],
        ..Wanted::default()
    }
}

/// A reader and what its client gets.
fn client(
    file: &FileOptions,
    wanted: Wanted,
    shared: Option<Arc<Shared>>,
) -> (Reader, JoinHandle<String>) {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let reader = Reader::new(wanted, file.clone(), shared, ours.into());
    let reads = std::thread::spawn(move || {
        let mut text = String::new();
        theirs.read_to_string(&mut text).unwrap();
        text
    });
    (reader, reads)
}

/// Step until the end of what there is. True at the end of all.
fn go(reader: &mut Reader) -> bool {
    loop {
        match reader.step() {
            Step::More => {}
            Step::Blocked => std::thread::yield_now(),
            Step::AtEnd(position) if reader.behind(position) => {}
            Step::AtEnd(_) => return false,
            Step::Ended => return true,
            Step::Gone(why) => panic!("{why}"),
        }
    }
}

fn read(file: &FileOptions, wanted: Wanted) -> String {
    let (mut reader, text) = client(file, wanted, None);
    assert!(go(&mut reader));
    drop(reader);
    text.join().unwrap()
}

fn numbers(text: &str) -> Vec<u32> {
    let number = |line: &str| line.rsplit_once(' ').unwrap().1.parse().unwrap();
    text.lines().map(number).collect()
}

fn range(from: u32, to: u32) -> Vec<u32> {
    (from..to).collect()
}

#[test]
fn files_are_read_oldest_first_and_tails_count_over_them() {
    for format in FORMATS {
        for compress in [false, true] {
            let directory = Directory::new("order");
            let file = FileOptions {
                compress,
                ..options(&directory, format, 600, 4)
            };
            let mut log = log(&file);
            say(&mut log, 0..100);
            assert_eq!(file.packed(1).exists(), compress);
            assert_eq!(file.plain(1).exists(), !compress);
            let all = numbers(&read(&file, wanted()));
            let first = all[0];
            assert!(first > 0 && first < 80, "{first} of {format:?}");
            assert_eq!(all, range(first, 100));
            for tail in [0, 1, 2, 7, 8, 9, 15, 30, 99, 1000] {
                let wanted = Wanted {
                    tail: Some(tail),
                    ..wanted()
                };
                let from = 100 - u32::try_from(tail).unwrap().min(100 - first);
                assert_eq!(numbers(&read(&file, wanted)), range(from, 100), "{tail}");
            }
            let only = Wanted {
                outputs: [false, true],
                ..wanted()
            };
            let expected: Vec<u32> = (first..100).filter(|number| number % 5 == 4).collect();
            assert_eq!(numbers(&read(&file, only)), expected);
        }
    }
}

#[test]
fn since_begins_and_until_ends() {
    for format in FORMATS {
        let directory = Directory::new("times");
        let file = options(&directory, format, 0, 1);
        let mut encoder = Encoder::new(format, &BTreeMap::new());
        let mut bytes = Vec::new();
        // The clock has been set back in the middle.
        for (index, time) in [10, 20, 30, 15, 40, 50].into_iter().enumerate() {
            let line = format!("line {index}");
            let entry = Entry {
                stream: Stream::Stdout,
                time,
                line: line.as_bytes(),
                part: None,
            };
            encoder.write(&mut bytes, &entry);
        }
        fs::write(&file.path, bytes).unwrap();
        for (since, until, expected) in [
            (0, 0, range(0, 6)),
            (20, 0, range(1, 6)),
            (21, 0, range(2, 6)),
            (51, 0, vec![]),
            (0, 30, range(0, 4)),
            (0, 29, range(0, 2)),
            (30, 40, range(2, 5)),
            (0, 9, vec![]),
        ] {
            let wanted = Wanted {
                since,
                until,
                ..wanted()
            };
            let found = read(&file, wanted);
            assert_eq!(numbers(&found), expected, "{since} to {until}");
        }
    }
}

#[test]
fn entries_are_framed_stamped_and_explained() {
    for format in FORMATS {
        let directory = Directory::new("forms");
        let file = options(&directory, format, 0, 1);
        let mut log = log(&file);
        let split = "x".repeat(lines::ENTRY_BYTES) + "y\n";
        for text in ["a\n", &split] {
            assert!(
                log.write(Stream::Stderr, text.as_bytes(), &mut Vec::new())
                    .is_none()
            );
        }
        let wanted = Wanted {
            timestamps: true,
            details: true,
            multiplexed: true,
            chunked: true,
            ..wanted()
        };
        let text = read(&file, wanted);
        let (size, body) = text.split_once("\r\n").unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        let (body, end) = body.split_at(size);
        assert_eq!(end, "\r\n0\r\n\r\n");
        let mut rest = body.as_bytes();
        let mut found = Vec::new();
        while !rest.is_empty() {
            assert_eq!(rest[..4], [2, 0, 0, 0]);
            let length = u32::from_be_bytes(rest[4..8].try_into().unwrap());
            let (entry, after) = rest[8..].split_at(usize::try_from(length).unwrap());
            let (stamp, text) = entry.split_at(time::FIXED);
            assert!(time::parse(stamp).unwrap() > 1 << 60);
            found.push(std::str::from_utf8(text).unwrap());
            rest = after;
        }
        let whole = format!(" k=v+w {}", &split[..lines::ENTRY_BYTES]);
        assert_eq!(found, [" k=v+w a\n", &whole, " k=v+w y\n"]);
        let merged = Wanted {
            multiplexed: true,
            merge: true,
            ..super::tests_reading::wanted()
        };
        let length = (split.len() + 2).to_be_bytes();
        let header = [&[2, 0, 0, 0], &length[4..]].concat();
        let text = read(&file, merged).into_bytes();
        assert_eq!(text[..8], header);
        assert_eq!(text[8..], *format!("a\n{split}").as_bytes());
        let last = Wanted {
            tail: Some(3),
            ..Wanted::default()
        };
        let last = Wanted {
            outputs: [true, true],
            ..last
        };
        assert_eq!(read(&file, last), format!("a\n{split}"));
    }
}

#[test]
fn what_is_written_is_followed_through_rotation() {
    for format in FORMATS {
        for compress in [false, true] {
            let directory = Directory::new("follow");
            let file = FileOptions {
                compress,
                ..options(&directory, format, 700, 50)
            };
            let mut log = log(&file);
            say(&mut log, 0..20);
            let follow = Wanted {
                follow: true,
                tail: Some(3),
                chunked: false,
                ..wanted()
            };
            let shared = log.shared(&file.path);
            let (mut reader, text) = client(&file, follow, shared);
            for upto in (20..220).step_by(20) {
                assert!(!go(&mut reader));
                // Several rotations at once, or none.
                say(&mut log, upto..upto + upto % 60);
                say(&mut log, upto + upto % 60..upto + 20.max(upto % 60));
                if upto % 60 > 20 {
                    break;
                }
            }
            assert!(!go(&mut reader));
            drop(log);
            assert!(go(&mut reader), "the end of the container is the end");
            assert_eq!(reader.unreadable, 0);
            drop(reader);
            let found = numbers(&text.join().unwrap());
            assert_eq!(found, range(17, found.last().unwrap() + 1));
            assert!(found.len() > 40);
        }
    }
}

#[test]
fn a_follower_that_lags_by_more_than_there_is_goes_on_with_the_oldest() {
    let directory = Directory::new("lag");
    let file = options(&directory, Format::JsonFile, 500, 2);
    let mut log = log(&file);
    let follow = Wanted {
        follow: true,
        ..wanted()
    };
    say(&mut log, 0..3);
    let (mut reader, text) = client(&file, follow, log.shared(&file.path));
    assert!(!go(&mut reader));
    say(&mut log, 3..200);
    assert!(!go(&mut reader));
    drop(log);
    assert!(go(&mut reader));
    drop(reader);
    let found = numbers(&text.join().unwrap());
    assert_eq!(found[..3], [0, 1, 2]);
    assert_eq!(found.last(), Some(&199));
    assert!(found.is_sorted() && found.len() < 100);
}

#[test]
fn a_client_that_does_not_read_blocks_only_its_reader() {
    let directory = Directory::new("blocked");
    let file = options(&directory, Format::Local, 0, 1);
    let mut log = log(&file);
    let much = b"some line\n".repeat(60_000);
    assert!(log.write(Stream::Stdout, &much, &mut Vec::new()).is_none());
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut reader = Reader::new(wanted(), file.clone(), None, ours.into());
    for _ in 0..5 {
        assert!(matches!(reader.step(), Step::Blocked));
    }
    drop(theirs);
    assert!(matches!(reader.step(), Step::Gone(Gone::Closed)));
}

#[test]
fn damaged_files_are_read_as_far_as_they_go() {
    for format in FORMATS {
        let directory = Directory::new("damage");
        let file = options(&directory, format, 0, 1);
        say(&mut log(&file), 0..9);
        let before = fs::metadata(&file.path).unwrap().len();
        say(&mut log(&file), 9..10);
        let whole = fs::read(&file.path).unwrap();
        let entry = whole.len() - usize::try_from(before).unwrap();
        // Cut anywhere.
        for cut in [1, 3, 4, 5, entry - 1, entry + 1] {
            fs::write(&file.path, &whole[..whole.len() - cut]).unwrap();
            let left = 10 - u32::try_from(cut.div_ceil(entry)).unwrap();
            let last = Wanted {
                tail: Some(2),
                ..wanted()
            };
            assert_eq!(
                numbers(&read(&file, wanted())),
                range(0, left),
                "{format:?} {cut}"
            );
            assert_eq!(
                numbers(&read(&file, last)),
                range(left - 2, left),
                "{format:?} {cut}"
            );
            // A writer goes on behind the last whole entry.
            say(&mut log(&file), left..12);
            assert_eq!(
                numbers(&read(&file, wanted())),
                range(0, 12),
                "{format:?} {cut}"
            );
        }
        // Filled with zeros by a power cut, in the middle of an entry.
        let mut zeros = whole.clone();
        zeros[whole.len() - entry - 3..].fill(0);
        zeros.resize(300_000, 0);
        fs::write(&file.path, &zeros).unwrap();
        assert_eq!(numbers(&read(&file, wanted())), range(0, 8), "{format:?}");
        say(&mut log(&file), 8..12);
        assert_eq!(numbers(&read(&file, wanted())), range(0, 12), "{format:?}");
        // No log at all.
        let noise = [
            vec![],
            b"garbage".to_vec(),
            vec![0; 70_000],
            vec![0xff; 70_000],
        ];
        for bytes in noise {
            fs::write(&file.path, bytes).unwrap();
            assert_eq!(read(&file, wanted()), "");
            say(&mut log(&file), 0..3);
            assert_eq!(numbers(&read(&file, wanted())), range(0, 3));
        }
        fs::remove_file(&file.path).unwrap();
        assert_eq!(read(&file, wanted()), "");
    }
}

#[test]
fn a_damaged_line_costs_no_other() {
    let directory = Directory::new("line");
    let file = options(&directory, Format::JsonFile, 0, 1);
    say(&mut log(&file), 0..3);
    let whole = fs::read_to_string(&file.path).unwrap();
    let damaged = whole.replacen("\"stdout\"", "\"st\u{0}out\"", 1);
    let garbage = "x".repeat(3_000_000);
    fs::write(
        &file.path,
        format!("{damaged}{garbage}\n{whole}\0\0\0{whole}"),
    )
    .unwrap();
    let (mut reader, text) = client(&file, wanted(), None);
    assert!(go(&mut reader));
    assert!(reader.unreadable >= 2);
    drop(reader);
    assert_eq!(numbers(&text.join().unwrap()), [1, 2, 0, 1, 2, 0, 1, 2]);
}

#[test]
fn a_damaged_compressed_file_is_told_and_the_next_is_read() {
    let directory = Directory::new("packed");
    let file = FileOptions {
        compress: true,
        ..options(&directory, Format::JsonFile, 1000, 3)
    };
    say(&mut log(&file), 0..40);
    let packed = file.packed(1);
    let mut bytes = fs::read(&packed).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..].fill(0xff);
    fs::write(&packed, bytes).unwrap();
    let text = read(&file, wanted());
    assert!(
        text.contains("Error grabbing logs: a compressed log: "),
        "{text}"
    );
    assert!(text.ends_with("line 39\n"), "{text}");
}

#[test]
fn what_a_killed_compression_left_is_done_with() {
    let directory = Directory::new("killed");
    let file = FileOptions {
        compress: true,
        ..options(&directory, Format::JsonFile, 1000, 4)
    };
    let mut log = log(&file);
    let all: Vec<u8> = (0..200)
        .flat_map(|n| format!("line {n}\n").into_bytes())
        .collect();
    // Many rotations before the first compression runs.
    assert!(log.write(Stream::Stdout, &all, &mut Vec::new()).is_none());
    let before = numbers(&read(&file, wanted()));
    assert_eq!(before, range(before[0], 200));
    for number in 1..4 {
        assert!(file.plain(number).exists());
    }
    for chore in log.chores() {
        chore.run().unwrap();
    }
    for number in 1..4 {
        assert!(!file.plain(number).exists() && file.packed(number).exists());
    }
    assert_eq!(numbers(&read(&file, wanted())), before);
    // Killed between the renaming and the removal: both are there, and count once.
    fs::write(file.plain(1), fs::read(&file.path).unwrap()).unwrap();
    assert!(numbers(&read(&file, wanted())).len() < before.len() + 20);
    let names: Vec<PathBuf> = fs::read_dir(&directory.0)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert!(
        !names
            .iter()
            .any(|name| name.to_string_lossy().ends_with(".tmp"))
    );
}
