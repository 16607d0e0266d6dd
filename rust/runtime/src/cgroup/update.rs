//! Other limits for a group that is in use: all of them, or none.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::limits::{self, Setter};
use super::{Cgroup, failed, hosts, read, write};
use crate::error::LaunchError;
use crate::spec::Resources;

/// What brings the former limits back.
#[derive(Debug, Default)]
pub(super) struct Undo(RefCell<Vec<(PathBuf, String, String)>>);

impl Undo {
    /// What to write to a file to get back what it holds, before `value` is written. None where it cannot be read.
    pub(super) fn value(directory: &Path, file: &str, value: &str) -> Option<String> {
        let text = read(directory, file).ok()?;
        // Files with a line a device take one line at a time.
        let device = value.split(' ').next().filter(|word| word.contains(':'));
        let Some(device) = device else {
            return text.lines().next().map(str::to_owned);
        };
        let line = text
            .lines()
            .find(|line| line.split(' ').next() == Some(device))
            .map(str::to_owned);
        let none = match file {
            "io.max" => "rbps=max wbps=max riops=max wiops=max",
            "io.weight" => "default",
            _ => "0",
        };
        line.or_else(|| Some(format!("{device} {none}")))
    }

    pub(super) fn push(&self, directory: &Path, file: &str, before: Option<String>) {
        if let Some(before) = before {
            let entry = (directory.to_owned(), file.to_owned(), before);
            self.0.borrow_mut().push(entry);
        }
    }

    /// Bring everything back, last first; what cannot be.
    fn roll_back(&self) -> Vec<String> {
        let entries = self.0.take();
        let undone = entries.iter().rev().map(|(directory, file, before)| {
            write(directory, file, &format!("{before}\n")).map_err(|error| {
                format!("{} stays changed: {error}", directory.join(file).display())
            })
        });
        undone.filter_map(Result::err).collect()
    }
}

impl Cgroup {
    /// Set other limits while processes are in it. Rules of devices are left alone. Where one is refused, those that
    /// were set before it are taken back. Warnings as of [`Cgroup::create`].
    pub fn update(&mut self, resources: &Resources) -> Result<Vec<String>, LaunchError> {
        self.take_part(resources)?;
        let undo = Undo::default();
        let setter = Setter {
            group: self,
            undo: Some(&undo),
        };
        limits::numbers(&setter, resources).map_err(|mut error| {
            for complaint in undo.roll_back() {
                error.message = format!("{}; {complaint}", error.message);
            }
            error
        })
    }

    /// Join the version 1 hierarchies that new limits need and that it has done without.
    fn take_part(&mut self, resources: &Resources) -> Result<(), LaunchError> {
        let all = self
            .hosts
            .directories(&self.path, !self.path.starts_with('/'), |controller| {
                limits::wanted(controller, resources)
            });
        for (controllers, directory) in all {
            if self
                .directories
                .iter()
                .any(|(_, known)| *known == directory)
            {
                continue;
            }
            let wrong = |error: io::Error| failed("make", &directory, &error);
            self.hosts.make_parents(&directory).map_err(wrong)?;
            match fs::create_dir(&directory) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(wrong(error));
                }
                _ => {}
            }
            // From here on it is removed with the others, whatever follows.
            self.directories.push((controllers, directory.clone()));
            if directory.join("cpuset.cpus").exists() {
                hosts::inherit_cpuset(&directory).map_err(wrong)?;
            }
            self.move_to(&directory)
                .map_err(|error| failed("move a container's processes to", &directory, &error))?;
        }
        Ok(())
    }

    /// Move every process, those of groups below as well. One that forks meanwhile is caught by another round.
    fn move_to(&self, directory: &Path) -> io::Result<()> {
        let mut moved = BTreeSet::new();
        loop {
            let mut found = Vec::new();
            collect(self.any()?, &mut found)?;
            found.retain(|pid| moved.insert(*pid));
            if found.is_empty() {
                return Ok(());
            }
            for pid in found {
                match write(directory, "cgroup.procs", &pid.to_string()) {
                    Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
                    other => other?,
                }
            }
        }
    }
}

/// The processes of a group and of those below it.
fn collect(directory: &Path, found: &mut Vec<i32>) -> io::Result<()> {
    let text = read(directory, "cgroup.procs")?;
    found.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            collect(&entry.path(), found)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_there_is_known() {
        let directory = std::env::temp_dir().join(format!("knarr-undo-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        for (file, content, written, before) in [
            ("memory.max", "max\n", "4096", Some("max")),
            (
                "io.weight",
                "default 100\n",
                "default 50",
                Some("default 100"),
            ),
            (
                "io.max",
                "8:0 rbps=9 wbps=max riops=max wiops=max\n",
                "8:0 rbps=1",
                Some("8:0 rbps=9 wbps=max riops=max wiops=max"),
            ),
            (
                "io.max",
                "8:16 rbps=9 wbps=max riops=max wiops=max\n",
                "8:1 rbps=1",
                Some("8:1 rbps=max wbps=max riops=max wiops=max"),
            ),
            (
                "blkio.throttle.read_bps_device",
                "8:0 9\n",
                "8:0 1",
                Some("8:0 9"),
            ),
            ("blkio.throttle.read_bps_device", "", "8:0 1", Some("8:0 0")),
        ] {
            fs::write(directory.join(file), content).unwrap();
            assert_eq!(
                Undo::value(&directory, file, written).as_deref(),
                before,
                "{file}"
            );
        }
        assert_eq!(Undo::value(&directory, "missing", "1"), None);
        fs::remove_dir_all(&directory).unwrap();
    }
}
