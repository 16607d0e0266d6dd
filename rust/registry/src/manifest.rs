//! Manifests: which media types are taken, and what is refused with which words.

use knarr_store::Digest;
use serde::Deserialize;

use crate::error::{RegistryError, quote};

/// The largest manifest taken (the distribution specification lets registries refuse larger ones).
pub(crate) const MAX_SIZE: usize = 4 << 20;

const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const SCHEMA_1: &str = "application/vnd.docker.distribution.manifest.v1+";
pub(crate) const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";

/// A manifest or index as the registry keeps it, its digest verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// The exact bytes, which have the digest.
    pub bytes: Vec<u8>,
    /// One of the OCI and Docker schema 2 types of manifests and indexes (manifest lists).
    pub media_type: String,
    /// The digest of the bytes.
    pub digest: Digest,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Outline {
    schema_version: Option<u64>,
    #[serde(default)]
    media_type: String,
    manifests: Option<Vec<serde::de::IgnoredAny>>,
    config: Option<serde::de::IgnoredAny>,
}

/// The media type of a manifest's bytes that came with `content_type`.
pub(crate) fn media_type(
    object: &str,
    content_type: &str,
    bytes: &[u8],
) -> Result<String, RegistryError> {
    let announced = content_type
        .split(';')
        .next()
        .unwrap_or("")
        .trim()
        .to_ascii_lowercase();
    let bad = |cause: String| RegistryError::BadManifest {
        object: object.to_owned(),
        cause,
    };
    if announced.starts_with(SCHEMA_1) {
        return Err(schema_1(object));
    }
    let outline: Outline = serde_json::from_slice(bytes)
        .map_err(|error| bad(format!("it is no manifest: {error}")))?;
    if outline.schema_version == Some(1) {
        return Err(schema_1(object));
    }
    let inside = outline.media_type.as_str();
    match (is_known(&announced), inside) {
        (true, "") => Ok(announced),
        (true, inside) if inside == announced => Ok(announced),
        (true, inside) => Err(bad(format!(
            "it came as {announced} and calls itself {}",
            quote(inside)
        ))),
        // Plain file servers do not know these types: what the manifest says of itself counts.
        (false, inside) if is_known(inside) => Ok(inside.to_owned()),
        (false, "") if outline.manifests.is_some() => Ok(OCI_INDEX.to_owned()),
        (false, "") if outline.config.is_some() => Ok(OCI_MANIFEST.to_owned()),
        (false, inside) => Err(RegistryError::Unsupported {
            object: object.to_owned(),
            what: format!(
                "a manifest of the type \"{}\"",
                quote(if inside.is_empty() {
                    &announced
                } else {
                    inside
                })
            ),
            hint: "; images are OCI manifests and indexes, and Docker's of schema 2",
        }),
    }
}

/// Whether a media type is that of a manifest or index which is taken.
pub(crate) fn is_known(kind: &str) -> bool {
    [OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST].contains(&kind)
}

fn schema_1(object: &str) -> RegistryError {
    RegistryError::Unsupported {
        object: object.to_owned(),
        what: "an image in Docker's manifest schema 1".to_owned(),
        hint: "; push it again with a current client, which converts it",
    }
}

/// Whether a content type is that of a web page.
pub(crate) fn is_html(content_type: &str) -> bool {
    let kind = content_type.to_ascii_lowercase();
    kind.starts_with("text/html") || kind.starts_with("application/xhtml")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(content_type: &str, body: &str) -> String {
        match media_type("h/r:t", content_type, body.as_bytes()) {
            Ok(kind) => kind,
            Err(RegistryError::Unsupported { .. }) => "unsupported".into(),
            Err(RegistryError::BadManifest { .. }) => "bad".into(),
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn table() {
        let own = format!(r#"{{"schemaVersion":2,"mediaType":"{DOCKER_LIST}","manifests":[]}}"#);
        for (content_type, body, expected) in [
            (
                OCI_MANIFEST,
                r#"{"schemaVersion":2,"config":{}}"#,
                OCI_MANIFEST,
            ),
            (
                &format!("{OCI_INDEX}; charset=utf-8"),
                r#"{"manifests":[]}"#,
                OCI_INDEX,
            ),
            (DOCKER_LIST, &own, DOCKER_LIST),
            ("application/octet-stream", &own, DOCKER_LIST),
            ("text/plain", r#"{"manifests":[]}"#, OCI_INDEX),
            ("", r#"{"config":{}}"#, OCI_MANIFEST),
            (OCI_INDEX, &own, "bad"),
            (OCI_MANIFEST, "[]", "bad"),
            (OCI_MANIFEST, "", "bad"),
            ("application/json", "{}", "unsupported"),
            (
                "application/json",
                r#"{"mediaType":"application/x"}"#,
                "unsupported",
            ),
            (
                "application/vnd.docker.distribution.manifest.v1+prettyjws",
                "{}",
                "unsupported",
            ),
            (
                "application/json",
                r#"{"schemaVersion":1,"fsLayers":[]}"#,
                "unsupported",
            ),
        ] {
            assert_eq!(shown(content_type, body), expected, "{content_type} {body}");
        }
    }
}
