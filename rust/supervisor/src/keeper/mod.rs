//! The keeper: the supervisor's parent, and the memory of what must not be lost with it.
//!
//! It holds the run root's lock, the listening socket and a copy of every descriptor that the supervisor
//! deposits; it reaps what a dead supervisor has left behind and tells the next one. It reads nothing
//! from any of these descriptors, parses nothing but the supervisor's messages and allocates for nothing else, so that
//! there is little that can go wrong in it.
//!
//! Invariants: a child's status is told, or remembered, before the child is reaped. A deposit is
//! remembered until it is withdrawn, whatever becomes of supervisors.

mod deposits;
mod endpoint;
mod supervised;

use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use knarr_sys::supervise::{Ended, peek_zombie, signals};
use rustix::process::{Pid, WaitOptions, getpid, set_child_subreaper, setsid, umask, waitpid};

use crate::journal::Journal;
use crate::link::Message;
use crate::options::{Options, Role};
use crate::poll::{Interest, Poll, Token, Watched};
use crate::roles::{READY, inherited_socket, raise_open_files};
use deposits::Deposits;
use endpoint::Endpoint;
use supervised::Supervised;

/// What the keeper is told of by signals.
const SIGNALS: [i32; 4] = [SIGCHLD, SIGTERM, SIGINT, SIGHUP];
/// Signals that end a process that does not listen to them.
pub const REQUESTS: [i32; 3] = [SIGTERM, SIGINT, SIGHUP];
const SIGHUP: i32 = 1;
const SIGINT: i32 = 2;
const SIGTERM: i32 = 15;
const SIGCHLD: i32 = 17;

/// How soon a request to end must be repeated where containers run.
const TWICE: Duration = Duration::from_secs(10);
/// A supervisor that lives less long than this is respawned ever more slowly.
const SHORT_LIFE: Duration = Duration::from_secs(1);
/// The slowest pace of that.
const SLOWEST: Duration = Duration::from_secs(5);
/// How many short lives are enough where there is nothing to keep.
const GIVE_UP: u32 = 12;
/// How long a supervisor may take to end when asked to.
const FAREWELL: Duration = Duration::from_secs(5);

struct Keeper<'a> {
    options: &'a Options,
    journal: Journal,
    poll: Rc<Poll>,
    signals: Watched,
    endpoint: Endpoint,
    deposits: Deposits,
    supervised: Option<Supervised>,
    generation: u64,
    files: u64,
    short_lives: u32,
    respawn_at: Option<Instant>,
    asked_to_end: Option<Instant>,
    ending: Option<Instant>,
}

/// Be the keeper of a run root. Returns when it is no longer needed.
pub fn run(options: &Options) -> Result<(), String> {
    let endpoint = Endpoint::create(options)?;
    if options.role == Role::Keeper {
        setsid().map_err(|error| format!("cannot begin a session of our own: {error}"))?;
    }
    let mut keeper = Keeper::new(options, endpoint)
        .map_err(|error| format!("the keeper cannot start: {error}"))?;
    keeper.files = raise_open_files()
        .map_err(|error| format!("cannot raise the limit of open files: {error}"))?;
    keeper.respawn();
    if options.role == Role::Keeper {
        said_ready().map_err(|error| format!("cannot tell that we are ready: {error}"))?;
    }
    keeper
        .journal
        .say(format!("keeping {}", options.run_root.display()));
    keeper
        .serve()
        .map_err(|error| format!("the keeper cannot go on: {error}"))
}

/// Be the keeper in place of one that has died, called by the supervisor that it left behind.
pub fn inherit(options: &Options) -> Result<(), String> {
    let failed = |error: io::Error| format!("the heir cannot take over: {error}");
    setsid().map_err(|error| failed(error.into()))?;
    let socket = inherited_socket().map_err(failed)?;
    let (endpoint, supervised, welcome) = supervised::welcomed(options, socket).map_err(failed)?;
    let mut keeper = Keeper::new(options, endpoint).map_err(failed)?;
    (keeper.generation, keeper.files) = welcome;
    keeper.supervised = Some(supervised.watch(&keeper.poll).map_err(failed)?);
    keeper.journal.say(format!(
        "keeping {} in place of a keeper that died",
        options.run_root.display()
    ));
    keeper
        .serve()
        .map_err(|error| format!("the keeper cannot go on: {error}"))
}

