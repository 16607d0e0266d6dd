//! Descriptors that a start needs, opened before the clone: from here on no path of the host is used.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use knarr_sys::mount::{MountAttr, set_attributes};
use knarr_sys::process::join_namespace;

use super::{LaunchRequest, Stdio, idmap, source};
use crate::cgroup::{Cgroup, Entry};
use crate::error::{Kind, LaunchError};
use crate::plan::{self, Input, Options, options};
use crate::rootfs::clone_path;
use crate::spec::{Mount, Spec};

const MS_PRIVATE: u64 = 1 << 18;
const MS_SLAVE: u64 = 1 << 19;

/// Everything opened for one start.
#[derive(Debug, Default)]
pub struct Inputs {
    opened: Vec<(Input, OwnedFd)>,
    /// For each mount of the specification that is bound: whether it is a directory.
    pub directories: Vec<Option<bool>>,
}

fn namespace_name(kind: i32) -> &'static str {
    match kind {
        libc::CLONE_NEWPID => "PID",
        libc::CLONE_NEWNET => "network",
        libc::CLONE_NEWIPC => "IPC",
        libc::CLONE_NEWUTS => "UTS",
        libc::CLONE_NEWUSER => "user",
        libc::CLONE_NEWCGROUP => "control group",
        libc::CLONE_NEWNS => "mount",
        _ => "time",
    }
}

impl Inputs {
    /// Open sources of mounts, devices and namespaces, and make sure that what is mounted over exists. `user` is who the process
    /// runs as.
    pub fn gather(
        request: &LaunchRequest<'_>,
        user: (u32, u32),
        fresh: u64,
        joined: &[(i32, &str)],
    ) -> Result<Self, LaunchError> {
        let mut inputs = Self::default();
        let spec = request.spec;
        let slave = spec
            .linux
            .as_ref()
            .and_then(|linux| options::propagation(&linux.rootfs_propagation))
            .is_some_and(|(flag, _)| flag == MS_SLAVE);
        request.rootfs.separate(slave)?;
        let mut covered: Vec<String> = Vec::new();
        for (index, mount) in spec.mounts.iter().enumerate() {
            let options = options::parse(&mount.options)?;
            let mut directory = None;
            if plan::is_bind(mount, &options) {
                let (is_directory, tree) = bind(request, mount, &options, user)?;
                inputs.opened.push((Input::Bind(index), tree));
                directory = Some(is_directory);
            } else if idmap::is_asked_for(mount, &options) {
                return Err(LaunchError::new(
                    Kind::Unsupported,
                    format!(
                        "mount at {:?}: ID-mapped mounts of type {:?} are not supported: bind what is mounted on the host",
                        mount.destination, mount.kind
                    ),
                ));
            } else if options.copy_up {
                let tree = crate::copyup::tmpfs(&request.rootfs, mount, &options)?;
                inputs.opened.push((Input::Bind(index), tree));
                directory = Some(true);
            }
            inputs.directories.push(directory);
            let place = plan::clean(&mount.destination)?;
            // What lies below an earlier mount is made by the child, where it will be seen.
            if !covered.iter().any(|above| below(&place, above)) {
                request.rootfs.ensure(&place, directory == Some(false))?;
            }
            covered.push(place);
        }
        if let Some(process) = &spec.process {
            let place = plan::clean(&process.cwd)?;
            let sealed = spec.root.as_ref().is_some_and(|root| root.readonly);
            if !place.is_empty() && !covered.iter().any(|above| below(&place, above)) {
                match request.rootfs.ensure(&place, false) {
                    // The child names the directory when it can't change to it.
                    Err(error) if !sealed && error.kind != Kind::InvalidArgument => {
                        return Err(error);
                    }
                    _ => {}
                }
            }
        }
        let user_namespace = fresh & u64::from(libc::CLONE_NEWUSER.cast_unsigned()) != 0;
        if user_namespace {
            inputs.devices(spec)?;
        }
        for (kind, path) in joined {
            match kind {
                &libc::CLONE_NEWNET if request.netns.is_some() => continue,
                &libc::CLONE_NEWNS | &libc::CLONE_NEWUSER => {
                    return Err(LaunchError::new(
                        Kind::Unsupported,
                        format!(
                            "joining the {} namespace {path} is not supported",
                            namespace_name(*kind)
                        ),
                    ));
                }
                _ => {}
            }
            let opened = File::open(path).map_err(|error| {
                LaunchError::new(
                    Kind::NotFound,
                    format!(
                        "{} namespace {path}: {}",
                        namespace_name(*kind),
                        plan::errno_text(error.raw_os_error().unwrap_or(0))
                    ),
                )
            })?;
            inputs.opened.push((Input::Namespace(*kind), opened.into()));
        }
        if request.init {
            inputs.opened.push((Input::Init, crate::init::program()?));
        }
        Ok(inputs)
    }

