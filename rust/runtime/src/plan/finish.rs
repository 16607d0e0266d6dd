//! The end of every process's way: terminal, descriptors, working directory, identity, program.

use knarr_sys::step::{Arg, Operation, Step};

use super::mounts::{Prepared, clean};
use super::words::Context;
use super::writer::{BENEATH, Input, Writer};
use super::{Descriptors, Facts, ProcessFacts, identity, note, scheduling, setup};
use crate::error::{Kind, LaunchError};
use crate::spec::Process;

/// Where commands are looked for when the environment does not say.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Errors of a candidate that make the search go on.
const NEXT_CANDIDATE: &[i32] = &[libc::ENOENT, libc::EACCES, libc::ENOTDIR, libc::ELOOP];

/// Open a terminal of the container's own devpts; the slot of its slave side.
pub fn open_terminal(
    writer: &mut Writer,
    facts: &ProcessFacts,
    prepared: &Prepared,
) -> Result<Option<u16>, LaunchError> {
    if !matches!(facts.descriptors, Descriptors::Terminal { .. }) {
        return Ok(None);
    }
    let devpts = prepared.devpts.ok_or_else(|| {
        LaunchError::new(
            Kind::InvalidArgument,
            "a terminal needs a devpts: mount one at /dev/pts of the container",
        )
    })?;
    Ok(Some(terminal(writer, devpts, facts)))
}

/// Open a terminal of a devpts; the slot of its slave side.
pub fn terminal(writer: &mut Writer, devpts: Arg, facts: &ProcessFacts) -> u16 {
    const TIOCSPTLCK: u64 = 0x4004_5431;
    const TIOCGPTPEER: u64 = 0x5441;
    const TIOCSWINSZ: u64 = 0x5414;
    const DEVPTS_MAGIC: u64 = 0x1cd1;
    writer.about(Context::Doing("open a terminal of the container"));
    // What the container put there must not be taken for a terminal: it has to be a devpts' own.
    let room = Arg::Data(writer.builder.bytes(&[0; 120]));
    writer.call(libc::SYS_fstatfs, &[devpts, room]);
    let args = [
        room,
        Arg::Value(!0),
        Arg::Value(DEVPTS_MAGIC),
        Arg::int(libc::ENOTTY.into()),
    ];
    writer.builder.push(Step::new(Operation::Expect, &args));
    let flags = u64::from((libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC).cast_unsigned());
    let master = writer.builder.slot();
    let step = writer
        .openat2(devpts, "ptmx", flags, BENEATH)
        .into_slot(master);
    writer.builder.push(step);
    let zero = Arg::Data(writer.builder.bytes(&[0; 8]));
    writer.call(
        libc::SYS_ioctl,
        &[Arg::Slot(master), Arg::Value(TIOCSPTLCK), zero],
    );
    let slave = writer.open(
        libc::SYS_ioctl,
        &[
            Arg::Slot(master),
            Arg::Value(TIOCGPTPEER),
            Arg::Value(flags),
        ],
    );
    if let Descriptors::Terminal { rows, cols } = facts.descriptors
        && rows != 0
    {
        let size: Vec<u8> = [rows, cols, 0, 0]
            .iter()
            .flat_map(|word| word.to_ne_bytes())
            .collect();
        let size = Arg::Data(writer.builder.bytes(&size));
        writer.call(
            libc::SYS_ioctl,
            &[Arg::Slot(slave), Arg::Value(TIOCSWINSZ), size],
        );
    }
    writer.note(note::TERMINAL, Some(master));
    writer.call(libc::SYS_close, &[Arg::Slot(master)]);
    slave
}

