//! Terminals and signals of a container that runs in the foreground.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use knarr_sys::pidfd;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType,
};
use rustix::termios::{
    OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize,
};

use super::args::Args;
use crate::error::{Kind, LaunchError};
use crate::launch::Launched;

/// Where a container's terminal goes.
#[derive(Debug)]
pub struct Console {
    socket: Option<String>,
}

impl Console {
    /// What the flags say.
    pub fn of(args: &Args, terminal: bool) -> Result<Self, LaunchError> {
        let socket = args.get("console-socket").map(str::to_owned);
        let invalid = |message: &str| Err(LaunchError::new(Kind::InvalidArgument, message));
        match (&socket, terminal) {
            (Some(_), false) => {
                invalid("--console-socket is for containers with a terminal: set process.terminal")
            }
            (None, true) if args.has("detach") => invalid(
                "a terminal without anybody at it: give --console-socket, or leave out --detach",
            ),
            _ => Ok(Self { socket }),
        }
    }

    /// Whether somebody else has it.
    pub const fn is_elsewhere(&self) -> bool {
        self.socket.is_some()
    }

    /// The size of the terminal that this process has.
    pub fn size(&self) -> Option<(u16, u16)> {
        if self.socket.is_some() {
            return None;
        }
        tcgetwinsize(io::stdin())
            .ok()
            .map(|size| (size.ws_row, size.ws_col))
    }

    /// Send the master side to the console socket.
    pub fn hand_over(&self, master: &OwnedFd) -> Result<(), LaunchError> {
        let Some(path) = &self.socket else {
            return Err(LaunchError::new(
                Kind::InvalidArgument,
                "cannot allocate tty if runc will detach without setting console socket",
            ));
        };
        let failed = |errno: Errno| {
            LaunchError::new(
                Kind::Unavailable,
                format!("console socket {path}: {}", io::Error::from(errno)),
            )
        };
        let socket = rustix::net::socket_with(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC,
            None,
        )
        .map_err(failed)?;
        let address = SocketAddrUnix::new(path.as_str()).map_err(failed)?;
        rustix::net::connect(&socket, &address).map_err(failed)?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let descriptors = [master.as_fd()];
        control.push(SendAncillaryMessage::ScmRights(&descriptors));
        rustix::net::sendmsg(
            &socket,
            &[IoSlice::new(b"/dev/ptmx")],
            &mut control,
            SendFlags::NOSIGNAL,
        )
        .map(drop)
        .map_err(failed)
    }
}

/// Block every signal that is passed on, and get a descriptor that they are read from.
pub fn signals() -> Result<OwnedFd, LaunchError> {
    let passed: Vec<i32> = (1..=31)
        .filter(|number| {
            ![
                libc::SIGKILL,
                libc::SIGSTOP,
                libc::SIGCHLD,
                libc::SIGSEGV,
                libc::SIGBUS,
                libc::SIGFPE,
                libc::SIGILL,
                libc::SIGPIPE,
                libc::SIGURG,
            ]
            .contains(number)
        })
        .collect();
    knarr_sys::supervise::signals(&passed).map_err(|error| {
        LaunchError::new(
            Kind::Internal,
            format!("prepare to pass signals on: {error}"),
        )
    })
}

/// This process's terminal in raw mode until dropped.
struct Raw(Termios);

