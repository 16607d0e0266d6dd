//! Control groups, version 1, 2 and hybrid.
//!
//! A container has one group of the same path in every hierarchy it takes part in: the unified one
//! of version 2, or those of version 1 whose controllers its limits and its statistics need. On
//! hybrid hosts the controllers are version 1's, and the unified hierarchy is left alone.
//!
//! Joining a version 1 group by `cgroup.procs` waits for an RCU grace period, milliseconds; a process
//! that moves itself, single-threaded, by writing 0 to `tasks` does not. The child does that.

mod devices;
mod hosts;
mod limits;
mod stats;
mod update;
mod v1devices;
mod v2devices;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::error::{Kind, LaunchError};
use crate::spec::Resources;

pub use hosts::{Hosts, hosts};
pub use stats::{CpuStats, IoEntry, IoStats, MemoryStats, PidsStats, Stats};

/// How long a removal waits for processes that are dying.
const REMOVAL_PATIENCE: Duration = Duration::from_secs(5);

/// The control group of one container.
#[derive(Clone, Debug)]
pub struct Cgroup {
    path: String,
    hosts: &'static Hosts,
    /// Directories, of the hierarchies it takes part in: (controllers, directory).
    directories: Vec<(String, PathBuf)>,
}

/// What a process needs to be born in, or to join, a group.
#[derive(Debug)]
pub struct Entry {
    /// Version 2: the directory, for `CLONE_INTO_CGROUP`.
    pub unified: Option<OwnedFd>,
    /// Version 1: the `tasks` files, in the order of [`Cgroup::hierarchies`].
    pub tasks: Vec<OwnedFd>,
}

fn failed(what: &str, path: &Path, error: &io::Error) -> LaunchError {
    let errno = error.raw_os_error().unwrap_or(0);
    LaunchError::new(
        crate::plan::kind(errno),
        format!(
            "{what} control group {}: {}",
            path.display(),
            crate::plan::errno_text(errno)
        ),
    )
}

/// Write a file of a control group.
pub(crate) fn write(directory: &Path, name: &str, value: &str) -> io::Result<()> {
    OpenOptions::new()
        .write(true)
        .open(directory.join(name))?
        .write_all(value.as_bytes())
}

pub(crate) fn read(directory: &Path, name: &str) -> io::Result<String> {
    fs::read_to_string(directory.join(name))
}

/// A path below the root of the hierarchies, or without a slash in front below this process's own
/// groups; without `..` in it.
fn checked(path: &str) -> Result<String, LaunchError> {
    let names: Vec<&str> = path
        .split('/')
        .filter(|name| !name.is_empty() && *name != ".")
        .collect();
    if names.contains(&"..") || path.contains('\0') || names.is_empty() || path.len() > 1024 {
        return Err(LaunchError::new(
            Kind::InvalidArgument,
            format!("linux.cgroupsPath {path:?}: must name a group below the root, without '..'"),
        ));
    }
    let slash = if path.starts_with('/') { "/" } else { "" };
    Ok(format!("{slash}{}", names.join("/")))
}

impl Cgroup {
    /// Make the group of a container and set its limits. A relative path is below this process's
    /// own group, an empty one is named by the container's ID.
    pub fn create(
        path: &str,
        id: &str,
        resources: Option<&Resources>,
    ) -> Result<(Self, Vec<String>), LaunchError> {
        let hosts = hosts()?;
        let default = Resources::default();
        let resources = resources.unwrap_or(&default);
        let checked = checked(if path.is_empty() { id } else { path })?;
        let relative = !checked.starts_with('/');
        let directories = hosts.directories(&checked, relative, |controller| {
            limits::wanted(controller, resources)
        });
        let group = Self {
            path: checked,
            hosts,
            directories,
        };
        group
            .make(resources)
            .inspect_err(|_| {
                // The error that matters is the one that made us give up.
                let _ = group.remove();
            })
            .map(|warnings| (group.clone(), warnings))
    }

