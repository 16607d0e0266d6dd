//! What containers use, and other limits for them. Both are read and written on workers: control groups can be slow.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use knarr_runtime::Kind;
use knarr_runtime::cgroup::Cgroup;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::{Map, Value, json};

use super::exit::empty;
use super::{Done, Supervisor};
use crate::clock;
use crate::protocol::{Answer, Failure, Id, Measure, Target, Update};

/// Bytes of an answer beyond which no further container is measured: the next would have to fit into the packet.
const ENOUGH: usize = 64 * 1024;
/// Interfaces that no engine made: the kernel puts them into every network namespace.
const KERNELS_OWN: [&str; 10] = [
    "lo", "tunl0", "gre0", "gretap0", "erspan0", "ip_vti0", "ip6_vti0", "sit0", "ip6tnl0",
    "ip6gre0",
];
/// Nanoseconds of a clock tick (`USER_HZ`).
const TICK: u64 = 10_000_000;

/// A container to be measured.
struct Subject {
    id: Id,
    pid: i32,
    pidfd: OwnedFd,
    cgroup: Cgroup,
}

impl Supervisor {
    pub(super) fn measure(&mut self, client: u32, request: u64, measure: Measure) {
        let subjects: Vec<Subject> = measure
            .containers
            .into_iter()
            .filter_map(|id| self.subject(id))
            .collect();
        self.under_way += 1;
        self.helpers
            .submit(move || Done::Answer(client, request, Ok(measured(&subjects))));
    }

    fn subject(&self, id: Id) -> Option<Subject> {
        let key = self.running(&Target::container(id.clone())).ok()?;
        let process = self.processes.get(&key)?;
        let pidfd = process.pidfd.as_ref()?.as_fd().try_clone_to_owned().ok()?;
        let cgroup = self.containers.get(&id)?.cgroup.clone()?;
        Some(Subject {
            id,
            pid: process.pid,
            pidfd,
            cgroup,
        })
    }

    pub(super) fn update(&mut self, client: u32, request: u64, update: Update) {
        let Update {
            container,
            resources,
        } = update;
        let target = Target::container(container.clone());
        let found = self.running(&target).and_then(|_| {
            let found = self.containers.get(&container);
            found.and_then(|found| found.cgroup.clone()).ok_or_else(|| {
                let what = format!("{target} has no control group: it has no limits");
                Failure::new(Kind::Unsupported, what)
            })
        });
        let mut cgroup = match found {
            Ok(cgroup) => cgroup,
            Err(failure) => return self.answer(client, request, &Err(failure)),
        };
        self.under_way += 1;
        self.helpers.submit(move || {
            let answer: Answer = cgroup
                .update(&resources)
                .map(|warnings| json!({ "warnings": warnings }))
                .map_err(|error| Failure::new(error.kind, error.message));
            Done::Updated(client, request, container, cgroup, answer)
        });
    }

    /// Keep a group that may have grown. One whose container has ended meanwhile is removed with what it has grown.
    pub(super) fn updated(&mut self, container: &Id, cgroup: Cgroup) {
        let known = self
            .containers
            .get_mut(container)
            .and_then(|container| container.cgroup.as_mut());
        if let Some(known) = known {
            *known = cgroup;
            return;
        }
        let id = container.clone();
        self.under_way += 1;
        self.sweeper.submit(move || Done::Swept(id, empty(&cgroup)));
    }

    /// A control group that was late has been removed.
    pub(super) fn swept(&mut self, container: &Id, result: io::Result<()>) {
        self.under_way -= 1;
        if let Err(error) = result {
            self.journal.say(format!(
                "the control group of container {container} cannot be removed: {error}"
            ));
        }
    }
}

/// The answer to `stats`.
fn measured(subjects: &[Subject]) -> Value {
    let (system, online) = processors();
    let mut found = Map::new();
    let mut rest = Vec::new();
    let mut bytes = 0;
    for subject in subjects {
        if bytes > ENOUGH {
            rest.push(&subject.id);
        } else if let Ok(Some(stats)) = measured_one(subject) {
            bytes += stats.to_string().len();
            found.insert(subject.id.to_string(), stats);
        } // Else it has ended, and its files with it.
    }
    json!({"stats": found, "rest": rest, "system": {"cpu": system, "online": online}})
}

