//! The compiled filter against a second reading of the rules, through a small BPF interpreter.

use super::compile::{AND, AT_LEAST, EQUAL, GREATER, Instruction, JUMP, LOAD, RETURN, compile};
use super::table::{Arch, X32_BIT, find};
use crate::spec::{LinuxSeccomp, SyscallArg, SyscallRule};

const ALLOW: u32 = 0x7fff_0000;
const EPERM: u32 = 0x0005_0001;
const ENOSYS: u32 = 0x0005_0026;

/// Run a filter as the kernel does.
fn run(code: &[Instruction], arch: u32, number: u32, args: [u64; 6]) -> u32 {
    let mut data = [0u32; 16];
    (data[0], data[1]) = (number, arch);
    for (at, arg) in args.iter().enumerate() {
        (data[4 + at * 2], data[5 + at * 2]) = ((arg & 0xffff_ffff) as u32, (arg >> 32) as u32);
    }
    let (mut accumulator, mut at) = (0u32, 0usize);
    for _ in 0..10_000 {
        let Instruction {
            code: operation,
            yes,
            no,
            k,
        } = code[at];
        at += 1;
        let holds = match operation {
            RETURN => return k,
            LOAD => {
                accumulator = data[k as usize / 4];
                continue;
            }
            AND => {
                accumulator &= k;
                continue;
            }
            JUMP => {
                at += k as usize;
                continue;
            }
            EQUAL => accumulator == k,
            GREATER => accumulator > k,
            AT_LEAST => accumulator >= k,
            other => panic!("unknown operation {other:#x}"),
        };
        at += usize::from(if holds { yes } else { no });
    }
    panic!("the filter does not end");
}

fn rule(names: &[&str], action: &str, args: &[(u32, &str, u64, u64)]) -> SyscallRule {
    SyscallRule {
        names: names.iter().map(|name| (*name).to_owned()).collect(),
        action: action.to_owned(),
        errno_ret: None,
        args: args
            .iter()
            .map(|(index, op, value, value_two)| SyscallArg {
                index: *index,
                op: (*op).to_owned(),
                value: *value,
                value_two: *value_two,
            })
            .collect(),
    }
}

fn filter(syscalls: Vec<SyscallRule>) -> LinuxSeccomp {
    LinuxSeccomp {
        default_action: "SCMP_ACT_ERRNO".to_owned(),
        architectures: ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]
            .map(str::to_owned)
            .to_vec(),
        syscalls,
        ..LinuxSeccomp::default()
    }
}

#[test]
#[cfg(target_arch = "x86_64")]
fn every_operator_on_both_halves() {
    let values = [
        0u64,
        1,
        7,
        0xffff_ffff,
        0x1_0000_0000,
        0x1_0000_0007,
        u64::MAX,
    ];
    for (op, holds) in [
        ("SCMP_CMP_EQ", (|a, b| a == b) as fn(u64, u64) -> bool),
        ("SCMP_CMP_NE", |a, b| a != b),
        ("SCMP_CMP_LT", |a, b| a < b),
        ("SCMP_CMP_LE", |a, b| a <= b),
        ("SCMP_CMP_GT", |a, b| a > b),
        ("SCMP_CMP_GE", |a, b| a >= b),
    ] {
        for bound in values {
            let code = compile(&filter(vec![rule(
                &["socket"],
                "SCMP_ACT_ALLOW",
                &[(2, op, bound, 0)],
            )]))
            .expect(op);
            for value in values {
                let verdict = run(&code, Arch::X86_64.audit(), 41, [9, 9, value, 9, 9, 9]);
                assert_eq!(
                    verdict == ALLOW,
                    holds(value, bound),
                    "{value:#x} {op} {bound:#x}"
                );
            }
        }
    }
    let masked = filter(vec![rule(
        &["clone"],
        "SCMP_ACT_ALLOW",
        &[(0, "SCMP_CMP_MASKED_EQ", 0x1_7e02_0000, 0)],
    )]);
    let code = compile(&masked).expect("masked");
    for (value, verdict) in [
        (0x11, ALLOW),
        (0x2000_0011, EPERM),
        (0x1_0000_0000, EPERM),
        (0x8100_0000, ALLOW),
    ] {
        assert_eq!(
            run(&code, Arch::X86_64.audit(), 56, [value, 0, 0, 0, 0, 0]),
            verdict,
            "{value:#x}"
        );
    }
}

