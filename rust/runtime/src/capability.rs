//! Capability names (include/uapi/linux/capability.h).

use crate::error::{Kind, LaunchError};

const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// The number of `CAP_SYS_ADMIN`.
pub const SYS_ADMIN: u32 = 21;

/// The number of a capability, with or without its `CAP_`.
#[must_use]
pub fn number(name: &str) -> Option<u32> {
    let name = name.strip_prefix("CAP_").unwrap_or(name);
    NAMES
        .iter()
        .position(|known| *known == name)
        .and_then(|at| u32::try_from(at).ok())
}

/// The name of a capability.
#[must_use]
pub fn name(number: u32) -> String {
    usize::try_from(number)
        .ok()
        .and_then(|at| NAMES.get(at))
        .map_or_else(|| format!("CAP_{number}"), |name| format!("CAP_{name}"))
}

/// All names.
pub fn all() -> impl Iterator<Item = String> {
    (0..).map_while(|at| NAMES.get(at).map(|name| format!("CAP_{name}")))
}

/// The set of bits that names mean.
pub fn set(names: &[String]) -> Result<u64, LaunchError> {
    names.iter().try_fold(0, |bits, name| {
        let number = number(name).ok_or_else(|| {
            LaunchError::new(
                Kind::InvalidArgument,
                format!("unknown capability {name:?}"),
            )
        })?;
        Ok(bits | 1 << number)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_the_kernels() {
        assert_eq!(number("CAP_SYS_ADMIN"), Some(SYS_ADMIN));
        assert_eq!(number("SETFCAP"), Some(31));
        assert_eq!(number("CAP_CHECKPOINT_RESTORE"), Some(40));
        assert_eq!(name(27), "CAP_MKNOD");
        assert!(set(&["CAP_NONSENSE".to_owned()]).is_err());
    }
}
