//! Requests over pooled connections. One request is one exchange: no redirect, no retry on an
//! answer; only a request on a kept connection that had meanwhile been closed is sent again.

use std::io;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use super::connection::{Cancel, Connection, Patient, Trouble};
use super::head::Head;
use super::proxy::Proxies;
use super::url::Url;
use super::{Body, tls};

/// Idle connections kept in all, and for how long.
const MAX_IDLE: usize = 16;
const IDLE_TIME: Duration = Duration::from_secs(50);
const AGENT: &str = concat!("knarr/", env!("CARGO_PKG_VERSION"));

/// A GET, or a POST where there is a body.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    pub(crate) url: &'a Url,
    pub(crate) headers: &'a [(&'a str, &'a str)],
    pub(crate) form: Option<&'a str>,
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
            match exchange(&mut connection, &message) {
                // The peer closed it while it was idle: the request was not looked at.
                Err(Trouble::Broken(_)) => {}
                Err(error) => return Err(error),
                Ok(head) => return self.respond(head, connection, origin),
            }
        }
        let mut connection = self.connect(request.url, cancel)?;
        let head = exchange(&mut connection, &message)?;
        self.respond(head, connection, origin)
    }

    fn respond(
        &self,
        head: Head,
        connection: Connection,
        origin: String,
    ) -> Result<Response, Trouble> {
        let framing = head.framing()?;
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
        let url = request.url;
        let method = if request.form.is_some() {
            "POST"
        } else {
            "GET"
        };
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
        if let Some(form) = request.form {
            lines.push("Content-Type: application/x-www-form-urlencoded".to_owned());
            lines.push(format!("Content-Length: {}", form.len()));
        }
        lines.push(String::new());
        lines.push(request.form.unwrap_or("").to_owned());
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
fn exchange(connection: &mut Connection, message: &[u8]) -> Result<Head, Trouble> {
    connection.send(message)?;
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
