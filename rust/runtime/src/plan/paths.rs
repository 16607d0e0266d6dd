//! What is made and hidden below the root: devices, kernel parameters, masked and read-only paths.

use knarr_sys::step::{Arg, Operation, Step};

use super::mounts::{Prepared, clean};
use super::words::Context;
use super::writer::{BENEATH, Input, Writer};
use super::{Facts, check_text};
use crate::error::{Kind, LaunchError};
use crate::spec::{Device, Spec};

const RDONLY: u64 = 1;

/// Devices that every container has: name, minor number of major 1 (but tty, which is 5:0).
const STANDARD: [(&str, u32, u32); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];
/// Links that every container has.
const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// The number of a device, as mknod(2) takes it.
const fn device_number(major: u32, minor: u32) -> u64 {
    libc::makedev(major, minor)
}

/// All devices of a specification with the standard ones: those of the specification win.
#[must_use]
pub fn all_devices(spec: &Spec) -> Vec<Device> {
    let own = spec.linux.as_ref().map_or(&[][..], |linux| &linux.devices);
    let mut devices: Vec<Device> = STANDARD
        .iter()
        .map(|(name, major, minor)| Device {
            kind: "c".to_owned(),
            path: format!("/dev/{name}"),
            major: (*major).into(),
            minor: (*minor).into(),
            file_mode: Some(0o666),
            uid: Some(0),
            gid: Some(0),
        })
        .filter(|standard| own.iter().all(|device| device.path != standard.path))
        .collect();
    devices.extend(own.iter().cloned());
    devices
}

/// Device nodes and links of /dev, where /dev is the container's own.
pub fn devices(
    writer: &mut Writer,
    spec: &Spec,
    facts: &Facts,
    prepared: &Prepared,
    root: Arg,
) -> Result<(), LaunchError> {
    let _ = facts;
    if !prepared.own_dev {
        return Ok(());
    }
    writer.about(Context::Doing("open the container's /dev"));
    let dev = Arg::Slot(writer.lookup(root, "dev"));
    for (index, device) in all_devices(spec).iter().enumerate() {
        writer.about(Context::Device(device.path.clone()));
        one(writer, index, device, dev, root)?;
    }
    for (name, target) in LINKS {
        writer.about(Context::Device(format!("/dev/{name}")));
        let (name, target) = (writer.builder.string(name), writer.builder.string(target));
        let step = Step::call(libc::SYS_symlinkat, &[target, dev, name]);
        writer.builder.push(step.tolerating(&[libc::EEXIST]));
    }
    Ok(())
}

fn one(
    writer: &mut Writer,
    index: usize,
    device: &Device,
    dev: Arg,
    root: Arg,
) -> Result<(), LaunchError> {
    let path = clean(&device.path)?;
    let (directory, name) = path.rsplit_once('/').unwrap_or(("", &path));
    if name.is_empty() {
        return Err(LaunchError::new(
            Kind::InvalidArgument,
            format!("device {:?} has no name", device.path),
        ));
    }
    if let Some(bound) = writer.input(Input::Device(index)) {
        let target = Arg::Slot(writer.lookup_or_make(root, &path, true));
        let step = writer.attach(bound, target);
        writer.builder.push(step);
        return Ok(());
    }
    let parent = match directory {
        "dev" => dev,
        directory => Arg::Slot(writer.lookup_or_make(root, directory, false)),
    };
    let kind = match device.kind.as_str() {
        "c" | "u" => libc::S_IFCHR,
        "b" => libc::S_IFBLK,
        "p" => libc::S_IFIFO,
        other => {
            return Err(LaunchError::new(
                Kind::InvalidArgument,
                format!(
                    "device {:?}: type {other:?} is none of c, u, b and p",
                    device.path
                ),
            ));
        }
    };
    let part = |number: i64| {
        u32::try_from(number).map_err(|_| {
            LaunchError::new(
                Kind::InvalidArgument,
                format!("device {:?}: {number} is no device number", device.path),
            )
        })
    };
    let number = match kind {
        libc::S_IFIFO => 0,
        _ => device_number(part(device.major)?, part(device.minor)?),
    };
    let permissions = device.file_mode.unwrap_or(0o666) & 0o7777;
    let text = writer.builder.string(name);
    let mode = Arg::Value((kind | permissions).into());
    let step = Step::call(libc::SYS_mknodat, &[parent, text, mode, Arg::Value(number)]);
    let made = writer.builder.push(step.tolerating(&[libc::EEXIST]));
    let then = writer.builder.next();
    let flags = Arg::int(libc::AT_SYMLINK_NOFOLLOW.into());
    let (uid, gid) = (device.uid.unwrap_or(0), device.gid.unwrap_or(0));
    // The umask is zero at this point of the program, so the mode needs no second call.
    if (uid, gid) != (0, 0) {
        writer.call(
            libc::SYS_fchownat,
            &[
                parent,
                text,
                Arg::Value(uid.into()),
                Arg::Value(gid.into()),
                flags,
            ],
        );
    }
    let end = writer.builder.next();
    writer.builder.patch(made, |step| {
        step.then = Some(then);
        step.otherwise = Some(end);
    });
    Ok(())
}

