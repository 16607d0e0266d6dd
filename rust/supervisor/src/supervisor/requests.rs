//! From a request to what is done.

use std::os::fd::{AsFd, OwnedFd};

use knarr_runtime::Kind;
use rustix::termios::{Winsize, tcsetwinsize};
use serde_json::json;

use super::{Container, ExecPhase, Phase, Supervisor};
use crate::exits::Exit;
use crate::protocol::{Answer, Event, Failure, Id, Listed, Operation, Request, Status, Target};

/// Containers of one answer to `hello`: as many as surely fit into a packet.
const PAGE: usize = 400;

impl Supervisor {
    /// Carry out a request. What takes time answers later.
    pub(super) fn requested(&mut self, client: u32, request: Request, descriptors: Vec<OwnedFd>) {
        let Request { id, operation } = request;
        let answer = match operation {
            Operation::Hello(hello) => Ok(self.hello(hello.after.as_ref())),
            Operation::Subscribe => {
                self.answer(client, id, &Ok(json!({})));
                return self.subscribe(client);
            }
            Operation::Start(start) => return self.start(client, id, start),
            Operation::Exec(exec) => return self.exec(client, id, *exec, descriptors),
            Operation::Attach(attach) => self.attach(attach, descriptors).map(|()| json!({})),
            Operation::Resize(resize) => {
                let target = Target {
                    container: resize.container,
                    exec: resize.exec,
                };
                self.resize(&target, resize.rows, resize.cols)
            }
            Operation::Signal(signal) => {
                let target = Target {
                    container: signal.container,
                    exec: signal.exec,
                };
                self.signal(&target, signal.signal)
            }
            Operation::Pause(container) => self.freeze(&container, true),
            Operation::Unpause(container) => self.freeze(&container, false),
            Operation::Forget(target) => {
                self.forget(&target);
                Ok(json!({}))
            }
        };
        self.answer(client, id, &answer);
    }

    fn hello(&self, after: Option<&Id>) -> serde_json::Value {
        let rest = self.containers.iter().filter(|(id, container)| {
            !matches!(container.phase, Phase::Starting) && after.is_none_or(|after| *id > after)
        });
        let mut page: Vec<Listed<'_>> = rest
            .map(|(id, container)| listed(id, container))
            .take(PAGE + 1)
            .collect();
        let more = page.len() > PAGE;
        page.truncate(PAGE);
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "pid": std::process::id(),
            "keeper_pid": self.keeper_pid,
            "generation": self.generation,
            "containers": page,
            "more": more,
        })
    }

    fn subscribe(&mut self, client: u32) {
        let mut packets = Vec::new();
        for (id, container) in &self.containers {
            let target = |exec| Target {
                container: id.clone(),
                exec,
            };
            for (exec, phase) in &container.execs {
                if let ExecPhase::Exited(exit) = phase {
                    packets.push(Event::Exit(&target(Some(exec.clone())), exit).packet());
                }
            }
            if let Phase::Exited(exit) = &container.phase {
                packets.push(Event::Exit(&target(None), exit).packet());
            }
        }
        if let Some(client) = self.clients.get_mut(&client) {
            client.subscribed = true;
        }
        for packet in packets {
            self.send(client, packet);
        }
    }

    /// The key of a process that runs.
    pub(super) fn running(&self, target: &Target) -> Result<u32, Failure> {
        let missing = || Failure::missing(target);
        let container = self.containers.get(&target.container).ok_or_else(missing)?;
        let key = match &target.exec {
            None => match container.phase {
                Phase::Running(key) => Some(key),
                Phase::Starting | Phase::Exited(_) => None,
            },
            Some(exec) => match container.execs.get(exec) {
                Some(ExecPhase::Running(key)) => Some(*key),
                Some(ExecPhase::Starting | ExecPhase::Exited(_)) | None => None,
            },
        };
        let key = key.filter(|key| {
            self.processes
                .get(key)
                .is_some_and(|process| process.exit.is_none())
        });
        key.ok_or_else(missing)
    }

    fn resize(&mut self, target: &Target, rows: u16, cols: u16) -> Answer {
        let key = self.running(target)?;
        let process = self
            .processes
            .get(&key)
            .ok_or_else(|| Failure::missing(target))?;
        let terminal = process.outputs[0].as_ref().filter(|_| process.terminal);
        let Some(terminal) = terminal else {
            return Err(Failure::new(
                Kind::InvalidArgument,
                format!("{target} has no terminal"),
            ));
        };
        let size = Winsize {
            ws_row: rows,
            ws_col: cols,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(terminal.as_fd(), size).map_err(|error| {
            Failure::new(
                Kind::Internal,
                format!("cannot resize the terminal of {target}: {error}"),
            )
        })?;
        Ok(json!({}))
    }

    fn signal(&mut self, target: &Target, signal: i32) -> Answer {
        if !(1..=64).contains(&signal) {
            return Err(Failure::new(
                Kind::InvalidArgument,
                format!("{signal} is no signal: use 1 to 64"),
            ));
        }
        let key = self.running(target)?;
        let pidfd = self
            .processes
            .get(&key)
            .and_then(|process| process.pidfd.as_ref());
        let pidfd = pidfd.ok_or_else(|| Failure::missing(target))?;
        match knarr_sys::supervise::send_signal(pidfd, signal) {
            Ok(()) => Ok(json!({})),
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => {
                Err(Failure::missing(target))
            }
            Err(error) => Err(Failure::new(
                Kind::Internal,
                format!("cannot signal {target}: {error}"),
            )),
        }
    }

    fn freeze(&mut self, container: &Id, freeze: bool) -> Answer {
        let target = Target::container(container.clone());
        self.running(&target)?;
        let cgroup = self
            .containers
            .get(container)
            .and_then(|container| container.cgroup.as_ref());
        let Some(cgroup) = cgroup else {
            return Err(Failure::new(
                Kind::Unsupported,
                format!("{target} has no control group: it cannot be paused"),
            ));
        };
        let (result, verb) = if freeze {
            (cgroup.freeze(), "pause")
        } else {
            (cgroup.thaw(), "unpause")
        };
        result.map_err(|error| {
            Failure::new(Kind::Internal, format!("cannot {verb} {target}: {error}"))
        })?;
        Ok(json!({}))
    }
}

fn listed<'a>(id: &'a Id, container: &Container) -> Listed<'a> {
    let status = match &container.phase {
        Phase::Starting | Phase::Running(_) => Status::Running,
        Phase::Exited(Exit { known: true, .. }) => Status::Exited,
        Phase::Exited(_) => Status::Unknown,
    };
    Listed {
        container: id,
        pid: container.pid,
        started_at: container.started_at,
        status,
        adopted: container.adopted,
    }
}
