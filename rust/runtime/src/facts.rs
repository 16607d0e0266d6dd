//! What a plan must know about this process, and what only its parent can do for a child.

use std::fs;
use std::sync::OnceLock;

use knarr_sys::process;

use crate::error::{Kind, LaunchError};
use crate::plan::{Descriptors, ProcessFacts, errno_text, kind};
use crate::seccomp;
use crate::spec::{IdMapping, Spec};
use crate::user::Identity;

/// What holds for this process as long as it runs.
#[derive(Debug)]
struct Own {
    permitted: u64,
    last_capability: u32,
    limits: Vec<(u32, u64, u64)>,
    apparmor: bool,
    selinux: bool,
}

fn own() -> Result<&'static Own, LaunchError> {
    static OWN: OnceLock<Result<Own, String>> = OnceLock::new();
    OWN.get_or_init(|| {
        Own::find().map_err(|error| format!("read this process's capabilities and limits: {error}"))
    })
    .as_ref()
    .map_err(|message| LaunchError::new(Kind::Internal, message.clone()))
}

impl Own {
    fn find() -> std::io::Result<Self> {
        let bounding: Vec<bool> = (0..64).map_while(process::in_bounding_set).collect();
        let within = bounding
            .iter()
            .enumerate()
            .fold(0u64, |bits, (at, found)| bits | u64::from(*found) << at);
        let limits = (0..16)
            .map(|resource| process::rlimit(resource).map(|(soft, hard)| (resource, soft, hard)))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            permitted: process::permitted_capabilities()? & within,
            last_capability: u32::try_from(bounding.len().saturating_sub(1)).unwrap_or(0),
            limits,
            apparmor: fs::read_to_string("/sys/module/apparmor/parameters/enabled")
                .is_ok_and(|text| text.starts_with('Y')),
            selinux: fs::exists("/sys/fs/selinux/enforce").unwrap_or(false),
        })
    }
}

/// The facts of one process.
pub fn process(
    identity: Identity,
    descriptors: Descriptors,
    filter: Option<&seccomp::Program>,
    preserve: u32,
    init: bool,
) -> Result<ProcessFacts, LaunchError> {
    let own = own()?;
    Ok(ProcessFacts {
        identity,
        permitted: own.permitted,
        last_capability: own.last_capability,
        limits: own.limits.clone(),
        descriptors,
        filter: filter.map(|filter| (filter.instructions().to_vec(), filter.flags())),
        preserve,
        init,
        apparmor: own.apparmor,
        selinux: own.selinux,
    })
}

/// Write a child's ID maps and out-of-memory score, which it can't do itself in its user namespace.
pub fn map_ids(pid: i32, spec: &Spec) -> Result<(), LaunchError> {
    let Some(linux) = &spec.linux else {
        return Ok(());
    };
    let text = |maps: &[IdMapping]| -> String {
        let line = |map: &IdMapping| format!("{} {} {}", map.container_id, map.host_id, map.size);
        maps.iter().map(line).collect::<Vec<_>>().join("\n")
    };
    if linux.uid_mappings.is_empty() || linux.gid_mappings.is_empty() {
        return Err(LaunchError::new(
            Kind::InvalidArgument,
            "a new user namespace needs linux.uidMappings and linux.gidMappings",
        ));
    }
    for (file, maps) in [
        ("uid_map", &linux.uid_mappings),
        ("gid_map", &linux.gid_mappings),
    ] {
        fs::write(format!("/proc/{pid}/{file}"), text(maps)).map_err(|error| {
            let errno = error.raw_os_error().unwrap_or(0);
            LaunchError::new(
                kind(errno),
                format!("write the container's {file}: {}", errno_text(errno)),
            )
        })?;
    }
    if let Some(score) = spec
        .process
        .as_ref()
        .and_then(|process| process.oom_score_adj)
    {
        let file = format!("/proc/{pid}/oom_score_adj");
        match fs::write(&file, score.to_string()) {
            // Lowering it needs a capability that nested engines lack.
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {}
            Err(error) => {
                return Err(LaunchError::new(
                    Kind::Internal,
                    format!("set process.oomScoreAdj: {error}"),
                ));
            }
            Ok(()) => {}
        }
    }
    Ok(())
}
