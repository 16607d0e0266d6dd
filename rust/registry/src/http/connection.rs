//! One connection: a socket with a limit on silence, TLS where asked for, and a read buffer.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use knarr_store::Progress;
use rustls::{ClientConnection, StreamOwned};

/// How often a waiting read looks whether it was cancelled.
const TICK: Duration = Duration::from_millis(250);
/// One TLS record is at most 16 KiB; four of them a system call.
const TLS_INPUT: usize = 64 * 1024;
const BUFFER: usize = 32 * 1024;

/// The way to end every wait of an operation soon, where its caller has one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cancel {
    progress: Option<Arc<Progress>>,
    flag: Option<Arc<AtomicBool>>,
}

impl Cancel {
    pub(crate) fn new(progress: Option<Arc<Progress>>) -> Self {
        Self {
            progress,
            flag: None,
        }
    }

    /// Set as soon as a flag is, too.
    pub(crate) fn or(self, flag: &Arc<AtomicBool>) -> Self {
        Self {
            flag: Some(Arc::clone(flag)),
            ..self
        }
    }

    pub(crate) fn is_set(&self) -> bool {
        let progress = self.progress.as_ref();
        let flag = self.flag.as_ref();
        progress.is_some_and(|progress| progress.is_cancelled())
            || flag.is_some_and(|flag| flag.load(Ordering::Acquire))
    }
}

/// Why a connection could not be made or went wrong.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Trouble {
    /// Cancelled by the caller.
    #[error("cancelled")]
    Cancelled,
    /// The name does not resolve, nothing listens, or the network is unreachable.
    #[error("{0}")]
    Connect(String),
    /// The peer's certificate or the TLS handshake does not hold.
    #[error("{0}")]
    Tls(String),
    /// No byte came within the time allowed.
    #[error("no byte came for {0:?}")]
    Stalled(Duration),
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broken(io::Error),
    /// The file that is being sent cannot be read.
    #[error("{0}")]
    Source(io::Error),
    /// The peer does not speak HTTP as it must.
    #[error("{0}")]
    Protocol(&'static str),
}

impl From<io::Error> for Trouble {
    /// Takes apart what `Patient` and rustls put together.
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::InvalidData
            && let Some(tls) = error
                .get_ref()
                .and_then(|inner| inner.downcast_ref::<rustls::Error>())
        {
            return Self::Tls(tls_words(tls));
        }
        match error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<Silence>())
        {
            Some(Silence::Cancelled) => Self::Cancelled,
            Some(Silence::Stalled(timeout)) => Self::Stalled(*timeout),
            None => Self::Broken(error),
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum Silence {
    #[error("cancelled")]
    Cancelled,
    #[error("no byte came for {0:?}")]
    Stalled(Duration),
}

fn tls_words(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InvalidMessage(_) => "server gave HTTP response to HTTPS client (it does not speak TLS; is it meant to be used with plain http?)".to_owned(),
        rustls::Error::InvalidCertificate(cause) => format!("its certificate is not trusted ({cause})"),
        other => format!("the TLS handshake failed ({other})"),
    }
}

/// A TCP stream whose reads and writes give up after a time of silence, or when cancelled.
#[derive(Debug)]
pub(crate) struct Patient {
    stream: TcpStream,
    timeout: Duration,
    cancel: Cancel,
}

impl Patient {
    /// Connect to the first address that answers.
    pub(crate) fn connect(
        host: &str,
        port: u16,
        timeout: Duration,
        cancel: &Cancel,
    ) -> Result<Self, Trouble> {
        let addresses: Vec<_> = (host, port)
            .to_socket_addrs()
            .map_err(|error| Trouble::Connect(format!("{host} does not resolve: {error}")))?
            .collect();
        let deadline = Instant::now() + timeout;
        let mut last = format!("{host} has no address");
        for (index, address) in addresses.iter().enumerate() {
            if cancel.is_set() {
                return Err(Trouble::Cancelled);
            }
            // What is left is shared out, so that one dead address does not starve the next.
            let left = deadline.saturating_duration_since(Instant::now());
            let share = left / u32::try_from(addresses.len() - index).unwrap_or(1);
            match TcpStream::connect_timeout(address, share.max(Duration::from_millis(1))) {
                Ok(stream) => {
                    let tick = TICK.min(timeout).max(Duration::from_millis(1));
                    stream.set_nodelay(true)?;
                    stream.set_read_timeout(Some(tick))?;
                    stream.set_write_timeout(Some(tick))?;
                    return Ok(Self {
                        stream,
                        timeout,
                        cancel: cancel.clone(),
                    });
                }
                Err(error) => last = format!("cannot connect to {address}: {error}"),
            }
        }
        Err(Trouble::Connect(last))
    }

    /// Whether a read would give something at once: bytes, the end, or an error.
    fn is_ready(&self) -> bool {
        let peeked = self
            .stream
            .set_nonblocking(true)
            .and_then(|()| self.stream.peek(&mut [0]));
        let waiting = peeked.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
        self.stream.set_nonblocking(false).is_err() || !waiting
    }

    fn wait<T>(&mut self, mut step: impl FnMut(&mut TcpStream) -> io::Result<T>) -> io::Result<T> {
        let mut since = None;
        loop {
            if self.cancel.is_set() {
                return Err(io::Error::other(Silence::Cancelled));
            }
            let before = Instant::now();
            match step(&mut self.stream) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                    ) =>
                {
                    let start = *since.get_or_insert(before);
                    if start.elapsed() >= self.timeout {
                        return Err(io::Error::other(Silence::Stalled(self.timeout)));
                    }
                }
                done => return done,
            }
        }
    }
}

