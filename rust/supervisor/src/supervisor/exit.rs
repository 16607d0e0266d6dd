//! Ends: of processes, of containers, of what has to be remembered.
//!
//! Order: the status is read and left (WNOWAIT), `exit.json` written, the process reaped, its output drained, the exit
//! announced. Then a worker removes control group and network; only after that can the same container start
//! again.

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use knarr_runtime::cgroup::Cgroup;
use knarr_sys::supervise::{Ended, ended};
use rustix::io::Errno;
use rustix::process::{WaitId, WaitIdOptions, waitid};

use super::{Done, ExecPhase, Phase, Postponed, Remains, Supervisor, Waiting};
use crate::exits::Exit;
use crate::link::Message;
use crate::poll::{Interest, Ready};
use crate::procfs::Stat;
use crate::protocol::{Event, Id, Target};
use crate::records::State;
use crate::streams::Stream;

/// How long output is waited for that others than the process may still write.
const DRAIN: Duration = Duration::from_secs(1);
/// How long somebody may take to tell how a process ended that is not our child.
const HEARSAY: Duration = Duration::from_secs(2);
/// How long processes may take to go that were left in a control group.
const KILLED: Duration = Duration::from_secs(5);

impl Supervisor {
    /// A process has ended.
    pub(super) fn on_process(&mut self, key: u32, ready: Ready) {
        let Some(process) = self.processes.get_mut(&key) else {
            return;
        };
        let Some(pidfd) = &mut process.pidfd else {
            return;
        };
        if process.child {
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
            match waitid(WaitId::PidFd(pidfd.as_fd()), options) {
                Ok(Some(status)) => {
                    let code = status
                        .exit_status()
                        .and_then(|code| u8::try_from(code & 0xff).ok());
                    let signal = status
                        .terminating_signal()
                        .and_then(|signal| u8::try_from(signal).ok());
                    let how = code.map(Ended::Exited).or(signal.map(Ended::Killed));
                    return self.end(key, how);
                }
                Ok(None) | Err(Errno::INTR) => return,
                Err(_) => process.child = false,
            }
        }
        let told = ended(&*pidfd);
        let zombie = || {
            Stat::of(process.pid)
                .filter(|stat| stat.ticks == process.ticks)?
                .ended()
        };
        if let Some(how) = told.as_ref().ok().copied().flatten().or_else(zombie) {
            return self.end(key, Some(how));
        }
        // It has been reaped, and the kernel is too old to tell: the keeper does, or nobody can.
        let interest = if told.is_ok() && !ready.hangup {
            Interest::HANGUP
        } else {
            Interest::NONE
        };
        process.deadline = process.deadline.or(Some(Instant::now() + HEARSAY));
        if let Err(error) = pidfd.set(interest) {
            self.journal.say(format!(
                "{}: its end cannot be waited for: {error}",
                process.target
            ));
        }
    }

    /// Something is due for a process: it is announced with what is known.
    pub(super) fn overdue(&mut self, key: u32) {
        match self.processes.get(&key) {
            Some(process) if process.exit.is_none() => self.end(key, None),
            Some(process) if !process.announced => self.announce(key),
            _ => {}
        }
    }

    /// Record an end and drain what is left of the output.
    pub(super) fn end(&mut self, key: u32, how: Option<Ended>) {
        let Some(process) = self
            .processes
            .get_mut(&key)
            .filter(|process| process.exit.is_none())
        else {
            return;
        };
        let target = process.target.clone();
        let container = self
            .containers
            .get(&target.container)
            .filter(|_| target.exec.is_none());
        let cgroup = container.and_then(|container| container.cgroup.as_ref());
        // A group without such a counter has killed nobody.
        let oom = cgroup.is_some_and(|cgroup| cgroup.oom_kills().is_ok_and(|kills| kills > 0));
        let exit = Exit::new(process.pid, how, oom);
        if self.containers.contains_key(&target.container)
            && let Err(error) = self.records.write_exit(&target, &exit)
        {
            self.journal
                .say(format!("the exit of {target} cannot be recorded: {error}"));
        }
        if let (Some(pidfd), true) = (&process.pidfd, process.child) {
            // It is a zombie of ours: this cannot fail.
            let _ = waitid(
                WaitId::PidFd(pidfd.as_fd()),
                WaitIdOptions::EXITED | WaitIdOptions::NOHANG,
            );
        }
        if how.is_none() {
            self.journal
                .say(format!("nobody can tell how {target} ended"));
        }
        process.pidfd = None;
        process.exit = Some(exit);
        process.deadline = Some(Instant::now() + DRAIN);
        // Before anybody hears of the end: from then on nothing may be led to it any more.
        if target.exec.is_none()
            && let Err(failure) = self.network.leave(&target.container)
        {
            self.journal
                .say(format!("connections are still led to {target}: {failure}"));
        }
        self.drain(key);
        if self
            .processes
            .get(&key)
            .is_some_and(crate::process::Process::drained)
        {
            self.announce(key);
        }
    }

