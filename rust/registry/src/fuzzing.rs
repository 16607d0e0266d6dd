//! The parsers of what a registry sends, for the fuzzer alone.

use crate::http::{Head, Url};
use crate::{challenge, manifest, push, refusal, registry, stream};

/// Parse bytes as everything that a registry sends.
pub fn answers(data: &[u8]) {
    if let Ok(Some((head, length))) = Head::parse(data) {
        assert!(length <= data.len());
        // Whether the framing is clear is no matter; that telling it ends without a panic is.
        drop(head.framing());
    }
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    for challenge in challenge::parse(text) {
        assert!(!challenge.scheme.is_empty());
    }
    let base = Url {
        https: true,
        host: "registry.example".to_owned(),
        port: 443,
        target: "/v2/a/blobs/b?c".to_owned(),
    };
    if let Ok(url) = base.join(text) {
        assert!(url.target.starts_with('/') && !url.target.contains(['\r', '\n', ' ']));
        assert!(!url.authority().contains(['\r', '\n', ' ', '/', '@']));
    }
    if let Some((start, Some(total))) = stream::parse_content_range(text) {
        assert!(start < total);
    }
    refusal::http_date(text);
    // "0-<last>" tells of at least two bytes, or of none.
    assert_ne!(push::parse_range(text), Some(1));
    if let Some(target) = registry::next_page(text) {
        assert!(text.contains(target));
    }
    let (kind, body) = text.split_once('\n').unwrap_or(("", text));
    drop(manifest::media_type("host/name:tag", kind, body.as_bytes()));
}
