//! The version 2 device controller: a BPF program made of the rules.
//!
//! The program reads the rules from the last to the first and ends at the first that matches: an
//! allowing rule matches where it covers everything asked for, a denying one where it covers any of it.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;

use super::devices::is_all;
use crate::error::{Kind, LaunchError};
use crate::plan::{errno_text, kind};
use crate::spec::DeviceRule;

/// `struct bpf_insn`: operation, registers (destination in the low half), offset, operand.
fn op(code: u8, to: u8, from: u8, offset: i16, operand: i32) -> u64 {
    let [a, b] = offset.to_ne_bytes();
    let [c, d, e, f] = operand.to_ne_bytes();
    u64::from_ne_bytes([code, to | from << 4, a, b, c, d, e, f])
}

const LOAD: u8 = 0x61;
const COPY: u8 = 0xbc;
const AND: u8 = 0x54;
const SHIFT_RIGHT: u8 = 0x74;
const SET: u8 = 0xb7;
const UNLESS_EQUAL: u8 = 0x55;
const IF_EQUAL: u8 = 0x15;
const EXIT: u8 = 0x95;

// Registers: the context; kind, access, major and minor of what is asked for; room to compute.
const CONTEXT: u8 = 1;
const TYPE: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;
const ROOM: u8 = 6;
const VERDICT: u8 = 0;

fn access_bits(rule: &DeviceRule) -> Result<i32, LaunchError> {
    if rule.access.is_empty() {
        return Ok(7);
    }
    rule.access.chars().try_fold(0, |bits, letter| {
        Ok(bits
            | match letter {
                'm' => 1,
                'r' => 2,
                'w' => 4,
                other => {
                    return Err(LaunchError::new(
                        Kind::InvalidArgument,
                        format!("device rule: access {other:?} is none of r, w and m"),
                    ));
                }
            })
    })
}

/// The program of a list of rules whose first is about every device.
fn program(rules: &[DeviceRule]) -> Result<Vec<u64>, LaunchError> {
    let mut code = vec![
        op(LOAD, TYPE, CONTEXT, 0, 0),
        op(COPY, ACCESS, TYPE, 0, 0),
        op(AND, TYPE, 0, 0, 0xffff),
        op(SHIFT_RIGHT, ACCESS, 0, 0, 16),
        op(LOAD, MAJOR, CONTEXT, 4, 0),
        op(LOAD, MINOR, CONTEXT, 8, 0),
    ];
    for rule in rules.iter().rev() {
        let verdict = [
            op(SET, VERDICT, 0, 0, i32::from(rule.allow)),
            op(EXIT, 0, 0, 0, 0),
        ];
        if is_all(rule) {
            code.extend(verdict);
            return Ok(code);
        }
        // Conditions in reverse order, each of which skips what has been collected so far.
        let mut conditions: Vec<(u8, u8, i32)> = Vec::new();
        let block = match rule.kind.as_str() {
            "b" => 1,
            "c" | "u" => 2,
            other => {
                return Err(LaunchError::new(
                    Kind::InvalidArgument,
                    format!("device rule: type {other:?} is none of a, b and c"),
                ));
            }
        };
        conditions.push((UNLESS_EQUAL, TYPE, block));
        for (register, number) in [(MAJOR, rule.major), (MINOR, rule.minor)] {
            if let Some(number) = number.filter(|number| *number >= 0) {
                let number = u32::try_from(number).map_err(|_| {
                    LaunchError::new(
                        Kind::InvalidArgument,
                        format!("device rule: {number} is no device number"),
                    )
                })?;
                conditions.push((UNLESS_EQUAL, register, number.cast_signed()));
            }
        }
        let access = access_bits(rule)?;
        let mut body = Vec::new();
        // Asked for and not covered (allowing), or asked for and covered (denying).
        let (mask, test) = if rule.allow {
            (!access & 7, UNLESS_EQUAL)
        } else {
            (access, IF_EQUAL)
        };
        body.push(op(COPY, ROOM, ACCESS, 0, 0));
        body.push(op(AND, ROOM, 0, 0, mask));
        body.push(op(test, ROOM, 0, 2, 0));
        body.extend(verdict);
        let count = conditions.len();
        for (at, (code_of, register, value)) in conditions.into_iter().enumerate() {
            let skip = i16::try_from(count - at - 1 + body.len()).unwrap_or(i16::MAX);
            code.push(op(code_of, register, 0, skip, value));
        }
        code.extend(body);
    }
    code.extend([op(SET, VERDICT, 0, 0, 0), op(EXIT, 0, 0, 0, 0)]);
    Ok(code)
}

pub(super) fn set(directory: &Path, rules: &[DeviceRule]) -> Result<(), LaunchError> {
    if let [only] = rules
        && only.allow
        && is_all(only)
    {
        // Everything is allowed without a program, too.
        return Ok(());
    }
    let failed = |error: std::io::Error| {
        let errno = error.raw_os_error().unwrap_or(0);
        LaunchError::new(
            kind(errno),
            format!(
                "limit the devices of control group {}: {}",
                directory.display(),
                errno_text(errno)
            ),
        )
    };
    let group = File::open(directory).map_err(failed)?;
    let program = knarr_sys::bpf::load_device_program(&program(rules)?).map_err(failed)?;
    knarr_sys::bpf::attach_device_program(group.as_fd(), program.as_fd()).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;
    use std::process::Command;

    fn rule(allow: bool, kind: &str, major: i64, minor: i64, access: &str) -> DeviceRule {
        let number = |number: i64| Some(number).filter(|number| *number >= 0);
        DeviceRule {
            allow,
            kind: kind.to_owned(),
            major: number(major),
            minor: number(minor),
            access: access.to_owned(),
        }
    }

    /// A unified hierarchy to try a program in: the host's, or the one beside version 1.
    fn unified() -> PathBuf {
        let hybrid = PathBuf::from("/sys/fs/cgroup/unified");
        if hybrid.is_dir() {
            hybrid
        } else {
            PathBuf::from("/sys/fs/cgroup")
        }
    }

    #[test]
    fn the_kernel_takes_the_program_and_obeys_it() {
        let directory = unified().join(format!("knarr-test-{}", std::process::id()));
        std::fs::create_dir(&directory).expect("this test needs root and a unified hierarchy");
        let rules = super::super::devices::complete(&[
            rule(false, "a", -1, -1, "rwm"),
            rule(true, "c", 1, 7, "rw"),
            rule(true, "c", 10, -1, "r"),
        ]);
        // The last rules win: reading /dev/zero is taken back, writing to it is not.
        let mut rules = rules;
        rules.push(rule(false, "c", 1, 5, "r"));
        let done = set(&directory, &rules);
        let script = format!(
            "echo 0 > {}/cgroup.procs || exit 9
             : < /dev/null || exit 1
             : > /dev/null || exit 2
             : < /dev/zero && exit 3
             : > /dev/zero || exit 4
             : < /dev/kmsg && exit 5
             exit 42",
            directory.display()
        );
        let status = Command::new("bash")
            .arg("-c")
            .arg(script)
            .stderr(std::process::Stdio::null())
            .status();
        std::fs::remove_dir(&directory).expect("removed");
        done.expect("attached");
        assert_eq!(status.expect("bash").code(), Some(42));
    }
}
