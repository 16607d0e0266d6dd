//! Pull an image's layers into a store and say what it took: `pull HOST REPOSITORY TAG DATA_ROOT` over plain http.
//!
//! For an image whose tag names a manifest, not an index. What `benches/pull_bench.py` runs.

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use knarr_registry::{Options, Registry};
use knarr_store::{Digest, Layer, Progress, Store, UnpackOptions};
use serde::Deserialize;

#[derive(Deserialize)]
struct Descriptor {
    #[serde(rename = "mediaType")]
    media_type: String,
    digest: String,
    size: u64,
}

#[derive(Deserialize)]
struct Manifest {
    config: Descriptor,
    layers: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Config {
    rootfs: RootFs,
}

#[derive(Deserialize)]
struct RootFs {
    diff_ids: Vec<String>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [host, name, tag, root] = arguments.as_slice() else {
        return Err("usage: pull HOST REPOSITORY TAG DATA_ROOT".into());
    };
    let begin = Instant::now();
    let options = Options {
        https: false,
        timeout: Duration::from_secs(10),
        ..Options::default()
    };
    let registry = Registry::new(host, &options)?;
    let manifest: Manifest = serde_json::from_slice(&registry.manifest(name, tag)?.bytes)?;
    let config = registry.blob(name, &manifest.config.digest.parse()?, 1 << 20)?;
    let config: Config = serde_json::from_slice(&config)?;
    let mut layers: Vec<Layer> = Vec::new();
    for (descriptor, diff_id) in manifest.layers.into_iter().zip(config.rootfs.diff_ids) {
        let parent = layers.last().map(|layer| layer.chain_id);
        let diff_id: Digest = diff_id.parse()?;
        layers.push(Layer {
            digest: descriptor.digest.parse()?,
            size: descriptor.size,
            media_type: descriptor.media_type,
            diff_id,
            chain_id: parent.map_or(diff_id, |parent| {
                Digest::of(format!("{parent} {diff_id}").as_bytes())
            }),
            parent,
        });
    }
    let progress = Arc::new(Progress::new());
    let repository = registry.repository(name, Some(Arc::clone(&progress)))?;
    let store = Store::open(root)?;
    let unpack = UnpackOptions {
        source: Some(&repository),
        ..UnpackOptions::default()
    };
    let sizes = store.unpack(&layers, unpack, &progress)?;
    let megabytes = sizes.iter().sum::<u64>() / 1_000_000;
    println!("{:.3} s, {megabytes} MB", begin.elapsed().as_secs_f64());
    Ok(())
}
