//! The command line of `knarr-runtime`: runc's verbs, flags, state and exit codes.
//!
//! State lives under `--root`, one directory a container:
//!
//! ```text
//! <root>/<id>/state.json    what `state` prints, and the specification it was made from
//! <root>/<id>/start.fifo    while the container is created and not started
//! ```
//!
//! A directory is made before anything else of its container and removed after everything else, so
//! `delete --force` finds what a killed runtime left.

mod args;
mod create;
mod describe;
mod exec;
mod hooks;
mod kill;
mod state;
mod terminal;

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::error::{Kind, LaunchError};
use args::{Args, Flag};

/// What every verb needs.
#[derive(Debug)]
struct Context {
    root: PathBuf,
}

type Outcome = Result<u8, LaunchError>;

const GLOBAL: &[Flag] = &[
    Flag::value("root"),
    Flag::value("log"),
    Flag::value("log-format"),
    Flag::switch("debug"),
    Flag::switch("systemd-cgroup"),
    Flag::value("rootless"),
    Flag::switch("help").short('h'),
    Flag::switch("version").short('v'),
];

const USAGE: &str = "\
knarr-runtime [--root DIR] [--log FILE] [--log-format text|json] [--debug] VERB [FLAGS] ...

  run ID       create a container from a bundle, start it, wait for its end, delete it
  create ID    create a container from a bundle; its program waits for start
  start ID     let a created container's program begin
  state ID     print a container's state
  kill ID [SIGNAL]     send a signal to its first process (--all: to every process)
  delete ID    delete what a stopped container left (--force: kill it first)
  exec ID COMMAND...   run another process in a container
  list, ps ID, pause ID, resume ID, events --stats ID, features, spec
";

/// Run the command line; the exit status.
#[must_use]
pub fn main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.collect();
    let parsed = args::parse(GLOBAL, &arguments);
    let (global, rest) = match parsed {
        Ok(parsed) => parsed,
        Err(error) => return fail(&Args::default(), &error, 1),
    };
    if global.has("version") {
        println!(
            "knarr-runtime version {}\nspec: 1.2.1",
            env!("CARGO_PKG_VERSION")
        );
        return ExitCode::SUCCESS;
    }
    let Some((verb, rest)) = rest.split_first().filter(|_| !global.has("help")) else {
        print!("{USAGE}");
        return ExitCode::SUCCESS;
    };
    match dispatch(&verb.to_string_lossy(), &global, rest) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            // runc's own failures are 1; what has a container's exit code keeps it where one ran.
            let status = match verb.to_str() {
                Some("run" | "exec") if error.exit_code != 125 => error.exit_code,
                Some("exec") => 255,
                _ => 1,
            };
            fail(&global, &error, status)
        }
    }
}

fn dispatch(verb: &str, global: &Args, rest: &[OsString]) -> Outcome {
    let context = Context {
        root: PathBuf::from(global.get("root").unwrap_or("/run/knarr-runtime")),
    };
    match verb {
        "run" | "create" | "exec" | "start" => crate::protect::executable()?,
        _ => {}
    }
    match verb {
        "run" => create::run(&context, rest),
        "create" => create::create(&context, rest),
        "start" => create::start(&context, rest),
        "state" => describe::state(&context, rest),
        "list" => describe::list(&context, rest),
        "ps" => describe::ps(&context, rest),
        "events" => describe::events(&context, rest),
        "features" => describe::features(),
        "spec" => describe::spec(rest),
        "kill" => kill::kill(&context, rest),
        "delete" => kill::delete(&context, rest),
        "pause" => kill::pause(&context, rest, true),
        "resume" => kill::pause(&context, rest, false),
        "exec" => exec::exec(&context, rest),
        other => Err(LaunchError::new(
            Kind::InvalidArgument,
            format!("unknown verb {other:?}: run knarr-runtime --help for those there are"),
        )),
    }
}

/// Tell an error on standard error and in the log; the exit status.
fn fail(global: &Args, error: &LaunchError, status: u8) -> ExitCode {
    eprintln!("knarr-runtime: {error}");
    log(global, "error", &error.message);
    ExitCode::from(status)
}

/// Append a line to `--log`.
fn log(global: &Args, level: &str, message: &str) {
    let Some(path) = global.get("log") else {
        return;
    };
    let time = describe::now();
    let line = if global.get("log-format") == Some("json") {
        serde_json::json!({"level": level, "msg": message, "time": time}).to_string()
    } else {
        format!("time={time:?} level={level} msg={message:?}")
    };
    let written = OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .and_then(|mut file| writeln!(file, "{line}"));
    if let Err(error) = written {
        eprintln!("knarr-runtime: write the log {path}: {error}");
    }
}

/// The one container ID that a verb takes, checked.
fn only_id(rest: &[OsString]) -> Result<&str, LaunchError> {
    match rest {
        [id] => state::check_id(id),
        _ => Err(LaunchError::new(
            Kind::InvalidArgument,
            format!(
                "one container ID is needed, and {} arguments were given",
                rest.len()
            ),
        )),
    }
}