#[test]
#[cfg(target_arch = "x86_64")]
fn conditions_combine() {
    let both = filter(vec![rule(
        &["socket"],
        "SCMP_ACT_ALLOW",
        &[(0, "SCMP_CMP_EQ", 2, 0), (1, "SCMP_CMP_EQ", 1, 0)],
    )]);
    let code = compile(&both).expect("both");
    let run = |code: &[Instruction], a, b| {
        run(code, Arch::X86_64.audit(), 41, [a, b, 0, 0, 0, 0]) == ALLOW
    };
    assert!(run(&code, 2, 1) && !run(&code, 2, 2) && !run(&code, 1, 1));
    // Two conditions on one argument are alternatives, as in the other runtimes.
    let either = filter(vec![rule(
        &["socket"],
        "SCMP_ACT_ALLOW",
        &[(0, "SCMP_CMP_EQ", 2, 0), (0, "SCMP_CMP_EQ", 3, 0)],
    )]);
    let code = compile(&either).expect("either");
    assert!(run(&code, 2, 0) && run(&code, 3, 0) && !run(&code, 4, 0));
}

#[test]
#[cfg(target_arch = "x86_64")]
fn architectures_are_kept_apart() {
    let code = compile(&filter(vec![rule(
        &["execve", "mseal"],
        "SCMP_ACT_ALLOW",
        &[],
    )]))
    .expect("compiles");
    let none = [0; 6];
    assert_eq!(run(&code, Arch::X86_64.audit(), 59, none), ALLOW);
    assert_eq!(run(&code, Arch::X86.audit(), 11, none), ALLOW);
    assert_eq!(run(&code, Arch::X86.audit(), 59, none), EPERM);
    assert_eq!(run(&code, Arch::X32.audit(), X32_BIT + 520, none), ALLOW);
    assert_eq!(run(&code, Arch::X32.audit(), X32_BIT + 59, none), EPERM);
    assert_eq!(
        run(&code, Arch::Aarch64.audit(), 221, none),
        0,
        "a foreign architecture is fatal"
    );
    assert_eq!(
        run(&code, Arch::X86_64.audit(), 463, none),
        ENOSYS,
        "younger than the filter"
    );
    let mut only = filter(vec![rule(&["execve"], "SCMP_ACT_ALLOW", &[])]);
    only.architectures = vec!["SCMP_ARCH_X86_64".to_owned()];
    let code = compile(&only).expect("compiles");
    assert_eq!(
        run(&code, Arch::X86_64.audit(), X32_BIT + 520, none),
        0,
        "x32 that is not listed"
    );
    assert_eq!(
        run(&code, Arch::X86.audit(), 11, none),
        0,
        "x86 that is not listed"
    );
}

/// The verdict by reading the rules once more, one after another.
fn read(filter: &LinuxSeccomp, arch: Arch, number: u32, args: [u64; 6]) -> u32 {
    let mut highest = 0;
    let mut conditional = None;
    for rule in &filter.syscalls {
        for name in &rule.names {
            let Some(found) = find(name).and_then(|numbers| numbers.on(arch)) else {
                continue;
            };
            highest = highest.max(found);
            if found != number {
                continue;
            }
            let verdict = match rule.action.as_str() {
                "SCMP_ACT_ALLOW" => ALLOW,
                _ => 0x0005_0000 | rule.errno_ret.unwrap_or(1),
            };
            if rule.args.is_empty() {
                return verdict;
            }
            let holds = rule.args.iter().all(|arg| {
                let value = args[arg.index as usize];
                match arg.op.as_str() {
                    "SCMP_CMP_EQ" => value == arg.value,
                    "SCMP_CMP_LT" => value < arg.value,
                    "SCMP_CMP_MASKED_EQ" => value & arg.value == arg.value_two,
                    other => panic!("{other}"),
                }
            });
            if holds && conditional.is_none() {
                conditional = Some(verdict);
            }
        }
    }
    conditional.unwrap_or(if number > highest { ENOSYS } else { EPERM })
}