impl Raw {
    fn enter() -> Option<Self> {
        if !isatty(io::stdin()) {
            return None;
        }
        let before = tcgetattr(io::stdin()).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(io::stdin(), OptionalActions::Now, &raw).ok()?;
        Some(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // A terminal that is gone needs no restoring.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.0);
    }
}

/// Wait for a process's end, passing signals on, and bytes where it has a terminal: its exit code.
pub fn wait(
    launched: &Launched,
    signals: Option<&OwnedFd>,
    master: Option<&OwnedFd>,
) -> Result<u8, LaunchError> {
    let failed = |error: io::Error| {
        LaunchError::new(Kind::Internal, format!("wait for the container: {error}"))
    };
    let raw = master.and_then(|_| Raw::enter());
    let mut input_open = master.is_some();
    let mut output_open = master.is_some();
    let stdin = io::stdin();
    loop {
        let silent = PollFlags::empty();
        let readable = |open: bool| if open { PollFlags::IN } else { silent };
        let process = launched.pidfd.as_fd();
        let signal_source = signals.map_or(process, AsFd::as_fd);
        let terminal = master.map_or(process, AsFd::as_fd);
        let mut watched = [
            PollFd::from_borrowed_fd(process, PollFlags::IN),
            PollFd::from_borrowed_fd(signal_source, readable(signals.is_some())),
            PollFd::from_borrowed_fd(
                if output_open { terminal } else { process },
                readable(output_open),
            ),
            PollFd::from_borrowed_fd(
                if input_open { stdin.as_fd() } else { process },
                readable(input_open),
            ),
        ];
        match poll(&mut watched, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(failed(errno.into())),
        }
        let ready = watched.map(|entry| !entry.revents().is_empty());
        if ready[1]
            && let Some(source) = signals
        {
            pass_signals(source, launched, master).map_err(failed)?;
        }
        if output_open && ready[2] {
            output_open = copy(terminal, io::stdout().as_fd()).map_err(failed)?;
        }
        if input_open && ready[3] {
            input_open = copy(stdin.as_fd(), terminal).map_err(failed)?;
        }
        if ready[0] {
            while output_open {
                // What the terminal still holds; it hangs up once nobody has it open.
                let mut rest = [PollFd::from_borrowed_fd(terminal, PollFlags::IN)];
                let none = rustix::event::Timespec {
                    tv_sec: 0,
                    tv_nsec: 0,
                };
                output_open = poll(&mut rest, Some(&none)).map_err(|errno| failed(errno.into()))?
                    > 0
                    && copy(terminal, io::stdout().as_fd()).map_err(failed)?;
            }
            drop(raw);
            let ended = pidfd::wait(process, true, false).map_err(failed)?;
            return Ok(ended
                .and_then(|ended| u8::try_from(ended.code()).ok())
                .unwrap_or(255));
        }
    }
}

/// Copy what there is; false at the end.
fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<bool> {
    let mut buffer = [0u8; 16384];
    let count = match rustix::io::read(from, &mut buffer) {
        // A terminal whose other side is closed.
        Ok(0) | Err(Errno::IO) => return Ok(false),
        Err(Errno::INTR | Errno::AGAIN) => return Ok(true),
        other => other?,
    };
    let mut rest = &buffer[..count];
    while !rest.is_empty() {
        match rustix::io::write(to, rest) {
            Ok(written) => rest = rest.get(written..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            Err(Errno::IO) => return Ok(false),
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(true)
}

/// Pass on what has arrived; a change of window size becomes one of the terminal's.
fn pass_signals(source: &OwnedFd, launched: &Launched, master: Option<&OwnedFd>) -> io::Result<()> {
    // struct signalfd_siginfo begins with the number, and is 128 bytes long.
    let mut info = [0u8; 128];
    loop {
        match rustix::io::read(source, &mut info) {
            Ok(128) => {}
            Ok(_) | Err(Errno::AGAIN) => return Ok(()),
            Err(Errno::INTR) => continue,
            Err(errno) => return Err(errno.into()),
        }
        let number = i32::from_ne_bytes([info[0], info[1], info[2], info[3]]);
        if let (libc::SIGWINCH, Some(master)) = (number, master) {
            if let Ok(size) = tcgetwinsize(io::stdin()) {
                tcsetwinsize(master, size)?;
            }
            continue;
        }
        match pidfd::signal(launched.pidfd.as_fd(), number) {
            Err(error) if error.raw_os_error() != Some(libc::ESRCH) => return Err(error),
            _ => {}
        }
    }
}
