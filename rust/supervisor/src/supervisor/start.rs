//! Starting containers.
//!
//! The job, on a worker: read and check everything, make the network, the root file system and the streams, write
//! `state.json` with PID 0, launch. Whatever fails is undone there. Back in the event loop: deposit the
//! descriptors with the keeper, record the PID, join the clients that wait, answer.

use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use knarr_runtime::spec::Rlimit;
use knarr_runtime::{Kind, LaunchRequest, Launched, Rootfs, RootfsSource, Spec, Stdio, launch};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Resource, getrlimit};
use serde_json::json;

use super::{Container, Done, Phase, Postponed, Remains, Supervisor, Waiting};
use crate::clock;
use crate::link::Part;
use crate::logs::Log;
use crate::network::{Connection, Network, NetworkRecord, namespace_of};
use crate::process::Ends;
use crate::procfs::Stat;
use crate::protocol::{Failure, Id, NetworkMode, Size, Start, Target};
use crate::records::{Records, State};
use crate::supervisor::seccomp::Filters;

/// The longest config.json.
const CONFIG_BYTES: u64 = 4 * 1024 * 1024;

/// What came of a job.
#[derive(Debug)]
pub struct StartDone {
    client: u32,
    request: u64,
    container: Id,
    result: Result<Started, Failure>,
}

/// A container that runs.
#[derive(Debug)]
struct Started {
    launched: Launched,
    ends: Ends,
    log: Option<Log>,
    state: State,
    held: Vec<(Part, OwnedFd)>,
}

/// What a job needs besides the request.
struct Job {
    records: Records,
    network: Arc<Network>,
    filters: Arc<Filters>,
    other: Option<OwnedFd>,
    files: u64,
}

impl Supervisor {
    pub(super) fn start(&mut self, client: u32, request: u64, start: Box<Start>) {
        let ports = !start.network.ports.is_empty();
        let must_wait = self.torn_down.contains_key(&start.container)
            || self.torn_down.values().any(|Remains { network, .. }| {
                let mut interfaces = start.network.interfaces.iter();
                ports && !network.ports.is_empty() || interfaces.any(|one| network.delays(one))
            });
        if must_wait {
            self.waiting.push(Waiting {
                client,
                request,
                postponed: Postponed::Start(start),
            });
            return;
        }
        let container = start.container.clone();
        if let Err(failure) = self.begin(client, request, start) {
            self.close_early(&container);
            self.answer(client, request, &Err(failure));
        }
    }

    fn begin(&mut self, client: u32, request: u64, start: Box<Start>) -> Result<(), Failure> {
        let id = start.container.clone();
        let conflict = |what: &str| {
            Err(Failure::new(
                Kind::Conflict,
                format!("container {id} {what}"),
            ))
        };
        match self.containers.get(&id).map(|container| &container.phase) {
            None => {}
            Some(Phase::Starting(_)) => return conflict("is being started"),
            Some(Phase::Running(_)) => return conflict("is running"),
            Some(Phase::Exited(_)) => {
                return conflict("has ended, and its exit has not been forgotten");
            }
        }
        let job = Job {
            records: self.records.clone(),
            network: Arc::clone(&self.network),
            filters: Arc::clone(&self.filters),
            other: self.other_namespace(&start)?,
            files: self.files,
        };
        let container = Container {
            phase: Phase::Starting(client),
            started_at: 0,
            pid: 0,
            adopted: false,
            cgroup: None,
            cgroup_path: String::new(),
            seccomp: start.seccomp.clone(),
            network: NetworkRecord::default(),
            held: Vec::new(),
            execs: std::collections::BTreeMap::new(),
        };
        self.containers.insert(id.clone(), container);
        self.under_way += 1;
        self.starters.submit(move || {
            let result = job.run(&start);
            Done::Start(Box::new(StartDone {
                client,
                request,
                container: id,
                result,
            }))
        });
        Ok(())
    }

    /// The namespace of the container whose network is to be shared.
    fn other_namespace(&self, start: &Start) -> Result<Option<OwnedFd>, Failure> {
        let Some(other) = &start.network.container else {
            return Ok(None);
        };
        if start.network.mode != NetworkMode::Container {
            let what = format!(
                "start: the network of container {}: only the mode `container` has a `container`",
                start.container
            );
            return Err(Failure::new(Kind::InvalidArgument, what));
        }
        let target = Target::container(other.clone());
        let missing = |_| {
            let what = format!("cannot join network of a non running container: {other}");
            Failure::new(Kind::Conflict, what)
        };
        let key = self.running(&target).map_err(missing)?;
        let pid = self.processes.get(&key).map_or(0, |process| process.pid);
        // It is ours, and not reaped: the PID cannot mean another process.
        let namespace = namespace_of(pid).map_err(|_| missing(Failure::missing(&target)))?;
        Ok(Some(namespace))
    }

