//! What is known of a container between two runs of the command line.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Context;
use crate::cgroup::Cgroup;
use crate::error::{Kind, LaunchError};
use crate::spec::Spec;

const STATE: &str = "state.json";
const FIFO: &str = "start.fifo";

/// A container's record.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct State {
    /// Its ID.
    pub id: String,
    /// Its first process; 0 before there is one.
    pub pid: i32,
    /// When that process began, in clock ticks since the machine did: tells it from a later one.
    pub started: u64,
    /// The bundle's absolute path.
    pub bundle: PathBuf,
    /// The root file system's absolute path.
    pub rootfs: PathBuf,
    /// Its control group's path.
    pub cgroup: String,
    /// When it was created, RFC 3339.
    pub created: String,
    /// The specification.
    pub spec: Spec,
}

/// A container's directory.
#[derive(Debug)]
pub struct Home(PathBuf);

/// An ID that is safe as a file name.
pub fn check_id(id: &OsStr) -> Result<&str, LaunchError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_+-.".contains(&byte);
    id.to_str()
        .filter(|id| {
            !id.is_empty()
                && id.len() <= 255
                && id.bytes().all(allowed)
                && *id != "."
                && *id != ".."
        })
        .ok_or_else(|| {
            LaunchError::new(
                Kind::InvalidArgument,
                format!(
                    "invalid container ID \"{}\": letters, digits and _+-. only, at most 255",
                    id.display()
                ),
            )
        })
}

fn failed(what: &str, path: &Path, error: &io::Error) -> LaunchError {
    LaunchError::new(
        Kind::Unavailable,
        format!("{what} {}: {error}", path.display()),
    )
}

impl Home {
    /// The directory of a container, made now.
    pub fn create(context: &Context, id: &str) -> Result<Self, LaunchError> {
        let path = context.root.join(id);
        let make = || fs::DirBuilder::new().mode(0o711).create(&path);
        let made = match make() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::DirBuilder::new()
                    .recursive(true)
                    .mode(0o711)
                    .create(&context.root)
                    .map_err(|error| failed("make the state directory", &context.root, &error))?;
                make()
            }
            other => other,
        };
        match made {
            Ok(()) => Ok(Self(path)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(LaunchError::new(
                Kind::Conflict,
                format!("container with given ID already exists: {id}"),
            )),
            Err(error) => Err(failed("make the state directory", &path, &error)),
        }
    }

    /// The directory of a container that exists.
    pub fn open(context: &Context, id: &str) -> Result<Self, LaunchError> {
        let path = context.root.join(id);
        if path.is_dir() {
            return Ok(Self(path));
        }
        Err(LaunchError::new(
            Kind::NotFound,
            format!("container does not exist: {id}"),
        ))
    }

    /// Store its record.
    pub fn save(&self, state: &State) -> Result<(), LaunchError> {
        let path = self.0.join(STATE);
        let fresh = self.0.join("state.json.new");
        let bytes = serde_json::to_vec(state).map_err(|error| {
            LaunchError::new(
                Kind::Internal,
                format!("write the container's state: {error}"),
            )
        })?;
        fs::write(&fresh, bytes)
            .and_then(|()| fs::rename(&fresh, &path))
            .map_err(|error| failed("write", &path, &error))
    }

    /// Read its record.
    pub fn load(&self) -> Result<State, LaunchError> {
        let path = self.0.join(STATE);
        let bytes = fs::read(&path).map_err(|error| failed("read", &path, &error))?;
        serde_json::from_slice(&bytes).map_err(|error| {
            LaunchError::new(
                Kind::Corrupt,
                format!(
                    "{}: {error}: delete the container with --force",
                    path.display()
                ),
            )
        })
    }

    /// Its FIFO.
    pub fn fifo(&self) -> PathBuf {
        self.0.join(FIFO)
    }

    /// Make its FIFO, open at both ends.
    pub fn make_fifo(&self) -> Result<OwnedFd, LaunchError> {
        let path = self.fifo();
        let wrong = |errno: rustix::io::Errno| failed("make", &path, &errno.into());
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0)
            .map_err(wrong)?;
        let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::CLOEXEC;
        rustix::fs::open(&path, flags, rustix::fs::Mode::empty()).map_err(wrong)
    }

    /// Remove it with everything in it.
    pub fn remove(&self) -> Result<(), LaunchError> {
        fs::remove_dir_all(&self.0).map_err(|error| failed("remove", &self.0, &error))
    }
}

/// When a process began, and whether it still runs; `None` where there is none.
pub fn begun(pid: i32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in the second field may hold anything, parentheses too.
    let rest = text.rsplit_once(')')?.1;
    let mut fields = rest.split_whitespace();
    let status = fields.next()?;
    if matches!(status, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

impl State {
    /// Whether its first process runs.
    pub fn is_running(&self) -> bool {
        self.pid > 0 && begun(self.pid) == Some(self.started)
    }

    /// `creating`, `created`, `running`, `paused` or `stopped`.
    pub fn status(&self, home: &Home) -> &'static str {
        if self.pid == 0 {
            return "creating";
        }
        if !self.is_running() {
            return "stopped";
        }
        if home.fifo().exists() {
            return "created";
        }
        match Cgroup::adopt(&self.cgroup).and_then(|group| group.frozen()) {
            Ok(true) => "paused",
            _ => "running",
        }
    }

    /// A descriptor of its first process, which runs.
    pub fn process(&self) -> Result<OwnedFd, LaunchError> {
        let gone = || {
            LaunchError::new(
                Kind::Conflict,
                format!("container {} is not running", self.id),
            )
        };
        if self.pid == 0 {
            return Err(gone());
        }
        let pidfd = knarr_sys::pidfd::open(self.pid).map_err(|_| gone())?;
        // Only now is it certain whose descriptor that is.
        if self.is_running() {
            Ok(pidfd)
        } else {
            Err(gone())
        }
    }

    /// The state document that hooks read and `state` prints (runtime.md, "State").
    pub fn document(&self, status: &str) -> serde_json::Value {
        let annotations: &BTreeMap<String, String> = &self.spec.annotations;
        let mut document = serde_json::json!({
            "ociVersion": "1.2.1",
            "id": self.id,
            "status": status,
            "bundle": self.bundle,
            "annotations": annotations,
        });
        if let Some(fields) = document.as_object_mut() {
            fields.insert(
                "pid".to_owned(),
                if status == "stopped" {
                    0.into()
                } else {
                    self.pid.into()
                },
            );
        }
        document
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_file_names() {
        for id in ["a", "web-1", "a.b_c+d", "..."] {
            assert!(check_id(OsStr::new(id)).is_ok(), "{id}");
        }
        for id in ["", ".", "..", "a/b", "a b", "a\n", "é"] {
            assert!(check_id(OsStr::new(id)).is_err(), "{id}");
        }
    }

    #[test]
    fn this_process_has_begun() {
        let pid = i32::try_from(std::process::id()).expect("a PID");
        assert!(begun(pid).is_some_and(|ticks| ticks > 0));
        assert_eq!(begun(i32::MAX), None);
    }
}
