//! Other processes in running containers.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use knarr_runtime::cgroup::Cgroup;
use knarr_runtime::{ExecRequest, Kind, Launched, exec as run};
use serde_json::json;

use super::start::streams;
use super::{Done, ExecPhase, Phase, Supervisor};
use crate::clock;
use crate::process::Ends;
use crate::procfs::Stat;
use crate::protocol::{Exec, Failure, Target};
use crate::records::{Records, State};
use crate::supervisor::seccomp::Filters;

/// What came of a job.
#[derive(Debug)]
pub struct ExecDone {
    client: u32,
    request: u64,
    target: Target,
    session: Option<u32>,
    result: Result<Executed, Failure>,
}

/// An exec that runs.
#[derive(Debug)]
struct Executed {
    launched: Launched,
    ends: Ends,
    state: State,
}

/// What a job needs.
struct Job {
    records: Records,
    filters: Arc<Filters>,
    exec: Exec,
    pid: i32,
    pidfd: OwnedFd,
    cgroup: Cgroup,
    seccomp: Option<std::path::PathBuf>,
}

impl Supervisor {
    pub(super) fn exec(
        &mut self,
        client: u32,
        request: u64,
        exec: Exec,
        descriptors: Vec<OwnedFd>,
    ) {
        let mut exec = exec;
        let target = exec.target.clone();
        let prepared = self.prepare(&mut exec, descriptors);
        let (job, session) = match prepared {
            Ok((pid, pidfd, cgroup, seccomp, session)) => {
                let (records, filters) = (self.records.clone(), Arc::clone(&self.filters));
                (
                    Job {
                        records,
                        filters,
                        exec,
                        pid,
                        pidfd,
                        cgroup,
                        seccomp,
                    },
                    session,
                )
            }
            Err(failure) => return self.answer(client, request, &Err(failure)),
        };
        if let (Some(container), Some(id)) =
            (self.containers.get_mut(&target.container), &target.exec)
        {
            container.execs.insert(id.clone(), ExecPhase::Starting);
        }
        self.under_way += 1;
        self.helpers.submit(move || {
            let result = job.run();
            Done::Exec(Box::new(ExecDone {
                client,
                request,
                target,
                session,
                result,
            }))
        });
    }

    #[allow(clippy::type_complexity)] // what one caller takes apart at once
    fn prepare(
        &mut self,
        exec: &mut Exec,
        descriptors: Vec<OwnedFd>,
    ) -> Result<
        (
            i32,
            OwnedFd,
            Cgroup,
            Option<std::path::PathBuf>,
            Option<u32>,
        ),
        Failure,
    > {
        let target = &exec.target;
        let container = Target::container(target.container.clone());
        let key = self.running(&container)?;
        let unavailable =
            |error: std::io::Error| Failure::new(Kind::Unavailable, format!("{target}: {error}"));
        let missing = || Failure::missing(&container);
        let process = self.processes.get(&key).ok_or_else(missing)?;
        let pidfd = process
            .pidfd
            .as_ref()
            .ok_or_else(missing)?
            .as_fd()
            .try_clone_to_owned()
            .map_err(unavailable)?;
        let pid = process.pid;
        let found = self.containers.get(&target.container).ok_or_else(missing)?;
        if target
            .exec
            .as_ref()
            .is_some_and(|id| found.execs.contains_key(id))
        {
            return Err(Failure::new(
                Kind::Conflict,
                format!("{target} exists already"),
            ));
        }
        let cgroup = found.cgroup.clone().ok_or_else(|| {
            Failure::new(
                Kind::Unsupported,
                format!("{container} has no control group: nothing can be run in it"),
            )
        })?;
        let seccomp = found.seccomp.clone();
        let session = match exec.attach.take() {
            Some(attach) => Some(self.session(attach, descriptors, true)?),
            None if descriptors.is_empty() => None,
            None => {
                let what = "exec: a descriptor came without `attach`";
                return Err(Failure::new(Kind::InvalidArgument, what));
            }
        };
        Ok((pid, pidfd, cgroup, seccomp, session))
    }

