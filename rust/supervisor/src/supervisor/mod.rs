//! The supervisor: one thread, one epoll set, every container.
//!
//! [`Supervisor`] is the state; the files beside this one are what happens to it:
//! `clients` (connections), `requests` (operations), `start` and `exec` (jobs on worker threads, and what comes of
//! them), `output` and `input` (streams), `attach` (sessions), `reading` (readers of
//! logs), `exit` (ends, teardown, forgetting), `measure` (what containers use, and other limits), `adopt`
//! (what a predecessor left) and `keeping` (the keeper, and being without one).
//!
//! Invariants: only this thread touches the state. It blocks in epoll and for small files of the run root and the
//! logs; all else that may take time is a job. Keys of processes, sessions and clients are never used twice, so
//! that an event for something that has gone finds nothing.

mod adopt;
mod attach;
mod clients;
mod exec;
mod exit;
mod input;
mod keeping;
mod measure;
mod networks;
mod output;
mod reading;
mod requests;
mod seccomp;
mod start;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use knarr_runtime::cgroup::Cgroup;
use knarr_sys::process::one_heap;
use knarr_sys::supervise::signals;

use crate::exits::Exit;
use crate::journal::Journal;
use crate::keeper::REQUESTS;
use crate::link::{Link, Part};
use crate::logs::{Reader, Step};
use crate::network::{Network, NetworkRecord};
use crate::options::Options;
use crate::poll::{Interest, Poll, Ready, Token, Watched};
use crate::process::Process;
use crate::protocol::{Answer, Connect, Hello, Id, Start};
use crate::records::Records;
use crate::roles::inherited_socket;
use crate::session::{Gone, Session};
use crate::wire::PACKET_BYTES;
use crate::workers::{PATIENCE, Pool, Results};
use clients::Client;
use exec::ExecDone;
use reading::Reading;
use seccomp::Filters;
use start::StartDone;

/// How much is read from a container at once.
const READ_BYTES: usize = 256 * 1024;
/// Threads that start containers and execs.
const STARTERS: usize = 2;

/// A container.
#[derive(Debug)]
struct Container {
    phase: Phase,
    started_at: u64,
    pid: i32,
    adopted: bool,
    cgroup: Option<Cgroup>,
    cgroup_path: String,
    seccomp: Option<PathBuf>,
    network: NetworkRecord,
    /// Sockets of its network that outlive us: those that reserve its ports, and take its questions for names.
    held: Vec<(Part, OwnedFd)>,
    execs: BTreeMap<Id, ExecPhase>,
}

/// Where a container is in its life.
#[derive(Debug)]
enum Phase {
    /// A worker starts it, for this client.
    Starting(u32),
    /// It runs, or its output is being drained: the key of its process.
    Running(u32),
    /// Its exit has been announced.
    Exited(Exit),
}

/// Where an exec is in its life.
#[derive(Debug)]
enum ExecPhase {
    Starting,
    Running(u32),
    Exited(Exit),
}

/// What worker threads give back.
#[derive(Debug)]
enum Done {
    Start(Box<StartDone>),
    Exec(Box<ExecDone>),
    Teardown(Id, Vec<String>),
    Read(u32, Box<Reader>, Step),
    Compressed(Option<String>),
    /// The log of a process can take more.
    Room(u32),
    Answer(u32, u64, Answer),
    /// New limits: the group may have joined further hierarchies.
    Updated(u32, u64, Id, Cgroup, Answer),
    /// A group was removed that had outlived its container.
    Swept(Id, io::Result<()>),
}

/// What a worker is removing of a container.
#[derive(Clone, Debug, Default)]
struct Remains {
    cgroup: String,
    network: NetworkRecord,
}

/// A request that has to wait for a teardown.
#[derive(Debug)]
struct Waiting {
    client: u32,
    request: u64,
    postponed: Postponed,
}

#[derive(Debug)]
enum Postponed {
    Start(Box<Start>),
    Connect(Box<Connect>),
}