impl<'a> Keeper<'a> {
    fn new(options: &'a Options, endpoint: Endpoint) -> io::Result<Self> {
        let poll = Poll::new()?;
        let signals = poll.watch(signals(&SIGNALS)?, Token::Signals, Interest::READ)?;
        set_child_subreaper(Some(getpid()))?;
        // A name for ps; not worth failing for.
        let _ = rustix::thread::set_name(c"knarr-keeper");
        umask(rustix::fs::Mode::from_raw_mode(0o022));
        Ok(Self {
            options,
            journal: Journal::new(&options.run_root, "keeper", options.foreground),
            poll,
            signals,
            endpoint,
            deposits: Deposits::default(),
            supervised: None,
            generation: 0,
            files: 0,
            short_lives: 0,
            respawn_at: None,
            asked_to_end: None,
            ending: None,
        })
    }

    fn serve(&mut self) -> io::Result<()> {
        loop {
            let due = [self.respawn_at, self.ending].into_iter().flatten().min();
            let timeout = due.map(|due| due.saturating_duration_since(Instant::now()));
            for ready in self.poll.wait(timeout)? {
                match ready.token {
                    Token::Signals => self.signalled()?,
                    Token::Link => {
                        if ready.write {
                            self.with_link(|supervised| supervised.link.flush());
                        }
                        self.listen();
                    }
                    _ => {}
                }
            }
            if self.ending.is_some() && self.supervised.is_none() {
                self.endpoint.remove();
                self.journal.say("the keeper ends");
                return Ok(());
            }
            if self.ending.is_some_and(|due| Instant::now() >= due) {
                self.journal.say("the supervisor does not end: killing it");
                self.bury();
            }
            if self.respawn_at.is_some_and(|due| Instant::now() >= due) {
                self.respawn();
            }
        }
    }

    /// Read what the supervisor has to say, up to its last word.
    fn listen(&mut self) {
        while let Some(supervised) = &mut self.supervised {
            match supervised.link.receive() {
                Ok(Some((message, descriptors))) => self.told(message, descriptors),
                Ok(None) => return,
                Err(error) => {
                    if error.kind() != io::ErrorKind::UnexpectedEof {
                        self.journal
                            .say(format!("the supervisor makes no sense: {error}"));
                    }
                    self.bury();
                }
            }
        }
    }

    fn told(&mut self, message: Message, descriptors: Vec<OwnedFd>) {
        match message {
            Message::Deposit { target, pid, parts } => {
                self.deposits.add(target, pid, parts, descriptors);
            }
            Message::Withdraw { target, parts } => self.deposits.withdraw(&target, &parts),
            Message::Bye => self.ending = Some(Instant::now() + FAREWELL),
            // A supervisor that has started us has now told everything.
            Message::Ready => {}
            Message::Welcome { .. } | Message::Exited { .. } | Message::End => {
                self.journal
                    .say("the supervisor said what only a keeper says");
            }
        }
    }

    fn signalled(&mut self) -> io::Result<()> {
        for signal in read_signals(&self.signals)? {
            match signal {
                SIGCHLD => self.reap()?,
                SIGTERM | SIGINT => self.asked_to_end(),
                _ => self.journal.say(format!("signal {signal} changes nothing")),
            }
        }
        Ok(())
    }

    /// End if nothing runs, or if asked a second time.
    fn asked_to_end(&mut self) {
        let running = self.deposits.running();
        let twice = self
            .asked_to_end
            .is_some_and(|before| before.elapsed() < TWICE);
        self.asked_to_end = Some(Instant::now());
        if running > 0 && !twice {
            self.journal.say(format!(
                "asked to end while {running} containers run: stop them first, or ask again within {} s, which leaves \
                 them running without logs; they get SIGPIPE where they write",
                TWICE.as_secs()
            ));
            return;
        }
        if running > 0 {
            self.journal.say(format!(
                "asked to end twice: leaving {running} running containers"
            ));
        }
        self.ending = Some(Instant::now() + FAREWELL);
        self.respawn_at = None;
        self.with_link(|supervised| supervised.link.send(&Message::End, &[]));
    }

