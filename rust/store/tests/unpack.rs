//! Pulling layers: what arrives, what was there, what breaks off, and what lies.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use knarr_store::{
    Classified, Digest, ErrorKind, Layer, LayerSource, LayerStream, Phase, Progress, Store,
    StoreError, UnpackOptions,
};

/// A directory that goes away.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path =
            std::env::temp_dir().join(format!("knarr-store-{name}-{}-{count}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn store(&self) -> Store {
        Store::open(self.0.join("root")).unwrap()
    }

    fn partial(&self, digest: &Digest) -> PathBuf {
        self.0
            .join("root/ingest")
            .join(format!("{}.partial", digest.hex()))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

/// A tar archive of one file.
fn archive(name: &str, data: &[u8]) -> Vec<u8> {
    let mut block = [0_u8; 512];
    block[..name.len()].copy_from_slice(name.as_bytes());
    block[100..107].copy_from_slice(b"0000644");
    block[124..135].copy_from_slice(format!("{:011o}", data.len()).as_bytes());
    block[156] = b'0';
    block[257..263].copy_from_slice(b"ustar\0");
    let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum::<u32>() + 8 * 32;
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut archive = block.to_vec();
    archive.extend_from_slice(data);
    archive.resize(archive.len().next_multiple_of(512) + 1024, 0);
    archive
}

/// Bytes that do not compress.
fn noise(count: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[4]
    };
    std::iter::repeat_with(next).take(count).collect()
}

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

/// A stack of layers and their blobs.
fn image(archives: &[Vec<u8>]) -> (Vec<Layer>, Vec<Vec<u8>>) {
    let mut layers: Vec<Layer> = Vec::new();
    let mut blobs = Vec::new();
    for plain in archives {
        let blob = gzip(plain);
        let diff_id = Digest::of(plain);
        let parent = layers.last().map(|layer| layer.chain_id);
        let chain_id = parent.map_or(diff_id, |parent| {
            Digest::of(format!("{parent} {diff_id}").as_bytes())
        });
        let (digest, size) = (Digest::of(&blob), blob.len() as u64);
        layers.push(Layer {
            digest,
            size,
            media_type: String::new(),
            diff_id,
            chain_id,
            parent,
        });
        blobs.push(blob);
    }
    (layers, blobs)
}

/// A registry in memory that can break off, lie and remember.
#[derive(Default)]
struct Fake {
    blobs: Vec<(Digest, Vec<u8>)>,
    /// Fail after so many bytes of a stream.
    breaks_after: Option<usize>,
    opened: Mutex<Vec<(Digest, u64)>>,
}

#[derive(Debug, thiserror::Error)]
#[error("the connection broke")]
struct Broken;

impl Classified for Broken {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Unavailable
    }
}

struct FakeStream {
    data: Vec<u8>,
    at: usize,
    breaks_at: Option<usize>,
    first: bool,
}

impl Fake {
    fn of(layers: &[Layer], blobs: &[Vec<u8>]) -> Self {
        let blobs = layers
            .iter()
            .zip(blobs)
            .map(|(layer, blob)| (layer.digest, blob.clone()))
            .collect();
        Self {
            blobs,
            ..Self::default()
        }
    }

    fn opened(&self) -> Vec<(Digest, u64)> {
        self.opened.lock().unwrap().clone()
    }
}

impl LayerSource for Fake {
    fn open(
        &self,
        digest: &Digest,
        _size: u64,
        offset: u64,
    ) -> Result<Box<dyn LayerStream>, StoreError> {
        self.opened.lock().unwrap().push((*digest, offset));
        let data = self
            .blobs
            .iter()
            .find(|(name, _)| name == digest)
            .ok_or(StoreError::BlobMissing(*digest))?
            .1
            .clone();
        let at = usize::try_from(offset).unwrap();
        Ok(Box::new(FakeStream {
            data,
            at,
            breaks_at: self.breaks_after.map(|after| at + after),
            first: true,
        }))
    }
}

impl LayerStream for FakeStream {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, StoreError> {
        // A network may begin with a single byte.
        let most = if std::mem::take(&mut self.first) {
            1
        } else {
            10_000
        };
        let mut end = self
            .data
            .len()
            .min(self.at + buffer.len())
            .min(self.at + most);
        if let Some(limit) = self.breaks_at {
            if self.at >= limit {
                return Err(StoreError::Source(Box::new(Broken)));
            }
            end = end.min(limit);
        }
        let count = end - self.at;
        buffer[..count].copy_from_slice(&self.data[self.at..end]);
        self.at = end;
        Ok(count)
    }
}

