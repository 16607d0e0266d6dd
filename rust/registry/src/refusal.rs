//! A registry's error answers in Docker's words (distribution specification, error codes).

use std::time::{Duration, SystemTime};

use serde::Deserialize;

use crate::error::{Failure, RegistryError, quote};
use crate::http::{Response, Trouble};

/// The longest Retry-After that is obeyed; a longer one ends the pull with the registry's words.
const MAX_WAIT: Duration = Duration::from_secs(60);
const MAX_BODY: usize = 64 * 1024;

/// Names what was asked for, in messages.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Asked<'a> {
    Manifest {
        object: &'a str,
        repository: &'a str,
    },
    Blob {
        object: &'a str,
        repository: &'a str,
    },
    /// A change: a blob or manifest on its way to a repository.
    Push {
        object: &'a str,
        repository: &'a str,
    },
    /// Whether credentials are good; the registry's URL.
    Login { server: &'a str },
    /// The search of a registry; its URL.
    Search { server: &'a str },
}

impl<'a> Asked<'a> {
    pub(crate) fn object(&self) -> &'a str {
        match self {
            Self::Manifest { object, .. }
            | Self::Blob { object, .. }
            | Self::Push { object, .. } => object,
            Self::Login { server } | Self::Search { server } => server,
        }
    }

    pub(crate) fn repository(&self) -> &'a str {
        match self {
            Self::Manifest { repository, .. }
            | Self::Blob { repository, .. }
            | Self::Push { repository, .. } => repository,
            Self::Login { server } | Self::Search { server } => server,
        }
    }

    pub(crate) fn is_login(&self) -> bool {
        matches!(self, Self::Login { .. })
    }
}

/// The error for a refusal that (other) credentials might change.
pub(crate) fn denied(asked: Asked<'_>, unauthorized: bool, detail: String) -> RegistryError {
    let repository = asked.repository().to_owned();
    match asked {
        Asked::Manifest { .. } | Asked::Blob { .. } => RegistryError::Denied {
            repository,
            unauthorized,
            detail,
        },
        Asked::Push { .. } => RegistryError::PushDenied {
            repository,
            unauthorized,
            detail,
        },
        Asked::Login { .. } | Asked::Search { .. } => RegistryError::BadCredentials {
            server: repository.clone(),
            repository,
            detail,
        },
    }
}

