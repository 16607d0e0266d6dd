//! The way of another process into a running container.
//!
//! The first child joins everything and lets go of what the container must not see; then it is
//! succeeded by a second one, born inside the container's PID namespace.

use knarr_sys::step::{Arg, Operation, Step};

use super::words::Context;
use super::writer::{Input, Writer};
use super::{Descriptors, ExecFacts, finish, identity, setup};
use crate::error::{Kind, LaunchError};
use crate::spec::Process;

fn prctl(option: i32, value: u64) -> Step {
    Step::call(
        libc::SYS_prctl,
        &[Arg::int(option.into()), Arg::Value(value)],
    )
}

/// Join control groups and namespaces, and continue inside.
pub fn join(writer: &mut Writer, process: &Process, facts: &ExecFacts) -> Result<(), LaunchError> {
    writer.about(Context::Doing("begin a process in the container"));
    writer.builder.push(prctl(libc::PR_SET_DUMPABLE, 0));
    writer.builder.push(prctl(
        libc::PR_SET_PDEATHSIG,
        libc::SIGKILL.cast_unsigned().into(),
    ));
    writer.about(Context::Doing("join the container's control groups"));
    for index in 0..facts.tasks {
        if let Some(tasks) = writer.input(Input::Tasks(index)) {
            let step = writer.write(tasks, "0");
            writer.builder.push(step);
        }
    }
    if let Some(score) = process.oom_score_adj {
        writer.about(Context::Doing("set process.oomScoreAdj"));
        setup::out_of_memory_score(writer, score);
    }
    writer.about(Context::Doing("join the container's namespaces"));
    let container = writer
        .input(Input::Process)
        .ok_or_else(|| LaunchError::new(Kind::Internal, "the plan was given no container"))?;
    writer.call(
        libc::SYS_setns,
        &[container, Arg::int(facts.namespaces.into())],
    );
    if facts.namespaces & libc::CLONE_NEWUSER != 0 {
        writer.about(Context::Doing("become root of the user namespace"));
        writer.call(
            libc::SYS_setresgid,
            &[Arg::Value(0), Arg::Value(0), Arg::Value(0)],
        );
        writer.call(
            libc::SYS_setresuid,
            &[Arg::Value(0), Arg::Value(0), Arg::Value(0)],
        );
        writer.builder.push(prctl(libc::PR_SET_DUMPABLE, 0));
    }
    writer.builder.push(Step::new(Operation::CloseOthers, &[]));
    writer.about(Context::Doing("enter the container's PID namespace"));
    writer.succeed();
    writer.builder.push(prctl(
        libc::PR_SET_PDEATHSIG,
        libc::SIGKILL.cast_unsigned().into(),
    ));
    writer.call(libc::SYS_setsid, &[]);
    Ok(())
}

/// Terminal, working directory, identity and program.
pub fn become_process(
    writer: &mut Writer,
    process: &Process,
    facts: &ExecFacts,
    warnings: &mut Vec<String>,
) -> Result<(), LaunchError> {
    writer.about(Context::Doing("open the container's root"));
    let here = Arg::int(libc::AT_FDCWD.into());
    let slash = writer.builder.string("/");
    let flags = Arg::int((libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC).into());
    let root = Arg::Slot(writer.open(libc::SYS_openat, &[here, slash, flags]));
    let terminal = if let Descriptors::Terminal { .. } = facts.process.descriptors {
        writer.about(Context::Doing("open the container's /dev/pts"));
        let devpts = Arg::Slot(writer.lookup(root, "dev/pts"));
        Some(finish::terminal(writer, devpts, &facts.process))
    } else {
        None
    };
    let labelled = !process.apparmor_profile.is_empty() || !process.selinux_label.is_empty();
    let procfs = if labelled {
        writer.about(Context::Doing("open the container's /proc"));
        let procfs = Arg::Slot(writer.lookup(root, "proc"));
        // Labels are written to the kernel, not to what the container put in its place.
        const PROC_MAGIC: u64 = 0x9fa0;
        let room = Arg::Data(writer.builder.bytes(&[0; 120]));
        writer.call(libc::SYS_fstatfs, &[procfs, room]);
        let args = [
            room,
            Arg::Value(!0),
            Arg::Value(PROC_MAGIC),
            Arg::int(libc::ENODEV.into()),
        ];
        writer.builder.push(Step::new(Operation::Expect, &args));
        Some(procfs)
    } else {
        None
    };
    finish::working_directory(writer, process, root, false)?;
    finish::settings(writer, process, &facts.process, procfs, warnings)?;
    finish::descriptors(writer, &facts.process, terminal);
    identity::become_user(writer, process, &facts.process, warnings)?;
    finish::execute(writer, process, &facts.process, false);
    Ok(())
}
