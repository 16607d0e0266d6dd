//! Requests.

use std::path::PathBuf;

use knarr_runtime::{Process, RootfsSource};
use serde::Deserialize;

use super::measure::{Measure, Update};
use super::name::{Id, Target};
use super::network::{
    BalanceRequest, Connect, Disconnect, Names, NetworkRequest, ParentRequest, RemoveNetwork,
    RemoveParent, Unbalance,
};
use crate::logs::{FileOptions, LogOptions};

/// A request: the number its answer carries, and what to do.
#[derive(Debug)]
pub struct Request {
    /// Chosen by the client.
    pub id: u64,
    /// What to do.
    pub operation: Operation,
}

/// What a client can ask for.
#[derive(Debug)]
pub enum Operation {
    /// Who we are, and what there is.
    Hello(Hello),
    /// Exits and other events from now on.
    Subscribe,
    /// Start a container.
    Start(Box<Start>),
    /// Join a client's connection to a process.
    Attach(Attach),
    /// Run another process in a container.
    Exec(Box<Exec>),
    /// Set a terminal's size.
    Resize(Resize),
    /// Send a signal.
    Signal(Signal),
    /// Freeze a container.
    Pause(Id),
    /// Thaw it.
    Unpause(Id),
    /// Tell what containers use.
    Stats(Measure),
    /// Set other limits for a container.
    Update(Box<Update>),
    /// Drop an exit that has been stored.
    Forget(Target),
    /// Give a client what has been logged.
    Logs(Box<Logs>),
    /// What the answer to its start has told, once more.
    Describe(Id),
    /// Put a running container on a network.
    Connect(Box<Connect>),
    /// Take a running container off a network.
    Disconnect(Disconnect),
    /// What a running container is called on its networks.
    Names(Names),
    /// Remove the bridge of a network that nobody is on.
    RemoveNetwork(RemoveNetwork),
    /// Have an address stand for several containers.
    Balance(Box<BalanceRequest>),
    /// Have it stand for none any more.
    Unbalance(Unbalance),
    /// Have the host's interface that a network is on.
    MakeParent(ParentRequest),
    /// Remove it, where it was made for networks that have all gone.
    RemoveParent(RemoveParent),
}

/// Fields of `hello`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hello {
    /// List the containers whose IDs sort after this one.
    #[serde(default)]
    pub after: Option<Id>,
}

/// Fields of `start`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Start {
    /// The container.
    pub container: Id,
    /// The directory of its config.json.
    pub bundle: PathBuf,
    /// Its root file system.
    pub rootfs: RootfsRequest,
    /// Docker's `User` string.
    #[serde(default)]
    pub user: Option<String>,
    /// A resolved system call filter.
    #[serde(default)]
    pub seccomp: Option<PathBuf>,
    /// Its network.
    pub network: NetworkRequest,
    /// Whether it gets a terminal.
    #[serde(default)]
    pub terminal: bool,
    /// The terminal's size.
    #[serde(default)]
    pub size: Option<Size>,
    /// Whether its input is a pipe that stays open; else it is /dev/null.
    #[serde(default)]
    pub stdin: bool,
    /// Whether its input ends with the first client that was attached to it.
    #[serde(default)]
    pub stdin_once: bool,
    /// Its log.
    #[serde(default)]
    pub log: Option<LogOptions>,
}

