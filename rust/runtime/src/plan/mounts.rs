//! Mounts: file systems made detached before the change of root, and attached after it.

use knarr_sys::step::Arg;

use super::options::{self, Change, Options};
use super::words::Context;
use super::writer::{Input, Writer};
use super::{Facts, check_text};
use crate::error::{Kind, LaunchError};
use crate::spec::{Mount, Spec};

const SET_FLAG: u64 = 0;
const SET_STRING: u64 = 1;
const CREATE: u64 = 6;
const CLOEXEC: u64 = 1;
const RDONLY: u64 = 1;
const NOSUID: u64 = 2;
const NODEV: u64 = 4;
const NOEXEC: u64 = 8;
const ATIME: u64 = 0x70;

/// One mount that waits to be attached.
pub struct Ready {
    /// The slot of the detached mount.
    pub mount: Arg,
    /// Whether its place is a directory.
    pub directory: bool,
    /// Version 1 hierarchies to attach below it: (slot, name).
    pub below: Vec<(Arg, String)>,
    /// What happens once everything below it has been attached.
    pub late: u64,
}

/// Everything that was made before the change of root.
pub struct Prepared {
    /// By index of the specification's mount.
    pub mounts: Vec<Ready>,
    /// A procfs of the container's, if there is one.
    pub procfs: Option<Arg>,
    /// Its devpts, if there is one.
    pub devpts: Option<Arg>,
    /// The host's null device as a detached mount.
    pub null: Option<Arg>,
    /// An empty, read-only directory as a detached mount.
    pub nothing: Option<Arg>,
    /// Whether /dev is ours to fill.
    pub own_dev: bool,
}

/// Whether a mount is bound rather than made.
#[must_use]
pub fn is_bind(mount: &Mount, options: &Options) -> bool {
    options.bind.is_some() || mount.kind == "bind" || mount.kind == "rbind"
}

/// A path without empty and dot components; an error where it has `..` or is relative.
pub fn clean(path: &str) -> Result<String, LaunchError> {
    check_text("path", path)?;
    let mut names = Vec::new();
    for name in path
        .split('/')
        .filter(|name| !name.is_empty() && *name != ".")
    {
        if name == ".." {
            names.pop();
        } else {
            names.push(name);
        }
    }
    Ok(names.join("/"))
}

/// Make a file system from `fsopen` to `fsmount`; the slot of the detached mount.
fn make(writer: &mut Writer, kind: &str, source: &str, data: &[String], attr: u64) -> Arg {
    let name = writer.builder.string(kind);
    let context = Arg::Slot(writer.open(libc::SYS_fsopen, &[name, Arg::Value(CLOEXEC)]));
    if !source.is_empty() {
        let (key, value) = (
            writer.builder.string("source"),
            writer.builder.string(source),
        );
        writer.call(
            libc::SYS_fsconfig,
            &[context, Arg::Value(SET_STRING), key, value, Arg::Value(0)],
        );
    }
    for option in data {
        if let Some((key, value)) = option.split_once('=') {
            let (key, value) = (writer.builder.string(key), writer.builder.string(value));
            writer.call(
                libc::SYS_fsconfig,
                &[context, Arg::Value(SET_STRING), key, value, Arg::Value(0)],
            );
        } else {
            let key = writer.builder.string(option);
            writer.call(
                libc::SYS_fsconfig,
                &[
                    context,
                    Arg::Value(SET_FLAG),
                    key,
                    Arg::Value(0),
                    Arg::Value(0),
                ],
            );
        }
    }
    writer.call(
        libc::SYS_fsconfig,
        &[
            context,
            Arg::Value(CREATE),
            Arg::Value(0),
            Arg::Value(0),
            Arg::Value(0),
        ],
    );
    let mount = writer.open(
        libc::SYS_fsmount,
        &[context, Arg::Value(CLOEXEC), Arg::Value(attr)],
    );
    writer.call(libc::SYS_close, &[context]);
    Arg::Slot(mount)
}

