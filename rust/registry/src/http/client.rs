//! Requests over pooled connections. One request is one exchange: no redirect, no retry on an
//! answer; only a request on a kept connection that had meanwhile been closed is sent again.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use super::connection::{Cancel, Connection, Patient, Trouble};
use super::head::{Framing, Head};
use super::proxy::Proxies;
use super::url::Url;
use super::{Body, tls};

/// Idle connections kept in all, and for how long.
const MAX_IDLE: usize = 16;
const IDLE_TIME: Duration = Duration::from_secs(50);
const AGENT: &str = concat!("knarr/", env!("CARGO_PKG_VERSION"));

/// So much of a file goes out at once.
const PIECE: usize = 128 * 1024;

/// One request, which can be sent again as often as it takes.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    pub(crate) method: Method,
    pub(crate) url: &'a Url,
    pub(crate) headers: &'a [(&'a str, &'a str)],
    pub(crate) content: Content<'a>,
}

/// The methods that a registry needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    Get,
    Head,
    Post,
    Put,
    Patch,
}

impl Method {
    fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
        }
    }

    /// Whether it only asks: redirects of it may be followed as they come.
    pub(crate) fn reads(self) -> bool {
        matches!(self, Self::Get | Self::Head)
    }
}

/// The body of a request.
#[derive(Clone, Copy)]
pub(crate) enum Content<'a> {
    Nothing,
    /// `application/x-www-form-urlencoded`.
    Form(&'a str),
    Bytes {
        kind: &'a str,
        bytes: &'a [u8],
    },
    /// A part of a file; `sent` is told after every piece how far into the file it came.
    Part {
        file: &'a File,
        offset: u64,
        length: u64,
        sent: &'a (dyn Fn(u64) + Sync),
    },
}

impl std::fmt::Debug for Content<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Nothing => f.write_str("Nothing"),
            Self::Form(_) => f.write_str("Form(..)"),
            Self::Bytes { kind, bytes } => write!(f, "Bytes({kind}, {})", bytes.len()),
            Self::Part { offset, length, .. } => write!(f, "Part({offset}, {length})"),
        }
    }
}

impl Content<'_> {
    fn kind_and_length(&self) -> Option<(&str, u64)> {
        match self {
            Self::Nothing => None,
            Self::Form(form) => Some(("application/x-www-form-urlencoded", form.len() as u64)),
            Self::Bytes { kind, bytes } => Some((kind, bytes.len() as u64)),
            Self::Part { length, .. } => Some(("application/octet-stream", *length)),
        }
    }

    /// Whether all of it was sent: a peer that answers before the end has had enough.
    fn send(&self, connection: &mut Connection) -> Result<bool, Trouble> {
        match *self {
            Self::Nothing => {}
            Self::Form(form) => connection.send(form.as_bytes())?,
            Self::Bytes { bytes, .. } => connection.send(bytes)?,
            Self::Part {
                file,
                mut offset,
                length,
                sent,
            } => {
                let end = offset + length;
                let mut buffer = vec![0; PIECE];
                while offset < end {
                    let want = usize::try_from(end - offset).map_or(PIECE, |left| left.min(PIECE));
                    let count = match file.read_at(&mut buffer[..want], offset) {
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                        Err(error) => return Err(Trouble::Source(error)),
                        Ok(0) => return Err(Trouble::Source(io::ErrorKind::UnexpectedEof.into())),
                        Ok(count) => count,
                    };
                    if connection.is_answered() {
                        return Ok(false);
                    }
                    connection.send(&buffer[..count])?;
                    offset += count as u64;
                    sent(offset);
                }
            }
        }
        Ok(true)
    }
}

/// The answer to a request: the head is read, the body is not.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) head: Head,
    pub(crate) body: Body,
}

/// Idle connections by origin.
#[derive(Debug, Default)]
pub(crate) struct Pool(Mutex<Vec<(String, Instant, Connection)>>);

impl Pool {
    pub(crate) fn put(&self, origin: String, connection: Connection) {
        if !connection.buffered().is_empty() {
            return; // bytes that nobody asked for: not to be taken for the next answer
        }
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|(_, since, _)| since.elapsed() < IDLE_TIME);
        if idle.len() >= MAX_IDLE {
            idle.remove(0);
        }
        idle.push((origin, Instant::now(), connection));
    }

    fn take(&self, origin: &str) -> Option<Connection> {
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|(_, since, _)| since.elapsed() < IDLE_TIME);
        let at = idle.iter().rposition(|(key, _, _)| key == origin)?;
        Some(idle.remove(at).2)
    }
}

/// The connections, TLS settings and proxies of one registry client.
#[derive(Debug)]
pub(crate) struct Client {
    pool: Arc<Pool>,
    proxies: Proxies,
    tls: OnceLock<Result<Arc<rustls::ClientConfig>, String>>,
    insecure_tls: bool,
    timeout: Duration,
}

impl Client {
    pub(crate) fn new(insecure_tls: bool, timeout: Duration) -> Self {
        Self {
            pool: Arc::default(),
            proxies: Proxies::from_environment(),
            tls: OnceLock::new(),
            insecure_tls,
            timeout,
        }
    }

