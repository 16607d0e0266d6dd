//! Limits, identity, capabilities and the filter: what the process may do.

use knarr_sys::step::{Arg, Step};

use super::words::Context;
use super::writer::Writer;
use super::{ProcessFacts, note};
use crate::capability;
use crate::error::{Kind, LaunchError};
use crate::spec::Process;

const LIMITS: [(&str, u32); 16] = [
    ("RLIMIT_CPU", 0),
    ("RLIMIT_FSIZE", 1),
    ("RLIMIT_DATA", 2),
    ("RLIMIT_STACK", 3),
    ("RLIMIT_CORE", 4),
    ("RLIMIT_RSS", 5),
    ("RLIMIT_NPROC", 6),
    ("RLIMIT_NOFILE", 7),
    ("RLIMIT_MEMLOCK", 8),
    ("RLIMIT_AS", 9),
    ("RLIMIT_LOCKS", 10),
    ("RLIMIT_SIGPENDING", 11),
    ("RLIMIT_MSGQUEUE", 12),
    ("RLIMIT_NICE", 13),
    ("RLIMIT_RTPRIO", 14),
    ("RLIMIT_RTTIME", 15),
];

fn prctl(option: i32, args: &[Arg]) -> Step {
    let mut all = vec![Arg::int(option.into())];
    all.extend_from_slice(args);
    Step::call(libc::SYS_prctl, &all)
}

/// Resource limits. One that may not be raised is set as high as it may be, with a warning.
pub fn limits(
    writer: &mut Writer,
    process: &Process,
    facts: &ProcessFacts,
    warnings: &mut Vec<String>,
) -> Result<(), LaunchError> {
    let mut seen = 0u32;
    for limit in &process.rlimits {
        let (_, resource) = LIMITS
            .iter()
            .find(|(name, _)| *name == limit.kind)
            .ok_or_else(|| {
                LaunchError::new(
                    Kind::InvalidArgument,
                    format!("unknown resource limit {:?}", limit.kind),
                )
            })?;
        if seen & 1 << resource != 0 {
            return Err(LaunchError::new(
                Kind::InvalidArgument,
                format!("{} is given twice", limit.kind),
            ));
        }
        seen |= 1 << resource;
        if limit.soft > limit.hard {
            return Err(LaunchError::new(
                Kind::InvalidArgument,
                format!(
                    "{}: the soft limit {} is above the hard limit {}",
                    limit.kind, limit.soft, limit.hard
                ),
            ));
        }
        const SYS_RESOURCE: u32 = 24;
        let may_raise = facts.permitted & 1 << SYS_RESOURCE != 0;
        let highest = facts
            .limits
            .iter()
            .find(|(number, _, _)| number == resource)
            .map_or(
                u64::MAX,
                |(_, _, hard)| if may_raise { u64::MAX } else { *hard },
            );
        if limit.hard > highest {
            warnings.push(format!(
                "{}: may not be raised to {} here (no CAP_SYS_RESOURCE): set to {highest}",
                limit.kind, limit.hard
            ));
        }
        writer.about(Context::Rlimit(limit.kind.clone()));
        let words = [limit.soft.min(highest), limit.hard.min(highest)];
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let new = Arg::Data(writer.builder.bytes(&bytes));
        writer.call(
            libc::SYS_prlimit64,
            &[
                Arg::Value(0),
                Arg::Value((*resource).into()),
                new,
                Arg::Value(0),
            ],
        );
    }
    Ok(())
}

/// The five sets, cut down to what this process has to give.
struct Sets {
    bounding: u64,
    effective: u64,
    inheritable: u64,
    permitted: u64,
    ambient: u64,
}

fn sets(
    process: &Process,
    facts: &ProcessFacts,
    warnings: &mut Vec<String>,
) -> Result<Sets, LaunchError> {
    let none = crate::spec::Capabilities::default();
    let wanted = process.capabilities.as_ref().unwrap_or(&none);
    let bounding = capability::set(&wanted.bounding)?;
    let permitted = capability::set(&wanted.permitted)?;
    let effective = capability::set(&wanted.effective)?;
    let missing = (bounding | permitted | effective) & !facts.permitted;
    if missing != 0 {
        let names: Vec<String> = (0..64)
            .filter(|bit| missing >> bit & 1 == 1)
            .map(capability::name)
            .collect();
        warnings.push(format!(
            "capabilities that are not to be had here were left out: {}",
            names.join(", ")
        ));
    }
    let have = facts.permitted;
    let permitted = permitted & have;
    let inheritable = capability::set(&wanted.inheritable)? & have;
    Ok(Sets {
        bounding: bounding & have,
        // What is not permitted can't be effective, and what is not inheritable not ambient.
        effective: effective & permitted,
        inheritable,
        permitted,
        ambient: capability::set(&wanted.ambient)? & permitted & inheritable,
    })
}

