//! The beginning of a container's first process, and its change of root.

use knarr_sys::step::{Arg, Operation, Step};

use super::words::Context;
use super::writer::{Input, Writer};
use super::{Facts, check_text, note, options};
use crate::error::{Kind, LaunchError};
use crate::spec::Spec;

const MS_PRIVATE: u64 = 1 << 18;
const MS_SLAVE: u64 = 1 << 19;

fn flag(kind: i32) -> u64 {
    u64::from(kind.cast_unsigned())
}

fn unsupported(message: impl Into<String>) -> LaunchError {
    LaunchError::new(Kind::Unsupported, message)
}

/// Refuse what is known and not done.
pub fn check(spec: &Spec, fresh: u64) -> Result<(), LaunchError> {
    if fresh & flag(libc::CLONE_NEWNS) == 0 {
        return Err(unsupported(
            "a container needs a new mount namespace: list it in linux.namespaces",
        ));
    }
    let Some(linux) = &spec.linux else {
        return Ok(());
    };
    if linux.intel_rdt.is_some() {
        return Err(unsupported("linux.intelRdt is not supported: leave it out"));
    }
    if linux.net_devices.is_some() {
        return Err(unsupported(
            "linux.netDevices is not supported: leave it out",
        ));
    }
    if !linux.time_offsets.is_empty() {
        return Err(unsupported(
            "linux.timeOffsets is not supported: leave it out",
        ));
    }
    if !spec.hostname.is_empty() || !spec.domainname.is_empty() {
        let own = linux
            .namespaces
            .iter()
            .any(|namespace| namespace.kind == "uts");
        if !own {
            return Err(LaunchError::new(
                Kind::InvalidArgument,
                "a host name needs a UTS namespace: list one in linux.namespaces",
            ));
        }
    }
    for text in [&spec.hostname, &spec.domainname] {
        check_text("host name", text)?;
        if text.len() > 64 {
            return Err(LaunchError::new(
                Kind::InvalidArgument,
                format!("host name {text:?} is longer than 64 bytes"),
            ));
        }
    }
    if !linux.rootfs_propagation.is_empty()
        && options::propagation(&linux.rootfs_propagation).is_none()
    {
        return Err(LaunchError::new(
            Kind::InvalidArgument,
            format!(
                "linux.rootfsPropagation {:?} is none of shared, slave, private, unbindable",
                linux.rootfs_propagation
            ),
        ));
    }
    Ok(())
}

/// Session, control groups, namespaces, a private mount tree.
pub fn begin(
    writer: &mut Writer,
    spec: &Spec,
    facts: &Facts,
    fresh: u64,
) -> Result<(), LaunchError> {
    writer.about(Context::Doing("begin the container's first process"));
    let prctl = |option: i32, value: u64| {
        Step::call(
            libc::SYS_prctl,
            &[Arg::int(option.into()), Arg::Value(value)],
        )
    };
    writer.builder.push(prctl(libc::PR_SET_DUMPABLE, 0));
    writer.builder.push(prctl(
        libc::PR_SET_PDEATHSIG,
        libc::SIGKILL.cast_unsigned().into(),
    ));
    writer.call(libc::SYS_setsid, &[]);
    // Modes are given in full from here on, until the process's own mask is set.
    writer.call(libc::SYS_umask, &[Arg::Value(0)]);

    writer.about(Context::Doing("join the container's control groups"));
    for index in 0..facts.hierarchies.len() {
        if let Some(tasks) = writer.input(Input::Tasks(index)) {
            let step = writer.write(tasks, "0");
            writer.builder.push(step);
        }
    }
    if fresh & flag(libc::CLONE_NEWCGROUP) != 0 {
        writer.call(libc::SYS_unshare, &[Arg::int(libc::CLONE_NEWCGROUP.into())]);
    }
    if let Some(score) = spec
        .process
        .as_ref()
        .and_then(|process| process.oom_score_adj)
        && fresh & flag(libc::CLONE_NEWUSER) == 0
    {
        writer.about(Context::Doing("set process.oomScoreAdj"));
        out_of_memory_score(writer, score);
    }

    join(writer);
    if facts.gate {
        writer.about(Context::Doing("wait for the runtime"));
        writer.note(note::GATE, None);
        writer.gate();
    }
    if fresh & flag(libc::CLONE_NEWUSER) != 0 {
        writer.about(Context::Doing("become root of the user namespace"));
        writer.call(
            libc::SYS_setresgid,
            &[Arg::Value(0), Arg::Value(0), Arg::Value(0)],
        );
        writer.call(
            libc::SYS_setresuid,
            &[Arg::Value(0), Arg::Value(0), Arg::Value(0)],
        );
        // Not being traceable survives no change of identity by itself.
        writer.builder.push(prctl(libc::PR_SET_DUMPABLE, 0));
        writer.builder.push(prctl(
            libc::PR_SET_PDEATHSIG,
            libc::SIGKILL.cast_unsigned().into(),
        ));
    }
    if facts.keyring {
        keyring(writer, &facts.id)?;
    }
    separate(writer, spec);
    Ok(())
}

