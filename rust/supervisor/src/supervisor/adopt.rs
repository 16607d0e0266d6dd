//! What a predecessor has left: processes that run, exits that nobody has forgotten, starts without an end.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::OwnedFd;

use knarr_runtime::cgroup::Cgroup;
use knarr_sys::supervise::Ended;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::keeping::Deposit;
use super::{Container, ExecPhase, Phase, Supervisor};
use crate::exits::Exit;
use crate::link::{Message, Part};
use crate::logs::Log;
use crate::network::Survivors;
use crate::process::Ends;
use crate::procfs::Stat;
use crate::protocol::{Id, Target};
use crate::records::{Found, State};

/// A process's descriptor, its streams, and what is held of its network.
type Pieces = (OwnedFd, Ends, Vec<(Part, OwnedFd)>);

impl Supervisor {
    /// Take over. Fails only where the records cannot be read at all.
    pub(super) fn adopt(
        &mut self,
        mut deposits: BTreeMap<Target, Deposit>,
        ended: &HashMap<i32, Ended>,
    ) -> Result<(), String> {
        let mut complaints = Vec::new();
        let found = self.records.read(|complaint| complaints.push(complaint));
        let found = found.map_err(|error| {
            format!(
                "the records of {} cannot be read: {error}",
                self.options.run_root.display()
            )
        })?;
        for complaint in complaints {
            self.journal.say(complaint);
        }
        let mut survivors = Survivors::default();
        let mut sorted = Vec::new();
        for found in found {
            let Found {
                target,
                state,
                exit,
            } = &found;
            let deposit = deposits.remove(target);
            let runs = exit.is_none() && state.pid != 0;
            let pieces = if runs { pieces(state, deposit) } else { None };
            if target.exec.is_none() && pieces.is_some() {
                let links = state.network.interfaces.iter();
                let links = links.map(|attached| attached.link.clone());
                // Those on the host's own interfaces have no other side.
                survivors
                    .links
                    .extend(links.filter(|link| !link.is_empty()));
                survivors.owners.insert(target.container.to_string());
            }
            sorted.push((found, pieces));
        }
        self.network.spare(survivors);
        for (found, pieces) in sorted {
            self.adopt_one(found, pieces, ended);
        }
        let runs = |id: &Id| self.running(&Target::container(id.clone())).is_ok();
        self.network.restore_entries(runs);
        for (target, _) in deposits {
            self.journal.say(format!(
                "{target} was deposited and is not recorded: dropped"
            ));
            self.tell_keeper(
                &Message::Withdraw {
                    target,
                    parts: Vec::new(),
                },
                &[],
            );
        }
        Ok(())
    }

    fn adopt_one(&mut self, found: Found, pieces: Option<Pieces>, ended: &HashMap<i32, Ended>) {
        let Found {
            target,
            state,
            exit,
        } = found;
        if target.exec.is_none() {
            self.adopt_container(&target, &state);
        } else if !self.containers.contains_key(&target.container) {
            return;
        }
        if let Some(exit) = exit {
            return self.adopt_exit(&target, exit);
        }
        if state.pid == 0 {
            return self.undo_start(&target);
        }
        let Some((pidfd, ends, held)) = pieces else {
            let told = ended.get(&state.pid).copied();
            let zombie = || {
                Stat::of(state.pid)
                    .filter(|stat| stat.ticks == state.ticks)?
                    .ended()
            };
            let exit = Exit::new(state.pid, told.or_else(zombie), false);
            if !exit.known {
                self.journal.say(format!(
                    "{target}, process {}, has gone, and nobody can tell how it ended",
                    state.pid
                ));
            }
            if let Err(error) = self.records.write_exit(&target, &exit) {
                self.journal
                    .say(format!("the exit of {target} cannot be recorded: {error}"));
            }
            return self.adopt_exit(&target, exit);
        };
        if ends.stdout.is_none() && ends.terminal.is_none() {
            self.journal.say(format!(
                "{target} runs, but what it writes is lost: nobody held its output"
            ));
        }
        let log = state
            .log
            .clone()
            .filter(|_| ends.stdout.is_some() || ends.terminal.is_some())
            .and_then(|options| {
                let opened = Log::open(options, false);
                opened
                    .inspect_err(|error| {
                        self.journal
                            .say(format!("{target}: its log cannot be opened: {error}"));
                    })
                    .ok()
            });
        if target.exec.is_none() {
            self.adopt_network(&target, &state, held);
        }
        match self.supervise(&target, state.pid, &pidfd, false, ends, &state, log) {
            Ok(key) => {
                self.set_running(&target, key);
                self.journal
                    .say(format!("took over {target}, process {}", state.pid));
                if let Some(how) = ended.get(&state.pid) {
                    self.end(key, Some(*how));
                }
            }
            Err(failure) => self.journal.say(failure.message),
        }
    }