fn pull(store: &Store, layers: &[Layer], source: &Fake) -> Result<Vec<u64>, StoreError> {
    let options = UnpackOptions {
        source: Some(source),
        ..UnpackOptions::default()
    };
    store.unpack(layers, options, &Progress::new())
}

fn names(path: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_pull_keeps_blobs_and_snapshots_and_nothing_else() {
    let scratch = Scratch::new("pull");
    let store = scratch.store();
    let (layers, blobs) = image(&[
        archive("a", &noise(700_000)),
        archive("b", b"b"),
        archive("b", b"c"),
    ]);
    let source = Fake::of(&layers, &blobs);
    let progress = Progress::new();
    let options = UnpackOptions {
        source: Some(&source),
        ..UnpackOptions::default()
    };
    assert_eq!(
        store.unpack(&layers, options, &progress).unwrap(),
        [700_000, 1, 1]
    );
    for (layer, counter) in layers.iter().zip(progress.layers()) {
        assert_eq!(counter.read(), (Phase::Done, layer.size, layer.size));
        assert!(store.has_snapshot(&layer.chain_id).unwrap());
        assert_eq!(store.blob_size(&layer.digest).unwrap(), Some(layer.size));
    }
    assert_eq!(names(&scratch.0.join("root/tmp")), [""; 0]);
    assert_eq!(names(&scratch.0.join("root/ingest")), [""; 0]);
    // Again: nothing is fetched, nothing is made.
    assert_eq!(
        pull(&store, &layers, &Fake::default()).unwrap(),
        [700_000, 1, 1]
    );
    // A snapshot that went is made from its blob.
    store.remove_snapshot(&layers[2].chain_id).unwrap();
    assert_eq!(
        pull(&store, &layers, &Fake::default()).unwrap(),
        [700_000, 1, 1]
    );
    let data = fs::read(store.snapshot_path(&layers[2].chain_id).join("b")).unwrap();
    assert_eq!(data, b"c");
}

#[test]
fn one_blob_for_several_layers_is_fetched_once() {
    let scratch = Scratch::new("shared");
    let store = scratch.store();
    let (empty, file) = (vec![0; 1024], archive("a", b"a"));
    let (layers, blobs) = image(&[empty.clone(), file, empty.clone(), empty]);
    let source = Fake::of(&layers, &blobs);
    assert_eq!(pull(&store, &layers, &source).unwrap(), [0, 1, 0, 0]);
    assert_eq!(source.opened().len(), 2);
    assert_eq!(store.snapshots().unwrap().len(), 4);
    assert_eq!(store.blobs().unwrap().len(), 2);
}

#[test]
fn what_broke_off_is_resumed() {
    let scratch = Scratch::new("resume");
    let store = scratch.store();
    let (layers, blobs) = image(&[archive("a", &noise(500_000))]);
    let mut source = Fake::of(&layers, &blobs);
    source.breaks_after = Some(200_000);
    let error = pull(&store, &layers, &source).unwrap_err();
    assert_eq!(
        (error.kind(), error.to_string().as_str()),
        (ErrorKind::Unavailable, "the connection broke")
    );
    assert_eq!(names(&scratch.0.join("root/tmp")), [""; 0]);
    assert_eq!(
        fs::metadata(scratch.partial(&layers[0].digest))
            .unwrap()
            .len(),
        200_000
    );
    // Another process takes it up.
    let store = scratch.store();
    assert_eq!(store.sweep().unwrap(), 0);
    pull(&store, &layers, &source).unwrap_err();
    source.breaks_after = None;
    assert_eq!(pull(&store, &layers, &source).unwrap(), [500_000]);
    let digest = layers[0].digest;
    assert_eq!(
        source.opened(),
        [(digest, 0), (digest, 200_000), (digest, 400_000)]
    );
    assert_eq!(names(&scratch.0.join("root/ingest")), [""; 0]);
}

#[test]
fn a_complete_blob_that_got_no_name_is_not_fetched_again() {
    let scratch = Scratch::new("complete");
    let store = scratch.store();
    let (layers, blobs) = image(&[archive("a", &noise(50_000))]);
    fs::write(scratch.partial(&layers[0].digest), &blobs[0]).unwrap();
    assert_eq!(pull(&store, &layers, &Fake::default()).unwrap(), [50_000]);
}

#[test]
fn a_damaged_rest_is_fetched_afresh() {
    let (layers, blobs) = image(&[archive("a", &noise(300_000))]);
    let mut too_long = blobs[0].clone();
    too_long.extend_from_slice(b"more");
    let mut flipped = blobs[0].clone();
    flipped[100_000] ^= 1;
    let short = blobs[0][..1].to_vec();
    for rest in [vec![0; 100_000], too_long, flipped, short] {
        let scratch = Scratch::new("damaged");
        let store = scratch.store();
        fs::write(scratch.partial(&layers[0].digest), rest).unwrap();
        let source = Fake::of(&layers, &blobs);
        assert_eq!(pull(&store, &layers, &source).unwrap(), [300_000]);
        assert_eq!(source.opened().last(), Some(&(layers[0].digest, 0)));
        assert_eq!(
            store.blob_size(&layers[0].digest).unwrap(),
            Some(layers[0].size)
        );
    }
}

#[test]
fn who_lies_about_a_blob_is_found_out() {
    let (layers, blobs) = image(&[archive("a", &noise(300_000))]);
    let mut longer = blobs[0].clone();
    longer.resize(longer.len() + 50_000, 0);
    let other = gzip(&archive("a", b"forged"));
    let cases = [
        (blobs[0][..200_000].to_vec(), "200000 arrived", true),
        (longer, "is corrupt", false),
        (other, "arrived", true),
        (Vec::new(), "0 arrived", true),
    ];
    for (sent, message, kept) in cases {
        let scratch = Scratch::new("lies");
        let store = scratch.store();
        let source = Fake {
            blobs: vec![(layers[0].digest, sent.clone())],
            ..Fake::default()
        };
        let error = pull(&store, &layers, &source).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        assert!(error.to_string().contains(message), "{error}");
        assert_eq!(store.snapshots().unwrap(), []);
        assert_eq!(store.blobs().unwrap(), []);
        assert_eq!(names(&scratch.0.join("root/tmp")), [""; 0]);
        let left =
            fs::metadata(scratch.partial(&layers[0].digest)).map_or(0, |partial| partial.len());
        assert_eq!(left, if kept { sent.len() as u64 } else { 0 });
    }
}

#[test]
fn the_right_size_and_other_bytes_are_a_wrong_digest() {
    let scratch = Scratch::new("digest");
    let store = scratch.store();
    let (layers, blobs) = image(&[archive("a", &noise(300_000))]);
    let mut sent = blobs[0].clone();
    let at = sent.len() - 8;
    sent[at - 100] ^= 1;
    let source = Fake {
        blobs: vec![(layers[0].digest, sent)],
        ..Fake::default()
    };
    let error = pull(&store, &layers, &source).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert_eq!(store.blobs().unwrap(), []);
    // What is left cannot spoil the next attempt.
    assert_eq!(
        pull(&store, &layers, &Fake::of(&layers, &blobs)).unwrap(),
        [300_000]
    );
}

#[test]
fn a_blob_that_nobody_has_is_named() {
    let scratch = Scratch::new("missing");
    let store = scratch.store();
    let (layers, _) = image(&[archive("a", b"a")]);
    let error = store
        .unpack(&layers, UnpackOptions::default(), &Progress::new())
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(
        error.to_string().contains(&layers[0].digest.to_string()),
        "{error}"
    );
}

#[test]
fn a_cancelled_pull_ends_and_resumes() {
    struct Cancelling<'a>(&'a Progress, Fake);
    impl LayerSource for Cancelling<'_> {
        fn open(
            &self,
            digest: &Digest,
            size: u64,
            offset: u64,
        ) -> Result<Box<dyn LayerStream>, StoreError> {
            let stream = self.1.open(digest, size, offset);
            self.0.cancel();
            stream
        }
    }
    let scratch = Scratch::new("cancel");
    let store = scratch.store();
    let (layers, blobs) = image(&[archive("a", &noise(300_000)), archive("b", &noise(300_000))]);
    let progress = Progress::new();
    let source = Cancelling(&progress, Fake::of(&layers, &blobs));
    let options = UnpackOptions {
        source: Some(&source),
        ..UnpackOptions::default()
    };
    let error = store.unpack(&layers, options, &progress).unwrap_err();
    assert!(matches!(error, StoreError::Cancelled), "{error}");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(names(&scratch.0.join("root/tmp")), [""; 0]);
    assert_eq!(
        pull(&store, &layers, &source.1).unwrap(),
        [300_000, 300_000]
    );
}

