//! Mounts that show a file system's users and groups as others (config.md 1.2, "mounts": `uidMappings`, `gidMappings`, `idmap`, `ridmap`).
//!
//! | given | the IDs |
//! | --- | --- |
//! | `uidMappings` and `gidMappings` | `containerID` of the file system is `hostID`, and the other way round |
//! | `idmap` or `ridmap` alone | as the container's user namespace maps them |
//! | `knarr.idmap=match-user`, which config.md does not have | the owner of the source is the user that the container's process runs as, and the other way round; any other ID is itself |
//!
//! With `match-user` nobody is the ID that the owner's would be otherwise, on either side: what the host has of it (root's files, for
//! a process of root) can be neither made nor written to through the mount.

use std::os::fd::{AsFd, OwnedFd};

use knarr_sys::mount::{MountAttr, set_attributes};
use knarr_sys::userns::{self, Range};

use crate::error::{Kind, LaunchError};
use crate::plan::{self, Options};
use crate::spec::{IdMapping, Mount, Spec};

const IDMAP: u64 = 0x0010_0000;
/// As many IDs as there are.
const ALL: u32 = u32::MAX;

/// Gives a detached mount the map that the specification wants. `user` is who the process runs as, in the container.
pub fn apply(
    tree: &OwnedFd,
    mount: &Mount,
    options: &Options,
    spec: &Spec,
    user: (u32, u32),
) -> Result<(), LaunchError> {
    let Some((users, groups)) = wanted(tree, mount, options, spec, user)? else {
        return Ok(());
    };
    let failed = |doing: &str, error: &std::io::Error| {
        let errno = error.raw_os_error().unwrap_or(0);
        LaunchError::new(
            plan::kind(errno),
            format!(
                "mount at {:?}: {doing}: {}",
                mount.destination,
                plan::errno_text(errno)
            ),
        )
    };
    let namespace = userns::with_maps(&users, &groups)
        .map_err(|error| failed("make a user namespace for its mapping of IDs", &error))?;
    let attr = MountAttr {
        set: IDMAP,
        userns: std::os::fd::AsRawFd::as_raw_fd(&namespace)
            .cast_unsigned()
            .into(),
        ..MountAttr::default()
    };
    set_attributes(tree.as_fd(), c"", options.idmap == Some(true), &attr).map_err(|error| {
        match error.raw_os_error() {
            Some(libc::EINVAL) => LaunchError::new(
                Kind::Unsupported,
                format!(
                    "mount at {:?}: the file system of {:?} cannot show other user and group IDs (idmapped mounts): \
                     leave the mapping out",
                    mount.destination, mount.source
                ),
            ),
            Some(libc::EPERM) => LaunchError::new(
                Kind::Unsupported,
                format!(
                    "mount at {:?}: what is mounted at {:?} shows other user and group IDs already, or is another user \
                     namespace's: leave the mapping out",
                    mount.destination, mount.source
                ),
            ),
            _ => failed("map its IDs", &error),
        }
    })
}

/// Whether a mount is to have a map.
pub fn is_asked_for(mount: &Mount, options: &Options) -> bool {
    !mount.uid_mappings.is_empty()
        || !mount.gid_mappings.is_empty()
        || options.idmap.is_some()
        || options.match_user
}

type Maps = (Vec<Range>, Vec<Range>);

fn wanted(
    tree: &OwnedFd,
    mount: &Mount,
    options: &Options,
    spec: &Spec,
    user: (u32, u32),
) -> Result<Option<Maps>, LaunchError> {
    let linux = spec.linux.as_ref();
    let (own_users, own_groups) = linux.map_or((&[][..], &[][..]), |linux| {
        (&linux.uid_mappings[..], &linux.gid_mappings[..])
    });
    let invalid = |what: &str| {
        LaunchError::new(
            Kind::InvalidArgument,
            format!("mount at {:?}: {what}", mount.destination),
        )
    };
    if options.match_user {
        let owner = rustix::fs::fstat(tree).map_err(|errno| {
            LaunchError::new(
                plan::kind(errno.raw_os_error()),
                format!("look at the owner of {:?}: {errno}", mount.source),
            )
        })?;
        let unmapped = || invalid("its container's user has no ID on the host");
        let users = outside(own_users, user.0).ok_or_else(unmapped)?;
        let groups = outside(own_groups, user.1).ok_or_else(unmapped)?;
        if (users, groups) == (owner.st_uid, owner.st_gid) {
            return Ok(None);
        }
        return Ok(Some((
            matched(owner.st_uid, users),
            matched(owner.st_gid, groups),
        )));
    }
    match (mount.uid_mappings.is_empty(), mount.gid_mappings.is_empty()) {
        (false, false) => Ok(Some((
            ranges(&mount.uid_mappings),
            ranges(&mount.gid_mappings),
        ))),
        (true, true) if options.idmap.is_none() => Ok(None),
        (true, true) if own_users.is_empty() || own_groups.is_empty() => Err(invalid(
            "idmap needs uidMappings and gidMappings, as the container has no user namespace whose mappings it could take",
        )),
        (true, true) => Ok(Some((ranges(own_users), ranges(own_groups)))),
        _ => Err(invalid("uidMappings and gidMappings go together")),
    }
}

fn ranges(mappings: &[IdMapping]) -> Vec<Range> {
    mappings
        .iter()
        .map(|mapping| Range {
            inside: mapping.container_id,
            outside: mapping.host_id,
            size: mapping.size,
        })
        .collect()
}

/// The host's ID of one in the container.
fn outside(mappings: &[IdMapping], id: u32) -> Option<u32> {
    if mappings.is_empty() {
        return Some(id);
    }
    mappings.iter().find_map(|mapping| {
        let offset = id.checked_sub(mapping.container_id)?;
        (offset < mapping.size).then(|| mapping.host_id.checked_add(offset))?
    })
}

/// The owner's ID is the user's; all IDs but these two are themselves.
fn matched(owner: u32, user: u32) -> Vec<Range> {
    let (low, high) = (owner.min(user), owner.max(user));
    let same = |from: u32, to: u32| Range {
        inside: from,
        outside: from,
        size: to.saturating_sub(from),
    };
    let mut found = vec![Range {
        inside: owner,
        outside: user,
        size: 1,
    }];
    found.extend(
        [
            same(0, low),
            same(low.saturating_add(1), high),
            same(high.saturating_add(1), ALL),
        ]
        .into_iter()
        .filter(|range| range.size > 0),
    );
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(maps: &[Range], id: u32) -> Option<u32> {
        maps.iter().find_map(|range| {
            let offset = id.checked_sub(range.inside)?;
            (offset < range.size).then(|| range.outside + offset)
        })
    }

    #[test]
    fn the_owner_is_the_user_and_others_are_themselves() {
        for (owner, user) in [(1000, 0), (0, 1000), (7, 8), (8, 7), (0, 0), (5, 5)] {
            let maps = matched(owner, user);
            assert_eq!(seen(&maps, owner), Some(user), "{owner} {user}");
            if owner != user {
                assert_eq!(seen(&maps, user), None, "{owner} {user}");
            }
            for other in [2, 999, 65534, u32::MAX - 1] {
                assert_eq!(seen(&maps, other), Some(other), "{owner} {user} {other}");
            }
        }
    }

    #[test]
    fn an_id_in_a_user_namespace_has_one_outside() {
        let maps = [IdMapping {
            container_id: 0,
            host_id: 100_000,
            size: 10,
        }];
        assert_eq!(outside(&maps, 3), Some(100_003));
        assert_eq!(outside(&maps, 10), None);
        assert_eq!(outside(&[], 10), Some(10));
    }
}
