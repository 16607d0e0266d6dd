//! Blobs on their way to a registry: asked for first, mounted where another repository has them, else uploaded.
//!
//! An upload goes out in one PUT, as the specification's monolithic upload. Where the registry will not have that it goes out in
//! `PATCH`es: one, or as many as the registry's limit makes it. When a connection breaks, the session is asked how far it came
//! and goes on from there; where the registry has forgotten it, another begins. Five attempts without progress end it.
//!
//! A session may live on another host than the registry. Nothing that is secret goes there, and what comes back from
//! there is asked without authorization as well.

use std::fs::File;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use knarr_store::{Digest, LayerProgress, Phase, Progress};

use crate::auth::Scope;
use crate::error::{Failure, RegistryError, quote};
use crate::exchange::{Answer, Ask, Retries, Shared, drain, location};
use crate::http::{Cancel, Content, Method, Url, encode_query};
use crate::refusal::Asked;

/// Blobs under way at once.
const PARALLEL: usize = 5;
const ATTEMPTS: u32 = 5;
/// So many bytes more make earlier failures forgotten.
const STEP: u64 = 1 << 20;
/// The largest piece for a registry that finds the whole too large, and the smallest that is worth a request.
const LARGE_PIECE: u64 = 10 << 20;
const SMALL_PIECE: u64 = 1 << 20;
/// A registry may ask for pieces of at least so many bytes; of more than this it may not.
const MAX_MINIMUM: u64 = 1 << 30;

/// One blob to push.
#[derive(Debug, Clone)]
pub struct Upload {
    /// The blob.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// The file that holds it.
    pub path: PathBuf,
    /// Another repository of the same registry that may have it.
    pub source: Option<String>,
}

/// The blobs of one push.
pub(crate) struct Pushing<'a> {
    pub(crate) shared: &'a Shared,
    /// The repository, and the same with the registry's host.
    pub(crate) name: &'a str,
    pub(crate) named: &'a str,
    pub(crate) scope: &'a Scope,
}

impl Pushing<'_> {
    /// Bring every blob there, several at once; the first failure ends the others.
    pub(crate) fn run(
        &self,
        uploads: &[Upload],
        progress: &Arc<Progress>,
    ) -> Result<(), RegistryError> {
        let counters: Vec<_> = uploads
            .iter()
            .map(|upload| progress.add(upload.digest, upload.size))
            .collect();
        let failed = Arc::new(AtomicBool::new(false));
        let cancel = Cancel::new(Some(Arc::clone(progress))).or(&failed);
        let next = AtomicUsize::new(0);
        let failure = Mutex::new(None);
        thread::scope(|scope| {
            for _ in 0..PARALLEL.min(uploads.len()) {
                scope.spawn(|| {
                    while let Some((upload, progress)) = {
                        let index = next.fetch_add(1, Ordering::Relaxed);
                        uploads.get(index).zip(counters.get(index))
                    } {
                        let blob = Blob {
                            pushing: self,
                            object: format!("{}@{}", self.named, upload.digest),
                            upload,
                            progress,
                            cancel: &cancel,
                        };
                        if let Err(error) = blob.bring() {
                            if !failed.swap(true, Ordering::AcqRel) {
                                *failure.lock().unwrap_or_else(PoisonError::into_inner) =
                                    Some(error);
                            }
                            return;
                        }
                    }
                });
            }
        });
        match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(_) if progress.is_cancelled() => Err(RegistryError::Cancelled),
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// Put a manifest under a tag or its digest.
    pub(crate) fn manifest(
        &self,
        reference: &str,
        media_type: &str,
        bytes: &[u8],
        cancel: &Cancel,
    ) -> Result<(), RegistryError> {
        let separator = if reference.contains(':') { '@' } else { ':' };
        let object = format!("{}{separator}{reference}", self.named);
        let url = self
            .shared
            .url(format!("/v2/{}/manifests/{reference}", self.name));
        let ask = Ask {
            method: Method::Put,
            url: &url,
            trusted: true,
            scope: self.scope,
            headers: &[],
            content: Content::Bytes {
                kind: media_type,
                bytes,
            },
            good: &[200, 201, 202],
            asked: Asked::Push {
                object: &object,
                repository: self.named,
            },
        };
        let mut retries = Retries::new(ATTEMPTS);
        loop {
            match self.shared.ask(ask, cancel) {
                Ok(mut answer) => {
                    drain(&mut answer.response);
                    return agrees(&object, &answer, Digest::of(bytes));
                }
                Err(failure) => retries.pause(failure, cancel)?,
            }
        }
    }
}