    /// Reap every child that has ended.
    fn reap(&mut self) -> io::Result<()> {
        while let Some((pid, ended)) = peek_zombie()? {
            if self
                .supervised
                .as_ref()
                .is_some_and(|supervised| supervised.pid == pid)
            {
                self.listen();
                self.bury();
                continue;
            }
            if self.deposits.ended(pid, ended) {
                self.with_link(|supervised| {
                    supervised.link.send(
                        &Message::Exited {
                            pid,
                            ended: ended.into(),
                        },
                        &[],
                    )
                });
            }
            // It is a zombie of ours: there is nothing to wait for, and nothing that could fail.
            if let Some(pid) = Pid::from_raw(pid) {
                let _ = waitpid(Some(pid), WaitOptions::NOHANG);
            }
        }
        Ok(())
    }

    /// The supervisor is gone, or as good as: have another, sooner or later.
    fn bury(&mut self) {
        let Some(supervised) = self.supervised.take() else {
            return;
        };
        let (pid, lived) = (supervised.pid, supervised.since.elapsed());
        let ended = supervised.bury();
        if self.ending.is_some() {
            return;
        }
        let how = match ended {
            Some(Ended::Exited(code)) => format!("ended with status {code}"),
            Some(Ended::Killed(signal)) => format!("was ended by signal {signal}"),
            None => "is gone".to_owned(),
        };
        self.short_lives = if lived < SHORT_LIFE {
            self.short_lives + 1
        } else {
            0
        };
        if self.short_lives >= GIVE_UP && self.deposits.running() == 0 {
            self.journal.say(format!(
                "supervisor {pid} {how}, like {GIVE_UP} in a row: giving up, nothing runs"
            ));
            self.ending = Some(Instant::now());
            return;
        }
        let delay = match self.short_lives {
            0 | 1 => Duration::ZERO,
            deaths => SLOWEST.min(Duration::from_millis(10) * 2_u32.saturating_pow(deaths)),
        };
        self.journal.say(format!(
            "supervisor {pid} {how} after {lived:.1?}; its {} processes run on, another takes over in {delay:?}",
            self.deposits.running()
        ));
        self.respawn_at = Some(Instant::now() + delay);
    }

    fn respawn(&mut self) {
        self.respawn_at = None;
        self.generation += 1;
        match self.spawn() {
            Ok(supervised) => self.supervised = Some(supervised),
            Err(error) => {
                self.journal.say(format!(
                    "cannot start a supervisor: {error}; trying again in {SLOWEST:?}"
                ));
                self.respawn_at = Some(Instant::now() + SLOWEST);
            }
        }
    }

    fn spawn(&mut self) -> io::Result<Supervised> {
        let mut supervised = Supervised::spawn(self.options, &self.poll)?;
        let link = &mut supervised.link;
        let pid = getpid().as_raw_nonzero().get();
        let welcome = Message::Welcome {
            generation: self.generation,
            pid,
            files: self.files,
        };
        link.send(
            &welcome,
            &[self.endpoint.listener.as_fd(), self.endpoint.lock.as_fd()],
        )?;
        self.deposits
            .each(|message, descriptors| link.send(&message, descriptors))?;
        link.send(&Message::Ready, &[])?;
        Ok(supervised)
    }

    /// Send something. That the supervisor is gone is learned, and dealt with, by its end.
    fn with_link(&mut self, send: impl FnOnce(&mut Supervised) -> io::Result<()>) {
        if let Some(supervised) = &mut self.supervised
            && let Err(error) = send(supervised)
        {
            self.journal.say(format!(
                "supervisor {} does not listen: {error}",
                supervised.pid
            ));
        }
    }
}

/// Tell the launcher, and let go of its pipe.
fn said_ready() -> io::Result<()> {
    let mut output = io::stdout();
    output.write_all(READY.as_bytes())?;
    output.flush()?;
    rustix::stdio::dup2_stdout(std::fs::OpenOptions::new().write(true).open("/dev/null")?)?;
    Ok(())
}

/// The numbers of the signals that have come.
pub fn read_signals(descriptor: impl AsFd) -> io::Result<Vec<i32>> {
    /// The size of `struct signalfd_siginfo`, which begins with the signal's number.
    const RECORD: usize = 128;
    let mut buffer = [0; 16 * RECORD];
    let descriptor: BorrowedFd<'_> = descriptor.as_fd();
    match rustix::io::read(descriptor, &mut buffer) {
        Ok(count) => Ok(buffer[..count]
            .chunks_exact(RECORD)
            .map(|record| i32::from_ne_bytes([record[0], record[1], record[2], record[3]]))
            .collect()),
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(Vec::new()),
        Err(error) => Err(error.into()),
    }
}
