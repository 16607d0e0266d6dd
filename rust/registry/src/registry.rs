//! [`Registry`]: the client of one registry.

use std::sync::Arc;
use std::time::Duration;

use knarr_store::{Digest, LayerSource, LayerStream, Progress, StoreError};

use crate::auth::{Auth, Credentials};
use crate::error::{RegistryError, quote};
use crate::exchange::{Answer, Get, Retries, Shared};
use crate::http::{Cancel, Client, Url};
use crate::manifest::{self, Manifest};
use crate::refusal::{self, Asked};
use crate::stream::BlobStream;

/// Attempts at a manifest: whoever waits for it waits for the first byte of everything.
const MANIFEST_ATTEMPTS: u32 = 3;

/// How to speak to a registry.
#[derive(Clone)]
pub struct Options {
    /// Speak https; plain http only where the caller says so.
    pub https: bool,
    /// Empty for anonymous; `<token>` makes the password an identity token.
    pub username: String,
    /// The password or identity token; empty for anonymous.
    pub password: String,
    /// Accept any certificate.
    pub insecure_tls: bool,
    /// How long the peer may be silent before an attempt is given up.
    pub timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            https: true,
            username: String::new(),
            password: String::new(),
            insecure_tls: false,
            timeout: Duration::from_secs(30),
        }
    }
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("https", &self.https)
            .field("username", &self.username)
            .field("insecure_tls", &self.insecure_tls)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

/// A client of one registry: blocking, shared by any number of threads, its connections reused.
#[derive(Debug, Clone)]
pub struct Registry {
    shared: Arc<Shared>,
    host: String,
}

impl Registry {
    /// A client of the registry at `host[:port]`. Nothing is connected yet.
    pub fn new(host: &str, options: &Options) -> Result<Self, RegistryError> {
        let scheme = if options.https { "https" } else { "http" };
        let malformed = |expected| RegistryError::Malformed {
            what: "registry host",
            name: quote(host),
            expected,
        };
        if host.contains(['/', '?', '#']) {
            return Err(malformed("expected host[:port]"));
        }
        let base = Url::parse(&format!("{scheme}://{host}")).map_err(malformed)?;
        let auth = Auth::new(Credentials::new(&options.username, &options.password));
        let client = Client::new(options.insecure_tls, options.timeout);
        Ok(Self {
            shared: Arc::new(Shared { base, client, auth }),
            host: host.to_owned(),
        })
    }

    /// The host as it was given.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The manifest or index behind a tag or digest (specification, pulling manifests): at most 4 MiB, its digest verified.
    pub fn manifest(&self, repository: &str, reference: &str) -> Result<Manifest, RegistryError> {
        check_repository(repository)?;
        let pinned = if reference.contains(':') {
            Some(reference.parse::<Digest>()?)
        } else {
            None
        };
        if pinned.is_none() {
            check_tag(reference)?;
        }
        let named = format!("{}/{repository}", self.host);
        let object = format!(
            "{named}{}{reference}",
            if pinned.is_some() { '@' } else { ':' }
        );
        let path = format!("manifests/{reference}");
        let asked = Asked::Manifest {
            object: &object,
            repository: &named,
        };
        let get = Get {
            name: repository,
            path: &path,
            accept: manifest::ACCEPT,
            offset: 0,
            asked,
        };
        let mut retries = Retries::new(MANIFEST_ATTEMPTS);
        loop {
            let attempt = self
                .shared
                .get(get, &Cancel::default())
                .and_then(|mut answer| {
                    let bytes = read_manifest(&object, &mut answer)?;
                    Ok((answer, bytes))
                });
            match attempt {
                Ok((answer, bytes)) => return verify(&object, pinned, &answer, bytes),
                Err(failure) => retries.pause(failure, &Cancel::default())?,
            }
        }
    }

    /// A small blob (an image's config): at most `limit` bytes, its digest verified.
    pub fn blob(
        &self,
        repository: &str,
        digest: &Digest,
        limit: u64,
    ) -> Result<Vec<u8>, RegistryError> {
        let mut stream = self.open_blob(repository, digest, 0)?;
        let object = format!("{}/{repository}@{digest}", self.host);
        let mut bytes = Vec::new();
        let mut chunk = vec![0; 32 * 1024];
        loop {
            let count = stream.next(&mut chunk)?;
            if count == 0 {
                break;
            }
            bytes.extend_from_slice(&chunk[..count]);
            if bytes.len() as u64 > limit {
                return Err(RegistryError::TooLarge { object, limit });
            }
        }
        let found = Digest::of(&bytes);
        if found == *digest {
            Ok(bytes)
        } else {
            Err(RegistryError::WrongDigest {
                object,
                expected: *digest,
                found,
            })
        }
    }

    /// Open a blob at an offset. The bytes are not verified: the digest is of the whole.
    pub fn open_blob(
        &self,
        repository: &str,
        digest: &Digest,
        offset: u64,
    ) -> Result<BlobStream, RegistryError> {
        check_repository(repository)?;
        BlobStream::open(
            Arc::clone(&self.shared),
            &self.host,
            repository,
            *digest,
            None,
            offset,
            Cancel::default(),
        )
    }

    /// A repository as the store wants it when it unpacks an image: waits end soon after `progress` is cancelled.
    pub fn repository(
        &self,
        name: &str,
        progress: Option<Arc<Progress>>,
    ) -> Result<Repository, RegistryError> {
        check_repository(name)?;
        Ok(Repository {
            registry: self.clone(),
            name: name.to_owned(),
            cancel: Cancel::new(progress),
        })
    }
}