    pub(super) fn executed(&mut self, done: ExecDone) {
        self.under_way -= 1;
        let ExecDone {
            client,
            request,
            target,
            session,
            result,
        } = done;
        let answer = result.and_then(|executed| self.take_in_exec(&target, executed));
        if let Ok(key) = &answer {
            if let Some(session) = session {
                self.join(session, *key);
            }
        } else {
            // The client's connection is still the daemon's, which answers on it.
            if let Some(session) = session {
                self.sessions.remove(&session);
            }
            self.forget_exec(&target);
        }
        let pid = answer
            .map(|key| json!({"pid": self.processes.get(&key).map_or(0, |process| process.pid)}));
        self.answer(client, request, &pid);
    }

    fn take_in_exec(&mut self, target: &Target, executed: Executed) -> Result<u32, Failure> {
        let Executed {
            launched,
            ends,
            mut state,
        } = executed;
        let Launched {
            pid,
            pidfd,
            warnings,
            ..
        } = launched;
        for warning in warnings {
            self.journal.say(format!("{target}: {warning}"));
        }
        state.pid = pid;
        state.ticks = Stat::of(pid).map_or(0, |stat| stat.ticks);
        self.deposit(target, pid, &pidfd, &ends, &[]);
        if let Err(error) = self.records.complete_state(target, &state) {
            self.journal
                .say(format!("{target} cannot be recorded: {error}"));
        }
        let key = self.supervise(target, pid, &pidfd, true, ends, &state, None)?;
        if let (Some(container), Some(exec)) =
            (self.containers.get_mut(&target.container), &target.exec)
            && !matches!(container.phase, Phase::Starting(_))
        {
            container
                .execs
                .insert(exec.clone(), ExecPhase::Running(key));
        }
        Ok(key)
    }

    fn forget_exec(&mut self, target: &Target) {
        if let (Some(container), Some(exec)) =
            (self.containers.get_mut(&target.container), &target.exec)
        {
            container.execs.remove(exec);
        }
    }
}

impl Job {
    fn run(self) -> Result<Executed, Failure> {
        let Self {
            records,
            exec,
            pid,
            pidfd,
            cgroup,
            ..
        } = &self;
        let target = &exec.target;
        let unavailable = |what: &str, error: std::io::Error| {
            Failure::new(
                Kind::Unavailable,
                format!("cannot {what} of {target}: {error}"),
            )
        };
        if cgroup.frozen().is_ok_and(|frozen| frozen) {
            // What is started in a frozen group does not come to its program.
            let what = format!(
                "container {} is paused, unpause the container before exec",
                target.container
            );
            return Err(Failure::new(Kind::Conflict, what));
        }
        let seccomp = self
            .seccomp
            .as_deref()
            .map(|path| self.filters.get(path))
            .transpose()?;
        let state = State {
            started_at: clock::now(),
            terminal: exec.terminal,
            stdin_once: true,
            ..State::default()
        };
        records
            .write_state(target, &state)
            .map_err(|error| unavailable("record the start", error))?;
        let ran = streams(exec.terminal, exec.size, exec.stdin)
            .map_err(|error| unavailable("make the streams", error));
        let ran = ran.and_then(|(stdio, ends)| {
            let request = ExecRequest::new(&exec.process, *pid, pidfd.as_fd(), cgroup, stdio);
            Ok((
                run(ExecRequest {
                    user: exec.user.as_deref(),
                    seccomp,
                    ..request
                })?,
                ends,
            ))
        });
        match ran {
            Ok((mut launched, mut ends)) => {
                ends.terminal = launched.terminal.take();
                Ok(Executed {
                    launched,
                    ends,
                    state,
                })
            }
            Err(failure) => {
                // A record that stays is removed with its container's.
                let _ = records.remove(target);
                Err(failure)
            }
        }
    }
}
