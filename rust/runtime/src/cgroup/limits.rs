//! Limits of a specification, written to either version's files.

use std::io;
use std::path::Path;

use super::update::Undo;
use super::{Cgroup, devices, hosts, v1devices, v2devices, write};
use crate::error::{Kind, LaunchError};
use crate::plan::{errno_text, kind};
use crate::spec::{BlockIo, Cpu, Memory, Resources, ThrottleDevice, WeightDevice};

/// Whether a container takes part in the version 1 hierarchy of a controller: those that its
/// statistics, its devices, its pausing and its limits need.
pub fn wanted(controller: &str, resources: &Resources) -> bool {
    match controller {
        "memory" | "pids" | "cpu" | "cpuacct" | "blkio" | "devices" | "freezer" => true,
        "cpuset" => resources
            .cpu
            .as_ref()
            .is_some_and(|cpu| !cpu.cpus.is_empty() || !cpu.mems.is_empty()),
        "hugetlb" => !resources.hugepage_limits.is_empty(),
        _ => false,
    }
}

/// Writes limits. With `undo` it changes those of a group that is in use.
pub(super) struct Setter<'a> {
    pub(super) group: &'a Cgroup,
    pub(super) undo: Option<&'a Undo>,
}

impl Setter<'_> {
    fn directory(&self, controller: &str, what: &str) -> Result<&Path, LaunchError> {
        self.group.directory(controller).ok_or_else(|| {
            LaunchError::new(
                Kind::Unsupported,
                format!(
                    "{what}: this host has no {controller} controller: start it without that limit"
                ),
            )
        })
    }

    fn set(&self, controller: &str, file: &str, value: &str) -> Result<(), LaunchError> {
        let directory = self.directory(controller, file)?;
        let before = self
            .undo
            .map(|undo| (undo, Undo::value(directory, file, value)));
        write(directory, file, value).map_err(|error| wrong(directory, file, value, &error))?;
        if let Some((undo, before)) = before {
            undo.push(directory, file, before);
        }
        Ok(())
    }
}

fn wrong(directory: &Path, file: &str, value: &str, error: &io::Error) -> LaunchError {
    let errno = error.raw_os_error().unwrap_or(0);
    let (kind, hint) = match errno {
        libc::ENOENT => (
            Kind::Unsupported,
            ": the host's kernel or its parent group does not offer it",
        ),
        libc::EBUSY => (Kind::Conflict, ": more is in use already"),
        libc::ERANGE => (Kind::InvalidArgument, ""),
        libc::ENODEV => (Kind::InvalidArgument, ": there is no such block device"),
        other => (kind(other), ""),
    };
    LaunchError::new(
        kind,
        format!(
            "set {file} of control group {} to {value:?}: {}{hint}",
            directory.display(),
            errno_text(errno)
        ),
    )
}

/// Set every limit; warnings about those that can't be had and are safe to go without.
pub fn set(group: &Cgroup, resources: &Resources) -> Result<Vec<String>, LaunchError> {
    let setter = Setter { group, undo: None };
    let warnings = numbers(&setter, resources)?;
    let directory = setter.directory("devices", "linux.resources.devices")?;
    let rules = devices::complete(&resources.devices);
    if group.is_unified() {
        v2devices::set(directory, &rules)?;
    } else {
        v1devices::set(directory, &rules)?;
    }
    Ok(warnings)
}

/// Set every limit that is a number or a list.
pub(super) fn numbers(
    setter: &Setter<'_>,
    resources: &Resources,
) -> Result<Vec<String>, LaunchError> {
    let group = setter.group;
    let mut warnings = Vec::new();
    if group.is_unified() {
        unified(setter, resources, &mut warnings)?;
    } else {
        version1(setter, resources, &mut warnings)?;
    }
    if let Some(io) = &resources.block_io {
        leaf_weights(io, &mut warnings);
    }
    if let Some(limit) = resources.pids.and_then(|pids| pids.limit) {
        let value = if limit > 0 {
            limit.to_string()
        } else {
            "max".to_owned()
        };
        setter.set("pids", "pids.max", &value)?;
    }
    if !group.is_unified() && !resources.unified.is_empty() {
        return Err(LaunchError::new(
            Kind::Unsupported,
            "linux.resources.unified needs a host with control groups of version 2",
        ));
    }
    for (file, value) in &resources.unified {
        if file.contains('/') || !file.contains('.') {
            return Err(LaunchError::new(
                Kind::InvalidArgument,
                format!("linux.resources.unified: {file:?} is no file of a control group"),
            ));
        }
        setter.set("", file, value)?;
    }
    Ok(warnings)
}

