//! `exec`.

use std::ffi::OsString;
use std::fs;
use std::os::fd::AsFd;

use super::args::{Args, Flag, parse};
use super::state::{Home, State, check_id};
use super::terminal::{self, Console};
use super::{Context, Outcome, kill};
use crate::capability;
use crate::cgroup::Cgroup;
use crate::error::{Kind, LaunchError};
use crate::exec::{ExecRequest, exec as run};
use crate::launch::Stdio;
use crate::seccomp;
use crate::spec::{Capabilities, Process};

const FLAGS: &[Flag] = &[
    Flag::value("console-socket"),
    Flag::value("cwd"),
    Flag::value("env").short('e'),
    Flag::switch("tty").short('t'),
    Flag::value("user").short('u'),
    Flag::value("additional-gids").short('g'),
    Flag::value("process").short('p'),
    Flag::switch("detach").short('d'),
    Flag::value("pid-file"),
    Flag::value("process-label"),
    Flag::value("apparmor"),
    Flag::switch("no-new-privs"),
    Flag::value("cap").short('c'),
    Flag::value("preserve-fds"),
    Flag::value("cgroup"),
    Flag::switch("ignore-paused"),
    Flag::value("pidfd-socket"),
];

fn wrong(message: String) -> LaunchError {
    LaunchError::new(Kind::InvalidArgument, message)
}

fn ids(text: &str) -> Result<(u32, Option<u32>), LaunchError> {
    let (uid, gid) = text
        .split_once(':')
        .map_or((text, None), |(uid, gid)| (uid, Some(gid)));
    let number = |text: &str| {
        text.parse()
            .map_err(|_| wrong(format!("--user {text:?} is no number")))
    };
    Ok((number(uid)?, gid.map(number).transpose()?))
}

/// The process that flags and arguments describe, on the base of the container's own.
fn process(args: &Args, rest: &[OsString], state: &State) -> Result<Process, LaunchError> {
    if let Some(path) = args.get("process") {
        let bytes = fs::read(path).map_err(|error| wrong(format!("{path}: {error}")))?;
        return serde_json::from_slice(&bytes).map_err(|error| wrong(format!("{path}: {error}")));
    }
    let mut process = state.spec.process.clone().unwrap_or_default();
    process.terminal = args.has("tty");
    process.console_size = None;
    process.args = rest
        .iter()
        .map(|word| {
            word.to_str()
                .map(str::to_owned)
                .ok_or_else(|| wrong(format!("argument {} is no UTF-8", word.display())))
        })
        .collect::<Result<_, _>>()?;
    if let Some(cwd) = args.get("cwd") {
        cwd.clone_into(&mut process.cwd);
    }
    process.env.extend(args.all("env").map(str::to_owned));
    if let Some(user) = args.get("user") {
        let (uid, gid) = ids(user)?;
        process.user.uid = uid;
        process.user.gid = gid.unwrap_or(process.user.gid);
    }
    for gid in args.all("additional-gids") {
        let number = gid
            .parse()
            .map_err(|_| wrong(format!("--additional-gids {gid:?} is no number")))?;
        process.user.additional_gids.push(number);
    }
    for name in args.all("cap") {
        capability::number(name).ok_or_else(|| wrong(format!("unknown capability {name:?}")))?;
        let sets = process
            .capabilities
            .get_or_insert_with(Capabilities::default);
        for set in [&mut sets.bounding, &mut sets.effective, &mut sets.permitted] {
            if !set.iter().any(|known| known == name) {
                set.push(name.to_owned());
            }
        }
    }
    if args.has("no-new-privs") {
        process.no_new_privileges = true;
    }
    if let Some(label) = args.get("process-label") {
        label.clone_into(&mut process.selinux_label);
    }
    if let Some(profile) = args.get("apparmor") {
        profile.clone_into(&mut process.apparmor_profile);
    }
    // The score is the container's; the process is born with its caller's.
    process.oom_score_adj = None;
    Ok(process)
}

/// `exec`.
pub fn exec(context: &Context, rest: &[OsString]) -> Outcome {
    let (args, rest) = parse(FLAGS, rest)?;
    let (id, rest) = rest
        .split_first()
        .ok_or_else(|| wrong("a container ID is needed".to_owned()))?;
    let id = check_id(id)?;
    let rest = match rest.split_first() {
        Some((first, rest)) if first == "--" => rest,
        _ => rest,
    };
    let home = Home::open(context, id)?;
    let state = home.load()?;
    match state.status(&home) {
        "paused" if !args.has("ignore-paused") => {
            return Err(LaunchError::new(
                Kind::Conflict,
                format!("container {id} is paused: resume it first"),
            ));
        }
        "stopped" => {
            return Err(LaunchError::new(
                Kind::Conflict,
                format!("cannot exec in a stopped container: {id}"),
            ));
        }
        _ => {}
    }
    let process = process(&args, rest, &state)?;
    let console = Console::of(&args, process.terminal)?;
    let failed = |error: std::io::Error| {
        LaunchError::new(Kind::Unavailable, format!("container {id}: {error}"))
    };
    let group = Cgroup::adopt(
        args.get("cgroup")
            .filter(|path| path.starts_with('/'))
            .unwrap_or(&state.cgroup),
    )
    .map_err(failed)?;
    let pidfd = state.process()?;
    let filter = state
        .spec
        .linux
        .as_ref()
        .and_then(|linux| linux.seccomp.as_ref());
    let stdio = if process.terminal {
        let size = process.console_size.unwrap_or_default();
        let (rows, cols) = console.size().unwrap_or((size.height, size.width));
        Stdio::Terminal { rows, cols }
    } else {
        Stdio::Inherit
    };
    let signals = if args.has("detach") {
        None
    } else {
        Some(terminal::signals()?)
    };
    let preserve = args.get("preserve-fds").map_or(Ok(0), |text| {
        text.parse()
            .map_err(|_| wrong(format!("--preserve-fds {text:?} is no number")))
    })?;
    let launched = run(ExecRequest {
        seccomp: filter.map(seccomp::compile).transpose()?,
        preserve,
        ..ExecRequest::new(&process, state.pid, pidfd.as_fd(), &group, stdio)
    })?;
    for warning in &launched.warnings {
        eprintln!("knarr-runtime: warning: {warning}");
    }
    if let Some(path) = args.get("pid-file") {
        fs::write(path, launched.pid.to_string()).map_err(failed)?;
    }
    let Some(signals) = signals else {
        return match &launched.terminal {
            Some(master) => console.hand_over(master).map(|()| 0),
            None => Ok(0),
        };
    };
    let master = match &launched.terminal {
        Some(master) if console.is_elsewhere() => {
            console.hand_over(master)?;
            None
        }
        other => other.as_ref(),
    };
    let code = terminal::wait(&launched, Some(&signals), master);
    if code.is_err() {
        kill::end(&launched)?;
    }
    code
}
