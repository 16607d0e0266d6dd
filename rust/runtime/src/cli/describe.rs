//! Verbs that only tell: `state`, `list`, `ps`, `events`, `features`, `spec`.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use super::args::{Flag, parse};
use super::state::{Home, State, check_id};
use super::{Context, Outcome, only_id};
use crate::capability;
use crate::cgroup::Cgroup;
use crate::error::{Kind, LaunchError};

/// The time now, RFC 3339 in UTC with nanoseconds.
pub fn now() -> String {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    format_time(since.as_secs(), since.subsec_nanos())
}

fn format_time(seconds: u64, nanoseconds: u32) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Days since 0000-03-01, in eras of 400 years: the leap day ends a year, so months are regular.
    let days = days + 719_468;
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanoseconds:09}Z")
}

fn print(value: &serde_json::Value) -> Outcome {
    let text = serde_json::to_string_pretty(value)
        .map_err(|error| LaunchError::new(Kind::Internal, format!("print: {error}")))?;
    println!("{text}");
    Ok(0)
}

fn described(state: &State, home: &Home) -> serde_json::Value {
    let mut document = state.document(state.status(home));
    if let Some(fields) = document.as_object_mut() {
        fields.insert("rootfs".to_owned(), state.rootfs.to_string_lossy().into());
        fields.insert("created".to_owned(), state.created.clone().into());
        fields.insert("owner".to_owned(), "".into());
    }
    document
}

/// `state`.
pub fn state(context: &Context, rest: &[OsString]) -> Outcome {
    let (_, rest) = parse(&[], rest)?;
    let home = Home::open(context, only_id(rest)?)?;
    print(&described(&home.load()?, &home))
}

