//! What a successor needs to know of a process, as files in `<run-root>/containers/<id>/`.
//!
//! `state.json` and `exit.json` are a container's; `exec-<exec>.json` and `exec-<exec>.exit.json` an exec's. Each is
//! written under another name and renamed, or over a shorter one within its first page, so that a kill leaves the old or
//! the new one; and never synced: they need not outlive the kernel.

use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::exits::Exit;
use crate::logs::LogOptions;
use crate::network::NetworkRecord;
use crate::protocol::{Id, Target};

/// What one write puts there as a whole, or not at all.
const PAGE_BYTES: usize = 4096;

/// A process that runs, or is about to.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct State {
    /// 0 while the process is being started: whoever finds that undoes the start.
    pub pid: i32,
    /// When the process came to be, in the kernel's ticks since boot: tells it from another with its PID.
    pub ticks: u64,
    /// Nanoseconds since the epoch.
    pub started_at: u64,
    /// Whether it has a terminal.
    pub terminal: bool,
    /// Whether its input ends with its first client.
    pub stdin_once: bool,
    /// Its log.
    pub log: Option<LogOptions>,
    /// Its control group; empty for execs.
    pub cgroup: String,
    /// The file of its system call filter.
    pub seccomp: Option<PathBuf>,
    /// Its network.
    pub network: NetworkRecord,
}

/// The directory of all records.
#[derive(Clone, Debug)]
pub struct Records {
    directory: PathBuf,
}

/// What is known of one process.
#[derive(Debug)]
pub struct Found {
    /// Which.
    pub target: Target,
    /// How it was started.
    pub state: State,
    /// How it ended.
    pub exit: Option<Exit>,
}

impl Records {
    /// The records of a run root.
    #[must_use]
    pub fn new(run_root: &Path) -> Self {
        Self {
            directory: run_root.join("containers"),
        }
    }

    /// Write how a process was started.
    pub fn write_state(&self, target: &Target, state: &State) -> io::Result<()> {
        self.write(target, &state_name(target.exec.as_ref()), state)
    }

    /// Write how a process was started over what was recorded ahead of its start.
    ///
    /// In place where that can be: a rename over another file has ext4 write the new one to the disk at once.
    pub fn complete_state(&self, target: &Target, state: &State) -> io::Result<()> {
        let bytes = serde_json::to_vec(state)?;
        let directory = self.directory.join(target.container.as_str());
        let path = directory.join(state_name(target.exec.as_ref()));
        let file = match fs::OpenOptions::new().write(true).open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            other => Some(other?),
        };
        if let Some(file) = file
            && bytes.len() <= PAGE_BYTES
            && file.metadata()?.len() <= bytes.len() as u64
        {
            return file.write_all_at(&bytes, 0);
        }
        self.write_state(target, state)
    }

    /// Write what a container that runs has of networks now.
    pub fn write_network(&self, target: &Target, network: &NetworkRecord) -> io::Result<()> {
        let name = state_name(None);
        let path = self.directory.join(target.container.as_str()).join(&name);
        let Some(mut state) = read::<State>(&path)? else {
            return Err(io::Error::from(io::ErrorKind::NotFound));
        };
        state.network = network.clone();
        self.write(target, &name, &state)
    }

    /// Write how a process ended.
    pub fn write_exit(&self, target: &Target, exit: &Exit) -> io::Result<()> {
        self.write(target, &exit_name(target.exec.as_ref()), exit)
    }

    /// Remove what is known of a process; with a container goes what is known of its execs.
    pub fn remove(&self, target: &Target) -> io::Result<()> {
        let directory = self.directory.join(target.container.as_str());
        if let Some(exec) = &target.exec {
            remove_file(&directory.join(state_name(Some(exec))))?;
            return remove_file(&directory.join(exit_name(Some(exec))));
        }
        remove_ends(&directory)?;
        // The state goes last: it is what makes the others found.
        remove_file(&directory.join(state_name(None)))
    }

    /// Make a container's records those of a start that is to be undone.
    pub fn mark_unfinished(&self, target: &Target, state: &State) -> io::Result<()> {
        let directory = self.directory.join(target.container.as_str());
        // The directory may be gone, now or in a moment: it is the daemon's to remove, with all that is in it.
        match write_in(&directory, &state_name(None), state) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done.and_then(|()| remove_ends(&directory)),
        }
    }

    /// Everything that is recorded: containers before their execs. What cannot be read is reported to `complain`.
    pub fn read(&self, mut complain: impl FnMut(String)) -> io::Result<Vec<Found>> {
        let mut found = Vec::new();
        for container in list(&self.directory)?.unwrap_or_default() {
            let Ok(container) = Id::parse(&container) else {
                continue;
            };
            let directory = self.directory.join(container.as_str());
            let mut names = list(&directory)?.unwrap_or_default();
            names.sort_by_key(|name| name != "state.json");
            for name in names {
                let exec = match name.as_str() {
                    "state.json" => None,
                    _ => match name
                        .strip_prefix("exec-")
                        .and_then(|rest| rest.strip_suffix(".json"))
                    {
                        Some(exec) if exec.strip_suffix(".exit").is_none() => Id::parse(exec).ok(),
                        _ => continue,
                    },
                };
                if exec.is_none() && name != "state.json" {
                    continue;
                }
                let target = Target {
                    container: container.clone(),
                    exec,
                };
                match read::<State>(&directory.join(&name)) {
                    Ok(Some(state)) => {
                        let path = directory.join(exit_name(target.exec.as_ref()));
                        let exit = read(&path).unwrap_or_else(|error| {
                            complain(format!("{}: {error}", path.display()));
                            None
                        });
                        found.push(Found {
                            target,
                            state,
                            exit,
                        });
                    }
                    Ok(None) => {}
                    Err(error) => complain(format!("{}: {error}", directory.join(&name).display())),
                }
            }
        }
        Ok(found)
    }

    fn write(&self, target: &Target, name: &str, value: &impl Serialize) -> io::Result<()> {
        let directory = self.directory.join(target.container.as_str());
        match write_in(&directory, name, value) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::create_dir_all(&directory)?;
                write_in(&directory, name, value)
            }
            result => result,
        }
    }
}

