//! From rules to classic BPF: a switch over architectures, and in each a binary search over ranges
//! of system call numbers that share a verdict.
//!
//! Where several rules name one call, a rule without conditions decides for the call as a whole;
//! else the first rule whose conditions hold. A call of an architecture that the filter does not
//! list kills the process, as libseccomp has it.

use std::collections::BTreeMap;

use super::table::{self, Arch, X32_BIT};
use crate::error::{Kind, LaunchError};
use crate::spec::{LinuxSeccomp, SyscallArg};

/// The kernel's limit on a filter's instructions.
const MOST_INSTRUCTIONS: usize = 4096;
const ALLOW: u32 = 0x7fff_0000;
const LOG: u32 = 0x7ffc_0000;
const TRACE: u32 = 0x7ff0_0000;
const NOTIFY: u32 = 0x7fc0_0000;
const ERRNO: u32 = 0x0005_0000;
const TRAP: u32 = 0x0003_0000;
const KILL_PROCESS: u32 = 0x8000_0000;
const KILL_THREAD: u32 = 0;

/// `struct sock_filter`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// The operation.
    pub code: u16,
    /// Instructions skipped where it holds.
    pub yes: u8,
    /// Instructions skipped where it does not.
    pub no: u8,
    /// The operand.
    pub k: u32,
}

/// Load the 32 bits at `k`.
pub const LOAD: u16 = 0x20;
/// Jump by `k`.
pub const JUMP: u16 = 0x05;
/// Jump if equal.
pub const EQUAL: u16 = 0x15;
/// Jump if greater.
pub const GREATER: u16 = 0x25;
/// Jump if greater or equal.
pub const AT_LEAST: u16 = 0x35;
/// And with `k`.
pub const AND: u16 = 0x54;
/// Return `k`.
pub const RETURN: u16 = 0x06;

const fn op(code: u16, k: u32) -> Instruction {
    Instruction {
        code,
        yes: 0,
        no: 0,
        k,
    }
}

impl Instruction {
    /// The eight bytes of the kernel's structure.
    #[must_use]
    pub const fn word(self) -> u64 {
        let [a, b] = self.code.to_ne_bytes();
        let [c, d, e, f] = self.k.to_ne_bytes();
        u64::from_ne_bytes([a, b, self.yes, self.no, c, d, e, f])
    }
}

fn invalid(message: String) -> LaunchError {
    LaunchError::new(Kind::InvalidArgument, message)
}

fn action(name: &str, errno: Option<u32>) -> Result<u32, LaunchError> {
    let errno = errno.unwrap_or(libc::EPERM.cast_unsigned());
    if errno > 0xffff {
        return Err(invalid(format!(
            "seccomp: error number {errno} is beyond 65535"
        )));
    }
    Ok(match name {
        "SCMP_ACT_ALLOW" => ALLOW,
        "SCMP_ACT_LOG" => LOG,
        "SCMP_ACT_NOTIFY" => NOTIFY,
        "SCMP_ACT_ERRNO" => ERRNO | errno,
        "SCMP_ACT_TRACE" => TRACE | errno,
        "SCMP_ACT_TRAP" => TRAP,
        "SCMP_ACT_KILL_PROCESS" => KILL_PROCESS,
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => KILL_THREAD,
        other => return Err(invalid(format!("seccomp: unknown action {other:?}"))),
    })
}

/// What a call comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    Always(u32),
    /// The first whose conditions hold, else the default.
    Depending(Vec<(Vec<SyscallArg>, u32)>),
}

/// Architectures of a filter, each with the verdicts on its calls.
type Verdicts = BTreeMap<u32, Verdict>;

fn architectures(filter: &LinuxSeccomp) -> Result<Vec<Arch>, LaunchError> {
    if filter.architectures.is_empty() {
        return Ok(vec![Arch::NATIVE]);
    }
    let mut found = Vec::new();
    for name in &filter.architectures {
        match Arch::parse(name) {
            Some(arch) if arch.possible() && !found.contains(&arch) => found.push(arch),
            Some(_) => {}
            // Calls of other machines' architectures can't be made here.
            None if name.starts_with("SCMP_ARCH_") => {}
            None => return Err(invalid(format!("seccomp: unknown architecture {name:?}"))),
        }
    }
    // The machine's own is always there: its calls would all be fatal otherwise.
    if !found.contains(&Arch::NATIVE) {
        found.push(Arch::NATIVE);
    }
    Ok(found)
}

