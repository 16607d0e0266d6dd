//! The builder of a plan: steps, what they are about, and idioms that several of them make.

use std::collections::BTreeMap;

use knarr_sys::step::{Arg, Builder, Operation, Step};

use super::words::Context;

/// Descriptors that the plan is given, in the order of the slots from 1 on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Input {
    /// The detached root file system.
    Rootfs,
    /// The detached source of the mount of this index.
    Bind(usize),
    /// The detached source of a device node in a user namespace, by index.
    Device(usize),
    /// A `tasks` file to join a version 1 control group by.
    Tasks(usize),
    /// A control group's own directory as a detached mount, by index of the hierarchy.
    Hierarchy(usize),
    /// A namespace to join, by its `CLONE_NEW*` flag.
    Namespace(i32),
    /// The container's first process, whose namespaces are all joined.
    Process,
    /// One of the first three descriptors.
    Stdio(usize),
    /// The program of the small init.
    Init,
    /// A file whose opening waits for `start`.
    Fifo,
    /// The state document that hooks read.
    State(usize),
}

/// Resolve below the root, and through no link of procfs.
pub const IN_ROOT: u64 = 0x10 | 0x02;
/// Resolve below a directory, through no link at all, and over no mount.
pub const BENEATH: u64 = 0x08 | 0x04 | 0x02 | 0x01;

const O_PATH: u64 = libc::O_PATH as u64;
const O_CLOEXEC: u64 = libc::O_CLOEXEC as u64;

/// A plan under construction.
pub struct Writer {
    pub builder: Builder,
    pub contexts: Vec<(u16, Context)>,
    pub inputs: Vec<Input>,
    slots: BTreeMap<Input, u16>,
    hows: BTreeMap<(u64, u64), Arg>,
    pub empty: Arg,
}

impl Writer {
    /// A plan with these inputs.
    pub fn new(inputs: Vec<Input>) -> Self {
        let count = u16::try_from(inputs.len() + 1).unwrap_or(u16::MAX);
        let mut builder = Builder::new(count);
        let empty = builder.string("");
        let slots = (1..)
            .zip(&inputs)
            .map(|(slot, input)| (*input, slot))
            .collect();
        Self {
            builder,
            contexts: Vec::new(),
            inputs,
            slots,
            hows: BTreeMap::new(),
            empty,
        }
    }

    /// What the steps from here on are about.
    pub fn about(&mut self, context: Context) {
        self.contexts.push((self.builder.next(), context));
    }

    /// The slot of an input, where it was given.
    pub fn input(&self, input: Input) -> Option<Arg> {
        self.slots.get(&input).map(|slot| Arg::Slot(*slot))
    }

    /// A system call that must succeed.
    pub fn call(&mut self, number: i64, args: &[Arg]) -> u16 {
        self.builder.push(Step::call(number, args))
    }

    /// A system call whose result is kept in a fresh slot.
    pub fn open(&mut self, number: i64, args: &[Arg]) -> u16 {
        let slot = self.builder.slot();
        self.builder.push(Step::call(number, args).into_slot(slot));
        slot
    }

    /// The `struct open_how` of these flags.
    pub fn how(&mut self, flags: u64, resolve: u64) -> Arg {
        if let Some(found) = self.hows.get(&(flags, resolve)) {
            return *found;
        }
        let bytes: Vec<u8> = [flags, 0, resolve]
            .iter()
            .flat_map(|word| word.to_ne_bytes())
            .collect();
        let how = Arg::Data(self.builder.bytes(&bytes));
        self.hows.insert((flags, resolve), how);
        how
    }

    /// openat2(2) of a path, not yet appended.
    pub fn openat2(&mut self, directory: Arg, path: &str, flags: u64, resolve: u64) -> Step {
        let path = if path.is_empty() { "." } else { path };
        let path = self.builder.string(path);
        let how = self.how(flags | O_CLOEXEC, resolve);
        Step::call(libc::SYS_openat2, &[directory, path, how, Arg::Value(24)])
    }

    /// An `O_PATH` descriptor of a path below the root; the slot.
    pub fn lookup(&mut self, root: Arg, path: &str) -> u16 {
        let slot = self.builder.slot();
        let step = self.openat2(root, path, O_PATH, IN_ROOT).into_slot(slot);
        self.builder.push(step);
        slot
    }

    /// The same, but where the path is missing, it is made: directories, and a file at the end
    /// where `file` says so. Links are followed below the root, dangling ones are errors.
    pub fn lookup_or_make(&mut self, root: Arg, path: &str, file: bool) -> u16 {
        let slot = self.builder.slot();
        let step = self
            .openat2(root, path, O_PATH, IN_ROOT)
            .into_slot(slot)
            .tolerating(&[libc::ENOENT]);
        let first = self.builder.push(step);
        let skip = self.builder.push(Step::new(Operation::Jump, &[]));
        let make = self.builder.next();
        self.builder
            .patch(first, |step| step.otherwise = Some(make));

        let names: Vec<&str> = path
            .split('/')
            .filter(|name| !name.is_empty() && *name != ".")
            .collect();
        let mut parent = root;
        let mut prefix = String::new();
        for (index, name) in names.iter().enumerate() {
            if !prefix.is_empty() {
                prefix.push('/');
            }
            prefix.push_str(name);
            let last = index + 1 == names.len();
            let here = if last { slot } else { self.builder.slot() };
            let step = self
                .openat2(root, &prefix, O_PATH, IN_ROOT)
                .into_slot(here)
                .tolerating(&[libc::ENOENT]);
            let open = self.builder.push(step);
            let found = self.builder.push(Step::new(Operation::Jump, &[]));
            let missing = self.builder.next();
            self.builder
                .patch(open, |step| step.otherwise = Some(missing));
            let name = self.builder.string(name);
            if last && file {
                let made = self.builder.slot();
                let flags = libc::O_CREAT
                    | libc::O_EXCL
                    | libc::O_NOFOLLOW
                    | libc::O_CLOEXEC
                    | libc::O_WRONLY;
                let args = [parent, name, Arg::int(flags.into()), Arg::Value(0o644)];
                self.builder.push(
                    Step::call(libc::SYS_openat, &args)
                        .into_slot(made)
                        .tolerating(&[libc::EEXIST]),
                );
            } else {
                let args = [parent, name, Arg::Value(0o755)];
                self.builder
                    .push(Step::call(libc::SYS_mkdirat, &args).tolerating(&[libc::EEXIST]));
            }
            let again = self.openat2(root, &prefix, O_PATH, IN_ROOT).into_slot(here);
            self.builder.push(again);
            let next = self.builder.next();
            self.builder.patch(found, |step| step.then = Some(next));
            parent = Arg::Slot(here);
        }
        let end = self.builder.next();
        self.builder.patch(skip, |step| step.then = Some(end));
        slot
    }