    pub(super) fn started(&mut self, done: StartDone) {
        self.under_way -= 1;
        let StartDone {
            client,
            request,
            container: id,
            result,
        } = done;
        let answer = result.and_then(|started| self.take_in(&id, started));
        if answer.is_err() {
            self.containers.remove(&id);
            self.close_early(&id);
        }
        self.answer(client, request, &answer);
        for (client, request, hello) in std::mem::take(&mut self.curious) {
            self.hello(client, request, hello);
        }
    }

    fn take_in(&mut self, id: &Id, started: Started) -> Result<serde_json::Value, Failure> {
        let Started {
            launched,
            ends,
            log,
            mut state,
            held,
        } = started;
        let Launched {
            pid,
            pidfd,
            terminal: _,
            cgroup,
            warnings,
        } = launched;
        let target = Target::container(id.clone());
        for warning in warnings {
            self.journal.say(format!("{target}: {warning}"));
        }
        state.pid = pid;
        state.ticks = Stat::of(pid).map_or(0, |stat| stat.ticks);
        cgroup.path().clone_into(&mut state.cgroup);
        self.deposit(&target, pid, &pidfd, &ends, &held);
        if let Err(error) = self.records.complete_state(&target, &state) {
            self.journal
                .say(format!("{target} cannot be recorded: {error}"));
        }
        let answer =
            json!({"pid": pid, "started_at": state.started_at, "ports": state.network.ports});
        if let Some(container) = self.containers.get_mut(id) {
            container.pid = pid;
            container.started_at = state.started_at;
            state.cgroup.clone_into(&mut container.cgroup_path);
            container.cgroup = Some(cgroup);
            container.network = state.network.clone();
            container.held = held;
        }
        let key = self.supervise(&target, pid, &pidfd, true, ends, &state, log)?;
        if let Some(container) = self.containers.get_mut(id) {
            container.phase = Phase::Running(key);
        }
        for session in self.early.remove(id).unwrap_or_default() {
            self.join(session, key);
        }
        Ok(answer)
    }
}

impl Job {
    fn run(&self, start: &Start) -> Result<Started, Failure> {
        let id = &start.container;
        let spec = self.spec(&start.bundle)?;
        let filter = start
            .seccomp
            .as_deref()
            .map(|path| self.filters.get(path))
            .transpose()?;
        let log = start.log.clone().map(|options| {
            Log::open(options, true).map_err(|error| {
                let failed =
                    "failed to create task for container: failed to initialize logging driver";
                Failure::new(Kind::Internal, format!("{failed}: {error}"))
            })
        });
        let log = log.transpose()?;
        let other = self
            .other
            .as_ref()
            .map(rustix::fd::OwnedFd::try_clone)
            .transpose();
        let other =
            other.map_err(|error| Failure::new(Kind::Unavailable, format!("start: {error}")))?;
        let connection = self.network.connect(id, &start.network, other)?;
        let Connection {
            namespace,
            record,
            held,
        } = connection;
        let state = State {
            started_at: clock::now(),
            terminal: start.terminal,
            stdin_once: start.stdin_once,
            log: start.log.clone(),
            cgroup: spec
                .linux
                .as_ref()
                .map(|linux| linux.cgroups_path.clone())
                .unwrap_or_default(),
            seccomp: start.seccomp.clone(),
            network: record,
            ..State::default()
        };
        match self.launch(start, &spec, namespace.as_ref(), filter, &state) {
            Ok((launched, ends)) => {
                let state = State {
                    started_at: clock::now(),
                    ..state
                };
                Ok(Started {
                    launched,
                    ends,
                    log,
                    state,
                    held,
                })
            }
            Err(failure) => {
                self.undo(id, &state, &held);
                Err(failure)
            }
        }
    }

