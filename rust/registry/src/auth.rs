//! Credentials and tokens (the token authentication that Docker's registry documents).
//!
//! A token is kept per scope until shortly before it expires. Nothing here decides where a
//! request goes: [`crate::exchange`] sends what [`Auth::header`] and [`Auth::answer`] return
//! to the registry's own origin and nowhere else; the token server gets the
//! credentials themselves, over https or loopback only.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use crate::challenge::{self, Challenge};
use crate::error::{Failure, RegistryError, quote};
use crate::http::{Cancel, Client, Content, Method, Request, Response, Url, encode_query};
use crate::refusal::{self, Asked};

const MAX_ANSWER: usize = 1 << 20;
const MAX_TOKEN: usize = 64 * 1024;
/// What a token lives where the server does not say (the specification's number), and at most.
const DEFAULT_LIFE: u64 = 60;
const MAX_LIFE: u64 = 3600;
/// Docker's sign for "the password is an identity token".
const IDENTITY_USER: &str = "<token>";
/// Ours for "the password is a token of the registry's own", which clients call `registrytoken`.
const REGISTRY_USER: &str = "<registry-token>";
const MAX_REDIRECTS: usize = 3;

#[derive(Clone)]
pub(crate) enum Credentials {
    Anonymous,
    Basic {
        username: String,
        password: String,
    },
    Identity(String),
    /// What a token server would have given: for the registry itself, and nobody else.
    Token(String),
}

impl Credentials {
    pub(crate) fn new(username: &str, password: &str) -> Self {
        match (username, password) {
            ("", "") => Self::Anonymous,
            (IDENTITY_USER, token) => Self::Identity(token.to_owned()),
            (REGISTRY_USER, token) => Self::Token(token.to_owned()),
            _ => Self::Basic {
                username: username.to_owned(),
                password: password.to_owned(),
            },
        }
    }
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Anonymous => "Anonymous",
            Self::Basic { .. } => "Basic(..)",
            Self::Identity(_) => "Identity(..)",
            Self::Token(_) => "Token(..)",
        })
    }
}

#[derive(Debug)]
pub(crate) struct Auth {
    credentials: Credentials,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// The registry asked for basic authentication once: send it right away from then on.
    basic: bool,
    tokens: HashMap<String, (String, Instant)>,
    identity: Option<String>,
}

impl std::fmt::Debug for Known {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Known {{ basic: {}, tokens: {} }}",
            self.basic,
            self.tokens.len()
        )
    }
}

/// Who asks for what, for requests and messages.
#[derive(Clone, Copy)]
pub(crate) struct Context<'a> {
    pub(crate) client: &'a Client,
    pub(crate) registry: &'a Url,
    pub(crate) scope: &'a Scope,
    pub(crate) asked: Asked<'a>,
    pub(crate) cancel: &'a Cancel,
}

/// What a token is to be good for: "repository:a/b:pull,push" and the like. A token is kept for each scope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Scope {
    wanted: Vec<String>,
    /// Ask for all of it, whatever smaller scope a registry's challenge names.
    whole: bool,
}

impl Scope {
    pub(crate) fn pull(name: &str) -> Self {
        Self {
            wanted: vec![format!("repository:{name}:pull")],
            whole: false,
        }
    }

    /// To push to a repository, mounting blobs from others.
    pub(crate) fn push<'a>(name: &str, sources: impl IntoIterator<Item = &'a str>) -> Self {
        let mut wanted = vec![format!("repository:{name}:pull,push")];
        wanted.extend(
            sources
                .into_iter()
                .map(|source| format!("repository:{source}:pull")),
        );
        wanted.dedup();
        Self {
            wanted,
            whole: true,
        }
    }

    /// For nothing in particular: to see whether credentials are good.
    pub(crate) fn login() -> Self {
        Self {
            wanted: Vec::new(),
            whole: true,
        }
    }

    fn key(&self) -> String {
        self.wanted.join(" ")
    }

    /// The scopes to ask a token server for, given the one in a challenge.
    fn asked<'a>(&'a self, challenge: &'a str) -> Vec<&'a str> {
        let mut scopes: Vec<&str> = self.wanted.iter().map(String::as_str).collect();
        if challenge.is_empty() {
            return scopes;
        }
        if !self.whole {
            return vec![challenge];
        }
        let known = |one: &str| self.wanted.iter().any(|wanted| covers(wanted, one));
        scopes.extend(
            challenge
                .split(' ')
                .filter(|one| !one.is_empty() && !known(one)),
        );
        scopes
    }
}

