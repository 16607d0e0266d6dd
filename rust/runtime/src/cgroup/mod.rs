//! Control groups, version 1, 2 and hybrid.
use std::io;

/// The control group of one container: one directory in the unified hierarchy, or one in each
/// version 1 hierarchy that it needs.
#[derive(Clone, Debug)]
pub struct Cgroup {
    path: String,
}

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

impl Cgroup {
    /// The group of a container that runs already, by the path [`Cgroup::path`] gave.
    pub fn adopt(path: &str) -> io::Result<Self> {
        Ok(Self { path: path.to_owned() })
    }

    /// Its path in every hierarchy, beginning with a slash.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Send SIGKILL to every process in it.
    pub fn kill(&self) -> io::Result<()> {
        unimplemented!()
    }

    /// The processes in it.
    pub fn processes(&self) -> io::Result<Vec<i32>> {
        unimplemented!()
    }

    /// Stop every process in it until [`Cgroup::thaw`].
    pub fn freeze(&self) -> io::Result<()> {
        unimplemented!()
    }

    /// Let it go on.
    pub fn thaw(&self) -> io::Result<()> {
        unimplemented!()
    }

    /// What it uses.
    pub fn stats(&self) -> io::Result<Stats> {
        unimplemented!()
    }

    /// How often the kernel killed one of its processes for memory.
    pub fn oom_kills(&self) -> io::Result<u64> {
        unimplemented!()
    }

    /// Remove it, once its processes are gone. One that is gone already is no error.
    pub fn remove(&self) -> io::Result<()> {
        unimplemented!()
    }
}
