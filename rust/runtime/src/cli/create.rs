//! `create`, `start` and `run`.

use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use super::args::{Args, Flag, parse};
use super::state::{Home, State, begun};
use super::terminal::{self, Console};
use super::{Context, Outcome, describe, hooks, kill, only_id};
use crate::error::{Kind, LaunchError};
use crate::launch::{LaunchRequest, Launched, Stdio, launch};
use crate::rootfs::{Rootfs, RootfsSource};
use crate::spec::{Hooks, Spec};

/// The largest config.json that is read: bytes.
const LARGEST_SPEC: u64 = 16 << 20;

const FLAGS: &[Flag] = &[
    Flag::value("bundle").short('b'),
    Flag::value("console-socket"),
    Flag::value("pid-file"),
    Flag::switch("detach").short('d'),
    Flag::switch("keep"),
    Flag::switch("no-pivot"),
    Flag::switch("no-new-keyring"),
    Flag::switch("no-subreaper"),
    Flag::value("preserve-fds"),
    Flag::value("pidfd-socket"),
];

fn wrong(message: String) -> LaunchError {
    LaunchError::new(Kind::InvalidArgument, message)
}

/// A bundle: its absolute path and its specification.
fn bundle(args: &Args) -> Result<(PathBuf, Spec), LaunchError> {
    let path = PathBuf::from(args.get("bundle").unwrap_or("."));
    let path = fs::canonicalize(&path)
        .map_err(|error| wrong(format!("bundle {}: {error}", path.display())))?;
    let file = path.join("config.json");
    let unreadable = |error: std::io::Error| wrong(format!("{}: {error}", file.display()));
    let length = fs::metadata(&file).map_err(unreadable)?.len();
    if length > LARGEST_SPEC {
        return Err(wrong(format!(
            "{}: larger than {LARGEST_SPEC} bytes",
            file.display()
        )));
    }
    let bytes = fs::read(&file).map_err(unreadable)?;
    let spec =
        Spec::parse(&bytes).map_err(|error| wrong(format!("{}: {error}", file.display())))?;
    if !spec.oci_version.starts_with("1.") {
        return Err(wrong(format!(
            "{}: ociVersion {:?} is not 1.x",
            file.display(),
            spec.oci_version
        )));
    }
    Ok((path, spec))
}

/// A container that has been made: its process waits on the FIFO, or runs.
struct Made {
    home: Home,
    state: State,
    launched: Launched,
    console: Console,
}

fn number(args: &Args, name: &str) -> Result<u32, LaunchError> {
    args.get(name).map_or(Ok(0), |text| {
        text.parse()
            .map_err(|_| wrong(format!("--{name} {text:?} is no number")))
    })
}

/// Make a container. With `wait` its process stops short of its program.
fn make(context: &Context, id: &str, args: &Args, wait: bool) -> Result<Made, LaunchError> {
    let (bundle, spec) = bundle(args)?;
    let root = spec
        .root
        .as_ref()
        .ok_or_else(|| wrong("the specification has no root".to_owned()))?;
    let rootfs = bundle.join(&root.path);
    let console = Console::of(
        args,
        spec.process
            .as_ref()
            .is_some_and(|process| process.terminal),
    )?;
    let cgroup = spec
        .linux
        .as_ref()
        .map_or(String::new(), |linux| linux.cgroups_path.clone());
    let home = Home::create(context, id)?;
    let created = describe::now();
    let state = State {
        id: id.to_owned(),
        bundle,
        rootfs,
        cgroup,
        created,
        spec,
        ..State::default()
    };
    let failed = match start_child(&home, state, args, &console, wait) {
        Ok((state, launched)) => match settle(&home, state, launched, args) {
            Ok((state, launched)) => {
                return Ok(Made {
                    home,
                    state,
                    launched,
                    console,
                });
            }
            Err(error) => error,
        },
        Err(error) => error,
    };
    // Nothing else is left of it; a directory that can't be removed is named along with the cause.
    match home.remove() {
        Ok(()) => Err(failed),
        Err(also) => Err(LaunchError {
            message: format!("{}; {}", failed.message, also.message),
            ..failed
        }),
    }
}

fn start_child(
    home: &Home,
    mut state: State,
    args: &Args,
    console: &Console,
    wait: bool,
) -> Result<(State, Launched), LaunchError> {
    home.save(&state)?;
    let fifo: Option<OwnedFd> = wait.then(|| home.make_fifo()).transpose()?;
    let rootfs = Rootfs::open(&RootfsSource::Path(state.rootfs.clone()))?;
    let process = state.spec.process.clone().unwrap_or_default();
    let stdio = if process.terminal {
        let size = process.console_size.unwrap_or_default();
        let (rows, cols) = console.size().unwrap_or((size.height, size.width));
        Stdio::Terminal { rows, cols }
    } else {
        Stdio::Inherit
    };
    let spec = state.spec.clone();
    let (id, bundle) = (state.id.clone(), state.bundle.clone());
    let none = Hooks::default();
    let wanted = spec.hooks.as_ref().unwrap_or(&none);
    let mut at_gate = |pid: i32| {
        state.pid = pid;
        hooks::run("prestart", &wanted.prestart, &state, "creating")?;
        hooks::run("createRuntime", &wanted.create_runtime, &state, "creating")?;
        hooks::run(
            "createContainer",
            &wanted.create_container,
            &state,
            "creating",
        )
    };
    let gated = [
        &wanted.prestart,
        &wanted.create_runtime,
        &wanted.create_container,
    ]
    .iter()
    .any(|hooks| !hooks.is_empty());
    let launched = launch(LaunchRequest {
        init: spec
            .annotations
            .get("knarr.init")
            .is_some_and(|value| value == "true"),
        fifo: fifo.as_ref().map(AsFd::as_fd),
        keyring: !args.has("no-new-keyring"),
        pivot: !args.has("no-pivot"),
        preserve: number(args, "preserve-fds")?,
        at_gate: if gated { Some(&mut at_gate) } else { None },
        ..LaunchRequest::new(&id, &spec, &bundle, rootfs, stdio)
    })?;
    for warning in &launched.warnings {
        eprintln!("knarr-runtime: warning: {warning}");
    }
    Ok((state, launched))
}

