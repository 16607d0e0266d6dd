//! From a command line to one of the program's processes.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitCode, Stdio};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::journal::Journal;
use crate::keeper;
use crate::options::{BadUsage, Options, Role};
use crate::supervisor;

/// What a keeper writes to its standard output when it listens.
pub const READY: &str = "ready\n";

/// Run the program; its exit status.
#[must_use]
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let options = match Options::parse(arguments) {
        Ok(options) => options,
        Err(told @ (BadUsage::Help | BadUsage::Version)) => {
            println!("{}", told.to_string().trim_end());
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("knarr-supervisor: {error}");
            return ExitCode::from(2);
        }
    };
    // All of our processes execute /proc/self/exe, so one that is protected protects its children.
    if let Err(error) = knarr_runtime::protect::executable() {
        eprintln!("knarr-supervisor: {error}");
        return ExitCode::FAILURE;
    }
    // A defect ends the process, not only one of its threads: there is another to take over.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        hook(panic);
        std::process::abort();
    }));
    let result = match (options.role, options.foreground) {
        (Role::Launcher, false) => launch(&options),
        (Role::Launcher, true) | (Role::Keeper, _) => keeper::run(&options),
        (Role::Heir, _) => keeper::inherit(&options),
        (Role::Supervisor, _) => supervisor::run(&options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if options.role == Role::Launcher {
                eprintln!("knarr-supervisor: {error}");
            } else {
                Journal::new(&options.run_root, "knarr-supervisor", options.foreground).say(&error);
                // The launcher, if it still waits, passes this on.
                let _ = writeln!(io::stdout(), "{error}");
            }
            ExitCode::FAILURE
        }
    }
}

/// Start a keeper in the background, and wait until it listens.
fn launch(options: &Options) -> Result<(), String> {
    let run_root = options.run_root.display();
    std::fs::create_dir_all(&options.run_root)
        .map_err(|error| format!("cannot create {run_root}: {error}"))?;
    let path = options.run_root.join("supervisor.log");
    let log = OpenOptions::new().create(true).append(true).open(&path);
    let log = log.map_err(|error| format!("cannot open {}: {error}", path.display()))?;
    let mut keeper = program(options, Role::Keeper);
    keeper
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::from(log));
    let mut keeper = keeper
        .spawn()
        .map_err(|error| format!("cannot start the keeper: {error}"))?;
    let mut told = String::new();
    if let Some(output) = &mut keeper.stdout {
        output
            .read_to_string(&mut told)
            .map_err(|error| format!("the keeper cannot be heard: {error}"))?;
    }
    match told.strip_suffix(READY) {
        Some(_) => Ok(()),
        None if told.trim().is_empty() => Err(format!(
            "the keeper ended without a word; see {}",
            path.display()
        )),
        None => Err(told.trim().to_owned()),
    }
}

fn program(options: &Options, role: Role) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command
        .arg0("knarr-supervisor")
        .args(options.arguments(role))
        .current_dir("/");
    command
}

/// Start another of our processes with a socket as its standard input.
pub fn start(options: &Options, role: Role, socket: OwnedFd) -> io::Result<Child> {
    program(options, role)
        .stdin(Stdio::from(socket))
        .stdout(Stdio::null())
        .stderr(Stdio::inherit())
        .spawn()
}

/// Take the socket that is our standard input, and leave /dev/null there.
pub fn inherited_socket() -> io::Result<OwnedFd> {
    let socket = io::stdin().as_fd().try_clone_to_owned()?;
    rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
    rustix::io::ioctl_fionbio(&socket, true)?;
    Ok(socket)
}

/// Raise our limit of open files as far as it goes; what it was before.
pub fn raise_open_files() -> io::Result<u64> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            ..limit
        },
    )?;
    Ok(limit.current.unwrap_or(u64::MAX))
}