/// Fields of `logs`.
#[allow(clippy::struct_excessive_bools)] // each is a fact of its own
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Logs {
    /// Whose log.
    pub container: Id,
    /// Where it is: as it was said at the start.
    pub file: FileOptions,
    /// Entries of the standard output.
    #[serde(default)]
    pub stdout: bool,
    /// Entries of the standard error.
    #[serde(default)]
    pub stderr: bool,
    /// Nanoseconds since the epoch; 0 for all.
    #[serde(default)]
    pub since: u64,
    /// The same.
    #[serde(default)]
    pub until: u64,
    /// So many entries from the end.
    #[serde(default)]
    pub tail: Option<u64>,
    /// Go on until the container has ended.
    #[serde(default)]
    pub follow: bool,
    /// Times before entries.
    #[serde(default)]
    pub timestamps: bool,
    /// Attributes before entries.
    #[serde(default)]
    pub details: bool,
    /// Frame entries.
    #[serde(default)]
    pub multiplexed: bool,
    /// Send chunks of HTTP.
    #[serde(default)]
    pub chunked: bool,
    /// Let entries share frames.
    #[serde(default)]
    pub merge: bool,
}

/// Rows and columns.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
pub struct Size(pub u16, pub u16);

/// A root file system, in one of three forms.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum RootfsRequest {
    /// Layers below a writable directory.
    Overlay(Overlay),
    /// Layers below a tmpfs of its own.
    Throwaway(Throwaway),
    /// A directory.
    Path(Directory),
}

/// See [`RootfsRequest::Overlay`].
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Overlay {
    lower: Vec<PathBuf>,
    upper: PathBuf,
    work: PathBuf,
}

/// See [`RootfsRequest::Throwaway`].
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Throwaway {
    lower: Vec<PathBuf>,
    tmpfs_size: u64,
}

/// See [`RootfsRequest::Path`].
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Directory {
    path: PathBuf,
}

impl RootfsRequest {
    /// The same for the runtime.
    #[must_use]
    pub fn source(&self) -> RootfsSource {
        match self {
            Self::Overlay(Overlay { lower, upper, work }) => RootfsSource::Overlay {
                lower: lower.clone(),
                upper: upper.clone(),
                work: work.clone(),
            },
            Self::Throwaway(Throwaway { lower, tmpfs_size }) => RootfsSource::Throwaway {
                lower: lower.clone(),
                tmpfs_size: *tmpfs_size,
            },
            Self::Path(Directory { path }) => RootfsSource::Path(path.clone()),
        }
    }
}

/// What a client wants of a process's streams.
#[allow(clippy::struct_excessive_bools)] // each is a fact of its own, as on the wire
#[derive(Debug)]
pub struct Attach {
    /// Which process.
    pub target: Target,
    /// Send it what the client types.
    pub stdin: bool,
    /// Give the client its standard output, or its terminal's.
    pub stdout: bool,
    /// Give the client its standard error.
    pub stderr: bool,
    /// Frame the output. A terminal's never is.
    pub multiplexed: bool,
    /// What detaches the client.
    pub detach_keys: Vec<u8>,
    /// Bytes that the client has sent already.
    pub initial: Vec<u8>,
    /// A log to send first.
    pub history: Option<FileOptions>,
    /// Whether anything is to follow it.
    pub live: bool,
}

/// Another process in a container.
#[derive(Debug)]
pub struct Exec {
    /// Which.
    pub target: Target,
    /// What to run.
    pub process: Process,
    /// Docker's `User` string.
    pub user: Option<String>,
    /// Whether it gets a terminal.
    pub terminal: bool,
    /// The terminal's size.
    pub size: Option<Size>,
    /// Whether its input is a pipe.
    pub stdin: bool,
    /// A client to join to it.
    pub attach: Option<Attach>,
}

/// Fields of `resize`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resize {
    /// The container.
    pub container: Id,
    /// An exec of it.
    #[serde(default)]
    pub exec: Option<Id>,
    /// Rows.
    pub rows: u16,
    /// Columns.
    pub cols: u16,
}

/// Fields of `signal`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(clippy::struct_field_names)] // the protocol's names
pub struct Signal {
    /// The container.
    pub container: Id,
    /// An exec of it.
    #[serde(default)]
    pub exec: Option<Id>,
    /// 1 to 64.
    pub signal: i32,
    /// To its whole process group: what it has started, as far as that has not gone its own way.
    #[serde(default)]
    pub group: bool,
}
