//! What makes a run root ours: its lock, and the socket on which the supervisor is reached.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, Mode, flock};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with,
};
use rustix::process::umask;

use crate::options::Options;

/// How long a lock may be held by a supervisor that no longer answers: one that is just ending.
const PATIENCE: Duration = Duration::from_secs(2);

/// The lock and the listening socket.
#[derive(Debug)]
pub struct Endpoint {
    /// Locked as long as a copy of it is open.
    pub lock: OwnedFd,
    /// Listens, and does not block.
    pub listener: OwnedFd,
    path: PathBuf,
}

impl Endpoint {
    /// Take the run root, or say who has it.
    pub fn create(options: &Options) -> Result<Self, String> {
        let run_root = &options.run_root;
        let failed = |what: &str, error: io::Error| {
            format!("cannot {what} in {}: {error}", run_root.display())
        };
        std::fs::create_dir_all(run_root).map_err(|error| failed("create the run root", error))?;
        let path = options.socket();
        let lock = lock(run_root, &path)?;
        let listener =
            listening(&path).map_err(|error| failed("listen on supervisor.sock", error))?;
        Ok(Self {
            lock,
            listener,
            path,
        })
    }

    /// One whose parts come from elsewhere.
    pub fn taken_over(lock: OwnedFd, listener: OwnedFd, options: &Options) -> Self {
        Self {
            lock,
            listener,
            path: options.socket(),
        }
    }

    /// Remove the socket's name: nobody is served any more.
    pub fn remove(&self) {
        // It may be gone already; then that is what was wanted.
        let _ = std::fs::remove_file(&self.path);
    }
}

fn lock(run_root: &Path, socket: &Path) -> Result<OwnedFd, String> {
    let path = run_root.join("supervisor.lock");
    let failed = |error: io::Error| format!("cannot lock {}: {error}", path.display());
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(&path)
        .map_err(failed)?;
    let begun = Instant::now();
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => break,
            Err(Errno::WOULDBLOCK) if answers(socket) || begun.elapsed() > PATIENCE => {
                return Err(format!(
                    "another supervisor serves {}: {} is locked by process {}",
                    run_root.display(),
                    path.display(),
                    std::fs::read_to_string(&path).unwrap_or_default().trim()
                ));
            }
            Err(Errno::WOULDBLOCK | Errno::INTR) => std::thread::sleep(Duration::from_millis(5)),
            Err(error) => return Err(failed(error.into())),
        }
    }
    write_owner(&mut file).map_err(failed)?;
    Ok(file.into())
}

/// Our PID, for whoever finds the lock taken.
fn write_owner(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    writeln!(file, "{}", std::process::id())
}

fn answers(path: &Path) -> bool {
    let dial = || -> rustix::io::Result<()> {
        let socket = socket_with(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        connect(&socket, &SocketAddrUnix::new(path)?)
    };
    dial().is_ok()
}

fn listening(path: &Path) -> io::Result<OwnedFd> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    let address = SocketAddrUnix::new(path)?;
    let before = umask(Mode::from_raw_mode(0o177));
    let bound = bind(&socket, &address);
    umask(before);
    bound?;
    listen(&socket, 128)?;
    Ok(socket)
}
