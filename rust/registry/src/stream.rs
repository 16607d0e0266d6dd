//! [`BlobStream`]: one blob as a reader that mends its connection.
//!
//! A broken or silent connection is opened again with `Range` from the byte where it stopped; a
//! server that ignores `Range` is read from its beginning, and what came before is passed over.
//! Five attempts in a row without progress end it. What can't be mended by asking again
//! (another size than promised, an answer that is no blob) ends it at once.

use std::io::{self, Read};
use std::sync::Arc;

use knarr_store::{Digest, LayerStream, StoreError};

use crate::error::{Failure, RegistryError, quote};
use crate::exchange::{Answer, Get, Retries, Shared};
use crate::http::{Body, Cancel, Trouble};
use crate::manifest::is_html;
use crate::refusal::{self, Asked};
use crate::registry::into_store;

const ATTEMPTS: u32 = 5;
/// So much new data makes the earlier failures forgotten.
const PROGRESS: u64 = 1 << 20;

/// The bytes of one blob from an offset on; not verified, as the digest is of the whole.
#[derive(Debug)]
pub struct BlobStream {
    shared: Arc<Shared>,
    name: String,
    /// `host/repository`, and with the digest.
    repository: String,
    object: String,
    digest: Digest,
    size: Option<u64>,
    position: u64,
    source: Option<Source>,
    retries: Retries,
    /// Where the last failure was.
    failed_at: u64,
    cancel: Cancel,
}

#[derive(Debug)]
struct Source {
    body: Body,
    host: String,
}

impl BlobStream {
    pub(crate) fn open(
        shared: Arc<Shared>,
        host: &str,
        name: &str,
        digest: Digest,
        size: Option<u64>,
        offset: u64,
        cancel: Cancel,
    ) -> Result<Self, RegistryError> {
        let repository = format!("{host}/{name}");
        let object = format!("{repository}@{digest}");
        let retries = Retries::new(ATTEMPTS);
        let mut stream = Self {
            shared,
            name: name.to_owned(),
            repository,
            object,
            digest,
            size,
            position: offset,
            source: None,
            retries,
            failed_at: offset,
            cancel,
        };
        if size.is_none_or(|size| offset < size) {
            stream.connect()?;
        }
        Ok(stream)
    }

    /// The size of the whole blob where the caller or the registry told it.
    #[must_use]
    pub fn size(&self) -> Option<u64> {
        self.size
    }

    /// The next bytes; 0 at the end of the blob.
    pub fn next(&mut self, out: &mut [u8]) -> Result<usize, RegistryError> {
        if out.is_empty() {
            return Ok(0);
        }
        loop {
            let Some(source) = self.source.as_mut() else {
                if self.size.is_some_and(|size| self.position >= size) {
                    return Ok(0);
                }
                self.connect()?;
                continue;
            };
            if self.cancel.is_set() {
                return Err(RegistryError::Cancelled);
            }
            match source.body.read(out) {
                Ok(0) => {
                    let short = self.size.is_some_and(|size| self.position < size);
                    let host = self
                        .source
                        .take()
                        .map(|source| source.host)
                        .unwrap_or_default();
                    if !short {
                        self.size = Some(self.position);
                        return Ok(0);
                    }
                    let cause = io::Error::new(io::ErrorKind::UnexpectedEof, "it ended early");
                    self.failed(&host, Trouble::Broken(cause))?;
                }
                Ok(count) => {
                    self.position += count as u64;
                    if let Some(size) = self.size.filter(|&size| self.position > size) {
                        return Err(self.wrong_size(size, &format!("more than {size}")));
                    }
                    if self.position - self.failed_at >= PROGRESS {
                        self.retries.reset();
                    }
                    return Ok(count);
                }
                Err(trouble) => {
                    let host = self
                        .source
                        .take()
                        .map(|source| source.host)
                        .unwrap_or_default();
                    self.failed(&host, trouble)?;
                }
            }
        }
    }

    fn failed(&mut self, host: &str, trouble: Trouble) -> Result<(), RegistryError> {
        self.failed_at = self.position;
        let failure = match refusal::trouble(&self.object, host, trouble) {
            Failure::Transient(
                RegistryError::Unreachable {
                    object,
                    host,
                    cause,
                },
                wait,
            ) => {
                let of = self
                    .size
                    .map(|size| format!(" of {size}"))
                    .unwrap_or_default();
                let cause = format!("{cause} (after {} bytes{of})", self.position);
                Failure::Transient(
                    RegistryError::Unreachable {
                        object,
                        host,
                        cause,
                    },
                    wait,
                )
            }
            other => other,
        };
        self.retries.pause(failure, &self.cancel)
    }

    /// Open the body at the present position, in as many attempts as are left.
    fn connect(&mut self) -> Result<(), RegistryError> {
        loop {
            match self.attempt() {
                Ok(source) => {
                    self.source = Some(source);
                    return Ok(());
                }
                Err(failure) => self.retries.pause(failure, &self.cancel)?,
            }
        }
    }