    fn make(&self, resources: &Resources) -> Result<Vec<String>, LaunchError> {
        for (_, directory) in &self.directories {
            match fs::create_dir(directory) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    self.hosts
                        .make_parents(directory)
                        .map_err(|error| failed("make", directory, &error))?;
                    match fs::create_dir(directory) {
                        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                            return Err(failed("make", directory, &error));
                        }
                        _ => {}
                    }
                }
                Err(error) => return Err(failed("make", directory, &error)),
            }
        }
        match limits::set(self, resources) {
            // The groups above may not have handed the controller down yet.
            Err(error) if self.hosts.unified && error.kind == Kind::Unsupported => {
                for (_, directory) in &self.directories {
                    self.hosts
                        .make_parents(directory)
                        .map_err(|error| failed("make", directory, &error))?;
                }
                limits::set(self, resources)
            }
            other => other,
        }
    }

    /// The group of a container that runs already, by the path [`Cgroup::path`] gave.
    pub fn adopt(path: &str) -> io::Result<Self> {
        let hosts = hosts().map_err(io::Error::other)?;
        let checked = checked(path).map_err(io::Error::other)?;
        let mut directories = hosts.directories(&checked, !checked.starts_with('/'), |_| true);
        directories.retain(|(_, directory)| directory.is_dir());
        if directories.is_empty() {
            return Err(io::Error::from(io::ErrorKind::NotFound));
        }
        Ok(Self {
            path: checked,
            hosts,
            directories,
        })
    }

    /// Its path in every hierarchy: with a slash in front from the root, else from this process's own group.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Version 1 hierarchies it takes part in; empty for version 2.
    #[must_use]
    pub fn hierarchies(&self) -> Vec<String> {
        if self.is_unified() {
            Vec::new()
        } else {
            self.directories
                .iter()
                .map(|(name, _)| name.clone())
                .collect()
        }
    }

    pub(crate) fn is_unified(&self) -> bool {
        self.hosts.unified
    }

    /// Its directory in the hierarchy of a controller.
    #[must_use]
    pub fn directory(&self, controller: &str) -> Option<&Path> {
        self.directories
            .iter()
            .find(|(names, _)| {
                self.hosts.unified || names.split(',').any(|name| name == controller)
            })
            .map(|(_, directory)| directory.as_path())
    }

    /// Any of its directories: all have the same processes.
    fn any(&self) -> io::Result<&Path> {
        self.directories
            .first()
            .map(|(_, path)| path.as_path())
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Its directories.
    pub(crate) fn directories(&self) -> impl Iterator<Item = (&str, &Path)> {
        self.directories
            .iter()
            .map(|(name, path)| (name.as_str(), path.as_path()))
    }

    /// Open what a process needs to enter.
    pub fn entry(&self) -> Result<Entry, LaunchError> {
        let mut entry = Entry {
            unified: None,
            tasks: Vec::new(),
        };
        for (_, directory) in &self.directories {
            if self.hosts.unified {
                let opened =
                    File::open(directory).map_err(|error| failed("open", directory, &error))?;
                entry.unified = Some(opened.into());
            } else {
                let tasks = OpenOptions::new().write(true).open(directory.join("tasks"));
                entry.tasks.push(
                    tasks
                        .map_err(|error| failed("open", directory, &error))?
                        .into(),
                );
            }
        }
        Ok(entry)
    }

    /// The processes in it.
    pub fn processes(&self) -> io::Result<Vec<i32>> {
        let text = read(self.any()?, "cgroup.procs")?;
        Ok(text.lines().filter_map(|line| line.parse().ok()).collect())
    }

    /// Send SIGKILL to every process in it.
    pub fn kill(&self) -> io::Result<()> {
        if self.hosts.unified {
            match write(self.any()?, "cgroup.kill", "1") {
                Err(error) if error.kind() == io::ErrorKind::NotFound && self.any()?.exists() => {}
                other => return gone_is_fine(other),
            }
        }
        self.signal(rustix::process::Signal::KILL)
    }

    /// Send a signal to every process in it. One that forks meanwhile is caught by another round.
    pub fn signal(&self, signal: rustix::process::Signal) -> io::Result<()> {
        const ROUNDS: usize = 100;
        let mut before: Vec<i32> = Vec::new();
        for _ in 0..ROUNDS {
            let processes = match self.processes() {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                other => other?,
            };
            let fresh: Vec<i32> = processes
                .iter()
                .copied()
                .filter(|pid| !before.contains(pid))
                .collect();
            if fresh.is_empty() {
                return Ok(());
            }
            for pid in &fresh {
                if let Some(pid) = rustix::process::Pid::from_raw(*pid) {
                    match rustix::process::kill_process(pid, signal) {
                        Ok(()) | Err(rustix::io::Errno::SRCH) => {}
                        Err(errno) => return Err(errno.into()),
                    }
                }
            }
            before.extend(fresh);
        }
        Ok(())
    }

    /// Stop every process in it until [`Cgroup::thaw`].
    pub fn freeze(&self) -> io::Result<()> {
        self.set_frozen(true)
    }

    /// Let it go on.
    pub fn thaw(&self) -> io::Result<()> {
        self.set_frozen(false)
    }

    /// Whether it is frozen.
    pub fn frozen(&self) -> io::Result<bool> {
        if self.hosts.unified {
            return Ok(read(self.any()?, "cgroup.freeze")?.trim() == "1");
        }
        match self.directory("freezer") {
            Some(directory) => Ok(read(directory, "freezer.state")?.trim() != "THAWED"),
            None => Ok(false),
        }
    }

    fn set_frozen(&self, frozen: bool) -> io::Result<()> {
        const PATIENCE: Duration = Duration::from_secs(10);
        let begun = Instant::now();
        if self.hosts.unified {
            let directory = self.any()?;
            write(directory, "cgroup.freeze", if frozen { "1" } else { "0" })?;
            while frozen && !read(directory, "cgroup.events")?.contains("frozen 1") {
                if begun.elapsed() > PATIENCE {
                    write(directory, "cgroup.freeze", "0")?;
                    return Err(io::Error::from(io::ErrorKind::TimedOut));
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            return Ok(());
        }
        let directory = self
            .directory("freezer")
            .ok_or_else(|| io::Error::from(io::ErrorKind::Unsupported))?;
        let state = if frozen { "FROZEN" } else { "THAWED" };
        loop {
            // A group that forks while it freezes has to be told again.
            write(directory, "freezer.state", state)?;
            if read(directory, "freezer.state")?.trim() == state {
                return Ok(());
            }
            if begun.elapsed() > PATIENCE {
                write(directory, "freezer.state", "THAWED")?;
                return Err(io::Error::from(io::ErrorKind::TimedOut));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// What it uses.
    pub fn stats(&self) -> io::Result<Stats> {
        stats::read(self)
    }

    /// How often the kernel killed one of its processes for memory.
    pub fn oom_kills(&self) -> io::Result<u64> {
        stats::oom_kills(self)
    }

    /// Remove it, once its processes are gone. One that is gone already is no error.
    pub fn remove(&self) -> io::Result<()> {
        let begun = Instant::now();
        let mut first = Ok(());
        for (_, directory) in self.directories.iter().rev() {
            let mut pause = Duration::from_micros(100);
            loop {
                match rustix::fs::rmdir(directory) {
                    Ok(()) | Err(rustix::io::Errno::NOENT) => break,
                    Err(rustix::io::Errno::BUSY) if begun.elapsed() < REMOVAL_PATIENCE => {
                        // Groups that the container made, or a process that is not quite dead.
                        remove_below(directory);
                        std::thread::sleep(pause);
                        pause = (pause * 2).min(Duration::from_millis(20));
                    }
                    Err(errno) => {
                        first = first.and(Err(errno.into()));
                        break;
                    }
                }
            }
        }
        first
    }
}

/// Remove the groups below a directory, as far as they are empty.
fn remove_below(directory: &Path) {
    let Ok(entries) = fs::read_dir(directory) else {
        return;
    };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_below(&entry.path());
            // Whatever is not empty yet makes the parent's removal fail, and is tried again.
            let _ = rustix::fs::rmdir(entry.path());
        }
    }
}

fn gone_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

impl Entry {
    /// The version 2 directory.
    #[must_use]
    pub fn unified(&self) -> Option<BorrowedFd<'_>> {
        self.unified.as_ref().map(AsFd::as_fd)
    }
}
