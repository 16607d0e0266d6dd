//! One GET with everything around it: redirects, challenges, and the retries of short requests.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::auth::{Auth, Context};
use crate::error::{Failure, RegistryError, quote};
use crate::http::{Cancel, Client, Request, Response, Url};
use crate::refusal::{self, Asked};

const MAX_REDIRECTS: usize = 10;
/// A first answer with a stale token, then one with a token of too small a scope.
const MAX_CHALLENGES: usize = 2;
/// So much of a body that nobody wants is read so that its connection can be used again.
const DRAIN: usize = 16 * 1024;
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const MAX_PAUSE: Duration = Duration::from_secs(5);

/// What every request of one registry shares.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) base: Url,
    pub(crate) client: Client,
    pub(crate) auth: Auth,
}

/// What is asked for below `/v2/<name>/`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Get<'a> {
    pub(crate) name: &'a str,
    pub(crate) path: &'a str,
    pub(crate) accept: &'a str,
    /// The first byte wanted; 0 asks for everything.
    pub(crate) offset: u64,
    pub(crate) asked: Asked<'a>,
}

/// A successful answer and the host that gave it.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) response: Response,
    pub(crate) host: String,
}

impl Shared {
    /// One attempt. Authorization goes to the registry's own origin only, and no more once a redirect has left it.
    pub(crate) fn get(self: &Arc<Self>, get: Get<'_>, cancel: &Cancel) -> Result<Answer, Failure> {
        let object = get.asked.object();
        let mut url = Url {
            target: format!("/v2/{}/{}", get.name, get.path),
            ..self.base.clone()
        };
        let mut own = true;
        let mut authorization = self.auth.header(get.name);
        let (mut redirects, mut challenges) = (0, 0);
        let range = format!("bytes={}-", get.offset);
        loop {
            let mut headers = vec![("Accept", get.accept)];
            if get.offset > 0 {
                headers.push(("Range", &range));
            }
            if own && let Some(value) = &authorization {
                headers.push(("Authorization", value));
            }
            let request = Request {
                url: &url,
                headers: &headers,
                form: None,
            };
            let mut response = self
                .client
                .send(&request, cancel)
                .map_err(|trouble| refusal::trouble(object, &url.authority(), trouble))?;
            match response.head.status {
                200 | 206 => {
                    let host = url.authority();
                    return Ok(Answer { response, host });
                }
                301 | 302 | 303 | 307 | 308 => {
                    redirects += 1;
                    let next = redirect(object, &url, &response, redirects)?;
                    own = own && next.same_origin(&url);
                    url = next;
                    drain(&mut response);
                }
                401 if own && challenges < MAX_CHALLENGES => {
                    challenges += 1;
                    let context = Context {
                        client: &self.client,
                        registry: &self.base,
                        name: get.name,
                        repository: get.asked.repository(),
                        cancel,
                    };
                    let answer =
                        self.auth
                            .answer(context, &mut response, authorization.as_deref())?;
                    authorization = Some(answer);
                }
                _ => {
                    return Err(refusal::failure(
                        get.asked,
                        &url.authority(),
                        own,
                        &mut response,
                    ));
                }
            }
        }
    }
}

fn redirect(object: &str, url: &Url, response: &Response, count: usize) -> Result<Url, Failure> {
    let location = response.head.header("location").unwrap_or("");
    let refused = |cause| RegistryError::Redirect {
        object: object.to_owned(),
        from: url.to_string(),
        to: quote(location.split('?').next().unwrap_or("")),
        cause,
    };
    if count > MAX_REDIRECTS {
        return Err(refused("there are more than 10 in a row").into());
    }
    if location.is_empty() {
        return Err(refused("it has no Location").into());
    }
    let next = url.join(location).map_err(refused)?;
    if url.https && !next.https {
        return Err(refused("it leads from https to plain http").into());
    }
    Ok(next)
}

/// Failing to drain costs a connection and nothing else: the next request makes its own.
fn drain(response: &mut Response) {
    let mut ignored = Vec::new();
    if response.body.read_up_to(DRAIN, &mut ignored).is_err() {
        ignored.clear();
    }
}

/// Attempts left, with a pause that doubles from one to the next.
#[derive(Debug)]
pub(crate) struct Retries {
    made: u32,
    limit: u32,
}

impl Retries {
    pub(crate) fn new(limit: u32) -> Self {
        Self { made: 0, limit }
    }

    pub(crate) fn reset(&mut self) {
        self.made = 0;
    }

    /// Sleep before the next attempt, or give the failure back where it is final or was the last.
    pub(crate) fn pause(&mut self, failure: Failure, cancel: &Cancel) -> Result<(), RegistryError> {
        let (error, wait) = match failure {
            Failure::Final(error) => return Err(error),
            Failure::Transient(error, wait) => (error, wait),
        };
        self.made += 1;
        if self.made >= self.limit {
            return Err(error);
        }
        let pause = FIRST_PAUSE
            .saturating_mul(1 << (self.made - 1).min(10))
            .min(MAX_PAUSE);
        let until = Instant::now() + pause.max(wait);
        while let Some(left) = until
            .checked_duration_since(Instant::now())
            .filter(|left| !left.is_zero())
        {
            if cancel.is_set() {
                return Err(RegistryError::Cancelled);
            }
            thread::sleep(left.min(Duration::from_millis(100)));
        }
        Ok(())
    }
}