struct Supervisor {
    options: Options,
    journal: Journal,
    records: Records,
    network: Arc<Network>,
    filters: Arc<Filters>,
    poll: Rc<Poll>,
    signals: Watched,
    listener: Watched,
    lock: OwnedFd,
    link: Option<Link>,
    heir: Option<i32>,
    heir_since: Option<Instant>,
    heir_due: Option<Instant>,
    orphaned: bool,
    generation: u64,
    keeper_pid: i32,
    files: u64,
    results: Results<Done>,
    /// In the event loop for `results`.
    _results: Watched,
    starters: Pool<Done>,
    /// Execs and freezes: these may wait for as long as the container likes.
    helpers: Pool<Done>,
    sweeper: Pool<Done>,
    /// Readers of logs, and what compresses them. Without threads until there is something to do.
    readers: Pool<Done>,
    /// Starts, execs and freezes that workers are busy with.
    under_way: usize,
    /// Steps of readers of logs, and compressions, that workers are busy with.
    steps: usize,
    clients: BTreeMap<u32, Client>,
    containers: BTreeMap<Id, Container>,
    processes: HashMap<u32, Process>,
    sessions: HashMap<u32, Session>,
    readings: HashMap<u32, Reading>,
    /// Sessions of containers that have not been started yet.
    early: BTreeMap<Id, BTreeSet<u32>>,
    /// Containers whose remains are being removed.
    torn_down: BTreeMap<Id, Remains>,
    waiting: Vec<Waiting>,
    /// Clients, with their requests, that want to know what there is while starts are under way for others that
    /// have gone.
    curious: Vec<(u32, u64, Hello)>,
    lingering: BTreeMap<u32, Instant>,
    /// Sessions that a process waits for, and until when.
    stalled: BTreeMap<u32, Instant>,
    last_key: u32,
    buffer: Vec<u8>,
    /// Requests are received here.
    packet: Vec<u8>,
    scratch: Vec<u8>,
    spill_directory: Arc<Path>,
    idle_since: Option<Instant>,
    ended: bool,
}

/// Be the supervisor, a child of the keeper. Returns when it is no longer needed.
pub fn run(options: &Options) -> Result<(), String> {
    // A name for ps; not worth failing for.
    let _ = rustix::thread::set_name(c"knarr-supervise");
    one_heap();
    let failed = |error: io::Error| format!("the supervisor cannot start: {error}");
    let socket = inherited_socket().map_err(failed)?;
    let mut supervisor = Supervisor::new(options, socket)?;
    supervisor
        .serve()
        .map_err(|error| format!("the supervisor cannot go on: {error}"))
}

impl Supervisor {
    fn new(options: &Options, socket: OwnedFd) -> Result<Self, String> {
        let failed = |error: io::Error| format!("the supervisor cannot start: {error}");
        let handed = keeping::receive(socket).map_err(failed)?;
        let journal = Journal::new(&options.run_root, "supervisor", options.foreground);
        let network = Network::new(&options.engine(), &options.run_root, journal.clone())
            .map_err(|failure| failure.message)?;
        let poll = Poll::new().map_err(failed)?;
        let watch = |fd, token| poll.watch(fd, token, Interest::READ).map_err(failed);
        let results = Results::new().map_err(failed)?;
        let directory = if options.data_root.is_dir() {
            &options.data_root
        } else {
            &options.run_root
        };
        let mut supervisor = Self {
            options: options.clone(),
            journal,
            records: Records::new(&options.run_root),
            network,
            filters: Arc::new(Filters::default()),
            signals: watch(signals(&REQUESTS).map_err(failed)?, Token::Signals)?,
            listener: watch(handed.listener, Token::Listener)?,
            lock: handed.lock,
            link: Some(Link::new(watch(handed.socket, Token::Link)?)),
            heir: None,
            heir_since: None,
            heir_due: None,
            orphaned: false,
            generation: handed.generation,
            keeper_pid: handed.keeper_pid,
            files: handed.files,
            _results: watch(results.descriptor().map_err(failed)?, Token::Workers)?,
            starters: results.pool("start", STARTERS).map_err(failed)?,
            helpers: results.pool("help", STARTERS).map_err(failed)?,
            sweeper: results.pool("sweep", 1).map_err(failed)?,
            readers: results.pool("logs", 0).map_err(failed)?,
            results,
            poll,
            under_way: 0,
            steps: 0,
            clients: BTreeMap::new(),
            containers: BTreeMap::new(),
            processes: HashMap::new(),
            sessions: HashMap::new(),
            readings: HashMap::new(),
            early: BTreeMap::new(),
            torn_down: BTreeMap::new(),
            waiting: Vec::new(),
            curious: Vec::new(),
            lingering: BTreeMap::new(),
            stalled: BTreeMap::new(),
            last_key: 0,
            buffer: vec![0; READ_BYTES],
            packet: vec![0; PACKET_BYTES],
            scratch: Vec::new(),
            spill_directory: Arc::from(directory.as_path()),
            idle_since: None,
            ended: false,
        };
        supervisor.journal.say(format!(
            "supervisor {} of generation {}, keeper {}",
            env!("CARGO_PKG_VERSION"),
            supervisor.generation,
            supervisor.keeper_pid
        ));
        supervisor.adopt(handed.deposits, &handed.ended)?;
        Ok(supervisor)
    }