/// Make every mount of the specification, detached.
pub fn prepare(
    writer: &mut Writer,
    spec: &Spec,
    facts: &Facts,
    fresh: u64,
) -> Result<Prepared, LaunchError> {
    let mut prepared = Prepared {
        mounts: Vec::new(),
        procfs: None,
        devpts: None,
        null: None,
        nothing: None,
        own_dev: false,
    };
    let own_cgroups = fresh & u64::from(libc::CLONE_NEWCGROUP.cast_unsigned()) != 0;
    for (index, mount) in spec.mounts.iter().enumerate() {
        writer.about(Context::Mount(index));
        for text in [&mount.source, &mount.kind] {
            check_text("mount", text)?;
        }
        let options = options::parse(&mount.options)?;
        for option in &options.data {
            check_text("mount option", option)?;
        }
        let destination = clean(&mount.destination)?;
        if let Some(bound) = writer.input(Input::Bind(index)) {
            let directory = facts
                .directories
                .get(index)
                .copied()
                .flatten()
                .unwrap_or(true);
            // A tmpfs that was filled beforehand becomes read-only like any other, a bind is already.
            let late = if options.copy_up {
                options.own.set & RDONLY
            } else {
                0
            };
            prepared.mounts.push(Ready {
                mount: bound,
                directory,
                below: Vec::new(),
                late,
            });
            continue;
        }
        if is_bind(mount, &options) {
            return Err(LaunchError::new(
                Kind::Internal,
                format!(
                    "mount at {:?}: its source was not prepared",
                    mount.destination
                ),
            ));
        }
        let ready = one(writer, mount, &options, facts, own_cgroups);
        match mount.kind.as_str() {
            "proc" if prepared.procfs.is_none() => prepared.procfs = Some(ready.mount),
            "devpts" if prepared.devpts.is_none() => prepared.devpts = Some(ready.mount),
            _ => {}
        }
        if destination == "dev" {
            prepared.own_dev = true;
        }
        prepared.mounts.push(ready);
    }
    let linux = spec.linux.as_ref();
    let hides = linux.is_some_and(|linux| !linux.masked_paths.is_empty());
    if hides {
        writer.about(Context::Doing("prepare what masks paths"));
        prepared.null = Some(null_device(writer));
        let data = [
            "mode=0555".to_owned(),
            "size=4k".to_owned(),
            "nr_inodes=1".to_owned(),
        ];
        let attr = RDONLY | NOSUID | NODEV | NOEXEC;
        prepared.nothing = Some(make(writer, "tmpfs", "tmpfs", &data, attr));
    }
    let parameters = linux.is_some_and(|linux| !linux.sysctl.is_empty());
    let labels = spec.process.as_ref().is_some_and(|process| {
        !process.apparmor_profile.is_empty() || !process.selinux_label.is_empty()
    });
    if prepared.procfs.is_none() && (parameters || labels) {
        writer.about(Context::Doing("open a procfs of the container's own"));
        prepared.procfs = Some(make(writer, "proc", "proc", &[], NOSUID | NODEV | NOEXEC));
    }
    Ok(prepared)
}

/// Clone the host's null device, having made sure that it is one.
fn null_device(writer: &mut Writer) -> Arg {
    let here = Arg::int(libc::AT_FDCWD.into());
    let path = writer.builder.string("/dev/null");
    let flags = Arg::int((libc::O_PATH | libc::O_CLOEXEC | libc::O_NOFOLLOW).into());
    let found = Arg::Slot(writer.open(libc::SYS_openat, &[here, path, flags]));
    super::paths::expect_null(writer, found);
    let slot = writer.builder.slot();
    let step = writer.clone_tree(found, false).into_slot(slot);
    writer.builder.push(step);
    let step = writer.set_attributes(Arg::Slot(slot), false, RDONLY | NOSUID | NOEXEC, 0, 0);
    writer.builder.push(step);
    Arg::Slot(slot)
}