    fn attempt(&mut self) -> Result<Source, Failure> {
        let path = format!("blobs/{}", self.digest);
        let asked = Asked::Blob {
            object: &self.object,
            repository: &self.repository,
        };
        let get = Get {
            name: &self.name,
            path: &path,
            accept: "*/*",
            offset: self.position,
            asked,
        };
        let answer = match self.shared.get(get, &self.cancel) {
            Err(Failure::Final(RegistryError::Status { status: 416, .. })) => {
                let promised = self.size.unwrap_or(self.position.saturating_add(1));
                return Err(self
                    .wrong_size(promised, &format!("no more than {}", self.position))
                    .into());
            }
            other => other?,
        };
        let skip = self.check(&answer)?;
        let Answer { response, host, .. } = answer;
        let mut source = Source {
            body: response.body,
            host,
        };
        self.skip(&mut source, skip)?;
        Ok(source)
    }

    /// Hold the head of an answer against what is known: the number of bytes to pass over.
    fn check(&mut self, answer: &Answer) -> Result<u64, RegistryError> {
        let head = &answer.response.head;
        let kind = head.header("content-type").unwrap_or("");
        if is_html(kind) {
            let (object, host) = (self.object.clone(), answer.host.clone());
            return Err(RegistryError::NotARegistry {
                object,
                host,
                found: quote(kind),
                wanted: "a blob",
            });
        }
        if let Some(coding) = head
            .header("content-encoding")
            .filter(|coding| !coding.eq_ignore_ascii_case("identity"))
        {
            let what = format!(
                "the content coding \"{}\", which {} applies unasked,",
                quote(coding),
                answer.host
            );
            return Err(RegistryError::Unsupported {
                object: self.object.clone(),
                what,
                hint: "",
            });
        }
        let (start, total) = if head.status == 206 {
            let range = head.header("content-range").and_then(parse_content_range);
            let Some((start, total)) = range.filter(|(start, _)| *start <= self.position) else {
                let detail = "the range it sends is not the one that was asked for".to_owned();
                return Err(RegistryError::Status {
                    object: self.object.clone(),
                    host: answer.host.clone(),
                    status: 206,
                    detail,
                });
            };
            (start, total)
        } else {
            (0, answer.response.body.remaining())
        };
        match (self.size, total) {
            (Some(size), Some(total)) if size != total => {
                return Err(self.wrong_size_at(&answer.host, size, &total.to_string()));
            }
            (None, Some(total)) => self.size = Some(total),
            _ => {}
        }
        Ok(self.position - start)
    }

    fn skip(&self, source: &mut Source, mut count: u64) -> Result<(), Failure> {
        let mut ignored = vec![0; usize::try_from(count.min(64 * 1024)).unwrap_or(0)];
        while count > 0 {
            let want = usize::try_from(count)
                .unwrap_or(usize::MAX)
                .min(ignored.len());
            match source.body.read(&mut ignored[..want]) {
                Ok(0) => {
                    return Err(self
                        .wrong_size(
                            self.position + 1,
                            &format!("no more than {}", self.position - count),
                        )
                        .into());
                }
                Ok(read) => count -= read as u64,
                Err(trouble) => return Err(refusal::trouble(&self.object, &source.host, trouble)),
            }
        }
        Ok(())
    }

    fn wrong_size(&self, expected: u64, found: &str) -> RegistryError {
        let host = self.source.as_ref().map_or_else(
            || self.shared.base.authority(),
            |source| source.host.clone(),
        );
        self.wrong_size_at(&host, expected, found)
    }

    fn wrong_size_at(&self, host: &str, expected: u64, found: &str) -> RegistryError {
        RegistryError::WrongSize {
            object: self.object.clone(),
            host: host.to_owned(),
            expected,
            found: found.to_owned(),
        }
    }
}

impl Read for BlobStream {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.next(out).map_err(io::Error::other)
    }
}

impl LayerStream for BlobStream {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, StoreError> {
        self.next(buffer).map_err(into_store)
    }
}

/// `bytes 5-9/10`: the first byte's position and the whole size, which may be `*`.
pub(crate) fn parse_content_range(text: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (start, end) = range.split_once('-')?;
    let (start, end): (u64, u64) = (start.trim().parse().ok()?, end.trim().parse().ok()?);
    let total = if total.trim() == "*" {
        None
    } else {
        Some(total.trim().parse().ok()?)
    };
    (start <= end && total.is_none_or(|total| end < total)).then_some((start, total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_ranges() {
        for (text, expected) in [
            ("bytes 5-9/10", Some((5, Some(10)))),
            ("bytes 0-0/*", Some((0, None))),
            ("bytes 5-9/9", None),
            ("bytes 9-5/10", None),
            ("bytes */10", None),
            ("bytes -5/10", None),
            ("5-9/10", None),
            ("", None),
        ] {
            assert_eq!(parse_content_range(text), expected, "{text}");
        }
    }
}