/// `list`.
pub fn list(context: &Context, rest: &[OsString]) -> Outcome {
    let (args, _) = parse(
        &[
            Flag::value("format").short('f'),
            Flag::switch("quiet").short('q'),
        ],
        rest,
    )?;
    let mut found = Vec::new();
    match fs::read_dir(&context.root) {
        Ok(entries) => {
            for entry in entries.flatten() {
                let name = entry.file_name();
                let Ok(id) = check_id(&name) else { continue };
                let home = Home::open(context, id)?;
                // One that is just being made or removed has no record, and is no container yet or any more.
                if let Ok(state) = home.load() {
                    found.push(described(&state, &home));
                }
            }
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => {
            return Err(LaunchError::new(
                Kind::Unavailable,
                format!("{}: {error}", context.root.display()),
            ));
        }
    }
    if args.get("format") == Some("json") {
        return print(&found.into());
    }
    let text = |value: &serde_json::Value, name: &str| match &value[name] {
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    if !args.has("quiet") {
        println!(
            "{:<20} {:>8} {:<10} {:<30} CREATED",
            "ID", "PID", "STATUS", "BUNDLE"
        );
    }
    for one in &found {
        if args.has("quiet") {
            println!("{}", text(one, "id"));
        } else {
            let [id, pid, status, bundle, created] =
                ["id", "pid", "status", "bundle", "created"].map(|name| text(one, name));
            println!("{id:<20} {pid:>8} {status:<10} {bundle:<30} {created}");
        }
    }
    Ok(0)
}

fn group(state: &State) -> Result<Cgroup, LaunchError> {
    Cgroup::adopt(&state.cgroup).map_err(|error| {
        LaunchError::new(
            Kind::Unavailable,
            format!("control group of container {}: {error}", state.id),
        )
    })
}

/// `ps`.
pub fn ps(context: &Context, rest: &[OsString]) -> Outcome {
    let (args, rest) = parse(&[Flag::value("format").short('f')], rest)?;
    let state = Home::open(context, only_id(rest)?)?.load()?;
    let processes = group(&state)?.processes().map_err(|error| {
        LaunchError::new(
            Kind::Unavailable,
            format!("processes of {}: {error}", state.id),
        )
    })?;
    if args.get("format") == Some("json") {
        return print(&processes.into());
    }
    println!("{:>8} COMMAND", "PID");
    for pid in processes {
        // One that has ended meanwhile is left out.
        if let Ok(bytes) = fs::read(Path::new("/proc").join(pid.to_string()).join("cmdline")) {
            let words: Vec<_> = bytes
                .split(|byte| *byte == 0)
                .map(String::from_utf8_lossy)
                .collect();
            println!("{pid:>8} {}", words.join(" ").trim_end());
        }
    }
    Ok(0)
}

/// `events --stats`.
pub fn events(context: &Context, rest: &[OsString]) -> Outcome {
    let (args, rest) = parse(&[Flag::switch("stats"), Flag::value("interval")], rest)?;
    let id = only_id(rest)?;
    if !args.has("stats") {
        return Err(LaunchError::new(
            Kind::Unsupported,
            "events without --stats is not supported: add it",
        ));
    }
    let state = Home::open(context, id)?.load()?;
    let stats = group(&state)?.stats().map_err(|error| {
        LaunchError::new(Kind::Unavailable, format!("statistics of {id}: {error}"))
    })?;
    print(&serde_json::json!({
        "type": "stats",
        "id": id,
        "data": {
            "cpu": {
                "usage": {
                    "total": stats.cpu.total,
                    "percpu": stats.cpu.per_cpu,
                    "kernel": stats.cpu.system,
                    "user": stats.cpu.user,
                },
                "throttling": {
                    "periods": stats.cpu.periods,
                    "throttledPeriods": stats.cpu.throttled_periods,
                    "throttledTime": stats.cpu.throttled_time,
                },
            },
            "memory": {
                "usage": {
                    "limit": stats.memory.limit,
                    "usage": stats.memory.usage,
                    "max": stats.memory.max_usage,
                    "failcnt": stats.memory.failures,
                },
                "raw": stats.memory.stats,
            },
            "pids": {"current": stats.pids.current, "limit": stats.pids.limit},
        },
    }))
}

/// `features` (features.md of the runtime specification).
pub fn features() -> Outcome {
    let capabilities: Vec<String> = capability::all().collect();
    print(&serde_json::json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": "1.2.1",
        "hooks": ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"],
        "mountOptions": [
            "async", "atime", "bind", "defaults", "dev", "diratime", "exec", "noatime", "nodev", "nodiratime",
            "noexec", "norelatime", "nostrictatime", "nosuid", "nosymfollow", "private", "ratime", "rbind", "rdev",
            "relatime", "rexec", "rnoatime", "rnodev", "rnoexec", "rnosuid", "ro", "rprivate", "rro", "rrw",
            "rshared", "rslave", "rsuid", "runbindable", "rw", "shared", "slave", "strictatime", "suid",
            "symfollow", "tmpcopyup", "unbindable",
        ],
        "linux": {
            "namespaces": ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"],
            "capabilities": capabilities,
            "cgroup": {"v1": true, "v2": true, "systemd": false, "systemdUser": false, "rdma": false},
            "seccomp": {
                "enabled": true,
                "actions": [
                    "SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS",
                    "SCMP_ACT_KILL_THREAD", "SCMP_ACT_LOG", "SCMP_ACT_NOTIFY", "SCMP_ACT_TRACE", "SCMP_ACT_TRAP",
                ],
                "operators": [
                    "SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_LE", "SCMP_CMP_LT",
                    "SCMP_CMP_MASKED_EQ", "SCMP_CMP_NE",
                ],
                "archs": [
                    "SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM", "SCMP_ARCH_X32", "SCMP_ARCH_X86", "SCMP_ARCH_X86_64",
                ],
                "knownFlags": [
                    "SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW", "SECCOMP_FILTER_FLAG_TSYNC",
                    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
                ],
            },
            "apparmor": {"enabled": true},
            "selinux": {"enabled": true},
            "intelRdt": {"enabled": false},
            "mountExtensions": {"idmap": {"enabled": true}},
        },
    }))
}

/// `spec`: a starting point for a bundle.
pub fn spec(rest: &[OsString]) -> Outcome {
    let (args, _) = parse(
        &[Flag::value("bundle").short('b'), Flag::switch("rootless")],
        rest,
    )?;
    let path = Path::new(args.get("bundle").unwrap_or(".")).join("config.json");
    let text = include_str!("spec.json");
    let opened = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&path);
    let written = opened.and_then(|mut file| std::io::Write::write_all(&mut file, text.as_bytes()));
    written.map_err(|error| {
        LaunchError::new(Kind::Conflict, format!("{}: {error}", path.display()))
    })?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.000000005Z"),
            (951_782_399, "2000-02-28T23:59:59.000000005Z"),
            (951_782_400, "2000-02-29T00:00:00.000000005Z"),
            (1_735_689_600, "2025-01-01T00:00:00.000000005Z"),
        ] {
            assert_eq!(format_time(seconds, 5), text);
        }
    }

    #[test]
    fn the_starting_point_is_a_specification() {
        let spec = crate::Spec::parse(include_bytes!("spec.json")).expect("valid");
        assert_eq!(spec.mounts.len(), 7);
    }
}
