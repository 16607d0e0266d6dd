//! Programs, read without running them.

use knarr_sys::step::{Arg, Operation, Step};

use super::*;
use crate::spec::{Capabilities, Linux, Mount, Namespace, Rlimit, Root, User};

fn namespace(kind: &str) -> Namespace {
    Namespace {
        kind: kind.to_owned(),
        path: String::new(),
    }
}

fn spec() -> Spec {
    Spec {
        oci_version: "1.2.0".to_owned(),
        root: Some(Root {
            path: "rootfs".to_owned(),
            readonly: true,
        }),
        hostname: "box".to_owned(),
        process: Some(Process {
            args: vec!["tool".to_owned(), "-x".to_owned()],
            env: vec!["PATH=/one:/two:relative".to_owned()],
            cwd: "/work".to_owned(),
            ..Process::default()
        }),
        mounts: vec![Mount {
            destination: "/proc".to_owned(),
            kind: "proc".to_owned(),
            source: "proc".to_owned(),
            options: vec!["nosuid".to_owned()],
            ..Mount::default()
        }],
        linux: Some(Linux {
            namespaces: ["pid", "mount", "uts", "network", "cgroup"]
                .map(namespace)
                .to_vec(),
            masked_paths: vec!["/proc/keys".to_owned()],
            readonly_paths: vec!["/proc/sys".to_owned()],
            ..Linux::default()
        }),
        ..Spec::default()
    }
}

fn facts() -> Facts {
    Facts {
        process: ProcessFacts {
            identity: Identity {
                uid: 7,
                gid: 8,
                groups: vec![9],
                home: "/home/x".to_owned(),
            },
            permitted: !(1 << 24),
            last_capability: 40,
            limits: vec![(7, 1024, 4096)],
            descriptors: Descriptors::Inherited,
            filter: Some((vec![6], 4)),
            preserve: 0,
            init: false,
            apparmor: false,
            selinux: false,
        },
        id: "c1".to_owned(),
        inputs: vec![Input::Rootfs, Input::Tasks(0)],
        directories: vec![None],
        hierarchies: vec![Hierarchy {
            controllers: "memory".to_owned(),
        }],
        gate: false,
        keyring: true,
        pivot: true,
        fifo: false,
    }
}

fn calls(plan: &Plan) -> Vec<i64> {
    let call = |step: &Step| match step.operation {
        Operation::Call(number) => Some(i64::from(number)),
        _ => None,
    };
    plan.program.steps().iter().filter_map(call).collect()
}

fn position(plan: &Plan, number: i64) -> usize {
    let found =
        plan.program.steps().iter().position(|step| {
            step.operation == Operation::Call(u32::try_from(number).expect("a call"))
        });
    found.unwrap_or_else(|| panic!("no call {number}"))
}

fn paths_of(plan: &Plan, number: i64, argument: usize) -> Vec<String> {
    plan.program
        .steps()
        .iter()
        .filter(|step| step.operation == Operation::Call(u32::try_from(number).expect("a call")))
        .filter_map(|step| plan.program.text(step.args[argument]))
        .collect()
}

#[test]
fn the_same_facts_give_the_same_program() {
    let (one, two) = (
        container(&spec(), &facts()).expect("plan"),
        container(&spec(), &facts()).expect("plan"),
    );
    assert_eq!(one.program.words(), two.program.words());
}

#[test]
fn groups_come_before_namespaces_and_mounts_before_the_pivot() {
    let plan = container(&spec(), &facts()).expect("plan");
    let order = [
        position(&plan, libc::SYS_write),
        position(&plan, libc::SYS_unshare),
        position(&plan, libc::SYS_fsopen),
        position(&plan, libc::SYS_pivot_root),
        position(&plan, libc::SYS_umount2),
        position(&plan, libc::SYS_openat2),
        position(&plan, libc::SYS_sethostname),
        position(&plan, libc::SYS_fchdir).max(position(&plan, libc::SYS_getcwd)),
        position(&plan, libc::SYS_close_range),
        position(&plan, libc::SYS_setgroups),
        position(&plan, libc::SYS_setresuid),
        position(&plan, libc::SYS_seccomp),
        position(&plan, libc::SYS_execve),
    ];
    assert!(order.is_sorted(), "{order:?}");
}

#[test]
fn nothing_of_the_host_is_looked_up_after_the_pivot() {
    let plan = container(&spec(), &facts()).expect("plan");
    let pivot = position(&plan, libc::SYS_pivot_root);
    for (number, step) in plan.program.steps().iter().enumerate().skip(pivot) {
        let Operation::Call(call) = step.operation else {
            continue;
        };
        let here = step.args[0] == Arg::int(libc::AT_FDCWD.into());
        assert!(
            !here || i64::from(call) == libc::SYS_faccessat2,
            "step {number} uses a path from the working directory"
        );
    }
}

#[test]
fn commands_are_looked_for_in_absolute_directories_only() {
    let plan = container(&spec(), &facts()).expect("plan");
    assert_eq!(
        paths_of(&plan, libc::SYS_execve, 0),
        ["/one/tool", "/two/tool"]
    );
    let error = plan.error(&spec(), plan.program.steps().len() - 1, libc::ENOENT);
    assert_eq!(
        error.message,
        "exec: \"tool\": executable file not found in $PATH"
    );
    assert_eq!(error.exit_code, 127);
}