    fn adopt_network(&mut self, target: &Target, state: &State, mut held: Vec<(Part, OwnedFd)>) {
        let id = &target.container;
        match self.network.adopt(id, state.pid, &state.network, &held) {
            Ok(more) => {
                self.deposit_more(target, state.pid, &more);
                held.extend(more);
            }
            Err(failure) => self.journal.say(format!(
                "the network of {target} cannot be taken over: {failure}"
            )),
        }
        if let Some(container) = self.containers.get_mut(&target.container) {
            container.held = held;
        }
    }

    fn adopt_container(&mut self, target: &Target, state: &State) {
        let cgroup = Some(&state.cgroup)
            .filter(|path| !path.is_empty())
            .and_then(|path| {
                let adopted = Cgroup::adopt(path);
                adopted
                    .inspect_err(|error| {
                        self.journal
                            .say(format!("{target}: its control group {path}: {error}"));
                    })
                    .ok()
            });
        let container = Container {
            phase: Phase::Starting(0),
            started_at: state.started_at,
            pid: state.pid,
            adopted: true,
            cgroup,
            cgroup_path: state.cgroup.clone(),
            seccomp: state.seccomp.clone(),
            network: state.network.clone(),
            held: Vec::new(),
            execs: BTreeMap::new(),
        };
        self.containers.insert(target.container.clone(), container);
    }

    fn set_running(&mut self, target: &Target, key: u32) {
        let Some(container) = self.containers.get_mut(&target.container) else {
            return;
        };
        match &target.exec {
            None => container.phase = Phase::Running(key),
            Some(exec) => {
                container
                    .execs
                    .insert(exec.clone(), ExecPhase::Running(key));
            }
        }
    }

    fn adopt_exit(&mut self, target: &Target, exit: Exit) {
        let Some(container) = self.containers.get_mut(&target.container) else {
            return;
        };
        match &target.exec {
            None => container.phase = Phase::Exited(exit),
            Some(exec) => {
                container
                    .execs
                    .insert(exec.clone(), ExecPhase::Exited(exit));
            }
        }
        self.tell_keeper(
            &Message::Withdraw {
                target: target.clone(),
                parts: Vec::new(),
            },
            &[],
        );
        if target.exec.is_none() {
            self.tear_down(&target.container);
        }
    }

    /// A start that nobody was told of: kill and remove what there is of it.
    fn undo_start(&mut self, target: &Target) {
        self.journal.say(format!(
            "the start or removal of {target} was interrupted: it is removed"
        ));
        if target.exec.is_none() {
            // Its record goes when all else has gone.
            self.tear_down(&target.container);
            self.containers.remove(&target.container);
        } else {
            self.remove_records(target);
        }
        self.tell_keeper(
            &Message::Withdraw {
                target: target.clone(),
                parts: Vec::new(),
            },
            &[],
        );
    }
}

/// The descriptors of a process: deposited ones, or what can be had without; None where it has gone.
fn pieces(state: &State, deposit: Option<Deposit>) -> Option<Pieces> {
    let (mut pidfd, mut ends, mut held) = (None, Ends::default(), Vec::new());
    for (part, descriptor) in deposit.map(|(_, parts)| parts).unwrap_or_default() {
        match part {
            Part::Pidfd => pidfd = Some(descriptor),
            Part::Stdin => ends.stdin = Some(descriptor),
            Part::Stdout => ends.stdout = Some(descriptor),
            Part::Stderr => ends.stderr = Some(descriptor),
            Part::Terminal => ends.terminal = Some(descriptor),
            Part::Port | Part::Names | Part::NamesTcp | Part::Namespace => {
                held.push((part, descriptor));
            }
        }
    }
    let pidfd = pidfd.or_else(|| {
        let opened = pidfd_open(Pid::from_raw(state.pid)?, PidfdFlags::empty()).ok()?;
        // Looked at after it was opened, so that it is that process which the descriptor means.
        let stat = Stat::of(state.pid)?;
        (stat.ticks == state.ticks && !stat.is_zombie()).then_some(opened)
    })?;
    Some((pidfd, ends, held))
}