impl Read for Patient {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.wait(|stream| stream.read(out))
    }
}

impl Write for Patient {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.wait(|stream| stream.write(data))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads ahead below TLS: rustls by itself asks the kernel for 4 KiB at a time.
#[derive(Debug)]
struct ReadAhead {
    inner: Patient,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Read for ReadAhead {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.start == self.end {
            self.end = self.inner.read(&mut self.buffer)?;
            self.start = 0;
        }
        let count = out.len().min(self.end - self.start);
        out[..count].copy_from_slice(&self.buffer[self.start..self.start + count]);
        self.start += count;
        Ok(count)
    }
}

impl Write for ReadAhead {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.inner.write(data)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[derive(Debug)]
enum Wire {
    Plain(Patient),
    Tls(Box<StreamOwned<ClientConnection, ReadAhead>>),
}

/// An established connection with its read buffer.
#[derive(Debug)]
pub(crate) struct Connection {
    wire: Wire,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Connection {
    pub(crate) fn plain(stream: Patient) -> Self {
        Self::over(Wire::Plain(stream))
    }

    /// Shake hands over a connected stream; certificate errors come out here.
    pub(crate) fn tls(
        stream: Patient,
        config: Arc<rustls::ClientConfig>,
        host: &str,
    ) -> Result<Self, Trouble> {
        let name = rustls::pki_types::ServerName::try_from(host.to_owned()).map_err(|_| {
            Trouble::Tls(format!("{host} is no name that a certificate can be for"))
        })?;
        let session =
            ClientConnection::new(config, name).map_err(|error| Trouble::Tls(error.to_string()))?;
        let ahead = ReadAhead {
            inner: stream,
            buffer: vec![0; TLS_INPUT].into_boxed_slice(),
            start: 0,
            end: 0,
        };
        let mut tls = StreamOwned::new(session, ahead);
        while tls.conn.is_handshaking() {
            tls.conn.complete_io(&mut tls.sock)?;
        }
        Ok(Self::over(Wire::Tls(Box::new(tls))))
    }

    fn over(wire: Wire) -> Self {
        Self {
            wire,
            buffer: vec![0; BUFFER].into_boxed_slice(),
            start: 0,
            end: 0,
        }
    }

    /// The bare stream again, where nothing was read ahead of the caller.
    pub(crate) fn into_plain(self) -> Option<Patient> {
        match self.wire {
            Wire::Plain(stream) if self.start == self.end => Some(stream),
            _ => None,
        }
    }

    /// Give the connection over to another operation.
    pub(crate) fn adopt(&mut self, timeout: Duration, cancel: &Cancel) {
        let patient = match &mut self.wire {
            Wire::Plain(patient) => patient,
            Wire::Tls(tls) => &mut tls.sock.inner,
        };
        patient.timeout = timeout;
        patient.cancel = cancel.clone();
    }

    pub(crate) fn send(&mut self, data: &[u8]) -> Result<(), Trouble> {
        match &mut self.wire {
            Wire::Plain(stream) => stream.write_all(data)?,
            Wire::Tls(stream) => {
                stream.write_all(data)?;
                stream.flush()?;
            }
        }
        Ok(())
    }

    /// Whether the peer has begun to answer, or has gone, while a request is still on its way to it.
    pub(crate) fn is_answered(&mut self) -> bool {
        match &mut self.wire {
            Wire::Plain(stream) => stream.is_ready(),
            Wire::Tls(tls) => {
                // What has come may be of TLS itself: a ticket for the next session.
                let ready = tls.sock.start < tls.sock.end || tls.sock.inner.is_ready();
                ready
                    && match tls.conn.read_tls(&mut tls.sock) {
                        Ok(0) | Err(_) => true,
                        Ok(_) => match tls.conn.process_new_packets() {
                            Ok(state) => state.plaintext_bytes_to_read() > 0,
                            Err(_) => true,
                        },
                    }
            }
        }
    }

    /// Bytes read and not yet consumed.
    pub(crate) fn buffered(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    pub(crate) fn consume(&mut self, count: usize) {
        self.start = (self.start + count).min(self.end);
    }

    /// Read more behind what is buffered; 0 at the end of the stream, an error when the buffer is full.
    pub(crate) fn fill(&mut self) -> Result<usize, Trouble> {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        if self.end == self.buffer.len() {
            return Err(Trouble::Protocol(
                "its answer has a header or chunk line of more than 32 KiB",
            ));
        }
        let count = read_wire(&mut self.wire, &mut self.buffer[self.end..])?;
        self.end += count;
        Ok(count)
    }

    /// Read body bytes: from the buffer, or past it straight into `out`.
    pub(crate) fn read(&mut self, out: &mut [u8]) -> Result<usize, Trouble> {
        if self.start < self.end {
            let count = out.len().min(self.end - self.start);
            out[..count].copy_from_slice(&self.buffer[self.start..self.start + count]);
            self.start += count;
            return Ok(count);
        }
        read_wire(&mut self.wire, out)
    }
}

/// The end of the stream is 0, also where a TLS peer went away without saying so: the framing of
/// the message tells whether something is missing.
fn read_wire(wire: &mut Wire, out: &mut [u8]) -> Result<usize, Trouble> {
    let result = match wire {
        Wire::Plain(stream) => stream.read(out),
        Wire::Tls(stream) => stream.read(out),
    };
    match result {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(0),
        Err(error) => Err(error.into()),
        Ok(count) => Ok(count),
    }
}