/// Put the first three descriptors in place and mark every other one to be closed.
pub fn descriptors(writer: &mut Writer, facts: &ProcessFacts, terminal: Option<u16>) {
    const TIOCSCTTY: u64 = 0x540e;
    writer.about(Context::Doing("set up standard input and output"));
    for number in 0..3usize {
        let from = terminal
            .map(Arg::Slot)
            .or_else(|| writer.input(Input::Stdio(number)));
        let to = Arg::Value(number as u64);
        if let Some(from) = from {
            writer.call(libc::SYS_dup3, &[from, to, Arg::Value(0)]);
        }
        // What the process was given is its user's, or /dev/stdout could not be opened again. Null
        // devices and files of read-only or foreign file systems stay as they are.
        if facts.identity.uid != 0 && facts.descriptors != Descriptors::Inherited {
            let args = [to, Arg::Value(facts.identity.uid.into()), Arg::int(-1)];
            writer
                .builder
                .push(Step::call(libc::SYS_fchown, &args).tolerating_all());
        }
    }
    if terminal.is_some() {
        writer.call(
            libc::SYS_ioctl,
            &[Arg::Value(0), Arg::Value(TIOCSCTTY), Arg::Value(0)],
        );
    }
    const CLOSE_RANGE_CLOEXEC: u64 = 4;
    let first = Arg::Value(3 + u64::from(facts.preserve));
    writer.call(
        libc::SYS_close_range,
        &[
            first,
            Arg::Value(u32::MAX.into()),
            Arg::Value(CLOSE_RANGE_CLOEXEC),
        ],
    );
}

/// The working directory, made where it is missing and `make` says so.
pub fn working_directory(
    writer: &mut Writer,
    process: &Process,
    root: Arg,
    make: bool,
) -> Result<(), LaunchError> {
    writer.about(Context::Cwd(process.cwd.clone()));
    let path = clean(&process.cwd)?;
    let directory = if make && !path.is_empty() {
        writer.lookup_or_make(root, &path, false)
    } else {
        writer.lookup(root, &path)
    };
    writer.call(libc::SYS_fchdir, &[Arg::Slot(directory)]);
    // A directory outside the root has a path that begins with "(unreachable)".
    let room = writer.builder.bytes(&[0; 4096]);
    writer.call(libc::SYS_getcwd, &[Arg::Data(room), Arg::Value(4096)]);
    let args = [
        Arg::Data(room),
        Arg::Value(0xff),
        Arg::Value(u64::from(b'/')),
        Arg::int(libc::EXDEV.into()),
    ];
    writer.builder.push(Step::new(Operation::Expect, &args));
    Ok(())
}

/// Everything from the descriptors to the program, for a container's first process.
pub fn process(
    writer: &mut Writer,
    process: &Process,
    facts: &Facts,
    root: Arg,
    terminal: Option<u16>,
    procfs: Option<Arg>,
    warnings: &mut Vec<String>,
) -> Result<(), LaunchError> {
    working_directory(writer, process, root, true)?;
    settings(writer, process, &facts.process, procfs, warnings)?;
    descriptors(writer, &facts.process, terminal);
    identity::become_user(writer, process, &facts.process, warnings)?;
    execute(writer, process, &facts.process, facts.fifo);
    Ok(())
}

/// Scheduling, limits, security labels.
pub fn settings(
    writer: &mut Writer,
    process: &Process,
    facts: &ProcessFacts,
    procfs: Option<Arg>,
    warnings: &mut Vec<String>,
) -> Result<(), LaunchError> {
    for (wanted, active, path) in [
        (
            &process.apparmor_profile,
            facts.apparmor,
            "self/attr/apparmor/exec",
        ),
        (&process.selinux_label, facts.selinux, "self/attr/exec"),
    ] {
        super::check_text("security label", wanted)?;
        if wanted.is_empty() || (!active && wanted == "unconfined") {
            continue;
        }
        if !active {
            warnings.push(format!(
                "security label {wanted:?} left out: its module is not in force on this host"
            ));
            continue;
        }
        writer.about(Context::Doing("set the security label"));
        let procfs = procfs
            .ok_or_else(|| LaunchError::new(Kind::Internal, "the plan has no procfs for labels"))?;
        let slot = writer.builder.slot();
        // No magic link, but /proc/self is an ordinary one.
        let step = writer.openat2(
            procfs,
            path,
            u64::from(libc::O_WRONLY.cast_unsigned()),
            0x08 | 0x02 | 0x01,
        );
        writer.builder.push(step.into_slot(slot));
        let text = if path.contains("apparmor") {
            format!("exec {wanted}")
        } else {
            wanted.clone()
        };
        let step = writer.write(Arg::Slot(slot), &text);
        writer.builder.push(step);
    }
    scheduling::settings(writer, process)?;
    identity::limits(writer, process, facts, warnings)?;
    writer.about(Context::Doing("set the file mode creation mask"));
    let mask = process.user.umask.unwrap_or(0o022);
    writer.call(libc::SYS_umask, &[Arg::Value((mask & 0o777).into())]);
    Ok(())
}

