//! The keeper, as its supervisor sees it; and being without one.
//!
//! A supervisor whose keeper dies becomes a subreaper itself and starts another keeper, which holds descriptors
//! as the first did. It is not the supervisor's parent, so what this supervisor has started is reaped by
//! the host's init should it die as well: then only kernels since 6.15 can tell how such a process ended.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use knarr_sys::supervise::{Ended, peek_zombie};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketFlags, SocketType, accept_with, socketpair};
use rustix::process::{Pid, WaitOptions, getpid, set_child_subreaper, waitpid};

use super::{Phase, Supervisor};
use crate::keeper::read_signals;
use crate::link::{self, Link, Message, Part};
use crate::options::Role;
use crate::poll::{Interest, Ready, Token};
use crate::process::Ends;
use crate::protocol::Target;
use crate::roles;

/// How long the keeper may take to hand everything over.
const HANDOVER: Duration = Duration::from_secs(10);

/// How long is waited after a keeper that did not last.
const HEIR_PAUSE: Duration = Duration::from_secs(5);

/// Descriptors of one process.
pub type Deposit = (i32, Vec<(Part, OwnedFd)>);

/// What the keeper gives to a new supervisor.
#[derive(Debug)]
pub struct Handed {
    pub socket: OwnedFd,
    pub listener: OwnedFd,
    pub lock: OwnedFd,
    pub generation: u64,
    pub keeper_pid: i32,
    pub files: u64,
    pub deposits: BTreeMap<Target, Deposit>,
    pub ended: HashMap<i32, Ended>,
}

/// Receive everything, up to `Ready`.
pub fn receive(socket: OwnedFd) -> io::Result<Handed> {
    let begun = Instant::now();
    let mut welcome = None;
    let (mut deposits, mut ended) = (BTreeMap::<Target, Deposit>::new(), HashMap::new());
    loop {
        let Some((message, descriptors)) = link::receive(&socket)? else {
            if begun.elapsed() > HANDOVER {
                return Err(io::Error::from(io::ErrorKind::TimedOut));
            }
            let patience = Timespec {
                tv_sec: 1,
                tv_nsec: 0,
            };
            poll(
                &mut [PollFd::from_borrowed_fd(socket.as_fd(), PollFlags::IN)],
                Some(&patience),
            )?;
            continue;
        };
        match message {
            Message::Welcome {
                generation,
                pid,
                files,
            } => welcome = Some((generation, pid, files, descriptors)),
            Message::Deposit { target, pid, parts } => {
                let (_, held) = deposits.entry(target).or_insert((pid, Vec::new()));
                held.extend(parts.into_iter().zip(descriptors));
            }
            Message::Exited { pid, ended: how } => {
                ended.insert(pid, how.into());
            }
            Message::Ready => break,
            Message::Withdraw { .. } | Message::End | Message::Bye => {}
        }
    }
    let invalid = || io::Error::from(io::ErrorKind::InvalidData);
    let (generation, keeper_pid, files, descriptors) = welcome.ok_or_else(invalid)?;
    let [listener, lock] = <[OwnedFd; 2]>::try_from(descriptors).map_err(|_| invalid())?;
    Ok(Handed {
        socket,
        listener,
        lock,
        generation,
        keeper_pid,
        files,
        deposits,
        ended,
    })
}