#[test]
fn a_failed_mount_is_named() {
    let plan = container(&spec(), &facts()).expect("plan");
    let step = position(&plan, libc::SYS_fsmount);
    let error = plan.error(&spec(), step, libc::EPERM);
    assert_eq!(error.kind, Kind::PermissionDenied);
    assert_eq!(
        error.message,
        "mount \"proc\" at \"/proc\" of the container: fsmount: operation not permitted"
    );
}

#[test]
fn a_filter_is_loaded_while_it_may_be() {
    let mut spec = spec();
    let loaded = |spec: &Spec| {
        let plan = container(spec, &facts()).expect("plan");
        let all = calls(&plan);
        let seccomp = all
            .iter()
            .position(|call| *call == libc::SYS_seccomp)
            .expect("a filter");
        (
            all[..seccomp]
                .iter()
                .filter(|call| **call == libc::SYS_capset)
                .count(),
            all[seccomp..].contains(&libc::SYS_capset),
        )
    };
    // Without no_new_privs it takes a capability that the process loses right after.
    assert_eq!(loaded(&spec), (1, true));
    spec.process.as_mut().expect("process").no_new_privileges = true;
    assert_eq!(loaded(&spec), (1, false));
}

#[test]
fn what_is_not_to_be_had_is_a_warning() {
    let mut spec = spec();
    let process = spec.process.as_mut().expect("process");
    process.capabilities = Some(Capabilities {
        bounding: vec!["CAP_SYS_RESOURCE".to_owned(), "CAP_KILL".to_owned()],
        ..Capabilities::default()
    });
    process.rlimits = vec![Rlimit {
        kind: "RLIMIT_NOFILE".to_owned(),
        soft: 9000,
        hard: 9000,
    }];
    let plan = container(&spec, &facts()).expect("plan");
    assert_eq!(plan.warnings.len(), 2, "{:?}", plan.warnings);
    assert!(plan.warnings[0].contains("RLIMIT_NOFILE") && plan.warnings[0].contains("4096"));
    assert!(
        plan.warnings[1].contains("CAP_SYS_RESOURCE") && !plan.warnings[1].contains("CAP_KILL")
    );
}

#[test]
fn what_cannot_be_is_refused() {
    type Injury = fn(&mut Spec);
    let cases: [(&str, Injury); 9] = [
        ("process.args", |spec| {
            spec.process.as_mut().expect("process").args.clear();
        }),
        ("NUL", |spec| {
            spec.process
                .as_mut()
                .expect("process")
                .args
                .push("a\0b".to_owned());
        }),
        ("not an absolute path", |spec| {
            "work".clone_into(&mut spec.process.as_mut().expect("process").cwd);
        }),
        ("mount namespace", |spec| {
            spec.linux
                .as_mut()
                .expect("linux")
                .namespaces
                .retain(|one| one.kind != "mount");
        }),
        ("UTS namespace", |spec| {
            spec.linux
                .as_mut()
                .expect("linux")
                .namespaces
                .retain(|one| one.kind != "uts");
        }),
        ("listed twice", |spec| {
            spec.linux
                .as_mut()
                .expect("linux")
                .namespaces
                .push(namespace("pid"));
        }),
        ("the root itself", |spec| {
            "/.".clone_into(&mut spec.mounts[0].destination);
        }),
        ("not separate", |spec| {
            spec.linux
                .as_mut()
                .expect("linux")
                .sysctl
                .insert("kernel.panic".to_owned(), "1".to_owned());
        }),
        ("intelRdt", |spec| {
            spec.linux.as_mut().expect("linux").intel_rdt = Some(serde_json::Value::Null);
        }),
    ];
    for (words, injure) in cases {
        let mut spec = spec();
        injure(&mut spec);
        let error = container(&spec, &facts()).expect_err(words);
        assert!(error.message.contains(words), "{words}: {error}");
    }
}

#[test]
fn an_exec_is_born_inside_after_letting_go() {
    let process = Process {
        args: vec!["/bin/tool".to_owned()],
        cwd: "/".to_owned(),
        user: User::default(),
        ..Process::default()
    };
    let facts = ExecFacts {
        process: facts().process,
        inputs: vec![Input::Process, Input::Tasks(0)],
        tasks: 1,
        namespaces: libc::CLONE_NEWPID | libc::CLONE_NEWNS,
    };
    let plan = exec(&process, &facts).expect("plan");
    let others = plan
        .program
        .steps()
        .iter()
        .position(|step| step.operation == Operation::CloseOthers);
    let order = [
        position(&plan, libc::SYS_write),
        position(&plan, libc::SYS_setns),
        others.expect("lets go"),
        position(&plan, libc::SYS_clone3),
        position(&plan, libc::SYS_seccomp),
        position(&plan, libc::SYS_execve),
    ];
    assert!(order.is_sorted(), "{order:?}");
}