    fn serve(&mut self) -> io::Result<()> {
        while !self.ended {
            let timeout = self.timeout();
            for ready in self.poll.wait(timeout)? {
                self.happened(ready);
            }
            self.on_time();
        }
        self.journal.say("the supervisor ends");
        Ok(())
    }

    fn happened(&mut self, ready: Ready) {
        match ready.token {
            Token::Listener => self.accept(),
            Token::Link => self.on_link(ready),
            Token::Signals => self.on_signals(),
            Token::Workers => self.on_results(),
            Token::Client(key) => self.on_client(key, ready),
            Token::Process(key) => self.on_process(key, ready),
            Token::Output(key, stream) => self.on_output(key, stream),
            Token::Input(key) => self.on_input(key),
            Token::Attach(key) => self.on_session(key, ready),
            Token::Logs(key) => self.on_reading(key, ready),
        }
    }

    fn on_results(&mut self) {
        for done in self.results.take() {
            match done {
                Done::Start(done) => self.started(*done),
                Done::Exec(done) => self.executed(*done),
                Done::Teardown(id, complaints) => self.torn_down(&id, complaints),
                Done::Read(key, reader, step) => {
                    self.steps -= 1;
                    self.stepped(key, reader, step);
                }
                Done::Room(key) => self.listen(key),
                Done::Compressed(complaint) => {
                    self.steps -= 1;
                    if let Some(complaint) = complaint {
                        self.journal.say(complaint);
                    }
                }
                Done::Answer(client, request, answer) => {
                    self.under_way -= 1;
                    self.answer(client, request, &answer);
                }
                Done::Updated(client, request, container, cgroup, answer) => {
                    self.under_way -= 1;
                    self.updated(&container, cgroup);
                    self.answer(client, request, &answer);
                }
                Done::Swept(container, result) => self.swept(&container, result),
            }
        }
    }

    /// A key that has never been used.
    fn key(&mut self) -> u32 {
        self.last_key = self.last_key.wrapping_add(1);
        self.last_key
    }

    /// How long there is nothing to do but to wait.
    fn timeout(&mut self) -> Option<Duration> {
        let idle = self.containers.is_empty()
            && self.clients.is_empty()
            && self.sessions.is_empty()
            && self.readings.is_empty()
            && self.torn_down.is_empty()
            && self.waiting.is_empty();
        self.idle_since = if idle {
            self.idle_since.or(Some(Instant::now()))
        } else {
            None
        };
        let idle_exit = self.idle_since.map(|since| since + self.options.idle_exit);
        let deadlines = self
            .processes
            .values()
            .filter_map(|process| process.deadline);
        let deadlines = deadlines
            .chain(self.lingering.values().copied())
            .chain(self.stalled.values().copied())
            .chain(self.readings.values().filter_map(|reading| reading.due));
        // Without a keeper, orphans are looked for from time to time.
        let orphans = self
            .orphaned
            .then(|| Instant::now() + Duration::from_secs(1));
        let relief = (self.under_way > 0 || self.steps > 0).then(|| Instant::now() + PATIENCE);
        let due = deadlines
            .chain(idle_exit)
            .chain(orphans)
            .chain(relief)
            .chain(self.heir_due)
            .min()?;
        Some(due.saturating_duration_since(Instant::now()))
    }

    /// Do what is due.
    fn on_time(&mut self) {
        let now = Instant::now();
        let late = |due: &Instant| *due <= now;
        let processes: Vec<u32> = self
            .processes
            .iter()
            .filter(|(_, process)| process.deadline.as_ref().is_some_and(late))
            .map(|(key, _)| *key)
            .collect();
        for key in processes {
            self.overdue(key);
        }
        let overdue = |sessions: &BTreeMap<u32, Instant>| -> Vec<u32> {
            let found = sessions.iter().filter(|(_, due)| late(due));
            found.map(|(key, _)| *key).collect()
        };
        for key in overdue(&self.lingering) {
            self.drop_session(key);
        }
        for key in overdue(&self.stalled) {
            self.let_go(key, &Gone::Stalled(self.options.patience));
        }
        let readings: Vec<u32> = self
            .readings
            .iter()
            .filter(|(_, reading)| reading.due.as_ref().is_some_and(late))
            .map(|(key, _)| *key)
            .collect();
        for key in readings {
            self.reading_due(key);
        }
        if self.orphaned {
            self.reap_orphans();
        }
        if self.heir_due.as_ref().is_some_and(late) {
            self.have_heir();
        }
        for pool in [&self.starters, &self.helpers, &self.readers] {
            if let Err(error) = pool.relieve() {
                self.journal
                    .say(format!("cannot have another thread: {error}"));
            }
        }
        if self
            .idle_since
            .is_some_and(|since| since + self.options.idle_exit <= now)
        {
            self.end_idle();
        }
    }
}