fn measured_one(subject: &Subject) -> io::Result<Option<Value>> {
    let read = clock::now();
    let stats = subject.cgroup.stats()?;
    let networks = networks(subject.pid)?;
    // Only of a process that has not ended is it certain whose files these were.
    if has_ended(&subject.pidfd)? {
        return Ok(None);
    }
    let mut value = serde_json::to_value(&stats).map_err(io::Error::other)?;
    value["read"] = read.into();
    value["networks"] = networks;
    Ok(Some(value))
}

fn has_ended(pidfd: &OwnedFd) -> io::Result<bool> {
    let mut fds = [PollFd::new(pidfd, PollFlags::IN)];
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    Ok(poll(&mut fds, Some(&now))? > 0)
}

/// What has passed through the interfaces of a process's network namespace; null for the host's.
fn networks(pid: i32) -> io::Result<Value> {
    if fs::read_link(format!("/proc/{pid}/ns/net"))? == fs::read_link("/proc/self/ns/net")? {
        return Ok(Value::Null);
    }
    Ok(interfaces(&fs::read_to_string(format!(
        "/proc/{pid}/net/dev"
    ))?))
}

/// The counters of `/proc/<pid>/net/dev` (proc(5)), by interface.
fn interfaces(text: &str) -> Value {
    let mut found = Map::new();
    for line in text.lines() {
        let Some((name, counters)) = line.rsplit_once(':') else {
            continue;
        };
        let counters: Vec<u64> = counters
            .split_whitespace()
            .filter_map(|word| word.parse().ok())
            .collect();
        let name = name.trim();
        if counters.len() < 16 || KERNELS_OWN.contains(&name) {
            continue;
        }
        let mut of = Map::new();
        for (key, column) in [
            ("rx_bytes", 0),
            ("rx_packets", 1),
            ("rx_errors", 2),
            ("rx_dropped", 3),
            ("tx_bytes", 8),
            ("tx_packets", 9),
            ("tx_errors", 10),
            ("tx_dropped", 11),
        ] {
            of.insert(key.to_owned(), counters[column].into());
        }
        found.insert(name.to_owned(), Value::Object(of));
    }
    Value::Object(found)
}

/// (nanoseconds that the host's processors have spent since it started, how many there are), by `/proc/stat`.
fn processors() -> (u64, usize) {
    use io::BufRead;
    let Ok(file) = fs::File::open("/proc/stat") else {
        return (0, 0);
    };
    let (mut ticks, mut online) = (0, 0);
    // The lines that matter come first; the rest, of every interrupt, is never made.
    for line in io::BufReader::with_capacity(1024, file).lines() {
        let Ok(line) = line else { break };
        let Some(rest) = line.strip_prefix("cpu") else {
            break;
        };
        if rest.starts_with(' ') {
            // user nice system idle iowait irq softirq, as Docker adds them up
            ticks = rest
                .split_whitespace()
                .take(7)
                .filter_map(|word| word.parse::<u64>().ok())
                .sum();
        } else {
            online += 1;
        }
    }
    (ticks * TICK, online)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_are_read_by_column() {
        let text = "Inter-|   Receive                                                |  Transmit\n \
            face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n    \
            lo:     100       1    0    0    0     0          0         0      100       1    0    0    0     0       0          0\n  \
            eth0: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n eth1:2: 1 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n";
        assert_eq!(
            interfaces(text),
            json!({
                "eth0": {"rx_bytes": 1, "rx_packets": 2, "rx_errors": 3, "rx_dropped": 4,
                    "tx_bytes": 9, "tx_packets": 10, "tx_errors": 11, "tx_dropped": 12},
                "eth1:2": {"rx_bytes": 1, "rx_packets": 0, "rx_errors": 0, "rx_dropped": 0,
                    "tx_bytes": 0, "tx_packets": 0, "tx_errors": 0, "tx_dropped": 0},
            })
        );
    }

    #[test]
    fn this_host_has_processors() {
        let (time, online) = processors();
        assert!(time > 0 && online > 0);
    }

    #[test]
    fn an_ended_process_is_known_by_its_descriptor() {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let pidfd = knarr_sys::pidfd::open(i32::try_from(child.id()).unwrap()).unwrap();
        assert!(!has_ended(&pidfd).unwrap());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(has_ended(&pidfd).unwrap());
    }
}
