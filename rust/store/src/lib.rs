//! Bytes on disk: content-addressed blobs, layers and snapshots.
