//! The OCI distribution protocol: manifests and blobs over HTTP.