/// Record a process that has been launched; it is ended where that fails.
fn settle(
    home: &Home,
    mut state: State,
    launched: Launched,
    args: &Args,
) -> Result<(State, Launched), LaunchError> {
    state.pid = launched.pid;
    state.started = begun(launched.pid).unwrap_or(0);
    launched.cgroup.path().clone_into(&mut state.cgroup);
    let recorded = home
        .save(&state)
        .and_then(|()| write_pid(args, launched.pid));
    match recorded {
        Ok(()) => Ok((state, launched)),
        Err(error) => {
            kill::end(&launched)?;
            Err(error)
        }
    }
}

fn write_pid(args: &Args, pid: i32) -> Result<(), LaunchError> {
    let Some(path) = args.get("pid-file") else {
        return Ok(());
    };
    // Whoever waits for the file must not read half of it.
    let fresh = format!("{path}.new");
    fs::write(&fresh, pid.to_string())
        .and_then(|()| fs::rename(&fresh, path))
        .map_err(|error| {
            LaunchError::new(
                Kind::Unavailable,
                format!("write the PID file {path}: {error}"),
            )
        })
}

/// `create`.
pub fn create(context: &Context, rest: &[OsString]) -> Outcome {
    let (args, rest) = parse(FLAGS, rest)?;
    let id = only_id(rest)?;
    let Made {
        home,
        state,
        launched,
        console,
    } = make(context, id, &args, true)?;
    if let Some(master) = &launched.terminal
        && let Err(error) = console.hand_over(master)
    {
        kill::end(&launched)?;
        kill::remove(&home, &state)?;
        return Err(error);
    }
    Ok(0)
}

/// `start`.
pub fn start(context: &Context, rest: &[OsString]) -> Outcome {
    let (_, rest) = parse(&[], rest)?;
    let id = only_id(rest)?;
    let home = Home::open(context, id)?;
    let state = home.load()?;
    let status = state.status(&home);
    if status != "created" {
        return Err(LaunchError::new(
            Kind::Conflict,
            format!("container {id} is {status}: only one that is created can be started"),
        ));
    }
    begin(&home, &state)?;
    Ok(0)
}

/// Let a created container's program begin.
fn begin(home: &Home, state: &State) -> Result<(), LaunchError> {
    let none = Hooks::default();
    let wanted = state.spec.hooks.as_ref().unwrap_or(&none);
    hooks::run_inside(&wanted.start_container, state)?;
    let path = home.fifo();
    let failed = |error: std::io::Error| {
        LaunchError::new(
            Kind::Conflict,
            format!("start container {}: {error}", state.id),
        )
    };
    // The first to remove the FIFO is the one who starts it.
    let opened = rustix::fs::open(
        &path,
        rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    );
    let mut opened = fs::File::from(opened.map_err(|errno| failed(errno.into()))?);
    fs::remove_file(&path).map_err(failed)?;
    opened.write_all(&[1]).map_err(failed)?;
    if let Err(error) = hooks::run("poststart", &wanted.poststart, state, "running") {
        eprintln!("knarr-runtime: warning: {error}");
    }
    Ok(())
}

/// `run`.
pub fn run(context: &Context, rest: &[OsString]) -> Outcome {
    let (args, rest) = parse(FLAGS, rest)?;
    let id = only_id(rest)?;
    let signals = if args.has("detach") {
        None
    } else {
        Some(terminal::signals()?)
    };
    let made = make(context, id, &args, has_late_hooks(&args)?)?;
    let Made {
        home,
        state,
        launched,
        console,
    } = &made;
    let finished = (|| {
        if home.fifo().exists() {
            begin(home, state)?;
        }
        match (&signals, &launched.terminal) {
            (None, Some(master)) => console.hand_over(master).map(|()| 0),
            (None, None) => Ok(0),
            (Some(_), Some(master)) if console.is_elsewhere() => {
                console.hand_over(master)?;
                terminal::wait(launched, signals.as_ref(), None)
            }
            (Some(_), master) => terminal::wait(launched, signals.as_ref(), master.as_ref()),
        }
    })();
    if args.has("detach") && finished.is_ok() {
        return finished;
    }
    if finished.is_err() {
        kill::end(launched)?;
    }
    if !args.has("keep") || finished.is_err() {
        kill::remove(home, state)?;
    }
    finished
}

/// Whether a container must be created before it is started: hooks run in between.
fn has_late_hooks(args: &Args) -> Result<bool, LaunchError> {
    let (_, spec) = bundle(args)?;
    Ok(spec
        .hooks
        .is_some_and(|hooks| !hooks.start_container.is_empty() || !hooks.poststart.is_empty()))
}