/// The conditions of a rule, as alternatives: two conditions on one argument stand for two rules.
fn alternatives(args: &[SyscallArg]) -> Vec<Vec<SyscallArg>> {
    let repeated = args
        .iter()
        .enumerate()
        .any(|(at, arg)| args[..at].iter().any(|other| other.index == arg.index));
    if repeated {
        args.iter().map(|arg| vec![arg.clone()]).collect()
    } else {
        vec![args.to_vec()]
    }
}

fn verdicts(filter: &LinuxSeccomp, arch: Arch, default: u32) -> Result<Verdicts, LaunchError> {
    let mut verdicts = Verdicts::new();
    for rule in &filter.syscalls {
        let action = action(&rule.action, rule.errno_ret)?;
        for arg in &rule.args {
            if arg.index > 5 {
                return Err(invalid(format!(
                    "seccomp: argument {} of {:?} is beyond 5",
                    arg.index, rule.names
                )));
            }
        }
        for name in &rule.names {
            // Names that this kernel generation does not know can't be called by it either.
            let Some(number) = table::find(name).and_then(|numbers| numbers.on(arch)) else {
                continue;
            };
            if rule.args.is_empty() {
                match verdicts.get(&number) {
                    Some(Verdict::Always(_)) => {}
                    _ => drop(verdicts.insert(number, Verdict::Always(action))),
                }
                continue;
            }
            let more = alternatives(&rule.args)
                .into_iter()
                .map(|conditions| (conditions, action));
            match verdicts
                .entry(number)
                .or_insert_with(|| Verdict::Depending(Vec::new()))
            {
                Verdict::Always(_) => {}
                Verdict::Depending(rules) => rules.extend(more),
            }
        }
    }
    verdicts.retain(|_, verdict| *verdict != Verdict::Always(default));
    Ok(verdicts)
}

/// Leave with `k` unless a condition holds: the code, whose jumps by `no` 255 mean "it does not".
fn condition(arg: &SyscallArg) -> Result<Vec<Instruction>, LaunchError> {
    const FAIL: u8 = 255;
    let low_at = 16 + arg.index * 8;
    let high_at = low_at + 4;
    let (high, low) = ((arg.value >> 32) as u32, (arg.value & 0xffff_ffff) as u32);
    let test = |code, k, yes, no| Instruction { code, yes, no, k };
    let (load_high, load_low) = (op(LOAD, high_at), op(LOAD, low_at));
    Ok(match arg.op.as_str() {
        "SCMP_CMP_EQ" => vec![
            load_high,
            test(EQUAL, high, 0, FAIL),
            load_low,
            test(EQUAL, low, 0, FAIL),
        ],
        "SCMP_CMP_NE" => vec![
            load_high,
            test(EQUAL, high, 0, 2),
            load_low,
            test(EQUAL, low, FAIL, 0),
        ],
        "SCMP_CMP_GT" => vec![
            load_high,
            test(GREATER, high, 3, 0),
            test(EQUAL, high, 0, FAIL),
            load_low,
            test(GREATER, low, 0, FAIL),
        ],
        "SCMP_CMP_GE" => vec![
            load_high,
            test(GREATER, high, 3, 0),
            test(EQUAL, high, 0, FAIL),
            load_low,
            test(AT_LEAST, low, 0, FAIL),
        ],
        "SCMP_CMP_LT" => vec![
            load_high,
            test(GREATER, high, FAIL, 0),
            test(EQUAL, high, 0, 2),
            load_low,
            test(AT_LEAST, low, FAIL, 0),
        ],
        "SCMP_CMP_LE" => vec![
            load_high,
            test(GREATER, high, FAIL, 0),
            test(EQUAL, high, 0, 2),
            load_low,
            test(GREATER, low, FAIL, 0),
        ],
        "SCMP_CMP_MASKED_EQ" => {
            let wanted = arg.value_two;
            let (wanted_high, wanted_low) = ((wanted >> 32) as u32, (wanted & 0xffff_ffff) as u32);
            vec![
                load_high,
                op(AND, high),
                test(EQUAL, wanted_high, 0, FAIL),
                load_low,
                op(AND, low),
                test(EQUAL, wanted_low, 0, FAIL),
            ]
        }
        other => return Err(invalid(format!("seccomp: unknown operator {other:?}"))),
    })
}