fn capset(writer: &mut Writer, effective: u64, permitted: u64, inheritable: u64) {
    let header: Vec<u8> = [0x2008_0522u32, 0]
        .iter()
        .flat_map(|word| word.to_ne_bytes())
        .collect();
    let header = Arg::Data(writer.builder.bytes(&header));
    let mut data = Vec::with_capacity(24);
    for shift in [0, 32] {
        for set in [effective, permitted, inheritable] {
            data.extend_from_slice(&((set >> shift & 0xffff_ffff) as u32).to_ne_bytes());
        }
    }
    let data = Arg::Data(writer.builder.bytes(&data));
    writer.call(libc::SYS_capset, &[header, data]);
}

/// Identity, capabilities, no-new-privileges and filter.
pub fn become_user(
    writer: &mut Writer,
    process: &Process,
    facts: &ProcessFacts,
    warnings: &mut Vec<String>,
) -> Result<(), LaunchError> {
    let sets = sets(process, facts, warnings)?;
    writer.about(Context::Doing("limit capabilities"));
    for number in 0..=facts.last_capability {
        if sets.bounding >> number & 1 == 0 {
            writer
                .builder
                .push(prctl(libc::PR_CAPBSET_DROP, &[Arg::Value(number.into())]));
        }
    }
    writer.about(Context::Doing("change to the process's user and groups"));
    let identity = &facts.identity;
    writer
        .builder
        .push(prctl(libc::PR_SET_KEEPCAPS, &[Arg::Value(1)]));
    let bytes: Vec<u8> = identity
        .groups
        .iter()
        .flat_map(|group| group.to_ne_bytes())
        .collect();
    let groups = Arg::Data(writer.builder.bytes(&bytes));
    let count = Arg::Value(identity.groups.len() as u64);
    let step = Step::call(libc::SYS_setgroups, &[count, groups]);
    // A user namespace that may not set groups can only keep having none but its own.
    let step = if identity.groups.iter().all(|group| *group == identity.gid) {
        step.tolerating(&[libc::EPERM])
    } else {
        step
    };
    writer.builder.push(step);
    let (uid, gid) = (
        Arg::Value(identity.uid.into()),
        Arg::Value(identity.gid.into()),
    );
    writer.call(libc::SYS_setresgid, &[gid, gid, gid]);
    writer.call(libc::SYS_setresuid, &[uid, uid, uid]);
    writer
        .builder
        .push(prctl(libc::PR_SET_KEEPCAPS, &[Arg::Value(0)]));
    // A change of identity makes a process traceable again by its new user, and forgets the signal.
    writer
        .builder
        .push(prctl(libc::PR_SET_DUMPABLE, &[Arg::Value(0)]));

    if process.no_new_privileges {
        writer.about(Context::Doing("set no_new_privs"));
        writer
            .builder
            .push(prctl(libc::PR_SET_NO_NEW_PRIVS, &[Arg::Value(1)]));
    }
    if let (Some(filter), false) = (&facts.filter, process.no_new_privileges) {
        // Without no_new_privs a filter takes CAP_SYS_ADMIN, which setuid left permitted only.
        writer.about(Context::Doing("prepare to load the seccomp filter"));
        let admin = 1u64 << capability::SYS_ADMIN & facts.permitted;
        capset(
            writer,
            sets.effective | admin,
            sets.permitted | sets.inheritable | admin,
            sets.inheritable,
        );
        load(writer, filter);
    }
    writer.about(Context::Doing("set capabilities"));
    capset(writer, sets.effective, sets.permitted, sets.inheritable);
    for number in 0..=facts.last_capability {
        if sets.ambient >> number & 1 == 1 {
            let args = [
                Arg::int(libc::PR_CAP_AMBIENT_RAISE.into()),
                Arg::Value(number.into()),
            ];
            writer.builder.push(prctl(libc::PR_CAP_AMBIENT, &args));
        }
    }
    if let (Some(filter), true) = (&facts.filter, process.no_new_privileges) {
        load(writer, filter);
    }
    Ok(())
}

/// Load a filter; its listener, if it has one, goes to the parent.
fn load(writer: &mut Writer, (instructions, flags): &(Vec<u64>, u32)) {
    const SET_MODE_FILTER: u64 = 1;
    const NEW_LISTENER: u32 = 8;
    writer.about(Context::Doing("load the seccomp filter"));
    let bytes: Vec<u8> = instructions
        .iter()
        .flat_map(|word| word.to_ne_bytes())
        .collect();
    let code = writer.builder.bytes(&bytes);
    let program = writer
        .builder
        .bytes(&[(instructions.len() as u64).to_ne_bytes(), [0; 8]].concat());
    writer.builder.point(program + 8, code);
    let args = [
        Arg::Value(SET_MODE_FILTER),
        Arg::Value((*flags).into()),
        Arg::Data(program),
    ];
    let listener = writer.open(libc::SYS_seccomp, &args);
    if flags & NEW_LISTENER != 0 {
        writer.note(note::LISTENER, Some(listener));
    }
}