fn limit(value: i64) -> String {
    if value < 0 {
        "max".to_owned()
    } else {
        value.to_string()
    }
}

/// Version 2's weight (1 to 10000) of version 1's shares (2 to 262144), both defaults (100 and 1024)
/// meeting: the quadratic fit in logarithms that the container runtimes agreed upon in 2024.
fn weight(shares: u64) -> u64 {
    match shares {
        0 => 0,
        1 | 2 => 1,
        262_144.. => 10_000,
        shares => {
            #[allow(clippy::cast_precision_loss)] // below 2^18
            let log = (shares as f64).log2();
            let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // between 0 and 4
            let weight = 10f64.powf(exponent).ceil() as u64;
            weight
        }
    }
}

/// Version 2's `io.weight` (1 to 10000) of version 1's (10 to 1000).
fn io_weight(weight: u16) -> u64 {
    1 + (u64::from(weight).clamp(10, 1000) - 10) * 9999 / 990
}

/// A device's weight goes to the scheduler that knows weights by device: BFQ, else io.cost.
fn unified_device_weight(setter: &Setter<'_>, device: &WeightDevice) -> Result<(), LaunchError> {
    let Some(weight) = device.weight.filter(|weight| *weight != 0) else {
        return Ok(());
    };
    let place = format!("{}:{}", device.major, device.minor);
    match setter.set("io", "io.bfq.weight", &format!("{place} {weight}")) {
        Err(error) if error.kind == Kind::Unsupported => {
            setter.set("io", "io.weight", &format!("{place} {}", io_weight(weight)))
        }
        other => other,
    }
}

fn unified(
    setter: &Setter<'_>,
    resources: &Resources,
    warnings: &mut Vec<String>,
) -> Result<(), LaunchError> {
    if let Some(memory) = &resources.memory {
        if let Some(value) = memory.limit.filter(|value| *value != 0) {
            setter.set("memory", "memory.max", &limit(value))?;
        }
        if let Some(swap) = memory.swap.filter(|value| *value != 0) {
            let value = match memory.limit {
                _ if swap < 0 => "max".to_owned(),
                Some(memory) if memory > swap => {
                    return Err(LaunchError::new(
                        Kind::InvalidArgument,
                        format!(
                            "memory and swap together ({swap}) are limited to less than memory alone ({memory})"
                        ),
                    ));
                }
                Some(memory) => (swap - memory.max(0)).to_string(),
                None => {
                    return Err(LaunchError::new(
                        Kind::InvalidArgument,
                        "a limit of memory and swap together needs a limit of memory",
                    ));
                }
            };
            optional(setter.set("memory", "memory.swap.max", &value), warnings)?;
        }
        if let Some(value) = memory.reservation.filter(|value| *value != 0) {
            setter.set("memory", "memory.low", &limit(value))?;
        }
        ignored(memory, warnings);
    }
    if let Some(cpu) = &resources.cpu {
        if let Some(shares) = cpu.shares.filter(|shares| *shares != 0) {
            setter.set("cpu", "cpu.weight", &weight(shares).to_string())?;
        }
        if cpu.quota.is_some() || cpu.period.is_some() {
            let quota = cpu
                .quota
                .filter(|quota| *quota > 0)
                .map_or_else(|| "max".to_owned(), |quota| quota.to_string());
            let period = cpu.period.filter(|period| *period != 0).unwrap_or(100_000);
            setter.set("cpu", "cpu.max", &format!("{quota} {period}"))?;
        }
        if let Some(burst) = cpu.burst {
            setter.set("cpu", "cpu.max.burst", &burst.to_string())?;
        }
        if let Some(idle) = cpu.idle {
            setter.set("cpu", "cpu.idle", &idle.to_string())?;
        }
        real_time(cpu, warnings);
        for (file, list) in [("cpuset.cpus", &cpu.cpus), ("cpuset.mems", &cpu.mems)] {
            if !list.is_empty() {
                setter.set("cpuset", file, list)?;
            }
        }
    }
    if let Some(io) = &resources.block_io {
        if let Some(weight) = io.weight.filter(|weight| *weight != 0) {
            let scaled = io_weight(weight);
            optional(
                setter.set("io", "io.weight", &format!("default {scaled}")),
                warnings,
            )?;
        }
        for device in &io.weight_device {
            optional(unified_device_weight(setter, device), warnings)?;
        }
        for (key, devices) in [
            ("rbps", &io.throttle_read_bps_device),
            ("wbps", &io.throttle_write_bps_device),
            ("riops", &io.throttle_read_iops_device),
            ("wiops", &io.throttle_write_iops_device),
        ] {
            for device in devices {
                let value = format!("{}:{} {key}={}", device.major, device.minor, device.rate);
                setter.set("io", "io.max", &value)?;
            }
        }
    }
    for huge in &resources.hugepage_limits {
        let file = format!("hugetlb.{}.max", page_size(&huge.page_size)?);
        setter.set("hugetlb", &file, &huge.limit.to_string())?;
    }
    Ok(())
}

