//! Answers and events.

use knarr_runtime::{Kind, LaunchError};
use serde::Serialize;
use serde_json::{Value, json};

use super::name::{Id, Target};
use crate::exits::Exit;

/// Why a request was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// Which class of the vocabulary.
    pub kind: Kind,
    /// Which object, which path, what to do.
    pub message: String,
    /// What a command line exits with, where a program could not be run: 125, 126 or 127.
    pub exit_code: Option<u8>,
}

impl Failure {
    /// A failure that has no exit code.
    #[must_use]
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            exit_code: None,
        }
    }

    /// That there is no such process.
    #[must_use]
    pub fn missing(target: &Target) -> Self {
        Self::new(Kind::NotFound, format!("{target} is not running"))
    }
}

impl From<LaunchError> for Failure {
    fn from(error: LaunchError) -> Self {
        Self {
            kind: error.kind,
            message: error.message,
            exit_code: Some(error.exit_code),
        }
    }
}

/// The answer to one request.
pub type Answer = Result<Value, Failure>;

/// An answer as a packet.
#[must_use]
pub fn packet(id: u64, answer: &Answer) -> Vec<u8> {
    let value = match answer {
        Ok(ok) => json!({"id": id, "ok": ok}),
        Err(Failure {
            kind,
            message,
            exit_code: None,
        }) => {
            json!({"id": id, "error": {"kind": kind.name(), "message": message}})
        }
        Err(Failure {
            kind,
            message,
            exit_code,
        }) => {
            json!({"id": id, "error": {"kind": kind.name(), "message": message, "exit_code": exit_code}})
        }
    };
    value.to_string().into_bytes()
}

/// How a container is doing.
#[derive(Clone, Copy, Debug, Serialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Its first process runs.
    Running,
    /// It has ended.
    Exited,
    /// It has ended, and nobody could tell how.
    Unknown,
}

/// A container as `hello` lists it.
#[derive(Debug, Serialize)]
pub struct Listed<'a> {
    /// Which.
    pub container: &'a Id,
    /// Its first process in the host's PID namespace.
    pub pid: i32,
    /// When it started.
    pub started_at: u64,
    /// How it is doing.
    pub status: Status,
    /// Whether it is frozen.
    pub paused: bool,
    /// Whether an earlier supervisor started it.
    pub adopted: bool,
}

/// What subscribers are told.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// A process has ended and its output has been drained.
    Exit(&'a Target, &'a Exit),
    /// A client has used its detach keys.
    Detach(&'a Target),
}

impl Event<'_> {
    /// The event as a packet.
    #[must_use]
    pub fn packet(&self) -> Vec<u8> {
        let value = match self {
            Self::Exit(
                Target {
                    container,
                    exec: None,
                },
                exit,
            ) => json!({
                "event": "exit", "container": container, "pid": exit.pid, "code": exit.code, "signal": exit.signal,
                "oom": exit.oom, "finished_at": exit.finished_at, "known": exit.known,
            }),
            Self::Exit(Target { container, exec }, exit) => json!({
                "event": "exec_exit", "container": container, "exec": exec, "pid": exit.pid, "code": exit.code,
                "finished_at": exit.finished_at, "known": exit.known,
            }),
            Self::Detach(target) => {
                json!({"event": "detach", "container": target.container, "exec": target.exec})
            }
        };
        value.to_string().into_bytes()
    }
}