/// One rule: its conditions, and what happens where they hold.
type Rule = (Vec<SyscallArg>, u32);

/// The value that a rule compares one argument with, if that is all it does: (index, value).
fn plain_value((conditions, _): &Rule) -> Option<(u32, u64)> {
    match conditions.as_slice() {
        [only] if only.op == "SCMP_CMP_EQ" => Some((only.index, only.value)),
        _ => None,
    }
}

/// How many rules from the first on compare the same argument with single values for the same
/// action: their code loads it once.
fn alike(rules: &[Rule]) -> usize {
    /// Values within a short jump of their common return.
    const MOST: usize = 200;
    let Some((index, value)) = rules.first().and_then(plain_value) else {
        return 1;
    };
    let same = |rule: &&Rule| {
        rule.1 == rules[0].1
            && plain_value(rule)
                .is_some_and(|(other, number)| other == index && number >> 32 == value >> 32)
    };
    rules.iter().take(MOST).take_while(same).count().max(1)
}

/// The code of rules that are alike; it falls through where none holds.
fn one_of(rules: &[Rule]) -> Vec<Instruction> {
    let values: Vec<(u32, u64)> = rules.iter().filter_map(plain_value).collect();
    let Some(&(index, first)) = values.first() else {
        return Vec::new();
    };
    let near = |distance: usize| u8::try_from(distance).unwrap_or(254);
    let count = values.len();
    let high = Instruction {
        code: EQUAL,
        yes: 0,
        no: near(count + 2),
        k: (first >> 32) as u32,
    };
    let mut code = vec![op(LOAD, 20 + index * 8), high, op(LOAD, 16 + index * 8)];
    for (at, (_, value)) in values.iter().enumerate() {
        let last = at + 1 == count;
        let low = (value & 0xffff_ffff) as u32;
        code.push(Instruction {
            code: EQUAL,
            yes: near(count - at - 1),
            no: u8::from(last),
            k: low,
        });
    }
    code.push(op(RETURN, rules[0].1));
    code
}

/// The code of one rule; it falls through where a condition does not hold.
fn all_of((conditions, action): &Rule) -> Result<Vec<Instruction>, LaunchError> {
    let mut rule = Vec::new();
    for arg in conditions {
        rule.extend(condition(arg)?);
    }
    rule.push(op(RETURN, *action));
    let length = rule.len();
    for (at, instruction) in rule.iter_mut().enumerate() {
        // Six conditions take 36 instructions: always within a short jump.
        let after = u8::try_from(length - at - 1).unwrap_or(254);
        for jump in [&mut instruction.yes, &mut instruction.no] {
            if *jump == 255 {
                *jump = after;
            }
        }
    }
    Ok(rule)
}

/// The code of a verdict: it ends in a return on every way.
fn code(verdict: &Verdict, default: u32) -> Result<Vec<Instruction>, LaunchError> {
    match verdict {
        Verdict::Always(action) => Ok(vec![op(RETURN, *action)]),
        Verdict::Depending(rules) => {
            let mut code = Vec::new();
            let mut rest = rules.as_slice();
            while !rest.is_empty() {
                let (now, later) = rest.split_at(alike(rest));
                match now {
                    [only] => code.extend(all_of(only)?),
                    _ => code.extend(one_of(now)),
                }
                rest = later;
            }
            code.push(op(RETURN, default));
            Ok(code)
        }
    }
}

/// Compare with `k` (by `code`): `yes` where it holds, else `no`. Both end in returns.
fn choose(code: u16, k: u32, yes: Vec<Instruction>, no: Vec<Instruction>) -> Vec<Instruction> {
    let mut all = Vec::with_capacity(yes.len() + no.len() + 2);
    if let Ok(far) = u8::try_from(no.len()) {
        all.push(Instruction {
            code,
            yes: far,
            no: 0,
            k,
        });
    } else {
        all.push(Instruction {
            code,
            yes: 0,
            no: 1,
            k,
        });
        all.push(op(JUMP, u32::try_from(no.len()).unwrap_or(u32::MAX)));
    }
    all.extend(no);
    all.extend(yes);
    all
}