fn version1_memory(
    setter: &Setter<'_>,
    memory: &Memory,
    warnings: &mut Vec<String>,
) -> Result<(), LaunchError> {
    let limit = memory.limit.filter(|value| *value != 0);
    let swap = memory.swap.filter(|value| *value != 0);
    if let (Some(limit), Some(swap)) = (limit, swap)
        && swap > 0
        && limit > swap
    {
        return Err(LaunchError::new(
            Kind::InvalidArgument,
            format!("memory and swap together ({swap}) are limited to less than memory alone"),
        ));
    }
    let set_limit = || match limit {
        Some(value) => setter.set("memory", "memory.limit_in_bytes", &value.to_string()),
        None => Ok(()),
    };
    let set_swap = || match swap {
        Some(value) => setter.set("memory", "memory.memsw.limit_in_bytes", &value.to_string()),
        None => Ok(()),
    };
    // At no time may the one exceed the other. Kernels without swap accounting lack the second file.
    if setter.undo.is_some() && swap.is_some_and(|swap| raises(setter, swap)) {
        optional(set_swap(), warnings)?;
        set_limit()?;
    } else {
        set_limit()?;
        optional(set_swap(), warnings)?;
    }
    if let Some(value) = memory.reservation.filter(|value| *value != 0) {
        setter.set("memory", "memory.soft_limit_in_bytes", &value.to_string())?;
    }
    if let Some(value) = memory.swappiness {
        if value > 100 {
            return Err(LaunchError::new(
                Kind::InvalidArgument,
                format!("memory swappiness {value} is not between 0 and 100"),
            ));
        }
        setter.set("memory", "memory.swappiness", &value.to_string())?;
    }
    if memory.disable_oom_killer == Some(true) {
        setter.set("memory", "memory.oom_control", "1")?;
    }
    Ok(())
}

/// Whether a limit of memory and swap is above the present one.
fn raises(setter: &Setter<'_>, swap: i64) -> bool {
    let present = setter
        .group
        .directory("memory")
        .and_then(|directory| super::read(directory, "memory.memsw.limit_in_bytes").ok())
        .and_then(|text| text.trim().parse::<i64>().ok());
    present.is_some_and(|present| swap < 0 || swap > present)
}

