//! System call filters: from the OCI object to classic BPF.

mod compile;
mod listener;
pub mod table;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::error::{Kind, LaunchError};
use crate::spec::LinuxSeccomp;

pub use listener::hand_over;

/// Filters kept compiled at once.
const MOST_CACHED: usize = 64;

const FLAG_TSYNC: u32 = 1;
const FLAG_LOG: u32 = 2;
const FLAG_SPEC_ALLOW: u32 = 4;
const FLAG_NEW_LISTENER: u32 = 8;
const FLAG_WAIT_KILLABLE: u32 = 32;

/// A compiled filter.
#[derive(Debug, PartialEq, Eq)]
pub struct Program {
    instructions: Vec<u64>,
    flags: u32,
}

impl Program {
    /// Its instructions, each as the eight bytes of a `struct sock_filter`.
    #[must_use]
    pub fn instructions(&self) -> &[u64] {
        &self.instructions
    }

    /// `SECCOMP_FILTER_FLAG_*`.
    #[must_use]
    pub const fn flags(&self) -> u32 {
        self.flags
    }
}

fn flags(filter: &LinuxSeccomp) -> Result<u32, LaunchError> {
    let mut bits = 0;
    match &filter.flags {
        None => bits |= FLAG_SPEC_ALLOW,
        Some(names) => {
            for name in names {
                bits |= match name.as_str() {
                    // The process has one thread, so there is nothing to synchronise.
                    "SECCOMP_FILTER_FLAG_TSYNC" => FLAG_TSYNC,
                    "SECCOMP_FILTER_FLAG_LOG" => FLAG_LOG,
                    "SECCOMP_FILTER_FLAG_SPEC_ALLOW" => FLAG_SPEC_ALLOW,
                    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV" => FLAG_WAIT_KILLABLE,
                    other => {
                        return Err(LaunchError::new(
                            Kind::InvalidArgument,
                            format!("seccomp: unknown flag {other:?}"),
                        ));
                    }
                };
            }
        }
    }
    let notifies = |action: &str| action == "SCMP_ACT_NOTIFY";
    if notifies(&filter.default_action) || filter.syscalls.iter().any(|rule| notifies(&rule.action))
    {
        if filter.listener_path.is_empty() {
            return Err(LaunchError::new(
                Kind::InvalidArgument,
                "seccomp: SCMP_ACT_NOTIFY needs a listenerPath",
            ));
        }
        bits = bits & !FLAG_TSYNC | FLAG_NEW_LISTENER;
    }
    Ok(bits)
}

/// Compile a filter, or take it from the cache of those compiled before.
pub fn compile(filter: &LinuxSeccomp) -> Result<Arc<Program>, LaunchError> {
    type Cache = Mutex<HashMap<LinuxSeccomp, Arc<Program>>>;
    static CACHE: OnceLock<Cache> = OnceLock::new();
    let cache = CACHE.get_or_init(Cache::default);
    if let Some(found) = cache
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .get(filter)
    {
        return Ok(Arc::clone(found));
    }
    let instructions = compile::compile(filter)?
        .into_iter()
        .map(compile::Instruction::word)
        .collect();
    let program = Arc::new(Program {
        instructions,
        flags: flags(filter)?,
    });
    let mut cache = cache.lock().unwrap_or_else(PoisonError::into_inner);
    if cache.len() >= MOST_CACHED {
        cache.clear();
    }
    cache.insert(filter.clone(), Arc::clone(&program));
    Ok(program)
}