    fn launch(
        &self,
        start: &Start,
        spec: &Spec,
        namespace: Option<&OwnedFd>,
        seccomp: Option<Arc<knarr_runtime::seccomp::Program>>,
        state: &State,
    ) -> Result<(Launched, Ends), Failure> {
        let id = &start.container;
        let target = Target::container(id.clone());
        let recorded = self.records.write_state(&target, state);
        recorded.map_err(|error| {
            Failure::new(
                Kind::Unavailable,
                format!("cannot record the start of {target}: {error}"),
            )
        })?;
        let rootfs = Rootfs::open(&source(start)?)?;
        let (stdio, mut ends) =
            streams(start.terminal, start.size, start.stdin).map_err(|error| {
                Failure::new(
                    Kind::Unavailable,
                    format!("cannot make the streams of {target}: {error}"),
                )
            })?;
        let init = spec
            .annotations
            .get("knarr.init")
            .is_some_and(|value| value == "true");
        let mut launched = launch(LaunchRequest {
            user: start.user.as_deref(),
            seccomp,
            netns: namespace.map(AsFd::as_fd),
            init,
            ..LaunchRequest::new(id.as_str(), spec, &start.bundle, rootfs, stdio)
        })?;
        ends.terminal = launched.terminal.take();
        Ok((launched, ends))
    }

    /// Remove what a start has made that did not come to its end.
    fn undo(&self, id: &Id, state: &State, held: &[(Part, OwnedFd)]) {
        // Whatever stays is withdrawn by the next supervisor's sweep; the start's own error is the one to tell.
        let _ = self.network.disconnect(id, &state.network, held);
        let _ = self.records.remove(&Target::container(id.clone()));
    }

    fn spec(&self, bundle: &Path) -> Result<Spec, Failure> {
        let path = bundle.join("config.json");
        let failed = |what: String| {
            Failure::new(Kind::InvalidArgument, format!("{}: {what}", path.display()))
        };
        let length = fs::metadata(&path)
            .map_err(|error| failed(error.to_string()))?
            .len();
        if length > CONFIG_BYTES {
            return Err(failed(format!(
                "{length} bytes are more than a specification may have ({CONFIG_BYTES})"
            )));
        }
        let bytes = fs::read(&path).map_err(|error| failed(error.to_string()))?;
        let mut spec = Spec::parse(&bytes).map_err(|error| failed(error.to_string()))?;
        // Our own limit of open files has been raised: containers get the one we were given.
        if let Some(process) = &mut spec.process
            && !process
                .rlimits
                .iter()
                .any(|limit| limit.kind == "RLIMIT_NOFILE")
        {
            let hard = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
            process.rlimits.push(Rlimit {
                kind: "RLIMIT_NOFILE".to_owned(),
                soft: self.files.min(hard),
                hard,
            });
        }
        Ok(spec)
    }
}

fn source(start: &Start) -> Result<RootfsSource, Failure> {
    let source = start.rootfs.source();
    let (mut paths, has_lower) = match &source {
        RootfsSource::Overlay { lower, upper, work } => (vec![upper, work], !lower.is_empty()),
        RootfsSource::Throwaway { lower, .. } => (Vec::new(), !lower.is_empty()),
        RootfsSource::Path(path) => (vec![path], true),
    };
    if let RootfsSource::Overlay { lower, .. } | RootfsSource::Throwaway { lower, .. } = &source {
        paths.extend(lower);
    }
    let wrong = |what: String| {
        Failure::new(
            Kind::InvalidArgument,
            format!("start: container {}: {what}", start.container),
        )
    };
    if !has_lower {
        return Err(wrong("its root file system has no layers".to_owned()));
    }
    match paths.iter().find(|path| !path.is_absolute()) {
        Some(path) => Err(wrong(format!("{} is not an absolute path", path.display()))),
        None => Ok(source),
    }
}

/// The streams of a process: its ends and ours.
pub fn streams(terminal: bool, size: Option<Size>, stdin: bool) -> std::io::Result<(Stdio, Ends)> {
    if terminal {
        let Size(rows, cols) = size.unwrap_or_default();
        return Ok((Stdio::Terminal { rows, cols }, Ends::default()));
    }
    let pipe = || pipe_with(PipeFlags::CLOEXEC);
    let (stdin, theirs) = if stdin {
        let (read, write) = pipe()?;
        (Some(write), read)
    } else {
        (None, File::open("/dev/null")?.into())
    };
    let ((stdout, out), (stderr, err)) = (pipe()?, pipe()?);
    let given = Stdio::Pipes {
        stdin: theirs,
        stdout: out,
        stderr: err,
    };
    Ok((
        given,
        Ends {
            stdin,
            stdout: Some(stdout),
            stderr: Some(stderr),
            terminal: None,
        },
    ))
}
