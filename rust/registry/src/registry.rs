//! [`Registry`]: the client of one registry.

use std::sync::Arc;
use std::time::Duration;

use knarr_store::{Digest, LayerSource, LayerStream, Progress, StoreError};

use serde::Deserialize;

use crate::auth::{Auth, Credentials, Scope};
use crate::error::{Failure, RegistryError, quote};
use crate::exchange::{Answer, Ask, Get, Retries, Shared, drain};
use crate::http::{Cancel, Client, Content, Method, Url, encode_query};
use crate::manifest::{self, Manifest};
use crate::name::{check_repository, check_tag};
use crate::push::{Pushing, Upload};
use crate::refusal::{self, Asked};
use crate::stream::BlobStream;

/// Attempts at a manifest: whoever waits for it waits for the first byte of everything.
const MANIFEST_ATTEMPTS: u32 = 3;

/// Repositories named in one token's scope, beside the one that is pushed to.
const MAX_SOURCES: usize = 16;
const TAGS_PAGE: u32 = 1000;
const MAX_TAGS: usize = 10_000;
const MAX_LIST: usize = 4 << 20;

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

    /// Bring blobs to a repository, several at once, each only where it is not there already (specification, pushing blobs).
    ///
    /// `progress` shows each as waiting, uploading, done, exists or mounted; cancelled, it ends the push soon.
    pub fn push(
        &self,
        repository: &str,
        uploads: &[Upload],
        progress: &Arc<Progress>,
    ) -> Result<(), RegistryError> {
        check_repository(repository)?;
        let sources = uploads.iter().filter_map(|upload| upload.source.as_deref());
        let mut sources: Vec<&str> = sources.collect();
        sources.sort_unstable();
        sources.dedup();
        for source in &sources {
            check_repository(source)?;
        }
        let pushing = Pushing {
            shared: &self.shared,
            name: repository,
            named: &format!("{}/{repository}", self.host),
            scope: &Scope::push(repository, sources.into_iter().take(MAX_SOURCES)),
        };
        pushing.run(uploads, progress)
    }

    /// Put a manifest or index, as it is, under a tag or its digest (specification, pushing manifests).
    pub fn put_manifest(
        &self,
        repository: &str,
        reference: &str,
        media_type: &str,
        bytes: &[u8],
        progress: Option<Arc<Progress>>,
    ) -> Result<(), RegistryError> {
        check_repository(repository)?;
        if reference.contains(':') {
            reference.parse::<Digest>()?;
        } else {
            check_tag(reference)?;
        }
        if !manifest::is_known(media_type) {
            return Err(RegistryError::Malformed {
                what: "media type of a manifest",
                name: quote(media_type),
                expected: "expected one of the OCI and Docker schema 2 types",
            });
        }
        let pushing = Pushing {
            shared: &self.shared,
            name: repository,
            named: &format!("{}/{repository}", self.host),
            scope: &Scope::push(repository, []),
        };
        pushing.manifest(reference, media_type, bytes, &Cancel::new(progress))
    }

    /// Every tag of a repository, in the registry's order (specification, content discovery): at most 10,000.
    pub fn tags(&self, repository: &str) -> Result<Vec<String>, RegistryError> {
        check_repository(repository)?;
        let named = format!("{}/{repository}", self.host);
        let first = format!("/v2/{repository}/tags/list?n={TAGS_PAGE}");
        let (mut tags, mut url): (Vec<String>, _) = (Vec::new(), self.shared.url(first));
        loop {
            let asked = Asked::Manifest {
                object: &named,
                repository: &named,
            };
            let scope = Scope::pull(repository);
            let (bytes, answer) = self.small(&url, &scope, asked, MAX_LIST)?;
            let page: Tags = serde_json::from_slice(&bytes).map_err(|error| {
                let cause = format!("its list of tags is malformed: {error}");
                RegistryError::BadManifest {
                    object: named.clone(),
                    cause,
                }
            })?;
            let before = tags.len();
            for tag in page.tags.unwrap_or_default() {
                check_tag(&tag)?;
                tags.push(tag);
            }
            if tags.len() > MAX_TAGS {
                return Err(RegistryError::TooLarge {
                    object: format!("the list of tags of {named}"),
                    limit: MAX_TAGS as u64,
                });
            }
            let link = answer.response.head.header("link").and_then(next_page);
            match link.map(|target| answer.url.join(target)) {
                // A page without a tag would be followed for ever.
                Some(Ok(next)) if next.same_origin(&self.shared.base) && tags.len() > before => {
                    url = next;
                }
                _ => return Ok(tags),
            }
        }
    }

    /// Whether somebody answers `/v2/` at all, whatever credentials he wants.
    pub fn ping(&self) -> Result<(), RegistryError> {
        let url = self.shared.url("/v2/".to_owned());
        let server = url.to_string();
        let ask = Ask {
            method: Method::Get,
            url: &url,
            trusted: false,
            scope: &Scope::login(),
            headers: &[],
            content: Content::Nothing,
            good: &[200, 401, 403, 404],
            asked: Asked::Login { server: &server },
        };
        match self.shared.ask(ask, &Cancel::default()) {
            Ok(mut answer) => {
                drain(&mut answer.response);
                Ok(())
            }
            Err(Failure::Final(error) | Failure::Transient(error, _)) => Err(error),
        }
    }

    /// Whether the registry takes the credentials: the identity token that its token server gives for them, or nothing.
    pub fn login(&self) -> Result<String, RegistryError> {
        let url = self.shared.url("/v2/".to_owned());
        let server = url.to_string();
        let asked = Asked::Login { server: &server };
        self.small(&url, &Scope::login(), asked, MAX_LIST)?;
        Ok(self.shared.auth.identity().unwrap_or_default())
    }

    /// What `/v1/search` answers: JSON, not looked at (the search API of Docker's first registry, which Docker Hub kept).
    pub fn search(&self, term: &str, limit: u32) -> Result<Vec<u8>, RegistryError> {
        let target = format!("/v1/search?q={}&n={limit}", encode_query(term));
        let url = self.shared.url(target);
        let server = url.to_string();
        let asked = Asked::Search { server: &server };
        Ok(self.small(&url, &Scope::login(), asked, MAX_LIST)?.0)
    }

    /// A GET whose answer is short: its bytes, and the rest of the answer.
    fn small(
        &self,
        url: &Url,
        scope: &Scope,
        asked: Asked<'_>,
        limit: usize,
    ) -> Result<(Vec<u8>, Answer), RegistryError> {
        let ask = Ask {
            method: Method::Get,
            url,
            trusted: true,
            scope,
            headers: &[("Accept", "application/json")],
            content: Content::Nothing,
            good: &[200],
            asked,
        };
        let mut retries = Retries::new(MANIFEST_ATTEMPTS);
        let cancel = Cancel::default();
        loop {
            let attempt = self.shared.ask(ask, &cancel).and_then(|mut answer| {
                let mut bytes = Vec::new();
                let complete = answer.response.body.read_up_to(limit, &mut bytes);
                let object = asked.object();
                if complete.map_err(|trouble| refusal::trouble(object, &answer.host, trouble))? {
                    return Ok((bytes, answer));
                }
                Err(Failure::Final(RegistryError::TooLarge {
                    object: object.to_owned(),
                    limit: limit as u64,
                }))
            });
            match attempt {
                Ok(found) => return Ok(found),
                Err(failure) => retries.pause(failure, &cancel)?,
            }
        }
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

#[derive(Deserialize)]
struct Tags {
    tags: Option<Vec<String>>,
}

/// The target of `<target>; rel="next"`.
pub(crate) fn next_page(link: &str) -> Option<&str> {
    let (target, rest) = link.trim().strip_prefix('<')?.split_once('>')?;
    rest.replace(' ', "")
        .contains("rel=\"next\"")
        .then_some(target)
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

#[cfg(test)]
mod tests {
    use super::*;

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
