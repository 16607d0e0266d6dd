//! Requests.

use std::net::IpAddr;
use std::path::PathBuf;

use knarr_runtime::{Kind, Process, RootfsSource};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::answer::Failure;
use super::measure::{Measure, Update};
use super::name::{Id, Target};
use crate::base64;
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

/// How a container is connected.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum NetworkMode {
    /// A namespace with a loopback interface only.
    None,
    /// The host's namespace.
    Host,
    /// Another container's namespace.
    Container,
    /// A bridge of the engine.
    Bridge,
}

/// A container's network. Which fields there are depends on the mode.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkRequest {
    /// Which kind.
    pub mode: NetworkMode,
    /// With `container`: which.
    #[serde(default)]
    pub container: Option<Id>,
    /// With `bridge`: its name.
    #[serde(default)]
    pub bridge: Option<String>,
    /// With `bridge`: the container's address with its prefix.
    #[serde(default)]
    pub address: Option<String>,
    /// With `bridge`: the bridge's own address, without its prefix.
    #[serde(default)]
    pub gateway: Option<IpAddr>,
    /// With `bridge`: the container's MAC address.
    #[serde(default)]
    pub mac: Option<String>,
    /// With `bridge`: published ports.
    #[serde(default)]
    pub ports: Vec<Port>,
}