    /// Device nodes can't be made in a user namespace: the host's are bound instead.
    fn devices(&mut self, spec: &Spec) -> Result<(), LaunchError> {
        for (index, device) in plan::all_devices(spec).iter().enumerate() {
            let (_, tree) = clone_path(Path::new(&device.path), false).map_err(|errno| {
                LaunchError::new(
                    plan::kind(errno.raw_os_error()),
                    format!(
                        "device {:?} of the host: {}",
                        device.path,
                        plan::errno_text(errno.raw_os_error())
                    ),
                )
            })?;
            self.opened.push((Input::Device(index), tree));
        }
        Ok(())
    }

    /// Files by which version 1 groups are joined, and their directories where they are bound.
    pub fn control_groups(
        &mut self,
        cgroup: &Cgroup,
        entry: &Entry,
        spec: &Spec,
        own_namespace: bool,
    ) -> Result<(), LaunchError> {
        let dup = |file: &OwnedFd| {
            file.try_clone().map_err(|error| {
                LaunchError::new(
                    Kind::Unavailable,
                    format!("duplicate a descriptor: {error}"),
                )
            })
        };
        for (index, tasks) in entry.tasks.iter().enumerate() {
            self.opened.push((Input::Tasks(index), dup(tasks)?));
        }
        let shown = spec.mounts.iter().find(|mount| mount.kind == "cgroup");
        if let (Some(mount), false, false) = (shown, own_namespace, cgroup.is_unified()) {
            let options = options::parse(&mount.options)?;
            for (index, (_, directory)) in cgroup.directories().enumerate() {
                let (_, tree) = clone_path(directory, false).map_err(|errno| {
                    LaunchError::new(
                        plan::kind(errno.raw_os_error()),
                        format!(
                            "bind {}: {}",
                            directory.display(),
                            plan::errno_text(errno.raw_os_error())
                        ),
                    )
                })?;
                change(&tree, &options, &mount.destination)?;
                self.opened.push((Input::Hierarchy(index), tree));
            }
        }
        Ok(())
    }

    /// What the plan gets, in order.
    pub fn kinds(&self, request: &LaunchRequest<'_>, user_namespace: bool) -> Vec<Input> {
        let mut kinds: Vec<Input> = self
            .opened
            .iter()
            .map(|(input, _)| *input)
            .filter(|input| !is_parents(*input, user_namespace))
            .collect();
        kinds.push(Input::Rootfs);
        if matches!(request.stdio, Stdio::Pipes { .. }) {
            kinds.extend((0..3).map(Input::Stdio));
        }
        if request.netns.is_some() && !user_namespace {
            kinds.push(Input::Namespace(libc::CLONE_NEWNET));
        }
        if request.fifo.is_some() {
            kinds.push(Input::Fifo);
        }
        kinds
    }

    /// The descriptors of a plan's inputs, in its order.
    pub fn descriptors<'b>(
        &'b self,
        request: &'b LaunchRequest<'_>,
        wanted: &[Input],
    ) -> Result<Vec<BorrowedFd<'b>>, LaunchError> {
        wanted
            .iter()
            .map(|input| {
                let found = match (input, &request.stdio) {
                    (Input::Rootfs, _) => Some(request.rootfs.as_fd()),
                    (Input::Fifo, _) => request.fifo,
                    (Input::Namespace(libc::CLONE_NEWNET), _) if request.netns.is_some() => {
                        request.netns
                    }
                    (Input::Stdio(0), Stdio::Pipes { stdin, .. }) => Some(stdin.as_fd()),
                    (Input::Stdio(1), Stdio::Pipes { stdout, .. }) => Some(stdout.as_fd()),
                    (Input::Stdio(2), Stdio::Pipes { stderr, .. }) => Some(stderr.as_fd()),
                    (other, _) => self
                        .opened
                        .iter()
                        .find(|(kind, _)| kind == other)
                        .map(|(_, file)| file.as_fd()),
                };
                found.ok_or_else(|| {
                    LaunchError::new(
                        Kind::Internal,
                        format!("the plan wants {input:?}, which nobody opened"),
                    )
                })
            })
            .collect()
    }

    /// Enter the namespaces that this thread must be in when it clones.
    pub fn join_before(
        &self,
        request: &LaunchRequest<'_>,
        user_namespace: bool,
    ) -> Result<Vec<Around>, LaunchError> {
        let opened = self
            .opened
            .iter()
            .map(|(input, file)| (*input, file.as_fd()));
        let given = request
            .netns
            .map(|netns| (Input::Namespace(libc::CLONE_NEWNET), netns));
        opened
            .chain(given)
            .filter(|(input, _)| is_parents(*input, user_namespace))
            .filter_map(|(input, file)| match input {
                Input::Namespace(kind) => Some(Around::enter(file, kind)),
                _ => None,
            })
            .collect()
    }
}