/// The terminal at /dev/console.
pub fn console(writer: &mut Writer, terminal: u16, root: Arg) {
    writer.about(Context::Device("/dev/console".to_owned()));
    let target = Arg::Slot(writer.lookup_or_make(root, "dev/console", true));
    let slot = writer.builder.slot();
    let step = writer
        .clone_tree(Arg::Slot(terminal), false)
        .into_slot(slot);
    writer.builder.push(step);
    let step = writer.attach(Arg::Slot(slot), target);
    writer.builder.push(step);
}

/// Fail unless a descriptor is the null device, 1:3.
pub fn expect_null(writer: &mut Writer, file: Arg) {
    // struct statx: stx_mode is the 16 bits at 28, stx_rdev_major at 128, stx_rdev_minor at 132.
    const STATX_TYPE: u64 = 1;
    let room = writer.builder.bytes(&[0; 256]);
    let flags = Arg::int(libc::AT_EMPTY_PATH.into());
    writer.call(
        libc::SYS_statx,
        &[
            file,
            writer.empty,
            flags,
            Arg::Value(STATX_TYPE),
            Arg::Data(room),
        ],
    );
    let errno = Arg::int(libc::ENODEV.into());
    for (offset, mask, value) in [
        (28, u64::from(libc::S_IFMT), u64::from(libc::S_IFCHR)),
        (128, !0, 1),
        (132, !0, 3),
    ] {
        let args = [
            Arg::Data(room + offset),
            Arg::Value(mask),
            Arg::Value(value),
            errno,
        ];
        writer.builder.push(Step::new(Operation::Expect, &args));
    }
}

/// Parameters that a namespace of the container holds.
fn allowed(name: &str, fresh: u64, spec: &Spec) -> bool {
    let has = |kind: &str, flag: i32| {
        fresh & u64::from(flag.cast_unsigned()) != 0
            || spec
                .linux
                .iter()
                .flat_map(|linux| &linux.namespaces)
                .any(|namespace| namespace.kind == kind && !namespace.path.is_empty())
    };
    const IPC: [&str; 9] = [
        "msgmax",
        "msgmnb",
        "msgmni",
        "sem",
        "shmall",
        "shmmax",
        "shmmni",
        "shm_rmid_forced",
        "auto_msgmni",
    ];
    match name.split_once('/') {
        Some(("net", _)) => has("network", libc::CLONE_NEWNET),
        Some(("fs", rest)) if rest.starts_with("mqueue/") => has("ipc", libc::CLONE_NEWIPC),
        Some(("kernel", rest)) if IPC.contains(&rest) || rest.ends_with("_next_id") => {
            has("ipc", libc::CLONE_NEWIPC)
        }
        Some(("kernel", "domainname" | "hostname")) => has("uts", libc::CLONE_NEWUTS),
        Some(("user", _)) => has("user", libc::CLONE_NEWUSER),
        _ => false,
    }
}

/// Set kernel parameters, through a procfs that nobody else can have meddled with.
pub fn sysctls(
    writer: &mut Writer,
    spec: &Spec,
    prepared: &Prepared,
    fresh: u64,
) -> Result<(), LaunchError> {
    let Some(linux) = &spec.linux else {
        return Ok(());
    };
    for (name, value) in &linux.sysctl {
        check_text("kernel parameter", name)?;
        check_text("kernel parameter", value)?;
        // Either separator is in use; the first one seen decides (net/ipv4/conf/eth0.1/forwarding).
        let path = match (name.find('.'), name.find('/')) {
            (Some(dot), slash) if slash.is_none_or(|slash| dot < slash) => name
                .chars()
                .map(|letter| match letter {
                    '.' => '/',
                    '/' => '.',
                    other => other,
                })
                .collect(),
            _ => name.clone(),
        };
        if path.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Err(LaunchError::new(
                Kind::InvalidArgument,
                format!("kernel parameter {name:?} is malformed"),
            ));
        }
        if !allowed(&path, fresh, spec) {
            return Err(LaunchError::new(
                Kind::InvalidArgument,
                format!(
                    "kernel parameter {name:?} is not separate for each container: set it on the host"
                ),
            ));
        }
        let procfs = prepared.procfs.ok_or_else(|| {
            LaunchError::new(
                Kind::Internal,
                "the plan has no procfs for kernel parameters",
            )
        })?;
        writer.about(Context::Sysctl(name.clone()));
        let slot = writer.builder.slot();
        let flags = u64::from(libc::O_WRONLY.cast_unsigned());
        let step = writer
            .openat2(procfs, &format!("sys/{path}"), flags, BENEATH)
            .into_slot(slot);
        writer.builder.push(step);
        let step = writer.write(Arg::Slot(slot), value);
        writer.builder.push(step);
        writer.call(libc::SYS_close, &[Arg::Slot(slot)]);
    }
    Ok(())
}