fn version1(
    setter: &Setter<'_>,
    resources: &Resources,
    warnings: &mut Vec<String>,
) -> Result<(), LaunchError> {
    if let Some(memory) = &resources.memory {
        version1_memory(setter, memory, warnings)?;
    }
    if let Some(cpu) = &resources.cpu {
        if let Some(shares) = cpu.shares.filter(|shares| *shares != 0) {
            setter.set("cpu", "cpu.shares", &shares.to_string())?;
        }
        if let Some(period) = cpu.period.filter(|period| *period != 0) {
            setter.set("cpu", "cpu.cfs_period_us", &period.to_string())?;
        }
        if let Some(quota) = cpu.quota.filter(|quota| *quota != 0) {
            setter.set("cpu", "cpu.cfs_quota_us", &quota.to_string())?;
        }
        if let Some(burst) = cpu.burst {
            setter.set("cpu", "cpu.cfs_burst_us", &burst.to_string())?;
        }
        if let Some(idle) = cpu.idle {
            setter.set("cpu", "cpu.idle", &idle.to_string())?;
        }
        if let Some(period) = cpu.realtime_period.filter(|period| *period != 0) {
            setter.set("cpu", "cpu.rt_period_us", &period.to_string())?;
        }
        if let Some(runtime) = cpu.realtime_runtime.filter(|runtime| *runtime != 0) {
            setter.set("cpu", "cpu.rt_runtime_us", &runtime.to_string())?;
        }
        if let Some(directory) = setter.group.directory("cpuset") {
            hosts::inherit_cpuset(directory)
                .map_err(|error| wrong(directory, "cpuset.cpus", "", &error))?;
        }
        for (file, list) in [("cpuset.cpus", &cpu.cpus), ("cpuset.mems", &cpu.mems)] {
            if !list.is_empty() {
                setter.set("cpuset", file, list)?;
            }
        }
    }
    if let Some(io) = &resources.block_io {
        if let Some(weight) = io.weight.filter(|weight| *weight != 0) {
            optional(
                setter.set("blkio", "blkio.bfq.weight", &weight.to_string()),
                warnings,
            )?;
        }
        for device in &io.weight_device {
            if let Some(weight) = device.weight.filter(|weight| *weight != 0) {
                let value = format!("{}:{} {weight}", device.major, device.minor);
                optional(
                    setter.set("blkio", "blkio.bfq.weight_device", &value),
                    warnings,
                )?;
            }
        }
        for (file, devices) in [
            (
                "blkio.throttle.read_bps_device",
                &io.throttle_read_bps_device,
            ),
            (
                "blkio.throttle.write_bps_device",
                &io.throttle_write_bps_device,
            ),
            (
                "blkio.throttle.read_iops_device",
                &io.throttle_read_iops_device,
            ),
            (
                "blkio.throttle.write_iops_device",
                &io.throttle_write_iops_device,
            ),
        ] {
            for ThrottleDevice { major, minor, rate } in devices {
                setter.set("blkio", file, &format!("{major}:{minor} {rate}"))?;
            }
        }
    }
    for huge in &resources.hugepage_limits {
        let file = format!("hugetlb.{}.limit_in_bytes", page_size(&huge.page_size)?);
        setter.set("hugetlb", &file, &huge.limit.to_string())?;
    }
    Ok(())
}

/// A limit that kernels may lack without harm: what it would bound is bounded by another.
fn optional(
    result: Result<(), LaunchError>,
    warnings: &mut Vec<String>,
) -> Result<(), LaunchError> {
    match result {
        Err(error) if error.kind == Kind::Unsupported => {
            warnings.push(error.message);
            Ok(())
        }
        other => other,
    }
}

fn ignored(memory: &Memory, warnings: &mut Vec<String>) {
    for (given, name) in [
        (memory.swappiness.is_some(), "memory swappiness"),
        (memory.disable_oom_killer == Some(true), "disableOOMKiller"),
        (
            memory.kernel_tcp.is_some_and(|value| value != 0),
            "kernelTCP",
        ),
    ] {
        if given {
            warnings.push(format!(
                "{name} is left out: control groups of version 2 do not have it"
            ));
        }
    }
}

fn leaf_weights(io: &BlockIo, warnings: &mut Vec<String>) {
    let of_devices = io.weight_device.iter().map(|device| device.leaf_weight);
    if of_devices
        .chain([io.leaf_weight])
        .flatten()
        .any(|weight| weight != 0)
    {
        warnings
            .push("leaf weights are left out: no scheduler since Linux 5.0 has them".to_owned());
    }
}

fn real_time(cpu: &Cpu, warnings: &mut Vec<String>) {
    if cpu
        .realtime_period
        .or_else(|| cpu.realtime_runtime.map(i64::unsigned_abs))
        .is_some_and(|value| value != 0)
    {
        warnings.push(
            "real-time limits are left out: control groups of version 2 do not have them"
                .to_owned(),
        );
    }
}

fn page_size(text: &str) -> Result<&str, LaunchError> {
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if plain {
        return Ok(text);
    }
    Err(LaunchError::new(
        Kind::InvalidArgument,
        format!("huge page size {text:?} is malformed: write 2MB or 1GB"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_meet_at_the_ends_and_the_default() {
        assert_eq!([2, 1024, 262_144].map(weight), [1, 100, 10_000]);
        assert!((3..2000).all(|shares| weight(shares) <= weight(shares + 1)));
    }

    #[test]
    fn page_sizes_name_no_other_file() {
        assert!(page_size("2MB").is_ok());
        assert!(page_size("../x").is_err());
    }
}
