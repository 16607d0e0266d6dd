//! A process's place in the queues of processors and disks.

use knarr_sys::step::Arg;

use super::words::Context;
use super::writer::Writer;
use crate::error::{Kind, LaunchError};
use crate::spec::{Process, Scheduler};

fn invalid(message: String) -> LaunchError {
    LaunchError::new(Kind::InvalidArgument, message)
}

/// I/O priority and scheduling policy, where the specification has them.
pub fn settings(writer: &mut Writer, process: &Process) -> Result<(), LaunchError> {
    if let Some(priority) = &process.io_priority {
        const WHO_PROCESS: u64 = 1;
        let class: u64 = match priority.class.as_str() {
            "IOPRIO_CLASS_RT" => 1,
            "IOPRIO_CLASS_BE" => 2,
            "IOPRIO_CLASS_IDLE" => 3,
            other => {
                return Err(invalid(format!(
                    "process.ioPriority: unknown class {other:?}"
                )));
            }
        };
        let level = u64::try_from(priority.priority)
            .ok()
            .filter(|level| *level < 8)
            .ok_or_else(|| {
                invalid(format!(
                    "process.ioPriority {} is not between 0 and 7",
                    priority.priority
                ))
            })?;
        writer.about(Context::Doing("set process.ioPriority"));
        let args = [
            Arg::Value(WHO_PROCESS),
            Arg::Value(0),
            Arg::Value(class << 13 | level),
        ];
        writer.call(libc::SYS_ioprio_set, &args);
    }
    if let Some(scheduler) = &process.scheduler {
        writer.about(Context::Doing("set process.scheduler"));
        let attributes = attributes(scheduler)?;
        let attributes = Arg::Data(writer.builder.bytes(&attributes));
        writer.call(
            libc::SYS_sched_setattr,
            &[Arg::Value(0), attributes, Arg::Value(0)],
        );
    }
    Ok(())
}

/// `struct sched_attr` of `sched_setattr(2)`.
fn attributes(scheduler: &Scheduler) -> Result<Vec<u8>, LaunchError> {
    const SIZE: u32 = 48;
    let policy: u32 = match scheduler.policy.as_str() {
        "SCHED_OTHER" => 0,
        "SCHED_FIFO" => 1,
        "SCHED_RR" => 2,
        "SCHED_BATCH" => 3,
        "SCHED_ISO" => 4,
        "SCHED_IDLE" => 5,
        "SCHED_DEADLINE" => 6,
        other => {
            return Err(invalid(format!(
                "process.scheduler: unknown policy {other:?}"
            )));
        }
    };
    let flags = scheduler.flags.iter().try_fold(0u64, |bits, flag| {
        Ok(bits
            | match flag.as_str() {
                "SCHED_FLAG_RESET_ON_FORK" => 0x01,
                "SCHED_FLAG_RECLAIM" => 0x02,
                "SCHED_FLAG_DL_OVERRUN" => 0x04,
                "SCHED_FLAG_KEEP_POLICY" => 0x08,
                "SCHED_FLAG_KEEP_PARAMS" => 0x10,
                "SCHED_FLAG_UTIL_CLAMP_MIN" => 0x20,
                "SCHED_FLAG_UTIL_CLAMP_MAX" => 0x40,
                other => {
                    return Err(invalid(format!(
                        "process.scheduler: unknown flag {other:?}"
                    )));
                }
            })
    })?;
    let priority = u32::try_from(scheduler.priority).map_err(|_| {
        invalid(format!(
            "process.scheduler: priority {} is negative",
            scheduler.priority
        ))
    })?;
    let mut bytes = Vec::with_capacity(48);
    bytes.extend(SIZE.to_ne_bytes());
    bytes.extend(policy.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(scheduler.nice.to_ne_bytes());
    bytes.extend(priority.to_ne_bytes());
    for time in [scheduler.runtime, scheduler.deadline, scheduler.period] {
        bytes.extend(time.to_ne_bytes());
    }
    Ok(bytes)
}
