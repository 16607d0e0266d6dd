//! One request with everything around it: redirects, challenges, and the retries of short requests.

use std::thread;
use std::time::{Duration, Instant};

use crate::auth::{Auth, Context, Scope};
use crate::error::{Failure, RegistryError, quote};
use crate::http::{Cancel, Client, Content, Method, Request, Response, Url};
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

/// One request of any kind. Where its URL leads away from the registry it goes without authorization.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ask<'a> {
    pub(crate) method: Method,
    pub(crate) url: &'a Url,
    /// Whether nobody but the registry itself has named the URL.
    pub(crate) trusted: bool,
    pub(crate) scope: &'a Scope,
    pub(crate) headers: &'a [(&'a str, &'a str)],
    pub(crate) content: Content<'a>,
    /// The statuses that are a success.
    pub(crate) good: &'a [u16],
    pub(crate) asked: Asked<'a>,
}

/// A successful answer, and the URL and the host that gave it.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) response: Response,
    pub(crate) url: Url,
    pub(crate) host: String,
    /// Whether that was the registry itself, and no redirect had led away from it.
    pub(crate) own: bool,
}

impl Shared {
    /// The URL of a path below the registry's own origin.
    pub(crate) fn url(&self, target: String) -> Url {
        Url {
            target,
            ..self.base.clone()
        }
    }

    /// One attempt to read something.
    pub(crate) fn get(&self, get: Get<'_>, cancel: &Cancel) -> Result<Answer, Failure> {
        let range = format!("bytes={}-", get.offset);
        let mut headers = vec![("Accept", get.accept)];
        if get.offset > 0 {
            headers.push(("Range", &range));
        }
        let ask = Ask {
            method: Method::Get,
            url: &self.url(format!("/v2/{}/{}", get.name, get.path)),
            trusted: true,
            scope: &Scope::pull(get.name),
            headers: &headers,
            content: Content::Nothing,
            good: &[200, 206],
            asked: get.asked,
        };
        self.ask(ask, cancel)
    }

    /// One attempt. Authorization goes to the registry's own origin only, and no more once a redirect has left it.
    pub(crate) fn ask(&self, ask: Ask<'_>, cancel: &Cancel) -> Result<Answer, Failure> {
        let object = ask.asked.object();
        let mut url = ask.url.clone();
        let mut own = ask.trusted && url.same_origin(&self.base);
        let mut authorization = self.auth.header(ask.scope);
        let (mut redirects, mut challenges) = (0, 0);
        loop {
            let mut headers = ask.headers.to_vec();
            if own && let Some(value) = &authorization {
                headers.push(("Authorization", value));
            }
            let request = Request {
                method: ask.method,
                url: &url,
                headers: &headers,
                content: ask.content,
            };
            let mut response = self
                .client
                .send(&request, cancel)
                .map_err(|trouble| refusal::trouble(object, &url.authority(), trouble))?;
            match response.head.status {
                status if ask.good.contains(&status) => {
                    let host = url.authority();
                    return Ok(Answer {
                        response,
                        url,
                        host,
                        own,
                    });
                }
                status @ (301 | 302 | 303 | 307 | 308)
                    if ask.method.reads() || matches!(status, 307 | 308) =>
                {
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
                        scope: ask.scope,
                        asked: ask.asked,
                        cancel,
                    };
                    let answer =
                        self.auth
                            .answer(context, &mut response, authorization.as_deref())?;
                    authorization = Some(answer);
                }
                _ => {
                    return Err(refusal::failure(
                        ask.asked,
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
    if count > MAX_REDIRECTS {
        let cause = "there are more than 10 in a row";
        return Err(refused(object, url, response, cause).into());
    }
    location(object, url, response)
}

/// Where the `Location` of an answer leads: from https never to plain http.
pub(crate) fn location(object: &str, url: &Url, response: &Response) -> Result<Url, Failure> {
    let text = response.head.header("location").unwrap_or("");
    if text.is_empty() {
        return Err(refused(object, url, response, "it has no Location").into());
    }
    let next = url
        .join(text)
        .map_err(|cause| refused(object, url, response, cause))?;
    if url.https && !next.https {
        return Err(refused(object, url, response, "it leads from https to plain http").into());
    }
    Ok(next)
}

fn refused(object: &str, url: &Url, response: &Response, cause: &'static str) -> RegistryError {
    let to = response.head.header("location").unwrap_or("");
    RegistryError::Redirect {
        object: object.to_owned(),
        from: url.to_string(),
        to: quote(to.split('?').next().unwrap_or("")),
        cause,
    }
}

/// Failing to drain costs a connection and nothing else: the next request makes its own.
pub(crate) fn drain(response: &mut Response) {
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