/// A profile in the shape of the engine's default one: long lists, conditions, other error numbers.
fn large() -> LinuxSeccomp {
    let text = include_str!("syscalls.txt");
    let names: Vec<&str> = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split(' ').next())
        .collect();
    let dull: Vec<&str> = names
        .iter()
        .copied()
        .filter(|name| {
            ![
                "socket",
                "personality",
                "clone",
                "clone3",
                "mount",
                "bpf",
                "ptrace",
                "kexec_load",
                "setns",
            ]
            .contains(name)
        })
        .enumerate()
        .filter(|(at, _)| at % 11 != 3)
        .map(|(_, name)| name)
        .collect();
    let mut rules = vec![
        rule(&dull, "SCMP_ACT_ALLOW", &[]),
        rule(&["socket"], "SCMP_ACT_ALLOW", &[(0, "SCMP_CMP_LT", 3, 0)]),
    ];
    for family in [7, 8, 9, 10, 13, 16, 17, 31, 45] {
        rules.push(rule(
            &["socket"],
            "SCMP_ACT_ALLOW",
            &[(0, "SCMP_CMP_EQ", family, 0)],
        ));
    }
    for value in [0, 8, 0x20000, 0xffff_ffff] {
        rules.push(rule(
            &["personality"],
            "SCMP_ACT_ALLOW",
            &[(0, "SCMP_CMP_EQ", value, 0)],
        ));
    }
    rules.push(rule(
        &["clone"],
        "SCMP_ACT_ALLOW",
        &[(0, "SCMP_CMP_MASKED_EQ", 0x7e02_0000, 0)],
    ));
    rules.push(SyscallRule {
        errno_ret: Some(38),
        ..rule(&["clone3"], "SCMP_ACT_ERRNO", &[])
    });
    filter(rules)
}

#[test]
#[cfg(target_arch = "x86_64")]
fn every_number_has_the_verdict_of_the_rules() {
    let profile = large();
    let code = compile(&profile).expect("compiles");
    assert!(code.len() < 1500, "{} instructions", code.len());
    for arch in [Arch::X86_64, Arch::X86, Arch::X32] {
        let bit = if arch == Arch::X32 { X32_BIT } else { 0 };
        for number in (0..600).map(|number| number | bit) {
            for first in [
                0,
                1,
                3,
                7,
                10,
                31,
                40,
                0x20000,
                0x0002_0000,
                0x1000_0000,
                0xffff_ffff,
                1 << 40,
            ] {
                let args = [first, 0, 0, 0, 0, 0];
                let verdict = run(&code, arch.audit(), number, args);
                assert_eq!(
                    verdict,
                    read(&profile, arch, number, args),
                    "{arch:?} {number:#x} {first:#x}"
                );
            }
        }
    }
}

#[test]
fn nonsense_is_refused() {
    let wrong = [
        LinuxSeccomp {
            default_action: "SCMP_ACT_MAYBE".to_owned(),
            ..filter(Vec::new())
        },
        filter(vec![rule(
            &["read"],
            "SCMP_ACT_ALLOW",
            &[(6, "SCMP_CMP_EQ", 0, 0)],
        )]),
        filter(vec![rule(
            &["read"],
            "SCMP_ACT_ALLOW",
            &[(0, "SCMP_CMP_ODD", 0, 0)],
        )]),
        LinuxSeccomp {
            architectures: vec!["PDP11".to_owned()],
            ..filter(Vec::new())
        },
    ];
    for profile in wrong {
        assert!(compile(&profile).is_err(), "{profile:?}");
    }
    assert!(
        super::compile(&LinuxSeccomp {
            flags: Some(vec!["FAST".to_owned()]),
            ..filter(Vec::new())
        })
        .is_err()
    );
}
