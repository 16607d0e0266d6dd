//! The command line.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest, Sha256};

/// What `--help` prints.
pub const USAGE: &str = "\
usage: knarr-supervisor --run-root DIR --data-root DIR [--foreground] [--idle-exit SECONDS] [--patience SECONDS]

The parent of an engine's containers. Puts itself into the background once it listens on
DIR/supervisor.sock; ends by itself when nothing runs, every exit is known to the daemon and no
client has been connected for SECONDS (60). A process waits for the client that it is run for, but
not for one that has read nothing for SECONDS (600), which is let go.

SIGTERM to the keeper ends it where nothing runs. Where containers run, the first is refused and a
second within 10 s is obeyed: containers run on, without logs, and get SIGPIPE where they write.
";

/// Which of the program's processes this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// What the user has called.
    Launcher,
    /// The keeper.
    Keeper,
    /// The supervisor, a child of the keeper.
    Supervisor,
    /// A keeper that a supervisor has started in place of one that died.
    Heir,
}

/// The options, with absolute paths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Where sockets and states are.
    pub run_root: PathBuf,
    /// Where data is.
    pub data_root: PathBuf,
    /// Stay in the foreground, and log to standard error as well.
    pub foreground: bool,
    /// How long to be idle before ending.
    pub idle_exit: Duration,
    /// How long a process waits for a client that reads nothing.
    pub patience: Duration,
    /// Set by ourselves only.
    pub role: Role,
}

/// The command line is wrong.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadUsage {
    /// The usage was asked for.
    #[error("{USAGE}")]
    Help,
    /// The version was asked for.
    #[error("knarr-supervisor {}", env!("CARGO_PKG_VERSION"))]
    Version,
    /// An option that we do not have.
    #[error("unknown option {0:?}; see --help")]
    Unknown(OsString),
    /// An option without its value.
    #[error("{0} needs a value; see --help")]
    Missing(&'static str),
    /// A value that is no such thing.
    #[error("{0} {1:?} is not {2}")]
    Invalid(&'static str, OsString, &'static str),
}

impl Options {
    /// Read the command line without its first word.
    pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, BadUsage> {
        let (mut run_root, mut data_root) = (None, None);
        let (mut foreground, mut role) = (false, Role::Launcher);
        let (mut idle_exit, mut patience) = (Duration::from_secs(60), Duration::from_secs(600));
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            let mut value = |name| arguments.next().ok_or(BadUsage::Missing(name));
            match argument.to_str() {
                Some("--run-root") => {
                    run_root = Some(absolute("--run-root", value("--run-root")?)?);
                }
                Some("--data-root") => {
                    data_root = Some(absolute("--data-root", value("--data-root")?)?);
                }
                Some("--foreground") => foreground = true,
                Some("--idle-exit") => idle_exit = seconds("--idle-exit", value("--idle-exit")?)?,
                Some("--patience") => patience = seconds("--patience", value("--patience")?)?,
                Some("--role") => role = named(value("--role")?)?,
                Some("--help" | "-h") => return Err(BadUsage::Help),
                Some("--version") => return Err(BadUsage::Version),
                _ => return Err(BadUsage::Unknown(argument)),
            }
        }
        let run_root = run_root.ok_or(BadUsage::Missing("--run-root"))?;
        let data_root = data_root.ok_or(BadUsage::Missing("--data-root"))?;
        Ok(Self {
            run_root,
            data_root,
            foreground,
            idle_exit,
            patience,
            role,
        })
    }

    /// The command line that makes the same options with another role.
    #[must_use]
    pub fn arguments(&self, role: Role) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = vec!["--run-root".into(), self.run_root.clone().into()];
        arguments.extend(["--data-root".into(), self.data_root.clone().into()]);
        arguments.extend([
            "--idle-exit".into(),
            self.idle_exit.as_secs().to_string().into(),
        ]);
        arguments.extend([
            "--patience".into(),
            self.patience.as_secs().to_string().into(),
        ]);
        if self.foreground {
            arguments.push("--foreground".into());
        }
        let role = match role {
            Role::Launcher => return arguments,
            Role::Keeper => "keeper",
            Role::Supervisor => "supervisor",
            Role::Heir => "heir",
        };
        arguments.extend(["--role".into(), role.into()]);
        arguments
    }

    /// Where we listen.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.run_root.join("supervisor.sock")
    }

    /// The engine's ID: what is global on the host is named after it.
    #[must_use]
    pub fn engine(&self) -> String {
        let digest = Sha256::digest(self.run_root.as_os_str().as_bytes());
        let number = u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]);
        format!("{number:08x}")
    }
}

fn absolute(name: &'static str, value: OsString) -> Result<PathBuf, BadUsage> {
    let path = Path::new(&value);
    if !path.is_absolute() {
        return Err(BadUsage::Invalid(name, value, "an absolute path"));
    }
    // Components leave out what does not change the path: `//`, `/./`, a final slash.
    Ok(path.components().collect())
}

fn seconds(name: &'static str, value: OsString) -> Result<Duration, BadUsage> {
    let parsed = value.to_str().and_then(|text| text.parse().ok());
    parsed
        .map(Duration::from_secs)
        .ok_or(BadUsage::Invalid(name, value, "a number of seconds"))
}

fn named(value: OsString) -> Result<Role, BadUsage> {
    match value.to_str() {
        Some("keeper") => Ok(Role::Keeper),
        Some("supervisor") => Ok(Role::Supervisor),
        Some("heir") => Ok(Role::Heir),
        _ => Err(BadUsage::Invalid("--role", value, "one of ours")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options, BadUsage> {
        Options::parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn options_survive_the_way_to_another_process() {
        let options =
            parse("--run-root /run/k/ --data-root //var/./k --idle-exit 5 --foreground").unwrap();
        assert_eq!(options.run_root, Path::new("/run/k"));
        let again = Options::parse(options.arguments(Role::Heir)).unwrap();
        assert_eq!(
            again,
            Options {
                role: Role::Heir,
                ..options
            }
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert_eq!(
            parse("--run-root /r"),
            Err(BadUsage::Missing("--data-root"))
        );
        assert_eq!(parse("--run-root"), Err(BadUsage::Missing("--run-root")));
        assert!(matches!(
            parse("--run-root r --data-root /d"),
            Err(BadUsage::Invalid("--run-root", ..))
        ));
        assert!(matches!(
            parse("--run-root /r --data-root /d --idle-exit -1"),
            Err(BadUsage::Invalid(..))
        ));
        assert_eq!(
            parse("--verbose"),
            Err(BadUsage::Unknown("--verbose".into()))
        );
        assert_eq!(parse("--help"), Err(BadUsage::Help));
    }

    #[test]
    fn the_engine_is_named_after_its_run_root() {
        let options = parse("--run-root /run/knarr --data-root /d").unwrap();
        assert_eq!(options.engine(), "df3a0020");
    }
}