fn one(
    writer: &mut Writer,
    mount: &Mount,
    options: &Options,
    facts: &Facts,
    own_cgroups: bool,
) -> Ready {
    let source = if mount.source.is_empty() {
        &mount.kind
    } else {
        &mount.source
    };
    let attr = options.own.set;
    match mount.kind.as_str() {
        "cgroup" if facts.hierarchies.is_empty() => {
            let mounted = make(writer, "cgroup2", "cgroup", &options.data, attr);
            Ready {
                mount: mounted,
                directory: true,
                below: Vec::new(),
                late: 0,
            }
        }
        "cgroup" => {
            let data = ["mode=0755".to_owned(), "size=64k".to_owned()];
            let base = make(writer, "tmpfs", "tmpfs", &data, options.writable());
            let mut below = Vec::new();
            for (index, hierarchy) in facts.hierarchies.iter().enumerate() {
                let name = hierarchy
                    .controllers
                    .strip_prefix("name=")
                    .unwrap_or(&hierarchy.controllers)
                    .to_owned();
                let slot = match writer.input(Input::Hierarchy(index)) {
                    Some(bound) if !own_cgroups => bound,
                    _ => {
                        let data: Vec<String> = hierarchy
                            .controllers
                            .split(',')
                            .map(str::to_owned)
                            .collect();
                        make(writer, "cgroup", "cgroup", &data, attr)
                    }
                };
                below.push((slot, name));
            }
            Ready {
                mount: base,
                directory: true,
                below,
                late: attr & RDONLY,
            }
        }
        // A read-only tmpfs is filled with mount points first.
        "tmpfs" => {
            let mounted = make(writer, "tmpfs", source, &options.data, options.writable());
            Ready {
                mount: mounted,
                directory: true,
                below: Vec::new(),
                late: attr & RDONLY,
            }
        }
        kind => {
            let mounted = make(writer, kind, source, &options.data, attr);
            Ready {
                mount: mounted,
                directory: true,
                below: Vec::new(),
                late: 0,
            }
        }
    }
}

/// Attach them, in order, to places looked up below the root.
pub fn attach(
    writer: &mut Writer,
    spec: &Spec,
    _facts: &Facts,
    prepared: &Prepared,
    root: Arg,
) -> Result<(), LaunchError> {
    for (index, (mount, ready)) in spec.mounts.iter().zip(&prepared.mounts).enumerate() {
        writer.about(Context::Mount(index));
        let destination = clean(&mount.destination)?;
        if destination.is_empty() {
            return Err(LaunchError::new(
                Kind::InvalidArgument,
                format!(
                    "mount at {:?}: the root itself can't be mounted over",
                    mount.destination
                ),
            ));
        }
        let target = Arg::Slot(writer.lookup_or_make(root, &destination, !ready.directory));
        let step = writer.attach(ready.mount, target);
        writer.builder.push(step);
        for (hierarchy, name) in &ready.below {
            let text = writer.builder.string(name);
            writer.call(libc::SYS_mkdirat, &[ready.mount, text, Arg::Value(0o755)]);
            let place = Arg::Slot(writer.lookup(ready.mount, name));
            let step = writer.attach(*hierarchy, place);
            writer.builder.push(step);
            for alias in name.split(',').filter(|alias| *alias != name) {
                let link = writer.builder.string(alias);
                writer.call(libc::SYS_symlinkat, &[text, ready.mount, link]);
            }
        }
        let options = options::parse(&mount.options)?;
        if !super::mounts::is_bind(mount, &options) {
            propagate(writer, ready.mount, &options);
        }
    }
    for (index, ready) in prepared.mounts.iter().enumerate() {
        if ready.late != 0 {
            writer.about(Context::Mount(index));
            let step = writer.set_attributes(ready.mount, false, ready.late, 0, 0);
            writer.builder.push(step);
        }
    }
    Ok(())
}

fn propagate(writer: &mut Writer, mount: Arg, options: &Options) {
    if let Some((propagation, recursive)) = options.propagation {
        let step = writer.set_attributes(mount, recursive, 0, 0, propagation);
        writer.builder.push(step);
    }
}

/// A change of attributes as the kernel wants it: the access time policy is replaced as a whole.
#[must_use]
pub const fn change(change: Change) -> Change {
    if (change.set | change.clear) & ATIME == 0 {
        return change;
    }
    Change {
        set: change.set,
        clear: change.clear | ATIME,
    }
}