/// What a registry says that it has stored must be what was sent.
fn agrees(object: &str, answer: &Answer, expected: Digest) -> Result<(), RegistryError> {
    let header = answer.response.head.header("docker-content-digest");
    match header.and_then(|text| text.parse::<Digest>().ok()) {
        Some(found) if found != expected => Err(RegistryError::WrongDigest {
            object: object.to_owned(),
            expected,
            found,
        }),
        _ => Ok(()),
    }
}

/// One blob on its way.
struct Blob<'a> {
    pushing: &'a Pushing<'a>,
    object: String,
    upload: &'a Upload,
    progress: &'a LayerProgress,
    cancel: &'a Cancel,
}

/// Where an upload continues, and whether everything on the way there was the registry itself.
struct Session {
    url: Url,
    own: bool,
    /// Bytes that the registry has.
    offset: u64,
    /// The smallest piece that it takes, but for the last.
    minimum: u64,
}

/// How bytes go out.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Whole,
    Pieces(u64),
}

impl Blob<'_> {
    fn bring(&self) -> Result<(), RegistryError> {
        let mut retries = Retries::new(ATTEMPTS);
        let mut way = Way::Whole;
        loop {
            match self.attempt(&mut way, &mut retries) {
                Ok(phase) => {
                    self.progress.enter(phase, self.upload.size);
                    self.progress.reach(self.upload.size);
                    return Ok(());
                }
                Err(failure) => retries.pause(failure, self.cancel)?,
            }
        }
    }

    fn attempt(&self, way: &mut Way, retries: &mut Retries) -> Result<Phase, Failure> {
        if self.exists()? {
            return Ok(Phase::Exists);
        }
        let Some(mut session) = self.begin()? else {
            return Ok(Phase::Mounted);
        };
        let unreadable = |cause| RegistryError::Source {
            object: self.object.clone(),
            cause,
        };
        let file = File::open(&self.upload.path).map_err(unreadable)?;
        self.progress.enter(Phase::Uploading, self.upload.size);
        let mut counted = 0;
        loop {
            self.progress.reach(session.offset);
            match self.send(&file, &mut session, *way) {
                Ok(true) => return Ok(Phase::Done),
                Ok(false) => {}
                Err(Failure::Final(error)) => {
                    *way = self.another_way(*way, error)?;
                    session = match self.begin()? {
                        Some(session) => session,
                        None => return Ok(Phase::Mounted),
                    };
                }
                Err(failure) => {
                    retries.pause(failure, self.cancel)?;
                    self.look(&mut session)?;
                }
            }
            if session.offset >= counted + STEP {
                counted = session.offset;
                retries.reset();
            }
        }
    }

    /// Whether the registry has the blob already.
    fn exists(&self) -> Result<bool, Failure> {
        let target = format!("/v2/{}/blobs/{}", self.pushing.name, self.upload.digest);
        let url = self.pushing.shared.url(target);
        let answer = self.ask(Method::Head, &url, true, &[], Content::Nothing, &[200, 404])?;
        let head = &answer.response.head;
        let size = head
            .header("content-length")
            .and_then(|text| text.parse().ok());
        Ok(head.status == 200 && size.is_none_or(|size: u64| size == self.upload.size))
    }

    /// Begin an upload; none where the blob was mounted instead.
    fn begin(&self) -> Result<Option<Session>, Failure> {
        let plain = format!("/v2/{}/blobs/uploads/", self.pushing.name);
        let url = self.pushing.shared.url(plain.clone());
        let mounting = self.upload.source.as_ref().map(|source| {
            let (digest, source) = (
                encode_query(&self.upload.digest.to_string()),
                encode_query(source),
            );
            self.pushing
                .shared
                .url(format!("{plain}?mount={digest}&from={source}"))
        });
        let open = |url: &Url, good: &[u16]| {
            self.ask(Method::Post, url, true, &[], Content::Nothing, good)
        };
        let mut answer = match mounting.map(|url| open(&url, &[201, 202])) {
            Some(Ok(answer)) => answer,
            // The other repository may be closed to us, or the registry may not know how to mount.
            None
            | Some(Err(Failure::Final(
                RegistryError::PushDenied { .. } | RegistryError::Status { .. },
            ))) => open(&url, &[202])?,
            Some(Err(failure)) => return Err(failure),
        };
        drain(&mut answer.response);
        if answer.response.head.status == 201 {
            agrees(&self.object, &answer, self.upload.digest)?;
            return Ok(None);
        }
        let minimum = answer.response.head.header("oci-chunk-min-length");
        let mut session = Session {
            url: answer.url.clone(),
            own: true,
            offset: 0,
            minimum: minimum.and_then(|text| text.parse().ok()).unwrap_or(0),
        };
        self.follow(&mut session, &answer)?;
        Ok(Some(session))
    }

    /// Send what comes next; whether that was the end.
    fn send(&self, file: &File, session: &mut Session, way: Way) -> Result<bool, Failure> {
        let (start, size) = (session.offset, self.upload.size);
        let left = size - start;
        let length = match way {
            Way::Whole => left,
            Way::Pieces(piece) => left.min(piece.max(session.minimum.min(MAX_MINIMUM))),
        };
        let end = (start + length).saturating_sub(1);
        let range = format!("{start}-{end}");
        let headers = [("Content-Range", range.as_str())];
        // The whole in one is a monolithic upload, which has no range.
        let headers = if length == 0 || length == size {
            &headers[..0]
        } else {
            &headers[..]
        };
        let reach = |position| self.progress.reach(position);
        let content = if length == 0 {
            Content::Nothing
        } else {
            Content::Part {
                file,
                offset: start,
                length,
                sent: &reach,
            }
        };
        if way == Way::Whole || length == 0 {
            let closing = closing(&session.url, &self.upload.digest);
            let mut answer = self.ask(
                Method::Put,
                &closing,
                session.own,
                headers,
                content,
                &[200, 201, 204],
            )?;
            drain(&mut answer.response);
            agrees(&self.object, &answer, self.upload.digest)?;
            return Ok(true);
        }
        let mut answer = self.ask(
            Method::Patch,
            &session.url,
            session.own,
            headers,
            content,
            &[202],
        )?;
        drain(&mut answer.response);
        self.follow(session, &answer)?;
        let held = self.held(&answer)?.unwrap_or(start + length);
        if held > start + length || held < start {
            return Err(self.nonsense(&answer).into());
        }
        session.offset = held;
        if held == start {
            return Err(Failure::Transient(
                self.nonsense(&answer),
                std::time::Duration::ZERO,
            ));
        }
        Ok(false)
    }

    /// After trouble: how far the session came. A failure where the registry does not know it any more.
    fn look(&self, session: &mut Session) -> Result<(), Failure> {
        let answer = self
            .ask(
                Method::Get,
                &session.url,
                session.own,
                &[],
                Content::Nothing,
                &[200, 202, 204],
            )
            .map_err(|failure| match failure {
                Failure::Final(error @ RegistryError::Status { .. }) => {
                    Failure::Transient(error, std::time::Duration::ZERO)
                }
                other => other,
            })?;
        let mut answer = answer;
        drain(&mut answer.response);
        if answer.response.head.header("location").is_some() {
            self.follow(session, &answer)?;
        }
        let held = self.held(&answer)?.unwrap_or(0);
        if held > self.upload.size {
            return Err(self.nonsense(&answer).into());
        }
        session.offset = held;
        Ok(())
    }

    /// Another way to send what the registry has refused, or its refusal where there is none.
    fn another_way(&self, way: Way, error: RegistryError) -> Result<Way, Failure> {
        let RegistryError::Status { status, detail, .. } = &error else {
            return Err(error.into());
        };
        let half = |piece: u64| piece.min(self.upload.size) / 2;
        let next = match (way, *status) {
            _ if detail.starts_with("digest invalid") => None,
            (Way::Whole, 413) => Some(Way::Pieces(LARGE_PIECE)),
            (Way::Whole, 400 | 404 | 405 | 411 | 415 | 416 | 501) => {
                Some(Way::Pieces(self.upload.size))
            }
            (Way::Pieces(piece), 413 | 416) if piece > LARGE_PIECE => {
                Some(Way::Pieces(LARGE_PIECE))
            }
            (Way::Pieces(piece), 413) if half(piece) >= SMALL_PIECE => {
                Some(Way::Pieces(half(piece)))
            }
            _ => None,
        };
        next.ok_or_else(|| error.into())
    }

    fn follow(&self, session: &mut Session, answer: &Answer) -> Result<(), Failure> {
        let next = location(&self.object, &answer.url, &answer.response)?;
        session.own = session.own && answer.own && next.same_origin(&self.pushing.shared.base);
        session.url = next;
        Ok(())
    }

    /// Bytes held, as `Range: 0-<last>` tells.
    fn held(&self, answer: &Answer) -> Result<Option<u64>, Failure> {
        let Some(text) = answer.response.head.header("range") else {
            return Ok(None);
        };
        match parse_range(text) {
            Some(held) => Ok(Some(held)),
            None => Err(self.nonsense(answer).into()),
        }
    }

    fn nonsense(&self, answer: &Answer) -> RegistryError {
        let range = answer.response.head.header("range").unwrap_or("");
        RegistryError::Status {
            object: self.object.clone(),
            host: answer.host.clone(),
            status: answer.response.head.status,
            detail: format!(
                "it says that it holds the bytes \"{}\" of {}",
                quote(range),
                self.upload.size
            ),
        }
    }

    fn ask(
        &self,
        method: Method,
        url: &Url,
        trusted: bool,
        headers: &[(&str, &str)],
        content: Content<'_>,
        good: &[u16],
    ) -> Result<Answer, Failure> {
        let ask = Ask {
            method,
            url,
            trusted,
            scope: self.pushing.scope,
            headers,
            content,
            good,
            asked: Asked::Push {
                object: &self.object,
                repository: self.pushing.named,
            },
        };
        self.pushing.shared.ask(ask, self.cancel)
    }
}