/// One repository of a registry: the source of an image's layers.
#[derive(Debug, Clone)]
pub struct Repository {
    registry: Registry,
    name: String,
    cancel: Cancel,
}

impl LayerSource for Repository {
    fn open(
        &self,
        digest: &Digest,
        size: u64,
        offset: u64,
    ) -> Result<Box<dyn LayerStream>, StoreError> {
        let shared = Arc::clone(&self.registry.shared);
        let stream = BlobStream::open(
            shared,
            &self.registry.host,
            &self.name,
            *digest,
            Some(size),
            offset,
            self.cancel.clone(),
        );
        Ok(Box::new(stream.map_err(into_store)?))
    }
}

/// A registry's error as the store passes it through.
pub(crate) fn into_store(error: RegistryError) -> StoreError {
    match error {
        RegistryError::Cancelled => StoreError::Cancelled,
        other => StoreError::Source(Box::new(other)),
    }
}

fn read_manifest(object: &str, answer: &mut Answer) -> Result<Vec<u8>, crate::error::Failure> {
    let kind = answer.response.head.header("content-type").unwrap_or("");
    if manifest::is_html(kind) {
        let (object, host, found) = (object.to_owned(), answer.host.clone(), quote(kind));
        return Err(RegistryError::NotARegistry {
            object,
            host,
            found,
            wanted: "a manifest",
        }
        .into());
    }
    let mut bytes = Vec::new();
    let complete = answer
        .response
        .body
        .read_up_to(manifest::MAX_SIZE, &mut bytes)
        .map_err(|trouble| refusal::trouble(object, &answer.host, trouble))?;
    if complete {
        Ok(bytes)
    } else {
        Err(RegistryError::TooLarge {
            object: object.to_owned(),
            limit: manifest::MAX_SIZE as u64,
        }
        .into())
    }
}

fn verify(
    object: &str,
    pinned: Option<Digest>,
    answer: &Answer,
    bytes: Vec<u8>,
) -> Result<Manifest, RegistryError> {
    let digest = Digest::of(&bytes);
    // A header in another algorithm says nothing that could be compared.
    let announced = answer
        .response
        .head
        .header("docker-content-digest")
        .and_then(|text| text.parse::<Digest>().ok());
    if let Some(expected) = pinned.or(announced)
        && expected != digest
    {
        return Err(RegistryError::WrongDigest {
            object: object.to_owned(),
            expected,
            found: digest,
        });
    }
    let kind = answer.response.head.header("content-type").unwrap_or("");
    let media_type = manifest::media_type(object, kind, &bytes)?;
    Ok(Manifest {
        bytes,
        media_type,
        digest,
    })
}

/// `<name>` of the distribution specification, section pulling manifests.
fn check_repository(name: &str) -> Result<(), RegistryError> {
    let expected = "expected lower-case letters and digits, joined by '.', '_', '__' or dashes, in parts between slashes";
    let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let part = |part: &str| {
        let bytes = part.as_bytes();
        let ends = bytes.first().copied().is_some_and(alphanumeric)
            && bytes.last().copied().is_some_and(alphanumeric);
        let joined = part
            .split(|character: char| character.is_ascii_lowercase() || character.is_ascii_digit());
        ends && joined.into_iter().all(|joint| {
            matches!(joint, "" | "." | "_" | "__") || joint.bytes().all(|byte| byte == b'-')
        })
    };
    if name.len() <= 255 && name.split('/').all(part) {
        Ok(())
    } else {
        Err(RegistryError::Malformed {
            what: "repository name",
            name: quote(name),
            expected,
        })
    }
}

fn check_tag(tag: &str) -> Result<(), RegistryError> {
    let expected =
        "expected at most 128 letters, digits, '_', '.' and '-', the first neither '.' nor '-'";
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let good = tag.len() <= 128
        && tag.bytes().next().is_some_and(word)
        && tag
            .bytes()
            .all(|byte| word(byte) || matches!(byte, b'.' | b'-'));
    if good {
        Ok(())
    } else {
        Err(RegistryError::Malformed {
            what: "tag",
            name: quote(tag),
            expected,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repository_names() {
        for name in [
            "debian",
            "library/debian",
            "a/b/c",
            "a.b",
            "a_b",
            "a__b",
            "a---b",
            "0/1",
        ] {
            assert!(check_repository(name).is_ok(), "{name}");
        }
        for name in [
            "",
            "/",
            "a/",
            "/a",
            "a//b",
            "A",
            "a..b",
            "a___b",
            "a.-b",
            ".a",
            "a-",
            "../etc",
            "a b",
            "a\r\nb",
            "a?b",
            "\u{e9}",
            &"a".repeat(256),
        ] {
            assert!(check_repository(name).is_err(), "{name:?} was accepted");
        }
    }

    #[test]
    fn tags() {
        for tag in ["latest", "1.2-3_x", "_x", "A"] {
            assert!(check_tag(tag).is_ok(), "{tag}");
        }
        for tag in ["", ".", "-a", "a/b", "a b", "..", "a\n", &"a".repeat(129)] {
            assert!(check_tag(tag).is_err(), "{tag:?} was accepted");
        }
    }

    #[test]
    fn hosts() {
        for host in ["127.0.0.1:5001", "r.example", "[::1]:5000"] {
            assert!(Registry::new(host, &Options::default()).is_ok(), "{host}");
        }
        for host in ["", "a/b", "user@host", "host:port", "h\r\nx", "host?x"] {
            assert!(
                Registry::new(host, &Options::default()).is_err(),
                "{host:?} was accepted"
            );
        }
    }
}