/// Join the namespaces that were given.
fn join(writer: &mut Writer) {
    for kind in [
        libc::CLONE_NEWIPC,
        libc::CLONE_NEWUTS,
        libc::CLONE_NEWNET,
        libc::CLONE_NEWCGROUP,
        libc::CLONE_NEWTIME,
    ] {
        if let Some(namespace) = writer.input(Input::Namespace(kind)) {
            writer.about(Context::Doing(match kind {
                libc::CLONE_NEWIPC => "join the IPC namespace",
                libc::CLONE_NEWUTS => "join the UTS namespace",
                libc::CLONE_NEWNET => "join the network namespace",
                libc::CLONE_NEWCGROUP => "join the control group namespace",
                _ => "join the time namespace",
            }));
            writer.call(libc::SYS_setns, &[namespace, Arg::int(kind.into())]);
        }
    }
}

/// A session keyring of the container's own.
fn keyring(writer: &mut Writer, id: &str) -> Result<(), LaunchError> {
    writer.about(Context::Doing("make a session keyring"));
    check_text("container ID", id)?;
    let name = writer.builder.string(&format!("_ses.{id}"));
    const JOIN_SESSION_KEYRING: u64 = 1;
    let step = Step::call(libc::SYS_keyctl, &[Arg::Value(JOIN_SESSION_KEYRING), name]);
    // Kernels without keys, filters that forbid them and exhausted quotas cost no container.
    writer
        .builder
        .push(step.tolerating(&[libc::ENOSYS, libc::EPERM, libc::EDQUOT, libc::EACCES]));
    Ok(())
}

/// Make the mount tree this process's own.
fn separate(writer: &mut Writer, spec: &Spec) {
    writer.about(Context::Doing("separate the mount tree from the host's"));
    let propagation = spec
        .linux
        .as_ref()
        .and_then(|linux| options::propagation(&linux.rootfs_propagation))
        .map_or(MS_PRIVATE, |(flag, _)| {
            if flag == MS_SLAVE {
                MS_SLAVE
            } else {
                MS_PRIVATE
            }
        });
    let root = writer.builder.string("/");
    let attr = knarr_sys::mount::MountAttr {
        propagation,
        ..Default::default()
    };
    let attr = Arg::Data(writer.builder.bytes(&attr.bytes()));
    let here = Arg::int(libc::AT_FDCWD.into());
    let recursive = Arg::int(libc::AT_RECURSIVE.into());
    writer.call(
        libc::SYS_mount_setattr,
        &[here, root, recursive, attr, Arg::Value(32)],
    );
}