    /// Tell everybody of an end.
    pub(super) fn announce(&mut self, key: u32) {
        let Self {
            processes,
            scratch,
            journal,
            ..
        } = self;
        let Some(process) = processes.get_mut(&key) else {
            return;
        };
        let Some(exit) = process.exit.clone() else {
            return;
        };
        process.announced = true;
        process.deadline = None;
        process.input.close();
        let target = process.target.clone();
        if let Some(mut log) = process.log.take() {
            for stream in Stream::ALL {
                if let Some(error) = log.end(stream, scratch) {
                    journal.say(format!(
                        "{target}: its log cannot be written: {error}; entries are dropped"
                    ));
                }
            }
            if log.dropped() > 0 {
                journal.say(format!(
                    "{target}: {} entries of its log were dropped",
                    log.dropped()
                ));
            }
        }
        // Whoever still writes is read from, though nobody logs it.
        for output in process.outputs.iter_mut().flatten() {
            // A descriptor that was in the set can be in it again.
            let _ = output.set(Interest::READ);
        }
        let sessions = std::mem::take(&mut process.sessions);
        let readers: Vec<u32> = process.readers.iter().copied().collect();
        if process.drained() {
            processes.remove(&key);
        }
        self.tell_keeper(
            &Message::Withdraw {
                target: target.clone(),
                parts: Vec::new(),
            },
            &[],
        );
        if let Some(container) = self.containers.get_mut(&target.container) {
            match &target.exec {
                Some(exec) => {
                    container
                        .execs
                        .insert(exec.clone(), ExecPhase::Exited(exit.clone()));
                }
                None => container.phase = Phase::Exited(exit.clone()),
            }
            // Before clients see the end: the first that many ask then is the exit code.
            self.publish(Event::Exit(&target, &exit));
        }
        for session in sessions {
            if let Some(found) = self.sessions.get_mut(&session) {
                found.process = None;
            }
            self.finish_session(session);
        }
        self.logged(&readers);
        if target.exec.is_none() {
            self.tear_down(&target.container);
        }
    }

    /// Remove what a container has had on the host, on a worker.
    pub(super) fn tear_down(&mut self, id: &Id) {
        let Some(container) = self.containers.get_mut(id) else {
            return;
        };
        let held = std::mem::take(&mut container.held);
        let record = std::mem::take(&mut container.network);
        let cgroup = container.cgroup.take();
        let (network, id) = (std::sync::Arc::clone(&self.network), id.clone());
        let remains = Remains {
            cgroup: container.cgroup_path.clone(),
            network: record.clone(),
        };
        self.torn_down.insert(id.clone(), remains);
        self.sweeper.submit(move || {
            let mut complaints = Vec::new();
            if let Some(Err(error)) = cgroup.as_ref().map(empty) {
                complaints.push(format!(
                    "the control group of container {id} cannot be removed: {error}"
                ));
            }
            if let Err(failure) = network.disconnect(&id, &record, &held) {
                complaints.push(format!(
                    "the network of container {id} cannot be removed: {failure}"
                ));
            }
            // Not before: others may have the ports once they lead nowhere.
            drop(held);
            Done::Teardown(id, complaints)
        });
    }

    /// What a container had is gone: let those start that waited for it.
    pub(super) fn torn_down(&mut self, id: &Id, complaints: Vec<String>) {
        for complaint in complaints {
            self.journal.say(complaint);
        }
        self.torn_down.remove(id);
        if !self.containers.contains_key(id) {
            self.remove_records(&Target::container(id.clone()));
        }
        for waiting in std::mem::take(&mut self.waiting) {
            let Waiting {
                client,
                request,
                postponed,
            } = waiting;
            // A client that has gone will ask anew, if it still wants to.
            let there = self.clients.contains_key(&client);
            match postponed {
                Postponed::Start(start) if there => self.start(client, request, start),
                Postponed::Start(start) => self.close_early(&start.container),
                Postponed::Connect(connect) if there => self.connect(client, request, connect),
                Postponed::Connect(_) => {}
            }
        }
    }

    /// An exit has been stored by the daemon.
    ///
    /// What is still being removed of its container has to be found by a successor: then the record becomes
    /// that of a start to be undone, and goes with the last of the remains.
    pub(super) fn forget(&mut self, target: &Target) {
        let Some(container) = self.containers.get_mut(&target.container) else {
            return;
        };
        match &target.exec {
            Some(exec) => match container.execs.get(exec) {
                Some(ExecPhase::Exited(_)) => container.execs.remove(exec).is_some(),
                _ => return,
            },
            None if matches!(container.phase, Phase::Exited(_)) => {
                self.containers.remove(&target.container).is_some()
            }
            None => return,
        };
        let remains = self
            .torn_down
            .get(&target.container)
            .filter(|_| target.exec.is_none());
        let Some(Remains { cgroup, network }) = remains.cloned() else {
            return self.remove_records(target);
        };
        let state = State {
            cgroup,
            network,
            ..State::default()
        };
        if let Err(error) = self.records.mark_unfinished(target, &state) {
            self.journal.say(format!(
                "{target} cannot be recorded as being removed: {error}"
            ));
        }
    }

    pub(super) fn remove_records(&mut self, target: &Target) {
        if let Err(error) = self.records.remove(target) {
            self.journal.say(format!(
                "the records of {target} cannot be removed: {error}"
            ));
        }
    }
}

/// Kill what is left in a control group, and remove it.
pub fn empty(cgroup: &Cgroup) -> io::Result<()> {
    let begun = Instant::now();
    let mut pause = Duration::from_micros(200);
    loop {
        match cgroup.remove() {
            Err(error)
                if error.kind() == io::ErrorKind::ResourceBusy && begun.elapsed() < KILLED =>
            {
                cgroup.kill()?;
            }
            result => return result,
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}