/// A published port.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
#[allow(clippy::struct_field_names)] // the protocol's names
pub struct Port {
    /// `tcp` or `udp`.
    pub protocol: String,
    /// The host's address.
    pub host_ip: IpAddr,
    /// The host's port; 0 to let us choose.
    pub host_port: u16,
    /// The container's port.
    pub container_port: u16,
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

/// The same on the wire.
#[allow(clippy::struct_excessive_bools)] // each is a fact of its own, as on the wire
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AttachFields {
    #[serde(default)]
    container: Option<Id>,
    #[serde(default)]
    exec: Option<Id>,
    #[serde(default)]
    stdin: bool,
    #[serde(default)]
    stdout: bool,
    #[serde(default)]
    stderr: bool,
    #[serde(default)]
    multiplexed: bool,
    #[serde(default)]
    detach_keys: Vec<u8>,
    #[serde(default)]
    initial: String,
    #[serde(default)]
    history: Option<FileOptions>,
    #[serde(default = "yes")]
    live: bool,
}

const fn yes() -> bool {
    true
}

impl AttachFields {
    fn attach(self, target: Target) -> Result<Attach, Failure> {
        let initial = base64::decode(&self.initial).ok_or_else(|| {
            Failure::new(Kind::InvalidArgument, "attach: `initial` is not base 64")
        })?;
        let Self {
            stdin,
            stdout,
            stderr,
            multiplexed,
            detach_keys,
            history,
            live,
            ..
        } = self;
        if detach_keys.len() > 64 {
            return Err(Failure::new(
                Kind::InvalidArgument,
                "attach: more than 64 detach keys",
            ));
        }
        Ok(Attach {
            target,
            stdin,
            stdout,
            stderr,
            multiplexed,
            detach_keys,
            initial,
            history,
            live,
        })
    }
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

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ExecFields {
    container: Id,
    exec: Id,
    process: Process,
    #[serde(default)]
    user: Option<String>,
    #[serde(default)]
    terminal: bool,
    #[serde(default)]
    size: Option<Size>,
    #[serde(default)]
    stdin: bool,
    #[serde(default)]
    attach: Option<AttachFields>,
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

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    container: Id,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Forgotten {
    container: Id,
    #[serde(default)]
    exec: Option<Id>,
}

/// Read a packet. The request's number is given with an error where it could be read; 0 otherwise.
pub fn parse(packet: &[u8]) -> Result<Request, (u64, Failure)> {
    let invalid = |message: String| Failure::new(Kind::InvalidArgument, message);
    let value: Value = serde_json::from_slice(packet)
        .map_err(|error| (0, invalid(format!("a request is not JSON: {error}"))))?;
    let Value::Object(mut fields) = value else {
        return Err((0, invalid("a request is not a JSON object".to_owned())));
    };
    let id = fields.remove("id").and_then(|id| id.as_u64());
    let id = id.ok_or_else(|| {
        (
            0,
            invalid("a request needs an `id`, a whole number".to_owned()),
        )
    })?;
    let Some(Value::String(op)) = fields.remove("op") else {
        return Err((id, invalid("a request needs an `op`, a string".to_owned())));
    };
    let operation = operation(&op, fields).map_err(|failure| (id, failure))?;
    Ok(Request { id, operation })
}

fn operation(op: &str, fields: Map<String, Value>) -> Result<Operation, Failure> {
    Ok(match op {
        "hello" => Operation::Hello(read(op, fields)?),
        "subscribe" => {
            let Nothing {} = read(op, fields)?;
            Operation::Subscribe
        }
        "start" => Operation::Start(read(op, fields)?),
        "attach" => {
            let mut fields: AttachFields = read(op, fields)?;
            let container = fields.container.take();
            let container = container.ok_or_else(|| {
                Failure::new(Kind::InvalidArgument, "attach: missing field `container`")
            })?;
            let exec = fields.exec.take();
            Operation::Attach(fields.attach(Target { container, exec })?)
        }
        "exec" => Operation::Exec(Box::new(exec(read(op, fields)?)?)),
        "resize" => Operation::Resize(read(op, fields)?),
        "signal" => Operation::Signal(read(op, fields)?),
        "pause" => Operation::Pause(read::<Named>(op, fields)?.container),
        "unpause" => Operation::Unpause(read::<Named>(op, fields)?.container),
        "stats" => Operation::Stats(read(op, fields)?),
        "update" => Operation::Update(read(op, fields)?),
        "logs" => Operation::Logs(Box::new(read(op, fields)?)),
        "describe" => Operation::Describe(read::<Named>(op, fields)?.container),
        "forget" => {
            let Forgotten { container, exec } = read(op, fields)?;
            Operation::Forget(Target { container, exec })
        }
        _ => {
            return Err(Failure::new(
                Kind::InvalidArgument,
                format!("unknown operation {op:?}"),
            ));
        }
    })
}

fn exec(fields: ExecFields) -> Result<Exec, Failure> {
    let ExecFields {
        container,
        exec,
        process,
        user,
        terminal,
        size,
        stdin,
        attach,
    } = fields;
    let target = Target {
        container,
        exec: Some(exec),
    };
    let attach = match attach {
        Some(attach) if attach.container.is_some() || attach.exec.is_some() => {
            return Err(Failure::new(
                Kind::InvalidArgument,
                "exec: `attach` names a container or exec of its own",
            ));
        }
        Some(attach) => Some(attach.attach(target.clone())?),
        None => None,
    };
    Ok(Exec {
        target,
        process,
        user,
        terminal,
        size,
        stdin,
        attach,
    })
}

fn read<T: for<'de> Deserialize<'de>>(op: &str, fields: Map<String, Value>) -> Result<T, Failure> {
    serde_json::from_value(Value::Object(fields))
        .map_err(|error| Failure::new(Kind::InvalidArgument, format!("{op}: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(packet: &str) -> (u64, String) {
        match parse(packet.as_bytes()) {
            Ok(request) => panic!("{packet} was taken as {request:?}"),
            Err((id, failure)) => {
                assert_eq!(failure.kind, Kind::InvalidArgument);
                (id, failure.message)
            }
        }
    }

    #[test]
    fn a_start_is_read_whole() {
        let packet = r#"{"id": 7, "op": "start", "container": "c", "bundle": "/b", "rootfs": {"lower": ["/l"],
            "tmpfs_size": 5}, "network": {"mode": "bridge", "bridge": "b0", "address": "10.0.0.2/8", "gateway": "10.0.0.1",
            "ports": [{"protocol": "udp", "host_ip": "0.0.0.0", "host_port": 0, "container_port": 53}]},
            "size": [24, 80], "log": null}"#;
        let Request {
            id: 7,
            operation: Operation::Start(start),
        } = parse(packet.as_bytes()).unwrap()
        else {
            panic!("not a start");
        };
        assert!(matches!(
            start.rootfs.source(),
            RootfsSource::Throwaway { tmpfs_size: 5, .. }
        ));
        assert_eq!(start.network.mode, NetworkMode::Bridge);
        assert_eq!(start.network.ports[0].container_port, 53);
        assert_eq!(start.size, Some(Size(24, 80)));
        assert!(!start.terminal && !start.stdin && start.log.is_none());
    }

    #[test]
    fn an_attach_is_read_whole() {
        let packet = r#"{"id": 1, "op": "attach", "container": "c", "exec": "e", "stdout": true, "detach_keys": [16, 17],
            "initial": "aGk="}"#;
        let Operation::Attach(attach) = parse(packet.as_bytes()).unwrap().operation else {
            panic!("not an attach")
        };
        assert_eq!(attach.target.to_string(), "exec e of container c");
        assert_eq!(
            (attach.detach_keys, attach.initial),
            (vec![16, 17], b"hi".to_vec())
        );
        assert!(attach.stdout && !attach.stdin && !attach.stderr && !attach.multiplexed);
    }

    #[test]
    fn an_error_carries_the_number_where_there_is_one() {
        for (packet, id, words) in [
            ("", 0, "not JSON"),
            ("[1]", 0, "not a JSON object"),
            (r#"{"op": "hello"}"#, 0, "needs an `id`"),
            (r#"{"id": 1.5, "op": "hello"}"#, 0, "needs an `id`"),
            (r#"{"id": 3}"#, 3, "needs an `op`"),
            (r#"{"id": 3, "op": "fly"}"#, 3, "unknown operation \"fly\""),
            (
                r#"{"id": 3, "op": "subscribe", "all": true}"#,
                3,
                "unknown field `all`",
            ),
            (
                r#"{"id": 3, "op": "pause"}"#,
                3,
                "missing field `container`",
            ),
            (
                r#"{"id": 3, "op": "forget", "container": "a/b"}"#,
                3,
                "\"a/b\" is no ID",
            ),
            (
                r#"{"id": 3, "op": "resize", "container": "a", "rows": -1, "cols": 1}"#,
                3,
                "resize: ",
            ),
            (
                r#"{"id": 3, "op": "attach", "container": "a", "initial": "?"}"#,
                3,
                "base 64",
            ),
            (
                r#"{"id": 3, "op": "attach"}"#,
                3,
                "missing field `container`",
            ),
        ] {
            let (number, message) = refused(packet);
            assert_eq!(number, id, "{packet}");
            assert!(message.contains(words), "{packet}: {message}");
        }
    }

    #[test]
    fn an_exec_joins_its_client_to_itself() {
        let exec = |attach: &str| {
            format!(
                r#"{{"id": 1, "op": "exec", "container": "c", "exec": "e", "process": {{"args": ["x"]}}, "attach": {attach}}}"#
            )
        };
        let Operation::Exec(read) = parse(exec(r#"{"stdin": true}"#).as_bytes())
            .unwrap()
            .operation
        else {
            panic!("not an exec");
        };
        assert_eq!(read.attach.unwrap().target, read.target);
        assert!(
            refused(&exec(r#"{"exec": "other"}"#))
                .1
                .contains("of its own")
        );
        assert!(
            refused(&exec(r#"{"color": 1}"#))
                .1
                .contains("unknown field `color`")
        );
    }
}