#[derive(Deserialize)]
struct Errors {
    errors: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

/// The reason that an error answer gives: its first coded error, or its text, or nothing but the status.
pub(crate) fn detail(response: &mut Response) -> String {
    let status = response.head.status;
    let mut body = Vec::new();
    // The status is answer enough: a reason that cannot be read is left out.
    if response.body.read_up_to(MAX_BODY, &mut body).is_err() {
        body.clear();
    }
    if let Ok(Errors { errors }) = serde_json::from_slice(&body)
        && let Some(entry) = errors
            .into_iter()
            .find(|entry| !entry.code.is_empty() || !entry.message.is_empty())
    {
        let code = entry.code.to_ascii_lowercase().replace('_', " ");
        return quote(&match (code.is_empty(), entry.message.is_empty()) {
            (false, false) => format!("{code}: {}", entry.message),
            (false, true) => code,
            _ => entry.message,
        });
    }
    let text = String::from_utf8_lossy(&body);
    let text = text.trim();
    let html = response
        .head
        .header("content-type")
        .is_some_and(|kind| kind.contains("html"))
        || text.starts_with('<');
    if text.is_empty() || html {
        reason(status).to_owned()
    } else {
        quote(text.lines().next().unwrap_or(""))
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        400 => "bad request",
        401 => "unauthorized",
        403 => "forbidden",
        404 => "not found",
        429 => "too many requests",
        500 => "internal server error",
        502 => "bad gateway",
        503 => "service unavailable",
        504 => "gateway timeout",
        _ => "no reason given",
    }
}

/// The error for an answer that is neither success, redirect nor a challenge we can meet.
pub(crate) fn failure(asked: Asked<'_>, host: &str, own: bool, response: &mut Response) -> Failure {
    let status = response.head.status;
    let wait = retry_after(response);
    let detail = detail(response);
    let object = asked.object().to_owned();
    let host = host.to_owned();
    match status {
        // A host that we were redirected to denies the link, not the repository.
        401 | 403 if own => Failure::Final(denied(asked, status == 401, detail)),
        404 if own => Failure::Final(match asked {
            Asked::Manifest { .. } => RegistryError::ManifestUnknown {
                object,
                detail: known(detail, "manifest unknown"),
            },
            Asked::Blob { .. } => RegistryError::BlobUnknown {
                object,
                detail: known(detail, "blob unknown"),
            },
            Asked::Push { .. } | Asked::Login { .. } | Asked::Search { .. } => {
                RegistryError::Status {
                    object,
                    host,
                    status,
                    detail,
                }
            }
        }),
        408 | 425 | 429 | 500 | 502..=504 => match wait {
            Some(wait) if wait > MAX_WAIT => Failure::Final(RegistryError::RateLimited {
                object,
                host,
                wait,
                detail,
            }),
            _ => Failure::Transient(
                RegistryError::Status {
                    object,
                    host,
                    status,
                    detail,
                },
                wait.unwrap_or_default(),
            ),
        },
        // An expired link of a content network: the registry gives a new one.
        401 | 403 | 404 | 410 => Failure::Transient(
            RegistryError::Status {
                object,
                host,
                status,
                detail,
            },
            Duration::ZERO,
        ),
        _ => Failure::Final(RegistryError::Status {
            object,
            host,
            status,
            detail,
        }),
    }
}

fn known(detail: String, otherwise: &str) -> String {
    if detail == "not found" {
        otherwise.to_owned()
    } else {
        detail
    }
}

/// The error for a request that got no (whole) answer.
pub(crate) fn trouble(object: &str, host: &str, trouble: Trouble) -> Failure {
    let error = |cause: String| RegistryError::Unreachable {
        object: object.to_owned(),
        host: host.to_owned(),
        cause,
    };
    match trouble {
        Trouble::Cancelled => Failure::Final(RegistryError::Cancelled),
        Trouble::Tls(cause) => Failure::Final(error(cause)),
        Trouble::Protocol(cause) => Failure::Final(error(cause.to_owned())),
        Trouble::Source(cause) => Failure::Final(RegistryError::Source {
            object: object.to_owned(),
            cause,
        }),
        other => Failure::Transient(error(other.to_string()), Duration::ZERO),
    }
}

/// The time that Retry-After asks for: seconds or a date.
fn retry_after(response: &Response) -> Option<Duration> {
    let text = response.head.header("retry-after")?;
    if let Ok(seconds) = text.parse::<u32>() {
        return Some(Duration::from_secs(seconds.into()));
    }
    let until = http_date(text)?;
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .ok()?
        .as_secs();
    Some(Duration::from_secs(until.saturating_sub(now)))
}

/// Seconds since the epoch of a date like `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110, section 5.6.7).
pub(crate) fn http_date(text: &str) -> Option<u64> {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let (_, date) = text.split_once(", ")?;
    let fields: Vec<&str> = date.split(' ').collect();
    let [day, month, year, time, "GMT"] = fields[..] else {
        return None;
    };
    let day: u64 = day.parse().ok()?;
    let month = MONTHS.iter().position(|&name| name == month)? as u64 + 1;
    let year: u64 = year
        .parse()
        .ok()
        .filter(|year| (1970..10_000).contains(year))?;
    let clock: Vec<u64> = time
        .split(':')
        .map(|part| part.parse().unwrap_or(u64::MAX))
        .collect();
    let [hour, minute, second] = clock[..] else {
        return None;
    };
    if !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    // Days by the civil calendar, years beginning in March.
    let (shifted, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let days =
        shifted * 365 + shifted / 4 - shifted / 100 + shifted / 400 + (153 * month + 2) / 5 + day
            - 1;
    let days = days.checked_sub(719_468)?;
    Some(days * 86_400 + hour * 3600 + minute * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        for (text, seconds) in [
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(784_111_777)),
            ("Thu, 01 Jan 1970 00:00:00 GMT", Some(0)),
            ("Thu, 29 Feb 2024 12:00:00 GMT", Some(1_709_208_000)),
            ("yesterday", None),
            ("Thu, 99 Jan 1970 00:00:00 GMT", None),
            ("Thu, 01 Jan 0000 00:00:00 GMT", None),
            ("Thu, 01 Jan 1970 aa:00:00 GMT", None),
        ] {
            assert_eq!(http_date(text), seconds, "{text}");
        }
    }
}