/// Hide masked paths and make read-only ones so. Paths that the container lacks are left out.
pub fn hide(
    writer: &mut Writer,
    spec: &Spec,
    prepared: &Prepared,
    root: Arg,
) -> Result<(), LaunchError> {
    const MISSING: &[i32] = &[libc::ENOENT, libc::ENOTDIR];
    let Some(linux) = &spec.linux else {
        return Ok(());
    };
    for (index, path) in linux.readonly_paths.iter().enumerate() {
        writer.about(Context::Readonly(index));
        let target = writer.builder.slot();
        let step = writer.openat2(
            root,
            &clean(path)?,
            libc::O_PATH as u64,
            super::writer::IN_ROOT,
        );
        let look = writer
            .builder
            .push(step.into_slot(target).tolerating(MISSING));
        let copy = writer.builder.slot();
        let step = writer.clone_tree(Arg::Slot(target), true).into_slot(copy);
        writer.builder.push(step);
        let step = writer.set_attributes(Arg::Slot(copy), true, RDONLY, 0, 0);
        writer.builder.push(step);
        let step = writer.attach(Arg::Slot(copy), Arg::Slot(target));
        writer.builder.push(step);
        let end = writer.builder.next();
        writer
            .builder
            .patch(look, |step| step.otherwise = Some(end));
    }
    for (index, path) in linux.masked_paths.iter().enumerate() {
        let (Some(null), Some(nothing)) = (prepared.null, prepared.nothing) else {
            return Err(LaunchError::new(
                Kind::Internal,
                "the plan has nothing to mask paths with",
            ));
        };
        writer.about(Context::Masked(index));
        let target = writer.builder.slot();
        let step = writer.openat2(
            root,
            &clean(path)?,
            libc::O_PATH as u64,
            super::writer::IN_ROOT,
        );
        let look = writer
            .builder
            .push(step.into_slot(target).tolerating(MISSING));
        // What is no file is refused by move_mount with EINVAL.
        let as_file = cover(writer, null, target, &[libc::ENOTDIR, libc::EINVAL]);
        let as_directory = writer.builder.next();
        cover(writer, nothing, target, &[]);
        let end = writer.builder.next();
        writer
            .builder
            .patch(look, |step| step.otherwise = Some(end));
        for step in as_file {
            writer.builder.patch(step, |step| {
                step.then = Some(end);
                step.otherwise = Some(as_directory);
            });
        }
    }
    Ok(())
}

/// Attach a copy of `mount` over `target`; the steps that attach. A mount that nothing has attached
/// yet can't be copied by older kernels: it is attached itself then.
fn cover(writer: &mut Writer, mount: Arg, target: u16, tolerated: &'static [i32]) -> [u16; 2] {
    let copy = writer.builder.slot();
    let step = writer
        .clone_tree(mount, false)
        .into_slot(copy)
        .tolerating(&[libc::EINVAL]);
    let clone = writer.builder.push(step);
    let step = writer
        .attach(Arg::Slot(copy), Arg::Slot(target))
        .tolerating(tolerated);
    let attach_copy = writer.builder.push(step);
    let jump = writer.builder.push(Step::new(Operation::Jump, &[]));
    let itself = writer.builder.next();
    let step = writer
        .attach(mount, Arg::Slot(target))
        .tolerating(tolerated);
    let attach_itself = writer.builder.push(step);
    let end = writer.builder.next();
    writer
        .builder
        .patch(clone, |step| step.otherwise = Some(itself));
    writer.builder.patch(jump, |step| step.then = Some(end));
    [attach_copy, attach_itself]
}