#[test]
fn a_sweep_takes_what_was_there_before_and_keeps_what_can_be_resumed() {
    let scratch = Scratch::new("sweep");
    drop(scratch.store());
    let old = scratch.0.join("root/tmp/layer-of-a-dead-process/deep/er");
    fs::create_dir_all(&old).unwrap();
    fs::write(old.join("file"), b"x").unwrap();
    fs::write(scratch.0.join("root/tmp/file"), b"x").unwrap();
    let partial = scratch.partial(&Digest::of(b"x"));
    fs::write(&partial, b"part").unwrap();
    let ancient = scratch.partial(&Digest::of(b"y"));
    let file = fs::File::create(&ancient).unwrap();
    file.set_modified(
        std::time::SystemTime::now() - std::time::Duration::from_secs(30 * 24 * 3600),
    )
    .unwrap();
    let store = scratch.store();
    let work = scratch.0.join("root/tmp/of-this-process");
    fs::create_dir(&work).unwrap();
    assert_eq!(store.sweep().unwrap(), 3);
    assert!(work.exists() && partial.exists() && !ancient.exists());
    assert_eq!(names(&scratch.0.join("root/tmp")), ["of-this-process"]);
    assert_eq!(store.sweep().unwrap(), 0);
}

#[test]
fn only_trees_below_the_root_are_removed() {
    let scratch = Scratch::new("outside");
    let store = scratch.store();
    let inside = scratch.0.join("root/containers/x");
    let outside = scratch.0.join("outside");
    fs::create_dir_all(inside.join("upper")).unwrap();
    fs::create_dir(&outside).unwrap();
    std::os::unix::fs::symlink(&outside, inside.join("link")).unwrap();
    for path in [
        outside.clone(),
        scratch.0.join("root"),
        scratch.0.join("root/../outside"),
        PathBuf::from("/"),
        PathBuf::from("root/x"),
    ] {
        assert_eq!(
            store.remove_tree(&path).unwrap_err().kind(),
            ErrorKind::InvalidArgument,
            "{}",
            path.display()
        );
    }
    store.remove_tree(&inside).unwrap();
    store.remove_tree(&inside).unwrap();
    assert!(!inside.exists() && outside.exists());
    assert_eq!(names(&scratch.0.join("root/tmp")), [""; 0]);
}