    /// Attach a detached mount to what a descriptor names.
    pub fn attach(&mut self, mount: Arg, target: Arg) -> Step {
        const FROM_EMPTY: u64 = 0x04;
        const TO_EMPTY: u64 = 0x40;
        Step::call(
            libc::SYS_move_mount,
            &[
                mount,
                self.empty,
                target,
                self.empty,
                Arg::Value(FROM_EMPTY | TO_EMPTY),
            ],
        )
    }

    /// `mount_setattr` on what a descriptor names.
    pub fn set_attributes(
        &mut self,
        mount: Arg,
        recursive: bool,
        set: u64,
        clear: u64,
        propagation: u64,
    ) -> Step {
        let attr = knarr_sys::mount::MountAttr {
            set,
            clear,
            propagation,
            userns: 0,
        };
        let attr = Arg::Data(self.builder.bytes(&attr.bytes()));
        let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
        Step::call(
            libc::SYS_mount_setattr,
            &[
                mount,
                self.empty,
                Arg::int(flags.into()),
                attr,
                Arg::Value(32),
            ],
        )
    }

    /// Clone the mount (with `recursive` the tree) that a descriptor names.
    pub fn clone_tree(&mut self, mount: Arg, recursive: bool) -> Step {
        const CLONE: u64 = 1;
        let mut flags = CLONE | O_CLOEXEC | libc::AT_EMPTY_PATH as u64;
        if recursive {
            flags |= libc::AT_RECURSIVE as u64;
        }
        Step::call(libc::SYS_open_tree, &[mount, self.empty, Arg::Value(flags)])
    }

    /// Tell the parent.
    pub fn note(&mut self, kind: u32, descriptor: Option<u16>) -> u16 {
        let descriptor = descriptor.map_or(Arg::int(-1), Arg::Slot);
        self.builder.push(Step::new(
            Operation::Note,
            &[Arg::Value(kind.into()), Arg::Value(0), descriptor],
        ))
    }

    /// Wait until the parent lets the child go on.
    pub fn gate(&mut self) {
        let room = Arg::Data(self.builder.bytes(&[0; 8]));
        let got = self.builder.slot();
        let args = [
            Arg::Slot(0),
            room,
            Arg::Value(8),
            Arg::Value(0),
            Arg::Value(0),
            Arg::Value(0),
        ];
        self.builder
            .push(Step::call(libc::SYS_recvfrom, &args).into_slot(got));
        // Nothing received: the parent is gone or has given up.
        let args = [
            Arg::Slot(got),
            Arg::Value(1),
            Arg::int(libc::ECANCELED.into()),
        ];
        self.builder.push(Step::new(Operation::Equal, &args));
    }

    /// Continue in a new child of this process's own parent, reported by pidfd and PID; end here.
    ///
    /// A process that joined a PID namespace is not in it: only its children are.
    pub fn succeed(&mut self) {
        const PIDFD: u64 = libc::CLONE_PIDFD as u64;
        const PARENT: u64 = libc::CLONE_PARENT as u64;
        let pidfd = self.builder.bytes(&(-1i64).to_ne_bytes());
        let mut words = [0u64; 11];
        words[0] = PIDFD | PARENT;
        let args: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let args = self.builder.bytes(&args);
        self.builder.point(args + 8, pidfd);
        let pid = self.builder.slot();
        let step = Step::call(libc::SYS_clone3, &[Arg::Data(args), Arg::Value(88)]).into_slot(pid);
        self.builder.push(step);
        let zero = [Arg::Slot(pid), Arg::Value(0), Arg::int(libc::ECHILD.into())];
        let choice = self
            .builder
            .push(Step::new(Operation::Equal, &zero).tolerating(&[libc::ECHILD]));
        let descriptor = self.builder.slot();
        let load = Step::new(Operation::Load, &[Arg::Data(pidfd)]).into_slot(descriptor);
        let parent = self.builder.push(load);
        let kind = Arg::Value(super::note::PROCESS.into());
        self.builder.push(Step::new(
            Operation::Note,
            &[kind, Arg::Slot(pid), Arg::Slot(descriptor)],
        ));
        self.builder
            .push(Step::new(Operation::Exit, &[Arg::Value(0)]));
        let child = self.builder.next();
        self.builder.patch(choice, |step| {
            step.then = Some(child);
            step.otherwise = Some(parent);
        });
    }

    /// Write a text to an open file.
    pub fn write(&mut self, file: Arg, text: &str) -> Step {
        let data = self.builder.string(text);
        Step::call(
            libc::SYS_write,
            &[file, data, Arg::Value(text.len() as u64)],
        )
    }
}