/// The execution domain.
pub fn personality(writer: &mut Writer, spec: &Spec) -> Result<(), LaunchError> {
    const LINUX32: u64 = 8;
    let Some(personality) = spec
        .linux
        .as_ref()
        .and_then(|linux| linux.personality.as_ref())
    else {
        return Ok(());
    };
    let domain = match personality.domain.as_str() {
        "LINUX" => 0,
        "LINUX32" => LINUX32,
        other => {
            return Err(LaunchError::new(
                Kind::InvalidArgument,
                format!("linux.personality {other:?} is neither LINUX nor LINUX32"),
            ));
        }
    };
    writer.about(Context::Doing("set linux.personality"));
    writer.call(libc::SYS_personality, &[Arg::Value(domain)]);
    Ok(())
}

/// Write this process's out-of-memory score. Lowering it needs a capability that nested engines lack.
pub fn out_of_memory_score(writer: &mut Writer, score: i32) {
    let here = Arg::int(libc::AT_FDCWD.into());
    let path = writer.builder.string("/proc/self/oom_score_adj");
    let flags = Arg::int((libc::O_WRONLY | libc::O_CLOEXEC).into());
    let file = writer.open(libc::SYS_openat, &[here, path, flags]);
    let step = writer.write(Arg::Slot(file), &score.to_string());
    writer
        .builder
        .push(step.tolerating(&[libc::EACCES, libc::EPERM]).warning());
}

/// Make the root file system this namespace's root, and let go of the host's. The slot of the root.
pub fn pivot(writer: &mut Writer, spec: &Spec, facts: &Facts) -> Result<Arg, LaunchError> {
    writer.about(Context::Doing("change to the container's root file system"));
    let rootfs = writer.input(Input::Rootfs).ok_or_else(|| {
        LaunchError::new(Kind::Internal, "the plan was given no root file system")
    })?;
    let here = Arg::int(libc::AT_FDCWD.into());
    let slash = writer.builder.string("/");
    let dot = writer.builder.string(".");
    const FROM_EMPTY: u64 = 0x04;
    writer.call(
        libc::SYS_move_mount,
        &[rootfs, writer.empty, here, slash, Arg::Value(FROM_EMPTY)],
    );
    writer.call(libc::SYS_fchdir, &[rootfs]);
    if facts.pivot {
        writer.call(libc::SYS_pivot_root, &[dot, dot]);
        writer.call(libc::SYS_umount2, &[dot, Arg::int(libc::MNT_DETACH.into())]);
    } else {
        // On an initial ramfs nothing can be pivoted: the root stays covered instead.
        writer.call(libc::SYS_chroot, &[dot]);
    }
    writer.call(libc::SYS_chdir, &[slash]);
    if let Some((propagation, recursive)) = spec
        .linux
        .as_ref()
        .and_then(|linux| options::propagation(&linux.rootfs_propagation))
    {
        let step = writer.set_attributes(rootfs, recursive, 0, 0, propagation);
        writer.builder.push(step);
    }
    Ok(rootfs)
}

/// Host and domain name.
pub fn names(writer: &mut Writer, spec: &Spec) {
    for (call, text) in [
        (libc::SYS_sethostname, &spec.hostname),
        (libc::SYS_setdomainname, &spec.domainname),
    ] {
        if !text.is_empty() {
            writer.about(Context::Doing("set the host name"));
            let name = writer.builder.string(text);
            writer.call(call, &[name, Arg::Value(text.len() as u64)]);
        }
    }
}

/// A read-only root.
pub fn seal_root(writer: &mut Writer, spec: &Spec, root: Arg) {
    const RDONLY: u64 = 1;
    if spec.root.as_ref().is_some_and(|root| root.readonly) {
        writer.about(Context::Doing("make the root file system read-only"));
        let step = writer.set_attributes(root, false, RDONLY, 0, 0);
        writer.builder.push(step);
    }
}

/// Fail with this error number.
pub fn fail(writer: &mut Writer, errno: i32) {
    writer.builder.push(Step::new(
        Operation::Equal,
        &[Arg::Value(0), Arg::Value(1), Arg::int(errno.into())],
    ));
}