/// The paths that a command may be found at.
fn candidates(process: &Process) -> Vec<String> {
    let command = process.args.first().map_or("", String::as_str);
    if command.contains('/') {
        return vec![command.to_owned()];
    }
    let path = process
        .env
        .iter()
        .find_map(|entry| entry.strip_prefix("PATH="))
        .unwrap_or(DEFAULT_PATH);
    path.split(':')
        .filter(|directory| directory.starts_with('/'))
        .map(|directory| format!("{}/{command}", directory.trim_end_matches('/')))
        .collect()
}

/// Execute the command: each candidate of PATH in turn.
pub fn execute(writer: &mut Writer, process: &Process, facts: &ProcessFacts, fifo: bool) {
    let command = process.args.first().cloned().unwrap_or_default();
    let searched = !command.contains('/');
    let candidates = candidates(process);
    let mut env: Vec<&str> = process.env.iter().map(String::as_str).collect();
    let home = format!("HOME={}", facts.identity.home);
    if !env.iter().any(|entry| entry.starts_with("HOME=")) {
        env.push(&home);
    }
    let context = Context::Exec(command);
    writer.about(context.clone());
    let paths: Vec<Arg> = candidates
        .iter()
        .map(|candidate| writer.builder.string(candidate))
        .collect();
    let here = Arg::int(libc::AT_FDCWD.into());
    if fifo || facts.init {
        // The command must be known to be there before anyone is told that it is about to run.
        const X_OK: u64 = 1;
        let mut checks = Vec::new();
        for path in &paths {
            let args = [
                here,
                *path,
                Arg::Value(X_OK),
                Arg::int(libc::AT_EACCESS.into()),
            ];
            let step = Step::call(libc::SYS_faccessat2, &args);
            checks.push(writer.builder.push(if searched {
                step.tolerating(NEXT_CANDIDATE)
            } else {
                step
            }));
        }
        if searched {
            setup::fail(writer, libc::ENOENT);
        }
        let end = writer.builder.next();
        for check in checks {
            writer.builder.patch(check, |step| step.then = Some(end));
        }
    }
    if let (true, Some(file)) = (fifo, writer.input(Input::Fifo)) {
        wait_for_start(writer, file);
    } else {
        writer.about(Context::Doing("leave the runtime's care"));
        writer.note(note::EXECUTING, None);
        writer.call(
            libc::SYS_prctl,
            &[Arg::int(libc::PR_SET_PDEATHSIG.into()), Arg::Value(0)],
        );
    }
    writer.about(context);
    let env = writer.builder.strings(env);
    if facts.init
        && let Some(init) = writer.input(Input::Init)
    {
        let mut args = vec![crate::init::NAME, "--"];
        args.extend(process.args.iter().map(String::as_str));
        let args = writer.builder.strings(args);
        let flags = Arg::int(libc::AT_EMPTY_PATH.into());
        writer.call(libc::SYS_execveat, &[init, writer.empty, args, env, flags]);
        return;
    }
    let args = writer
        .builder
        .strings(process.args.iter().map(String::as_str));
    for path in &paths {
        let step = Step::call(libc::SYS_execve, &[*path, args, env]);
        writer.builder.push(if searched {
            step.tolerating(NEXT_CANDIDATE)
        } else {
            step
        });
    }
    if searched {
        setup::fail(writer, libc::ENOENT);
    }
}

/// Tell that everything is set up, then wait until `start` writes a byte.
fn wait_for_start(writer: &mut Writer, file: Arg) {
    writer.about(Context::Doing("wait for the container's start"));
    // Whoever created the container may end now.
    writer.call(
        libc::SYS_prctl,
        &[Arg::int(libc::PR_SET_PDEATHSIG.into()), Arg::Value(0)],
    );
    writer.note(note::READY, None);
    let room = Arg::Data(writer.builder.bytes(&[0; 8]));
    let got = writer.open(libc::SYS_read, &[file, room, Arg::Value(1)]);
    let args = [
        Arg::Slot(got),
        Arg::Value(1),
        Arg::int(libc::ECANCELED.into()),
    ];
    writer.builder.push(Step::new(Operation::Equal, &args));
}