    /// Send a request and read the head of the answer.
    pub(crate) fn send(&self, request: &Request<'_>, cancel: &Cancel) -> Result<Response, Trouble> {
        let origin = format!("{}://{}", request.url.scheme(), request.url.host_port());
        let message = self.message(request);
        if let Some(mut connection) = self.pool.take(&origin) {
            connection.adopt(self.timeout, cancel);
            match exchange(&mut connection, &message, &request.content) {
                // The peer closed it while it was idle: the request was not looked at. Of a part of a file it may have taken
                // some, though: whoever sends that asks first.
                Err(Trouble::Broken(_)) if !matches!(request.content, Content::Part { .. }) => {}
                Err(error) => return Err(error),
                Ok(head) => return self.respond(request.method, head, connection, origin),
            }
        }
        let mut connection = self.connect(request.url, cancel)?;
        let head = exchange(&mut connection, &message, &request.content)?;
        self.respond(request.method, head, connection, origin)
    }

    fn respond(
        &self,
        method: Method,
        head: Head,
        connection: Connection,
        origin: String,
    ) -> Result<Response, Trouble> {
        let framing = match method {
            Method::Head => Framing::Length(0),
            _ => head.framing()?,
        };
        let body = Body::new(
            connection,
            framing,
            head.keep_alive,
            origin,
            Arc::clone(&self.pool),
        );
        Ok(Response { head, body })
    }

    fn message(&self, request: &Request<'_>) -> Vec<u8> {
        let (url, method) = (request.url, request.method.name());
        let mut lines = Vec::with_capacity(12);
        // A plain-http proxy wants the whole URL; through a CONNECT tunnel the target goes as it is.
        match self.proxies.for_url(url) {
            Ok(Some(proxy)) if !url.https => {
                let (host, target) = (url.authority(), &url.target);
                lines.push(format!("{method} http://{host}{target} HTTP/1.1"));
                lines.extend(proxy.authorization_line());
            }
            _ => lines.push(format!("{method} {} HTTP/1.1", url.target)),
        }
        lines.push(format!("Host: {}", url.authority()));
        lines.push(format!("User-Agent: {AGENT}"));
        lines.push("Accept-Encoding: identity".to_owned());
        let fields = request.headers.iter();
        lines.extend(fields.map(|(name, value)| format!("{name}: {value}")));
        if let Some((kind, length)) = request.content.kind_and_length() {
            lines.push(format!("Content-Type: {kind}"));
            lines.push(format!("Content-Length: {length}"));
        } else if !request.method.reads() {
            lines.push("Content-Length: 0".to_owned());
        }
        lines.extend([String::new(), String::new()]);
        lines.join("\r\n").into_bytes()
    }

    fn connect(&self, url: &Url, cancel: &Cancel) -> Result<Connection, Trouble> {
        let proxy = self.proxies.for_url(url).map_err(Trouble::Connect)?;
        let stream = match &proxy {
            None => Patient::connect(&url.host, url.port, self.timeout, cancel)?,
            Some(proxy) => Patient::connect(&proxy.host, proxy.port, self.timeout, cancel)?,
        };
        match (url.https, proxy) {
            (false, _) => Ok(Connection::plain(stream)),
            (true, None) => Connection::tls(stream, self.tls()?, &url.host),
            (true, Some(proxy)) => {
                Connection::tls(proxy.tunnel(stream, url)?, self.tls()?, &url.host)
            }
        }
    }

    fn tls(&self) -> Result<Arc<rustls::ClientConfig>, Trouble> {
        self.tls
            .get_or_init(|| tls::config(self.insecure_tls))
            .clone()
            .map_err(Trouble::Tls)
    }
}

/// Send a message and read the head of the final answer, passing over 1xx ones.
///
/// A peer that has had enough of a body may answer and close before its end: then the answer says more than the broken connection.
fn exchange(
    connection: &mut Connection,
    message: &[u8],
    content: &Content<'_>,
) -> Result<Head, Trouble> {
    connection.send(message)?;
    let mut head = match content.send(connection) {
        Ok(true) => return final_head(connection),
        Ok(false) => final_head(connection)?,
        Err(Trouble::Broken(cause)) => {
            final_head(connection).map_err(|_| Trouble::Broken(cause))?
        }
        Err(trouble) => return Err(trouble),
    };
    head.keep_alive = false;
    Ok(head)
}

fn final_head(connection: &mut Connection) -> Result<Head, Trouble> {
    for _ in 0..8 {
        let head = read_head(connection)?;
        if head.status >= 200 {
            return Ok(head);
        }
    }
    Err(Trouble::Protocol("it sends nothing but interim answers"))
}

fn read_head(connection: &mut Connection) -> Result<Head, Trouble> {
    loop {
        if let Some((head, length)) = Head::parse(connection.buffered())? {
            connection.consume(length);
            return Ok(head);
        }
        if connection.fill()? == 0 {
            let cause = io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "it was closed before an answer came",
            );
            return Err(Trouble::Broken(cause));
        }
    }
}
