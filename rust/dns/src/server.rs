//! The server as others see it: what it is told, and the thread that answers.

use std::fmt;
use std::io;
use std::net::{TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use rustix::event::{EventfdFlags, eventfd};

use crate::answers::Answers;
use crate::gate::Gate;
use crate::upstream::{HostFile, Upstreams};
use crate::zones::{Membership, Zones};

const HOST_FILE: &str = "/etc/resolv.conf";
const PORT: u16 = 53;

/// What one client's questions come to: bound in its network namespace.
#[derive(Debug)]
pub struct Sockets {
    /// For datagrams.
    pub udp: OwnedFd,
    /// Listens.
    pub tcp: OwnedFd,
}

/// One engine's DNS server.
///
/// It has a thread from its first client on, which waits for nobody: neither for a client that does not read nor for
/// a server that does not answer.
pub struct Server {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
    host_file: PathBuf,
    port: u16,
}

/// What the thread and the others have in common.
pub(crate) struct Shared {
    zones: Mutex<Zones>,
    commands: Mutex<Vec<Command>>,
    /// Wakes the thread.
    pub(crate) wake: OwnedFd,
    complain: Box<dyn Fn(String) + Send + Sync>,
    gate: Box<dyn Gate>,
}

/// What the thread is told.
#[derive(Debug)]
pub(crate) enum Command {
    /// Answer a client, instead of an earlier one of that name.
    Serve(String, UdpSocket, TcpListener, Upstreams),
    /// Answer it no more.
    Forget(String),
    /// End.
    Stop,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").finish_non_exhaustive()
    }
}

impl Server {
    /// A server without clients. `complain` is told what goes wrong and cannot be told to any client.
    pub fn start(
        complain: impl Fn(String) + Send + Sync + 'static,
        gate: impl Gate + 'static,
    ) -> io::Result<Self> {
        Self::with(complain, gate, Path::new(HOST_FILE), PORT)
    }

    /// The same, with the host's file and the port of its servers somewhere else.
    pub fn with(
        complain: impl Fn(String) + Send + Sync + 'static,
        gate: impl Gate + 'static,
        host_file: &Path,
        port: u16,
    ) -> io::Result<Self> {
        Ok(Self {
            shared: Arc::new(Shared {
                zones: Mutex::default(),
                commands: Mutex::default(),
                wake: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
                complain: Box::new(complain),
                gate: Box::new(gate),
            }),
            thread: Mutex::new(None),
            host_file: host_file.to_owned(),
            port,
        })
    }

    /// Answer a client's questions from now on; sockets of an earlier client of that name are closed.
    pub fn serve(&self, client: &str, sockets: Sockets, upstreams: Upstreams) -> io::Result<()> {
        let (udp, tcp) = (UdpSocket::from(sockets.udp), TcpListener::from(sockets.tcp));
        udp.set_nonblocking(true)?;
        tcp.set_nonblocking(true)?;
        self.run()?;
        let command = Command::Serve(client.to_owned(), udp, tcp, upstreams);
        self.shared.tell(command);
        Ok(())
    }

    /// Say where a client is, whether it is served or not: others find it there by its names.
    pub fn set(&self, client: &str, memberships: Vec<Membership>) {
        self.shared.zones().set(client, memberships);
    }

    /// A client is no more: nobody finds it, and its sockets are closed.
    pub fn forget(&self, client: &str) {
        self.shared.zones().forget(client);
        self.shared.tell(Command::Forget(client.to_owned()));
    }

    /// Start the thread where there is none.
    fn run(&self) -> io::Result<()> {
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if thread.as_ref().is_some_and(|thread| !thread.is_finished()) {
            return Ok(());
        }
        let host = HostFile::new(self.host_file.clone());
        let mut answers = Answers::new(Arc::clone(&self.shared), host, self.port)?;
        let work = move || answers.run();
        *thread = Some(
            thread::Builder::new()
                .name("knarr-dns".to_owned())
                .spawn(work)?,
        );
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.tell(Command::Stop);
        let thread = self
            .thread
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(thread) = thread.take() {
            // It ends without a result, and a panic of its has been printed.
            let _ = thread.join();
        }
    }
}

impl Shared {
    pub(crate) fn zones(&self) -> MutexGuard<'_, Zones> {
        self.zones.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn commands(&self) -> Vec<Command> {
        // Emptied first: what is told from here on wakes us again.
        let _ = rustix::io::read(&self.wake, &mut [0; 8]);
        std::mem::take(&mut *self.commands.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn complain(&self, what: String) {
        (self.complain)(what);
    }

    pub(crate) fn gate(&self) -> &dyn Gate {
        &*self.gate
    }

    fn tell(&self, command: Command) {
        let commands = self.commands.lock();
        commands
            .unwrap_or_else(PoisonError::into_inner)
            .push(command);
        // Full means that it is woken already.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }
}
