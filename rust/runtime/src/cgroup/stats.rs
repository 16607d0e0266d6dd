//! What a container uses, from either version's files.
//!
//! A controller or a file that the host does not have reads as nothing: zeros, or an empty list.

use std::collections::BTreeMap;
use std::io;

use serde::Serialize;

use super::{Cgroup, read as read_file};

/// Nanoseconds of a clock tick (`USER_HZ`, 100 a second on every architecture).
const TICK: u64 = 10_000_000;

/// What a container uses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Stats {
    /// Of the control groups these come from: 1 or 2.
    pub version: u8,
    /// Processor time.
    pub cpu: CpuStats,
    /// Memory.
    pub memory: MemoryStats,
    /// Processes and threads.
    pub pids: PidsStats,
    /// Block devices.
    pub io: IoStats,
}

/// Processor time, in nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CpuStats {
    /// In all.
    pub total: u64,
    /// In user mode.
    pub user: u64,
    /// In kernel mode.
    pub system: u64,
    /// By processor; version 2 does not tell.
    pub per_cpu: Vec<u64>,
    /// Periods of the quota that have passed.
    pub periods: u64,
    /// Periods in which the group was held back.
    pub throttled_periods: u64,
    /// For how long.
    pub throttled_time: u64,
}

/// Memory, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct MemoryStats {
    /// Charged.
    pub usage: u64,
    /// The most that ever was; version 2 of Docker's API does not tell.
    pub max_usage: u64,
    /// Allowed; 0 where there is no limit.
    pub limit: u64,
    /// How often the limit was hit: `failcnt`, or `oom` of `memory.events`.
    pub failures: u64,
    /// `memory.stat`.
    pub stats: BTreeMap<String, u64>,
}

/// Processes and threads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PidsStats {
    /// How many there are.
    pub current: u64,
    /// How many are allowed; 0 where there is no limit.
    pub limit: u64,
}

/// Block devices, as (major, minor, operation, value). Operations are the kernel's in version 1 (`Read`, `Total`), and
/// `read` and `write` in version 2.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct IoStats {
    /// Bytes.
    pub bytes: Vec<IoEntry>,
    /// How many; version 1 only.
    pub operations: Vec<IoEntry>,
}

/// One line of [`IoStats`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct IoEntry(pub u64, pub u64, pub String, pub u64);

/// A single number; `max` and what is larger than any real limit is 0.
fn number(text: &str) -> u64 {
    const NO_LIMIT: u64 = 1 << 60;
    text.trim()
        .parse()
        .ok()
        .filter(|value| *value < NO_LIMIT)
        .unwrap_or(0)
}

/// Lines of `key value`.
fn pairs(text: &str) -> impl Iterator<Item = (&str, u64)> {
    text.lines().filter_map(|line| {
        let (key, value) = line.split_once(' ')?;
        Some((key, value.trim().parse().ok()?))
    })
}

/// The value of a key in lines of `key value`.
fn value(text: &str, key: &str) -> u64 {
    pairs(text)
        .find(|(found, _)| *found == key)
        .map_or(0, |(_, value)| value)
}

/// A file of a controller; empty where the controller or the file is not there.
fn file(group: &Cgroup, controller: &str, name: &str) -> io::Result<String> {
    let Some(directory) = group.directory(controller) else {
        return Ok(String::new());
    };
    match read_file(directory, name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && directory.exists() => {
            Ok(String::new())
        }
        // Some cannot be read where they make no sense, such as `io.stat` of a kernel without accounting.
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(String::new()),
        other => other,
    }
}

pub(super) fn read(group: &Cgroup) -> io::Result<Stats> {
    if group.is_unified() {
        unified(group)
    } else {
        version1(group)
    }
}

fn unified(group: &Cgroup) -> io::Result<Stats> {
    let cpu = file(group, "cpu", "cpu.stat")?;
    let micro = |key| value(&cpu, key) * 1000;
    Ok(Stats {
        version: 2,
        cpu: CpuStats {
            total: micro("usage_usec"),
            user: micro("user_usec"),
            system: micro("system_usec"),
            per_cpu: Vec::new(),
            periods: value(&cpu, "nr_periods"),
            throttled_periods: value(&cpu, "nr_throttled"),
            throttled_time: micro("throttled_usec"),
        },
        memory: MemoryStats {
            usage: number(&file(group, "memory", "memory.current")?),
            max_usage: 0,
            limit: number(&file(group, "memory", "memory.max")?),
            failures: value(&file(group, "memory", "memory.events")?, "oom"),
            stats: statistics(&file(group, "memory", "memory.stat")?),
        },
        pids: pids(group)?,
        io: IoStats {
            bytes: bytes_of(&file(group, "io", "io.stat")?),
            operations: Vec::new(),
        },
    })
}

