//! From a packet to a request: what is on the wire, and what is refused.

use knarr_runtime::{Kind, Process};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::answer::Failure;
use super::name::{Id, Target};
use super::request::{Attach, Exec, Operation, Request, Size};
use crate::base64;
use crate::logs::FileOptions;

/// [`Attach`] on the wire.
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
        "connect" => Operation::Connect(read(op, fields)?),
        "disconnect" => Operation::Disconnect(read(op, fields)?),
        "names" => Operation::Names(read(op, fields)?),
        "remove_network" => Operation::RemoveNetwork(read(op, fields)?),
        "balance" => Operation::Balance(read(op, fields)?),
        "unbalance" => Operation::Unbalance(read(op, fields)?),
        "make_parent" => Operation::MakeParent(read(op, fields)?),
        "remove_parent" => Operation::RemoveParent(read(op, fields)?),
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
    use knarr_runtime::RootfsSource;

    use super::super::network::NetworkMode;
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
            "tmpfs_size": 5}, "network": {"mode": "bridge", "interfaces": [{"name": "eth0", "bridge": {"name": "b0",
            "address": "10.0.0.1/8"}, "address": "10.0.0.2/8", "network": "n"}], "way_out": "n",
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
        let bridge = start.network.interfaces[0].bridge.as_ref().unwrap();
        assert!(bridge.masquerade && !bridge.internal && !bridge.isolated && !bridge.resolver);
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