#[test]
fn a_writer_resumes_and_verifies() {
    let scratch = Scratch::new("writer");
    let store = scratch.store();
    let data = noise(300_000);
    let digest = Digest::of(&data);
    let mut writer = store.blob_writer(digest).unwrap();
    writer.write(&data[..100_000]).unwrap();
    drop(writer);
    let mut writer = store.blob_writer(digest).unwrap();
    assert_eq!(writer.offset(), 100_000);
    writer.write(&data[100_000..]).unwrap();
    writer.commit().unwrap();
    assert_eq!(store.blob(&digest, 1 << 20).unwrap(), data);
    let mut writer = store.blob_writer(Digest::of(b"other")).unwrap();
    writer.write(b"wrong").unwrap();
    assert!(matches!(
        writer.commit(),
        Err(StoreError::WrongDigest { .. })
    ));
    assert_eq!(names(&scratch.0.join("root/ingest")), [""; 0]);
    assert_eq!(
        store.blob(&digest, 10).unwrap_err().kind(),
        ErrorKind::InvalidArgument
    );
}

#[test]
fn pulls_that_share_something_fetch_it_once() {
    let scratch = Scratch::new("together");
    let store = scratch.store();
    let shared = archive("shared", &noise(400_000));
    let (first, first_blobs) = image(&[archive("a", b"a"), shared.clone()]);
    let (second, second_blobs) = image(&[archive("b", b"b"), shared]);
    let mut source = Fake::of(&first, &first_blobs);
    source.blobs.extend(Fake::of(&second, &second_blobs).blobs);
    std::thread::scope(|scope| {
        for layers in [&first, &second, &first, &second] {
            scope.spawn(|| assert_eq!(pull(&store, layers, &source).unwrap(), [1, 400_000]));
        }
    });
    let mut opened: Vec<Digest> = source
        .opened()
        .into_iter()
        .map(|(digest, _)| digest)
        .collect();
    opened.sort_unstable();
    let mut expected = vec![first[0].digest, first[1].digest, second[0].digest];
    expected.sort_unstable();
    assert_eq!(opened, expected);
    assert_eq!(store.snapshots().unwrap().len(), 4);
}