/// Whether "repository:a:pull,push" holds all that "repository:a:pull" does.
fn covers(wanted: &str, one: &str) -> bool {
    match (wanted.rsplit_once(':'), one.rsplit_once(':')) {
        (Some((name, actions)), Some((other, asked))) => {
            name == other
                && asked
                    .split(',')
                    .all(|action| actions.split(',').any(|held| held == action))
        }
        _ => false,
    }
}

#[derive(Deserialize)]
struct TokenAnswer {
    #[serde(default)]
    token: String,
    #[serde(default)]
    access_token: String,
    #[serde(default)]
    refresh_token: String,
    expires_in: Option<f64>,
}

impl Auth {
    pub(crate) fn new(credentials: Credentials) -> Self {
        Self {
            credentials,
            known: Mutex::default(),
        }
    }

    /// The Authorization header to begin with, where one is known.
    pub(crate) fn header(&self, scope: &Scope) -> Option<String> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((token, until)) = known.tokens.get(&scope.key())
            && *until > Instant::now()
        {
            return Some(format!("Bearer {token}"));
        }
        if known.basic { self.basic() } else { None }
    }

    /// The Authorization header that answers a 401, which `sent` did not satisfy.
    pub(crate) fn answer(
        &self,
        context: Context<'_>,
        response: &mut Response,
        sent: Option<&str>,
    ) -> Result<String, Failure> {
        let challenges: Vec<Challenge> = response
            .head
            .all("www-authenticate")
            .flat_map(challenge::parse)
            .collect();
        let detail = refusal::detail(response);
        let repository = context.asked.repository().to_owned();
        let bearer = challenges.iter().find(|challenge| {
            challenge.scheme == "bearer" && challenge.parameter("realm").is_some()
        });
        if let Some(challenge) = bearer {
            let token = match &self.credentials {
                Credentials::Token(token) if sent == Some(&format!("Bearer {token}")) => {
                    return Err(RegistryError::BadCredentials {
                        server: context.registry.authority(),
                        repository,
                        detail,
                    }
                    .into());
                }
                Credentials::Token(token) => {
                    self.keep(context.scope, token, Duration::from_secs(MAX_LIFE));
                    token.clone()
                }
                _ => self.fetch(context, challenge)?,
            };
            return Ok(format!("Bearer {token}"));
        }
        let basic = challenges
            .iter()
            .any(|challenge| challenge.scheme == "basic");
        match self.basic() {
            Some(header) if basic && sent == Some(header.as_str()) => {
                Err(RegistryError::BadCredentials {
                    server: context.registry.authority(),
                    repository,
                    detail,
                }
                .into())
            }
            Some(header) if basic => {
                self.known
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .basic = true;
                Ok(header)
            }
            _ => {
                let detail = if basic {
                    "no basic auth credentials".to_owned()
                } else {
                    detail
                };
                Err(refusal::denied(context.asked, true, detail).into())
            }
        }
    }

    /// What the token server gave beside a token, for a login to keep.
    pub(crate) fn identity(&self) -> Option<String> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.identity.clone()
    }

    fn basic(&self) -> Option<String> {
        match &self.credentials {
            Credentials::Basic { username, password } => Some(format!(
                "Basic {}",
                STANDARD.encode(format!("{username}:{password}"))
            )),
            _ => None,
        }
    }

    fn fetch(&self, context: Context<'_>, challenge: &Challenge) -> Result<String, Failure> {
        let realm = self.realm(context, challenge.parameter("realm").unwrap_or(""))?;
        let scopes = context
            .scope
            .asked(challenge.parameter("scope").unwrap_or(""));
        // A POST has one scope parameter, a GET as many as there are (Docker's token specifications).
        let joined = scopes.join(" ");
        let mut pairs: Vec<(&str, &str)> = match &self.credentials {
            Credentials::Identity(_) => vec![("scope", &joined)],
            _ => scopes.iter().map(|scope| ("scope", *scope)).collect(),
        };
        pairs.extend(challenge.parameter("service").map(|name| ("service", name)));
        let mut response = match &self.credentials {
            Credentials::Identity(token) => {
                pairs.push(("grant_type", "refresh_token"));
                pairs.push(("client_id", "knarr"));
                pairs.push(("refresh_token", token));
                send(context, realm.clone(), None, Some(&encode(&pairs)))?
            }
            other => {
                if let Credentials::Basic { username, .. } = other {
                    pairs.push(("account", username));
                    if context.asked.is_login() {
                        pairs.extend([("client_id", "knarr"), ("offline_token", "true")]);
                    }
                }
                let separator = if realm.target.contains('?') { '&' } else { '?' };
                let target = format!("{}{separator}{}", realm.target, encode(&pairs));
                let url = Url {
                    target,
                    ..realm.clone()
                };
                send(context, url, self.basic().as_deref(), None)?
            }
        };
        let (token, life) = self.read_token(context, &realm, &mut response)?;
        self.keep(context.scope, &token, life);
        Ok(token)
    }

    /// Requests of that scope begin with the token from now on.
    fn keep(&self, scope: &Scope, token: &str, life: Duration) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.tokens.retain(|_, (_, until)| *until > Instant::now());
        let until = Instant::now() + life;
        known.tokens.insert(scope.key(), (token.to_owned(), until));
    }

    /// The token server's URL, where what we would send may go there.
    fn realm(&self, context: Context<'_>, text: &str) -> Result<Url, Failure> {
        let withheld = |cause| {
            let host = context.registry.authority();
            Failure::Final(RegistryError::CredentialsWithheld {
                host,
                realm: quote(text),
                cause,
            })
        };
        let realm = Url::parse(text).map_err(withheld)?;
        // A registry that the caller speaks plain http with has nothing to lose by a token server of its own on plain http.
        let anonymous = matches!(self.credentials, Credentials::Anonymous);
        let plain = !context.registry.https;
        let same = plain && realm.host.eq_ignore_ascii_case(&context.registry.host);
        if realm.https || realm.is_loopback() || same || (anonymous && plain) {
            Ok(realm)
        } else {
            Err(withheld("it is neither https nor on this machine"))
        }
    }

    fn read_token(
        &self,
        context: Context<'_>,
        realm: &Url,
        response: &mut Response,
    ) -> Result<(String, Duration), Failure> {
        let host = realm.authority();
        let object = context.asked.repository().to_owned();
        let status = response.head.status;
        match status {
            200 => {}
            400 | 401 | 403 => {
                let detail = refusal::detail(response);
                return Err(Failure::Final(match self.credentials {
                    Credentials::Anonymous => refusal::denied(context.asked, true, detail),
                    _ => RegistryError::BadCredentials {
                        server: realm.to_string(),
                        repository: object,
                        detail,
                    },
                }));
            }
            _ => {
                let asked = Asked::Manifest {
                    object: &object,
                    repository: &object,
                };
                return Err(refusal::failure(asked, &host, false, response));
            }
        }
        let kind = quote(
            response
                .head
                .header("content-type")
                .unwrap_or("no content type"),
        );
        let mut body = Vec::new();
        let complete = response
            .body
            .read_up_to(MAX_ANSWER, &mut body)
            .map_err(|trouble| refusal::trouble(&object, &host, trouble))?;
        let answer: Option<TokenAnswer> = if complete {
            serde_json::from_slice(&body).ok()
        } else {
            None
        };
        let not_a_token = |found| RegistryError::NotARegistry {
            object: object.clone(),
            host: host.clone(),
            found,
            wanted: "a token",
        };
        let Some(answer) = answer else {
            return Err(not_a_token(kind).into());
        };
        let usable = |token: &str| {
            token.len() <= MAX_TOKEN && token.bytes().all(|byte| byte.is_ascii_graphic())
        };
        if context.asked.is_login()
            && !answer.refresh_token.is_empty()
            && usable(&answer.refresh_token)
        {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            known.identity = Some(answer.refresh_token);
        }
        let token = if answer.token.is_empty() {
            answer.access_token
        } else {
            answer.token
        };
        if token.is_empty() || !usable(&token) {
            return Err(not_a_token("JSON without a usable token".to_owned()).into());
        }
        // The cast saturates, and takes NaN for 0.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let seconds = answer
            .expires_in
            .map_or(DEFAULT_LIFE, |seconds| seconds as u64)
            .clamp(DEFAULT_LIFE, MAX_LIFE);
        Ok((token, Duration::from_secs(seconds - seconds / 10)))
    }
}