/// The URL that ends a session.
fn closing(url: &Url, digest: &Digest) -> Url {
    let separator = if url.target.contains('?') { '&' } else { '?' };
    let digest = encode_query(&digest.to_string());
    Url {
        target: format!("{}{separator}digest={digest}", url.target),
        ..url.clone()
    }
}

/// The number of bytes in `0-<last>`; "0-0" is what registries say of nothing as well as of one byte: nothing is safe to assume.
pub(crate) fn parse_range(text: &str) -> Option<u64> {
    let text = text.trim();
    let (start, last) = text
        .strip_prefix("bytes=")
        .unwrap_or(text)
        .split_once('-')?;
    let (start, last): (u64, u64) = (start.parse().ok()?, last.parse().ok()?);
    match (start, last) {
        (0, 0) => Some(0),
        (0, last) => last.checked_add(1),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        for (text, expected) in [
            ("0-9", Some(10)),
            ("bytes=0-9", Some(10)),
            ("0-0", Some(0)),
            ("0--1", None),
            ("1-5", None),
            ("0-18446744073709551615", None),
            ("0", None),
            ("", None),
        ] {
            assert_eq!(parse_range(text), expected, "{text}");
        }
    }

    #[test]
    fn sessions_are_closed_with_the_digest() {
        let digest = Digest::of(b"");
        for (location, expected) in [
            (
                "http://h/v2/a/blobs/uploads/1",
                "/v2/a/blobs/uploads/1?digest=sha256%3A",
            ),
            ("http://h/u?_state=x", "/u?_state=x&digest=sha256%3A"),
        ] {
            let url = closing(&Url::parse(location).unwrap(), &digest);
            assert!(url.target.starts_with(expected), "{}", url.target);
        }
    }
}