/// Under another name first. `NotFound` where there is no such directory.
fn write_in(directory: &Path, name: &str, value: &impl Serialize) -> io::Result<()> {
    let new = directory.join(format!("{name}.new"));
    fs::write(&new, serde_json::to_vec(value)?)?;
    fs::rename(new, directory.join(name))
}

/// Remove all records of a container but its state.
fn remove_ends(directory: &Path) -> io::Result<()> {
    for name in list(directory)?.unwrap_or_default() {
        if name == "exit.json" || name.starts_with("exec-") || name.strip_suffix(".new").is_some() {
            remove_file(&directory.join(name))?;
        }
    }
    Ok(())
}

fn state_name(exec: Option<&Id>) -> String {
    exec.map_or_else(
        || "state.json".to_owned(),
        |exec| format!("exec-{exec}.json"),
    )
}

fn exit_name(exec: Option<&Id>) -> String {
    exec.map_or_else(
        || "exit.json".to_owned(),
        |exec| format!("exec-{exec}.exit.json"),
    )
}

fn list(directory: &Path) -> io::Result<Option<Vec<String>>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let names = entries.map(|entry| Ok(entry?.file_name().into_string().ok()));
    names
        .filter_map(io::Result::transpose)
        .collect::<io::Result<_>>()
        .map(Some)
}

fn read<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back_and_go() {
        let root = std::env::temp_dir().join(format!("knarr-records-{}", std::process::id()));
        let records = Records::new(&root);
        let container = Target::container(Id::parse("c1").unwrap());
        let exec = Target {
            exec: Some(Id::parse("e.exit.1").unwrap()),
            ..container.clone()
        };
        records
            .write_state(
                &exec,
                &State {
                    pid: 8,
                    ..State::default()
                },
            )
            .unwrap();
        records
            .write_state(
                &container,
                &State {
                    pid: 7,
                    ..State::default()
                },
            )
            .unwrap();
        records
            .write_exit(&exec, &Exit::new(8, None, false))
            .unwrap();
        fs::write(root.join("containers/c1/config.json"), "{}").unwrap();
        let found = records.read(|complaint| panic!("{complaint}")).unwrap();
        let seen: Vec<_> = found
            .iter()
            .map(|found| (found.target.clone(), found.state.pid, found.exit.is_some()))
            .collect();
        assert_eq!(seen, [(container.clone(), 7, false), (exec, 8, true)]);
        records.remove(&container).unwrap();
        records.remove(&container).unwrap();
        assert!(
            records
                .read(|complaint| panic!("{complaint}"))
                .unwrap()
                .is_empty()
        );
        assert!(root.join("containers/c1/config.json").exists());
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn a_record_is_completed_whatever_was_there() {
        let root = std::env::temp_dir().join(format!("knarr-records-over-{}", std::process::id()));
        let records = Records::new(&root);
        let target = Target::container(Id::parse("c1").unwrap());
        let state = |cgroup: &str| State {
            pid: 7,
            cgroup: cgroup.to_owned(),
            ..State::default()
        };
        let long = "/g".repeat(PAGE_BYTES);
        for cgroup in ["/short", "/longer", "/l", &long, "/short"] {
            records.complete_state(&target, &state(cgroup)).unwrap();
            let found = records.read(|complaint| panic!("{complaint}")).unwrap();
            assert_eq!(found[0].state.cgroup, cgroup);
        }
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn what_cannot_be_read_is_said() {
        let root = std::env::temp_dir().join(format!("knarr-records-bad-{}", std::process::id()));
        fs::create_dir_all(root.join("containers/c1")).unwrap();
        fs::write(root.join("containers/c1/state.json"), "{").unwrap();
        let mut complaints = Vec::new();
        let found = Records::new(&root)
            .read(|complaint| complaints.push(complaint))
            .unwrap();
        assert!(found.is_empty());
        assert!(complaints[0].contains("c1/state.json"), "{complaints:?}");
        fs::remove_dir_all(root).unwrap();
    }
}