fn version1(group: &Cgroup) -> io::Result<Stats> {
    let cpu = file(group, "cpu", "cpu.stat")?;
    let used = file(group, "cpuacct", "cpuacct.stat")?;
    let per_cpu = file(group, "cpuacct", "cpuacct.usage_percpu")?;
    let mut io = IoStats {
        bytes: entries(&file(
            group,
            "blkio",
            "blkio.bfq.io_service_bytes_recursive",
        )?),
        operations: entries(&file(group, "blkio", "blkio.bfq.io_serviced_recursive")?),
    };
    if io.bytes.is_empty() && io.operations.is_empty() {
        // The devices have another scheduler: what is throttled is counted all the same.
        io.bytes = entries(&file(
            group,
            "blkio",
            "blkio.throttle.io_service_bytes_recursive",
        )?);
        io.operations = entries(&file(
            group,
            "blkio",
            "blkio.throttle.io_serviced_recursive",
        )?);
    }
    Ok(Stats {
        version: 1,
        cpu: CpuStats {
            total: number(&file(group, "cpuacct", "cpuacct.usage")?),
            user: value(&used, "user") * TICK,
            system: value(&used, "system") * TICK,
            per_cpu: per_cpu
                .split_whitespace()
                .filter_map(|time| time.parse().ok())
                .collect(),
            periods: value(&cpu, "nr_periods"),
            throttled_periods: value(&cpu, "nr_throttled"),
            throttled_time: value(&cpu, "throttled_time"),
        },
        memory: MemoryStats {
            usage: number(&file(group, "memory", "memory.usage_in_bytes")?),
            max_usage: number(&file(group, "memory", "memory.max_usage_in_bytes")?),
            limit: number(&file(group, "memory", "memory.limit_in_bytes")?),
            failures: number(&file(group, "memory", "memory.failcnt")?),
            stats: statistics(&file(group, "memory", "memory.stat")?),
        },
        pids: pids(group)?,
        io,
    })
}

fn pids(group: &Cgroup) -> io::Result<PidsStats> {
    Ok(PidsStats {
        current: number(&file(group, "pids", "pids.current")?),
        limit: number(&file(group, "pids", "pids.max")?),
    })
}

fn statistics(text: &str) -> BTreeMap<String, u64> {
    pairs(text)
        .map(|(key, value)| (key.to_owned(), value))
        .collect()
}

/// Version 1: lines of `8:0 Read 4096`, and one of `Total 4096`.
fn entries(text: &str) -> Vec<IoEntry> {
    let entry = |line: &str| {
        let mut words = line.split_whitespace();
        let (major, minor) = words.next()?.split_once(':')?;
        let operation = words.next()?.to_owned();
        let value = words.next()?.parse().ok()?;
        Some(IoEntry(
            major.parse().ok()?,
            minor.parse().ok()?,
            operation,
            value,
        ))
    };
    text.lines().filter_map(entry).collect()
}

/// Version 2: lines of `8:0 rbytes=4096 wbytes=0 rios=1 ...`.
fn bytes_of(text: &str) -> Vec<IoEntry> {
    let mut found = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let Some((Ok(major), Ok(minor))) = words
            .next()
            .and_then(|device| device.split_once(':'))
            .map(|(major, minor)| (major.parse(), minor.parse()))
        else {
            continue;
        };
        let words: Vec<&str> = words.collect();
        for (key, operation) in [("rbytes=", "read"), ("wbytes=", "write")] {
            let value = words.iter().find_map(|word| word.strip_prefix(key));
            if let Some(value) = value.and_then(|value| value.parse().ok()) {
                found.push(IoEntry(major, minor, operation.to_owned(), value));
            }
        }
    }
    found
}

pub(super) fn oom_kills(group: &Cgroup) -> io::Result<u64> {
    let name = if group.is_unified() {
        "memory.events"
    } else {
        "memory.oom_control"
    };
    Ok(value(&file(group, "memory", name)?, "oom_kill"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_whole_words() {
        let text = "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n";
        assert_eq!(value(text, "oom_kill"), 3);
        assert_eq!(value(text, "oom"), 0);
    }

    #[test]
    fn no_limit_is_zero() {
        for text in ["max\n", "9223372036854771712\n", ""] {
            assert_eq!(number(text), 0, "{text:?}");
        }
        assert_eq!(number("67108864\n"), 67_108_864);
    }

    #[test]
    fn devices_are_told_by_either_version() {
        let entry = |operation: &str, value| vec![IoEntry(254, 1, operation.to_owned(), value)];
        assert_eq!(
            entries("254:1 Read 4096\nTotal 4096\n"),
            entry("Read", 4096)
        );
        assert_eq!(entries("Total 0\n"), []);
        assert_eq!(
            bytes_of("254:1 rbytes=4096 wbytes=8 rios=1 wios=2 dbytes=0 dios=0\n8:0 \n"),
            [entry("read", 4096), entry("write", 8)].concat()
        );
        assert_eq!(bytes_of("nonsense\n:\n1:2 rbytes=x\n"), []);
    }
}
