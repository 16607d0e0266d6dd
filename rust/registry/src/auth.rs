//! Credentials and tokens (the token authentication that Docker's registry documents).
//!
//! A token is kept per repository until shortly before it expires. Nothing here decides where a
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
use crate::http::{Cancel, Client, Request, Response, Url, encode_query};
use crate::refusal;

const MAX_ANSWER: usize = 1 << 20;
const MAX_TOKEN: usize = 64 * 1024;
/// What a token lives where the server does not say (the specification's number), and at most.
const DEFAULT_LIFE: u64 = 60;
const MAX_LIFE: u64 = 3600;
/// Docker's sign for "the password is an identity token".
const IDENTITY_USER: &str = "<token>";
const MAX_REDIRECTS: usize = 3;

#[derive(Clone)]
pub(crate) enum Credentials {
    Anonymous,
    Basic { username: String, password: String },
    Identity(String),
}

impl Credentials {
    pub(crate) fn new(username: &str, password: &str) -> Self {
        match (username, password) {
            ("", "") => Self::Anonymous,
            (IDENTITY_USER, token) => Self::Identity(token.to_owned()),
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
    /// Without the host.
    pub(crate) name: &'a str,
    /// With the host.
    pub(crate) repository: &'a str,
    pub(crate) cancel: &'a Cancel,
}

#[derive(Deserialize)]
struct TokenAnswer {
    #[serde(default)]
    token: String,
    #[serde(default)]
    access_token: String,
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
    pub(crate) fn header(&self, name: &str) -> Option<String> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((token, until)) = known.tokens.get(name)
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
        let repository = context.repository.to_owned();
        let bearer = challenges.iter().find(|challenge| {
            challenge.scheme == "bearer" && challenge.parameter("realm").is_some()
        });
        if let Some(challenge) = bearer {
            let token = self.fetch(context, challenge)?;
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
            _ => Err(RegistryError::Denied {
                repository,
                unauthorized: true,
                detail,
            }
            .into()),
        }
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
        let own = format!("repository:{}:pull", context.name);
        let asked = challenge.parameter("scope");
        let scope = asked.filter(|scope| !scope.is_empty()).unwrap_or(&own);
        let mut pairs = vec![("scope", scope)];
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
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.tokens.retain(|_, (_, until)| *until > Instant::now());
        known.tokens.insert(
            context.name.to_owned(),
            (token.clone(), Instant::now() + life),
        );
        Ok(token)
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
        let object = context.repository.to_owned();
        let status = response.head.status;
        match status {
            200 => {}
            400 | 401 | 403 => {
                let detail = refusal::detail(response);
                return Err(Failure::Final(match self.credentials {
                    Credentials::Anonymous => RegistryError::Denied {
                        repository: object,
                        unauthorized: true,
                        detail,
                    },
                    _ => RegistryError::BadCredentials {
                        server: realm.to_string(),
                        repository: object,
                        detail,
                    },
                }));
            }
            _ => {
                let asked = refusal::Asked::Manifest {
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
        let token = if answer.token.is_empty() {
            answer.access_token
        } else {
            answer.token
        };
        if token.is_empty()
            || token.len() > MAX_TOKEN
            || !token.bytes().all(|byte| byte.is_ascii_graphic())
        {
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
    let mut headers = vec![("Accept", "application/json")];
    headers.extend(basic.map(|value| ("Authorization", value)));
    for _ in 0..=MAX_REDIRECTS {
        let request = Request {
            url: &url,
            headers: &headers,
            form,
        };
        let response = context
            .client
            .send(&request, context.cancel)
            .map_err(|trouble| refusal::trouble(context.repository, &url.authority(), trouble))?;
        if !matches!(response.head.status, 301 | 302 | 303 | 307 | 308) {
            return Ok(response);
        }
        let location = response.head.header("location").unwrap_or("");
        let refused = |cause| {
            let (from, to) = (url.to_string(), quote(location));
            Failure::Final(RegistryError::Redirect {
                object: context.repository.to_owned(),
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
        object: context.repository.to_owned(),
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
