//! Which hierarchies the host has, looked at once.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::error::{Kind, LaunchError};

const ROOT: &str = "/sys/fs/cgroup";
/// The kernel's number of the version 2 file system.
const CGROUP2_MAGIC: u64 = 0x6367_7270;

/// The host's hierarchies.
#[derive(Debug)]
pub struct Hosts {
    /// Whether the unified hierarchy has the controllers.
    pub unified: bool,
    hierarchies: Vec<Found>,
}

#[derive(Debug)]
struct Found {
    /// `cpu,cpuacct`; empty for the unified one.
    controllers: String,
    mount: PathBuf,
    /// This process's own group in it.
    own: String,
}

/// The host's hierarchies, found at the first call.
pub fn hosts() -> Result<&'static Hosts, LaunchError> {
    static HOSTS: OnceLock<Result<Hosts, String>> = OnceLock::new();
    HOSTS
        .get_or_init(|| {
            Hosts::find().map_err(|error| format!("look for control groups at {ROOT}: {error}"))
        })
        .as_ref()
        .map_err(|message| LaunchError::new(Kind::Unavailable, message.clone()))
}

impl Hosts {
    fn find() -> io::Result<Self> {
        let unified =
            u64::try_from(rustix::fs::statfs(ROOT)?.f_type).is_ok_and(|kind| kind == CGROUP2_MAGIC);
        let own = fs::read_to_string("/proc/self/cgroup")?;
        let mut hierarchies = Vec::new();
        for (controllers, own) in parse(&own) {
            let mount = if unified {
                PathBuf::from(ROOT)
            } else {
                Path::new(ROOT).join(controllers)
            };
            let wanted = if unified {
                controllers.is_empty()
            } else {
                !controllers.is_empty() && !controllers.contains('=')
            };
            if wanted && mount.is_dir() {
                hierarchies.push(Found {
                    controllers: controllers.to_owned(),
                    mount,
                    own: own.to_owned(),
                });
            }
        }
        if hierarchies.is_empty() {
            return Err(io::Error::other(
                "none of the hierarchies of /proc/self/cgroup is mounted there",
            ));
        }
        Ok(Self {
            unified,
            hierarchies,
        })
    }

    /// The directories of a group in those hierarchies of which a controller is wanted.
    pub(super) fn directories(
        &self,
        path: &str,
        relative: bool,
        wanted: impl Fn(&str) -> bool,
    ) -> Vec<(String, PathBuf)> {
        self.hierarchies
            .iter()
            .filter(|found| self.unified || found.controllers.split(',').any(&wanted))
            .map(|found| {
                let base = if relative {
                    found.mount.join(found.own.trim_start_matches('/'))
                } else {
                    found.mount.clone()
                };
                (
                    found.controllers.clone(),
                    base.join(path.trim_start_matches('/')),
                )
            })
            .collect()
    }

    /// Make the groups above a directory; in version 2, hand their controllers down to it.
    pub(super) fn make_parents(&self, directory: &Path) -> io::Result<()> {
        let Some(found) = self
            .hierarchies
            .iter()
            .find(|found| directory.starts_with(&found.mount))
        else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let below = directory
            .strip_prefix(&found.mount)
            .map_err(io::Error::other)?;
        let mut here = found.mount.clone();
        self.hand_down(&here)?;
        for name in below.parent().into_iter().flatten() {
            here.push(name);
            match fs::create_dir(&here) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
            self.hand_down(&here)?;
            if found.controllers.split(',').any(|name| name == "cpuset") {
                inherit_cpuset(&here)?;
            }
        }
        Ok(())
    }

    /// Enable every controller of a version 2 group for the groups below it.
    fn hand_down(&self, directory: &Path) -> io::Result<()> {
        if !self.unified {
            return Ok(());
        }
        let available = super::read(directory, "cgroup.controllers")?;
        let enabled = super::read(directory, "cgroup.subtree_control")?;
        let enabled: Vec<&str> = enabled.split_whitespace().collect();
        for controller in available
            .split_whitespace()
            .filter(|name| !enabled.contains(name))
        {
            // One by one: a group that has processes, or a controller in use elsewhere, refuses some.
            // A limit that needs one of those fails when it is set, by name.
            let _ = super::write(
                directory,
                "cgroup.subtree_control",
                &format!("+{controller}"),
            );
        }
        Ok(())
    }
}

/// Version 1 processor sets are born empty, and nobody can join them then.
pub(super) fn inherit_cpuset(directory: &Path) -> io::Result<()> {
    let Some(parent) = directory.parent() else {
        return Ok(());
    };
    for name in ["cpuset.cpus", "cpuset.mems"] {
        if super::read(directory, name)?.trim().is_empty() {
            super::write(directory, name, super::read(parent, name)?.trim())?;
        }
    }
    Ok(())
}

/// (controllers, own path) of the lines of /proc/self/cgroup.
fn parse(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.lines().filter_map(|line| {
        let (_, rest) = line.split_once(':')?;
        rest.split_once(':')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hybrid_hosts_have_both() {
        let text = "9:name=systemd:/\n4:memory:/a/b\n1:cpu,cpuacct:/\n0::/x:y\n";
        let found: Vec<_> = parse(text).collect();
        assert_eq!(
            found,
            [
                ("name=systemd", "/"),
                ("memory", "/a/b"),
                ("cpu,cpuacct", "/"),
                ("", "/x:y")
            ]
        );
    }
}