/// One request to the token server; redirects are followed on its own origin only.
fn send(
    context: Context<'_>,
    mut url: Url,
    basic: Option<&str>,
    form: Option<&str>,
) -> Result<Response, Failure> {
    let repository = context.asked.repository();
    let mut headers = vec![("Accept", "application/json")];
    headers.extend(basic.map(|value| ("Authorization", value)));
    for _ in 0..=MAX_REDIRECTS {
        let request = Request {
            method: if form.is_some() {
                Method::Post
            } else {
                Method::Get
            },
            url: &url,
            headers: &headers,
            content: form.map_or(Content::Nothing, Content::Form),
        };
        let response = context
            .client
            .send(&request, context.cancel)
            .map_err(|trouble| refusal::trouble(repository, &url.authority(), trouble))?;
        if !matches!(response.head.status, 301 | 302 | 303 | 307 | 308) {
            return Ok(response);
        }
        let location = response.head.header("location").unwrap_or("");
        let refused = |cause| {
            let (from, to) = (url.to_string(), quote(location));
            Failure::Final(RegistryError::Redirect {
                object: repository.to_owned(),
                from,
                to,
                cause,
            })
        };
        let next = url.join(location).map_err(refused)?;
        if form.is_some() || !next.same_origin(&url) {
            return Err(refused(
                "a token server may not send credentials on to another server",
            ));
        }
        url = next;
    }
    let (from, to) = (url.to_string(), url.to_string());
    Err(RegistryError::Redirect {
        object: repository.to_owned(),
        from,
        to,
        cause: "there are too many",
    }
    .into())
}

/// Pairs as a query or form.
fn encode(pairs: &[(&str, &str)]) -> String {
    let pairs: Vec<_> = pairs
        .iter()
        .map(|(name, value)| format!("{name}={}", encode_query(value)))
        .collect();
    pairs.join("&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_that_are_asked_for() {
        let pull = Scope::pull("a/b");
        assert_eq!(pull.asked(""), ["repository:a/b:pull"]);
        assert_eq!(pull.asked("repository:x:pull"), ["repository:x:pull"]);
        let push = Scope::push("a/b", ["c", "c"]);
        let own = ["repository:a/b:pull,push", "repository:c:pull"];
        for challenge in [
            "",
            "repository:a/b:pull",
            "repository:a/b:push,pull",
            "repository:c:pull repository:a/b:push",
        ] {
            assert_eq!(push.asked(challenge), own, "{challenge}");
        }
        for more in ["repository:a/b:delete", "registry:catalog:*", "nonsense"] {
            assert_eq!(push.asked(more), [own[0], own[1], more]);
        }
        assert!(Scope::login().asked("").is_empty());
    }
}