/// A binary search over ranges, each given by its first number.
fn search(ranges: &[(u32, &Verdict)], default: u32) -> Result<Vec<Instruction>, LaunchError> {
    match ranges {
        [] => Ok(vec![op(RETURN, default)]),
        [(_, verdict)] => code(verdict, default),
        _ => {
            let (low, high) = ranges.split_at(ranges.len() / 2);
            Ok(choose(
                AT_LEAST,
                high[0].0,
                search(high, default)?,
                search(low, default)?,
            ))
        }
    }
}

/// The number that decides whether a call is younger than the filter: the highest it names.
fn youngest(filter: &LinuxSeccomp, arch: Arch) -> Option<u32> {
    filter
        .syscalls
        .iter()
        .flat_map(|rule| &rule.names)
        .filter_map(|name| table::find(name)?.on(arch))
        .max()
}

/// Ranges of numbers from 0 on (for x32, from its bit on) that share a verdict.
fn ranges(
    verdicts: &Verdicts,
    first: u32,
    young: Option<(u32, Verdict)>,
    default: &Verdict,
) -> Vec<(u32, Verdict)> {
    let mut ranges: Vec<(u32, Verdict)> = vec![(first, default.clone())];
    let mut push = |from: u32, verdict: Verdict| match ranges.last_mut() {
        Some(last) if last.0 == from => {
            last.1 = verdict;
            let count = ranges.len();
            if count > 1 && ranges[count - 2].1 == ranges[count - 1].1 {
                ranges.pop();
            }
        }
        Some(last) if last.1 == verdict => {}
        _ => ranges.push((from, verdict)),
    };
    for (number, verdict) in verdicts {
        push(*number, verdict.clone());
        push(number + 1, default.clone());
    }
    if let Some((from, verdict)) = young {
        push(from, verdict);
    }
    ranges
}

/// The code that decides about the calls of one architecture; the number is in the accumulator.
fn one(
    filter: &LinuxSeccomp,
    arch: Arch,
    default: u32,
    all: &[Arch],
) -> Result<Vec<Instruction>, LaunchError> {
    let verdicts = verdicts(filter, arch, default)?;
    let first = if arch == Arch::X32 { X32_BIT } else { 0 };
    // A program that tries a call younger than the filter must be told that there is no such call,
    // not that it is forbidden: it falls back only then.
    let permissive = matches!(default & 0xffff_0000, ALLOW | LOG);
    let young = youngest(filter, arch)
        .filter(|_| !permissive)
        .map(|number| {
            (
                number + 1,
                Verdict::Always(ERRNO | libc::ENOSYS.cast_unsigned()),
            )
        });
    let found = ranges(&verdicts, first, young, &Verdict::Always(default));
    let borrowed: Vec<(u32, &Verdict)> = found
        .iter()
        .map(|(from, verdict)| (*from, verdict))
        .collect();
    let code = search(&borrowed, default)?;
    if arch == Arch::X86_64 {
        let foreign = if all.contains(&Arch::X32) {
            one(filter, Arch::X32, default, all)?
        } else {
            vec![op(RETURN, KILL_THREAD)]
        };
        return Ok(choose(AT_LEAST, X32_BIT, foreign, code));
    }
    Ok(code)
}

/// Compile a filter.
pub fn compile(filter: &LinuxSeccomp) -> Result<Vec<Instruction>, LaunchError> {
    const NUMBER: u32 = 0;
    const ARCHITECTURE: u32 = 4;
    let default = action(&filter.default_action, filter.default_errno_ret)?;
    let all = architectures(filter)?;
    // The machine's own comes first.
    let mut order: Vec<Arch> = all
        .iter()
        .copied()
        .filter(|arch| *arch != Arch::X32)
        .collect();
    order.sort_by_key(|arch| *arch != Arch::NATIVE);
    let mut code = vec![op(RETURN, KILL_THREAD)];
    for arch in order.iter().rev() {
        let mut decided = vec![op(LOAD, NUMBER)];
        decided.extend(one(filter, *arch, default, &all)?);
        code = choose(EQUAL, arch.audit(), decided, code);
    }
    code.insert(0, op(LOAD, ARCHITECTURE));
    if code.len() > MOST_INSTRUCTIONS {
        return Err(invalid(format!(
            "seccomp: the filter takes {} instructions, and the kernel {MOST_INSTRUCTIONS}: use fewer rules with conditions",
            code.len()
        )));
    }
    Ok(code)
}
