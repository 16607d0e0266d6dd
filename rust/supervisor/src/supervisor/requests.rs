//! From a request to what is done.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use knarr_runtime::Kind;
use rustix::io::Errno;
use rustix::termios::{Winsize, tcsetwinsize};
use serde_json::json;

use super::{Container, Done, ExecPhase, Phase, Supervisor};
use crate::exits::Exit;
use crate::network::Attached;
use crate::protocol::{
    Answer, Event, Failure, Hello, Id, Listed, Operation, Request, Status, Target,
};

const SIGKILL: i32 = 9;
/// Containers of one answer to `hello`: as many as surely fit into a packet.
const PAGE: usize = 400;

impl Supervisor {
    /// Carry out a request. What takes time answers later.
    pub(super) fn requested(&mut self, client: u32, request: Request, descriptors: Vec<OwnedFd>) {
        let Request { id, operation } = request;
        let answer = match operation {
            Operation::Hello(hello) => return self.hello(client, id, hello),
            Operation::Subscribe => {
                self.answer(client, id, &Ok(json!({})));
                return self.subscribe(client);
            }
            Operation::Start(start) => return self.start(client, id, start),
            Operation::Exec(exec) => return self.exec(client, id, *exec, descriptors),
            Operation::Attach(attach) => self.attach(attach, descriptors).map(|()| json!({})),
            Operation::Logs(logs) => self.logs(&logs, descriptors).map(|()| json!({})),
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
                self.signal(&target, signal.signal, signal.group)
            }
            Operation::Pause(container) => return self.freeze(client, id, &container, true),
            Operation::Unpause(container) => return self.freeze(client, id, &container, false),
            Operation::Stats(measure) => return self.measure(client, id, measure),
            Operation::Update(update) => return self.update(client, id, *update),
            Operation::Forget(target) => {
                self.forget(&target);
                Ok(json!({}))
            }
            Operation::Describe(container) => self.describe(&container),
            Operation::Connect(connect) => return self.connect(client, id, connect),
            Operation::Disconnect(disconnect) => self.disconnect(&disconnect),
            Operation::Names(names) => self.rename(&names),
            Operation::Balance(request) => self.balance(*request),
            Operation::Unbalance(unbalance) => {
                self.network.unbalance(&unbalance.entry).map(|()| json!({}))
            }
            Operation::RemoveNetwork(removed) => {
                return self.remove_network(client, id, removed.bridge);
            }
            Operation::MakeParent(parent) => return self.make_parent(client, id, parent),
            Operation::RemoveParent(removed) => {
                return self.remove_parent(client, id, removed.name);
            }
        };
        self.answer(client, id, &answer);
    }

    /// Tell what there is. A start that was asked for by a client that has gone, as the daemon's predecessor, comes
    /// to its end first: nobody else would learn of that container.
    pub(super) fn hello(&mut self, client: u32, request: u64, hello: Hello) {
        let unheard = |container: &Container| match container.phase {
            Phase::Starting(client) => !self.clients.contains_key(&client),
            Phase::Running(_) | Phase::Exited(_) => false,
        };
        if self.containers.values().any(unheard) {
            self.curious.push((client, request, hello));
            return;
        }
        let after = hello.after.as_ref();
        let rest = self.containers.iter().filter(|(id, container)| {
            !matches!(container.phase, Phase::Starting(_)) && after.is_none_or(|after| *id > after)
        });
        let mut page: Vec<Listed<'_>> = rest
            .map(|(id, container)| listed(id, container))
            .take(PAGE + 1)
            .collect();
        let more = page.len() > PAGE;
        page.truncate(PAGE);
        let answer = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "pid": std::process::id(),
            "keeper_pid": self.keeper_pid,
            "generation": self.generation,
            "containers": page,
            "more": more,
        });
        self.answer(client, request, &Ok(answer));
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
                Phase::Starting(_) | Phase::Exited(_) => None,
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

    /// What a start's answer has told, for a daemon whose predecessor did not live to store it.
    fn describe(&self, id: &Id) -> Answer {
        let target = Target::container(id.clone());
        self.running(&target)?;
        let container = self
            .containers
            .get(id)
            .ok_or_else(|| Failure::missing(&target))?;
        Ok(json!({
            "pid": container.pid,
            "started_at": container.started_at,
            "interfaces": container.network.interfaces.iter().map(interface).collect::<serde_json::Map<_, _>>(),
            "ports": container.network.ports,
        }))
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

    fn signal(&mut self, target: &Target, signal: i32, group: bool) -> Answer {
        if !(1..=64).contains(&signal) {
            return Err(Failure::new(
                Kind::InvalidArgument,
                format!("{signal} is no signal: use 1 to 64"),
            ));
        }
        let key = self.running(target)?;
        let process = self.processes.get(&key);
        let (process, pidfd) = process
            .and_then(|process| Some((process, process.pidfd.as_ref()?)))
            .ok_or_else(|| Failure::missing(target))?;
        let sent = if group && process.child {
            // Each leads a group of its own, whose number is nobody else's until we have reaped it.
            knarr_sys::supervise::send_signal_to_group(process.pid, signal)
        } else {
            knarr_sys::supervise::send_signal(pidfd, signal)
        };
        match sent {
            Ok(()) if signal == SIGKILL && target.exec.is_none() => {
                self.thaw(&target.container);
                Ok(json!({}))
            }
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

    /// What is killed while it is frozen dies only once it is thawed (control groups of version 1).
    fn thaw(&self, container: &Id) {
        let cgroup = self
            .containers
            .get(container)
            .and_then(|container| container.cgroup.as_ref());
        if let Some(cgroup) = cgroup
            && cgroup.frozen().is_ok_and(|frozen| frozen)
            && let Err(error) = cgroup.thaw()
        {
            self.journal.say(format!(
                "container {container} was killed and cannot be thawed: {error}"
            ));
        }
    }

    /// Freeze or thaw, on a worker: it takes as long as the container's processes need to get there.
    fn freeze(&mut self, client: u32, request: u64, container: &Id, freeze: bool) {
        let target = Target::container(container.clone());
        let cgroup = match self.running(&target) {
            Ok(_) => self
                .containers
                .get(container)
                .and_then(|container| container.cgroup.clone()),
            Err(failure) => return self.answer(client, request, &Err(failure)),
        };
        let Some(cgroup) = cgroup else {
            let what = format!("{target} has no control group: it cannot be paused");
            return self.answer(client, request, &Err(Failure::new(Kind::Unsupported, what)));
        };
        self.under_way += 1;
        self.helpers.submit(move || {
            let (result, verb) = if freeze {
                (cgroup.freeze(), "pause")
            } else {
                (cgroup.thaw(), "unpause")
            };
            let failed = |error: io::Error| {
                // Its control group goes with it, which may be before anybody here has heard of its end.
                let gone = [Errno::NOENT, Errno::NODEV].map(Errno::raw_os_error);
                let ended = error
                    .raw_os_error()
                    .is_some_and(|code| gone.contains(&code));
                let kind = if ended {
                    Kind::NotFound
                } else {
                    Kind::Internal
                };
                Failure::new(kind, format!("cannot {verb} {target}: {error}"))
            };
            Done::Answer(client, request, result.map(|()| json!({})).map_err(failed))
        });
    }
}

/// An interface by its network: its name, and the container's address.
fn interface(attached: &Attached) -> (String, serde_json::Value) {
    let interface = &attached.interface;
    let plain = |address: &Option<String>| {
        let address = address.as_deref()?;
        address.split('/').next().map(str::to_owned)
    };
    (
        interface.network.clone(),
        json!({"name": interface.name, "address": plain(&interface.address), "address6": plain(&interface.address6)}),
    )
}

fn listed<'a>(id: &'a Id, container: &Container) -> Listed<'a> {
    let status = match &container.phase {
        Phase::Starting(_) | Phase::Running(_) => Status::Running,
        Phase::Exited(Exit { known: true, .. }) => Status::Exited,
        Phase::Exited(_) => Status::Unknown,
    };
    Listed {
        container: id,
        pid: container.pid,
        started_at: container.started_at,
        status,
        paused: container
            .cgroup
            .as_ref()
            .is_some_and(|cgroup| cgroup.frozen().is_ok_and(|frozen| frozen)),
        adopted: container.adopted,
    }
}