impl Supervisor {
    /// Have the keeper hold copies of a process's descriptors.
    pub(super) fn deposit(
        &mut self,
        target: &Target,
        pid: i32,
        pidfd: &OwnedFd,
        ends: &Ends,
        held: &[(Part, OwnedFd)],
    ) {
        let streams = [
            (Part::Stdin, &ends.stdin),
            (Part::Stdout, &ends.stdout),
            (Part::Stderr, &ends.stderr),
            (Part::Terminal, &ends.terminal),
        ];
        let streams = streams
            .into_iter()
            .filter_map(|(part, fd)| fd.as_ref().map(|fd| (part, fd)));
        let all: Vec<(Part, BorrowedFd<'_>)> = [(Part::Pidfd, pidfd)]
            .into_iter()
            .chain(streams)
            .chain(held.iter().map(|(part, fd)| (*part, fd)))
            .map(|(part, fd)| (part, fd.as_fd()))
            .collect();
        self.deposit_parts(target, pid, &all);
    }

    /// Have the keeper hold more of a process.
    pub(super) fn deposit_more(&mut self, target: &Target, pid: i32, held: &[(Part, OwnedFd)]) {
        let all: Vec<_> = held.iter().map(|(part, fd)| (*part, fd.as_fd())).collect();
        self.deposit_parts(target, pid, &all);
    }

    fn deposit_parts(&mut self, target: &Target, pid: i32, all: &[(Part, BorrowedFd<'_>)]) {
        for some in all.chunks(crate::wire::PACKET_DESCRIPTORS) {
            let (parts, descriptors): (Vec<Part>, Vec<BorrowedFd<'_>>) =
                some.iter().copied().unzip();
            self.tell_keeper(
                &Message::Deposit {
                    target: target.clone(),
                    pid,
                    parts,
                },
                &descriptors,
            );
        }
    }

    /// Say something to the keeper. That it has died is learned from the end of its connection.
    pub(super) fn tell_keeper(&mut self, message: &Message, descriptors: &[BorrowedFd<'_>]) {
        if let Some(link) = &mut self.link
            && let Err(error) = link.send(message, descriptors)
            && error.kind() != io::ErrorKind::BrokenPipe
        {
            self.journal
                .say(format!("the keeper cannot be told: {error}"));
        }
    }

    pub(super) fn on_link(&mut self, ready: Ready) {
        if ready.write
            && let Some(link) = &mut self.link
            && let Err(error) = link.flush()
        {
            self.journal
                .say(format!("the keeper cannot be told: {error}"));
        }
        while let Some(link) = &mut self.link {
            match link.receive() {
                Ok(Some((Message::Exited { pid, ended }, _))) => self.hearsay(pid, ended.into()),
                Ok(Some((Message::End, _))) => self.asked_to_end(),
                Ok(Some(_)) => {}
                Ok(None) => return,
                Err(error) => self.keeper_died(&error),
            }
        }
    }

    pub(super) fn on_signals(&mut self) {
        match read_signals(&self.signals) {
            Ok(signals) => {
                for signal in signals {
                    let keeper = self.keeper_pid;
                    self.journal.say(format!(
                        "signal {signal} changes nothing: the keeper is process {keeper}"
                    ));
                }
            }
            Err(error) => self.journal.say(format!("signals cannot be read: {error}")),
        }
    }

    /// The keeper has reaped something.
    fn hearsay(&mut self, pid: i32, how: Ended) {
        let found = self
            .processes
            .iter()
            .find(|(_, process)| process.pid == pid && !process.child && process.exit.is_none());
        if let Some(key) = found.map(|(key, _)| *key) {
            self.end(key, Some(how));
        }
    }

    fn keeper_died(&mut self, error: &io::Error) {
        self.link = None;
        if self.ended {
            return;
        }
        self.journal.say(format!(
            "the keeper, process {}, is gone ({error}): starting another",
            self.keeper_pid
        ));
        self.orphaned = true;
        if let Some(heir) = self.heir.take().and_then(Pid::from_raw) {
            // One that lives on without its connection is of no use, and reaped later.
            let _ = rustix::process::kill_process(heir, rustix::process::Signal::KILL);
        }
        if let Err(error) = set_child_subreaper(Some(getpid())) {
            self.journal
                .say(format!("cannot become a subreaper: {error}"));
        }
        // One that dies at once is not followed at once.
        if self
            .heir_since
            .is_some_and(|since| since.elapsed() < HEIR_PAUSE)
        {
            self.keeper_pid = 0;
            self.heir_due = Some(Instant::now() + HEIR_PAUSE);
        } else {
            self.have_heir();
        }
    }

    pub(super) fn have_heir(&mut self) {
        self.heir_due = None;
        self.heir_since = Some(Instant::now());
        if let Err(error) = self.start_heir() {
            self.journal.say(format!(
                "cannot start another keeper: {error}; trying again in {HEIR_PAUSE:?}"
            ));
            self.keeper_pid = 0;
            self.heir_due = Some(Instant::now() + HEIR_PAUSE);
        }
    }

    fn start_heir(&mut self) -> io::Result<()> {
        let (ours, theirs) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        rustix::io::ioctl_fionbio(&ours, true)?;
        let heir = roles::start(&self.options, Role::Heir, theirs)?;
        self.keeper_pid = i32::try_from(heir.id()).map_err(io::Error::other)?;
        self.heir = Some(self.keeper_pid);
        let mut link = Link::new(self.poll.watch(ours, Token::Link, Interest::READ)?);
        let pid = getpid().as_raw_nonzero().get();
        let welcome = Message::Welcome {
            generation: self.generation,
            pid,
            files: self.files,
        };
        link.send(&welcome, &[self.listener.as_fd(), self.lock.as_fd()])?;
        let mut others = HashMap::new();
        for process in self
            .processes
            .values()
            .filter(|process| process.exit.is_none())
        {
            let output = if process.terminal {
                Part::Terminal
            } else {
                Part::Stdout
            };
            let input = process.input.descriptor().filter(|_| !process.terminal);
            let parts = [
                (Part::Pidfd, process.pidfd.as_ref()),
                (Part::Stdin, input),
                (output, process.outputs[0].as_ref()),
                (Part::Stderr, process.outputs[1].as_ref()),
            ];
            let (parts, descriptors): (Vec<Part>, Vec<BorrowedFd<'_>>) = parts
                .into_iter()
                .filter_map(|(part, fd)| fd.map(|fd| (part, fd.as_fd())))
                .unzip();
            link.send(
                &Message::Deposit {
                    target: process.target.clone(),
                    pid: process.pid,
                    parts,
                },
                &descriptors,
            )?;
            others.insert(process.target.clone(), process.pid);
        }
        for (id, container) in &self.containers {
            let target = Target::container(id.clone());
            let Some(pid) = others.get(&target) else {
                continue;
            };
            for some in container.held.chunks(crate::wire::PACKET_DESCRIPTORS) {
                let (parts, descriptors): (Vec<Part>, Vec<BorrowedFd<'_>>) =
                    some.iter().map(|(part, fd)| (*part, fd.as_fd())).unzip();
                link.send(
                    &Message::Deposit {
                        target: target.clone(),
                        pid: *pid,
                        parts,
                    },
                    &descriptors,
                )?;
            }
        }
        link.send(&Message::Ready, &[])?;
        self.link = Some(link);
        Ok(())
    }

    /// Without a keeper we inherit the orphans of containers that share the host's PID namespace.
    pub(super) fn reap_orphans(&mut self) {
        // A process that a worker is just starting is not known here yet, and must not be reaped.
        if self.under_way > 0 {
            return;
        }
        loop {
            let Ok(Some((pid, _))) = peek_zombie() else {
                return;
            };
            let known = self
                .processes
                .values()
                .any(|process| process.child && process.pid == pid);
            if known {
                // Its own turn comes with its descriptor.
                return;
            }
            let _ = waitpid(Pid::from_raw(pid), WaitOptions::NOHANG);
        }
    }

    /// The keeper was asked to end, and takes us along.
    fn asked_to_end(&mut self) {
        let running = self
            .containers
            .values()
            .filter(|container| matches!(container.phase, Phase::Running(_)))
            .count();
        self.journal
            .say(format!("asked to end; {running} containers run on"));
        if running == 0 {
            self.clean();
        }
        self.ended = true;
    }

    /// Nothing has been to do for a while.
    pub(super) fn end_idle(&mut self) {
        let (path, aside) = (
            self.options.socket(),
            self.options.run_root.join("supervisor.sock.ending"),
        );
        if let Err(error) = std::fs::rename(&path, &aside) {
            self.journal
                .say(format!("cannot move {} aside: {error}", path.display()));
        }
        // Nobody can come any more; whoever has come meanwhile is served.
        if let Ok(socket) = accept_with(
            self.listener.as_fd(),
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        ) {
            if let Err(error) = std::fs::rename(&aside, &path) {
                self.journal
                    .say(format!("cannot move {} back: {error}", path.display()));
            }
            self.idle_since = None;
            return self.take_client(socket);
        }
        // Nobody is served by that name, and nobody needs to be told that it stays.
        let _ = std::fs::remove_file(&aside);
        self.journal
            .say(format!("idle for {} s", self.options.idle_exit.as_secs()));
        self.clean();
        self.tell_keeper(&Message::Bye, &[]);
        self.ended = true;
    }

    /// Leave nothing on the host.
    fn clean(&mut self) {
        if let Err(failure) = self.network.destroy() {
            self.journal.say(format!(
                "the engine's networks cannot be removed: {failure}"
            ));
        }
        let parent = format!("/knarr-{}", self.options.engine());
        if let Err(error) =
            knarr_runtime::cgroup::Cgroup::adopt(&parent).and_then(|parent| parent.remove())
        {
            self.journal
                .say(format!("the control group {parent} stays: {error}"));
        }
    }
}