/// Whether an input is a namespace that the parent joins for the moment of the clone: a PID
/// namespace holds for children only, and a child in a new user namespace may join no other.
const fn is_parents(input: Input, user_namespace: bool) -> bool {
    match input {
        Input::Namespace(kind) => user_namespace || kind == libc::CLONE_NEWPID,
        _ => false,
    }
}

/// A namespace that this thread's children are born in, until dropped.
#[derive(Debug)]
pub struct Around {
    home: OwnedFd,
    kind: i32,
}

impl Around {
    /// Enter it.
    pub fn enter(namespace: BorrowedFd<'_>, kind: i32) -> Result<Self, LaunchError> {
        let failed = |error: std::io::Error| {
            let errno = error.raw_os_error().unwrap_or(0);
            LaunchError::new(
                plan::kind(errno),
                format!(
                    "join the {} namespace: {}",
                    namespace_name(kind),
                    plan::errno_text(errno)
                ),
            )
        };
        let file = match kind {
            libc::CLONE_NEWPID => "pid",
            libc::CLONE_NEWNET => "net",
            libc::CLONE_NEWIPC => "ipc",
            libc::CLONE_NEWUTS => "uts",
            libc::CLONE_NEWCGROUP => "cgroup",
            _ => "time",
        };
        let home = File::open(format!("/proc/thread-self/ns/{file}"))
            .map_err(failed)?
            .into();
        join_namespace(namespace, kind).map_err(failed)?;
        Ok(Self { home, kind })
    }
}

impl Drop for Around {
    fn drop(&mut self) {
        if let Err(error) = join_namespace(self.home.as_fd(), self.kind) {
            // Every later child would be born in a container's namespace: that must not happen.
            eprintln!("knarr: can't return to the namespace this process came from: {error}");
            std::process::abort();
        }
    }
}

/// Whether a path lies at or below another.
fn below(path: &str, above: &str) -> bool {
    path == above
        || path
            .strip_prefix(above)
            .is_some_and(|rest| rest.starts_with('/'))
}

fn bind(
    request: &LaunchRequest<'_>,
    mount: &Mount,
    options: &Options,
    user: (u32, u32),
) -> Result<(bool, OwnedFd), LaunchError> {
    let (directory, tree) = source::open(request.bundle, mount, options)?;
    idmap::apply(&tree, mount, options, request.spec, user)?;
    change(&tree, options, &mount.destination)?;
    Ok((directory, tree))
}

/// Give a detached tree the attributes and the propagation that options say.
fn change(tree: &OwnedFd, options: &Options, place: &str) -> Result<(), LaunchError> {
    let failed = |error: std::io::Error| {
        let errno = error.raw_os_error().unwrap_or(0);
        LaunchError::new(
            plan::kind(errno),
            format!(
                "change the options of the mount at {place:?}: {}",
                plan::errno_text(errno)
            ),
        )
    };
    let (propagation, deep) = options.propagation.unwrap_or((MS_PRIVATE, true));
    if deep {
        // What was cloned from shared mounts would be their peer otherwise.
        let attr = MountAttr {
            propagation,
            ..MountAttr::default()
        };
        set_attributes(tree.as_fd(), c"", true, &attr).map_err(failed)?;
    } else {
        let attr = MountAttr {
            propagation: MS_PRIVATE,
            ..MountAttr::default()
        };
        set_attributes(tree.as_fd(), c"", true, &attr).map_err(failed)?;
        let attr = MountAttr {
            propagation,
            ..MountAttr::default()
        };
        set_attributes(tree.as_fd(), c"", false, &attr).map_err(failed)?;
    }
    for (wanted, recursive) in [(options.own, false), (options.tree, true)] {
        if !wanted.is_empty() {
            let wanted = plan::change(wanted);
            let attr = MountAttr {
                set: wanted.set,
                clear: wanted.clear,
                ..MountAttr::default()
            };
            set_attributes(tree.as_fd(), c"", recursive, &attr).map_err(failed)?;
        }
    }
    Ok(())
}
