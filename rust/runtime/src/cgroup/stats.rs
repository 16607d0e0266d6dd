//! What a container uses, from either version's files.

use std::io;

use super::{Cgroup, read as read_file};

/// What a container uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Bytes charged.
    pub memory_usage: u64,
    /// Bytes allowed; 0 where there is no limit.
    pub memory_limit: u64,
    /// Bytes of page cache not recently used.
    pub memory_inactive_file: u64,
    /// Processes and threads.
    pub pids: u64,
    /// How many are allowed; 0 where there is no limit.
    pub pids_limit: u64,
    /// Processor time, nanoseconds.
    pub cpu_total: u64,
    /// In user mode, nanoseconds.
    pub cpu_user: u64,
    /// In kernel mode, nanoseconds.
    pub cpu_system: u64,
    /// Periods in which the group was held back.
    pub cpu_throttled_periods: u64,
    /// For how long, nanoseconds.
    pub cpu_throttled_time: u64,
}

/// A single number; `max` and what is larger than any real limit is 0.
fn number(text: &str) -> u64 {
    const NO_LIMIT: u64 = 1 << 60;
    text.trim()
        .parse()
        .ok()
        .filter(|value| *value < NO_LIMIT)
        .unwrap_or(0)
}

/// The value of a key in lines of `key value`.
fn value(text: &str, key: &str) -> u64 {
    text.lines()
        .find_map(|line| {
            line.strip_prefix(key)?
                .strip_prefix(' ')?
                .trim()
                .parse()
                .ok()
        })
        .unwrap_or(0)
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
        other => other,
    }
}

pub(super) fn read(group: &Cgroup) -> io::Result<Stats> {
    if group.is_unified() {
        let cpu = file(group, "cpu", "cpu.stat")?;
        return Ok(Stats {
            memory_usage: number(&file(group, "memory", "memory.current")?),
            memory_limit: number(&file(group, "memory", "memory.max")?),
            memory_inactive_file: value(&file(group, "memory", "memory.stat")?, "inactive_file"),
            pids: number(&file(group, "pids", "pids.current")?),
            pids_limit: number(&file(group, "pids", "pids.max")?),
            cpu_total: value(&cpu, "usage_usec") * 1000,
            cpu_user: value(&cpu, "user_usec") * 1000,
            cpu_system: value(&cpu, "system_usec") * 1000,
            cpu_throttled_periods: value(&cpu, "nr_throttled"),
            cpu_throttled_time: value(&cpu, "throttled_usec") * 1000,
        });
    }
    let cpu = file(group, "cpu", "cpu.stat")?;
    Ok(Stats {
        memory_usage: number(&file(group, "memory", "memory.usage_in_bytes")?),
        memory_limit: number(&file(group, "memory", "memory.limit_in_bytes")?),
        memory_inactive_file: value(
            &file(group, "memory", "memory.stat")?,
            "total_inactive_file",
        ),
        pids: number(&file(group, "pids", "pids.current")?),
        pids_limit: number(&file(group, "pids", "pids.max")?),
        cpu_total: number(&file(group, "cpuacct", "cpuacct.usage")?),
        cpu_user: number(&file(group, "cpuacct", "cpuacct.usage_user")?),
        cpu_system: number(&file(group, "cpuacct", "cpuacct.usage_sys")?),
        cpu_throttled_periods: value(&cpu, "nr_throttled"),
        cpu_throttled_time: value(&cpu, "throttled_time"),
    })
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
}
