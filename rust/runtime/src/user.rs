//! Docker's `User` strings, resolved from the image's own files without running its code.

use std::io::Read;
use std::os::fd::BorrowedFd;

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};

use crate::error::{Kind, LaunchError};

/// The largest passwd or group file that is read: bytes.
const LARGEST: u64 = 4 << 20;

/// Who a process runs as.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// User ID.
    pub uid: u32,
    /// Group ID.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// The home directory, `/` where the image knows none.
    pub home: String,
}

struct Account<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

fn accounts(passwd: &str) -> impl Iterator<Item = Account<'_>> {
    passwd.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let name = fields.next()?;
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        let home = fields.nth(1).unwrap_or("");
        Some(Account {
            name,
            uid,
            gid,
            home,
        })
    })
}

fn groups(group: &str) -> impl Iterator<Item = (&str, u32, &str)> {
    group.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let name = fields.next()?;
        let gid = fields.nth(1)?.parse().ok()?;
        Some((name, gid, fields.next().unwrap_or("")))
    })
}

fn number(text: &str) -> Option<u32> {
    // 2^31 and above are refused, as Docker does: some tools take them for negative numbers.
    text.parse()
        .ok()
        .filter(|value| *value <= i32::MAX.cast_unsigned())
}

fn no_such(what: &str, name: &str, file: &str) -> LaunchError {
    LaunchError::new(
        Kind::InvalidArgument,
        format!("unable to find {what} {name}: no matching entries in {file} file"),
    )
    .with_exit_code(126)
}

/// Resolve `uid[:gid]` or `name[:group]` (or a mix of both) with the texts of the two files.
pub fn resolve_in(user: &str, passwd: &str, group: &str) -> Result<Identity, LaunchError> {
    let (user, wanted_group) = user.split_once(':').unwrap_or((user, ""));
    let as_number = number(user);
    let account = accounts(passwd).find(|account| match user {
        "" => account.uid == 0,
        name => account.name == name || as_number == Some(account.uid),
    });
    let mut identity = match (&account, as_number) {
        (Some(account), _) => Identity {
            uid: account.uid,
            gid: account.gid,
            groups: Vec::new(),
            home: account.home.to_owned(),
        },
        (None, Some(uid)) => Identity {
            uid,
            ..Identity::default()
        },
        (None, None) if user.is_empty() => Identity::default(),
        (None, None) => return Err(no_such("user", user, "passwd")),
    };
    if identity.home.is_empty() {
        "/".clone_into(&mut identity.home);
    }
    if !wanted_group.is_empty() {
        let as_number = number(wanted_group);
        let found = groups(group)
            .find(|(name, gid, _)| *name == wanted_group || as_number == Some(*gid))
            .map(|(_, gid, _)| gid)
            .or(as_number);
        identity.gid = found.ok_or_else(|| no_such("group", wanted_group, "group"))?;
    } else if let Some(account) = account {
        identity.groups = groups(group)
            .filter(|(_, _, members)| {
                members
                    .split(',')
                    .any(|member| member.trim() == account.name)
            })
            .map(|(_, gid, _)| gid)
            .collect();
    }
    // As in Docker: whoever changes its primary group stays in it, and is refused what that group is refused
    // (CVE-2022-36109).
    if !identity.groups.contains(&identity.gid) {
        identity.groups.insert(0, identity.gid);
    }
    Ok(identity)
}

/// The home directory of a user ID.
#[must_use]
pub fn home_in(uid: u32, passwd: &str) -> String {
    accounts(passwd)
        .find(|account| account.uid == uid)
        .map(|account| account.home)
        .filter(|home| !home.is_empty())
        .unwrap_or("/")
        .to_owned()
}

/// A small file below a root directory; empty where it is missing or no regular file.
fn read(root: BorrowedFd<'_>, path: &str) -> Result<String, LaunchError> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let Ok(file) = openat2(root, path, flags, Mode::empty(), resolve) else {
        return Ok(String::new());
    };
    let file = std::fs::File::from(file);
    let failed = |error: std::io::Error| {
        LaunchError::new(
            Kind::Unavailable,
            format!("read {path} of the container: {error}"),
        )
    };
    if !file.metadata().map_err(failed)?.is_file() {
        return Ok(String::new());
    }
    let mut bytes = Vec::new();
    file.take(LARGEST + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > LARGEST {
        return Err(LaunchError::new(
            Kind::InvalidArgument,
            format!(
                "{path} of the container is larger than {LARGEST} bytes: give the user as numbers"
            ),
        ));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Resolve Docker's `User` string in a root file system.
pub fn resolve(root: BorrowedFd<'_>, user: &str) -> Result<Identity, LaunchError> {
    resolve_in(user, &read(root, "etc/passwd")?, &read(root, "etc/group")?)
}

/// The home directory of a user ID in a root file system.
pub fn home(root: BorrowedFd<'_>, uid: u32) -> Result<String, LaunchError> {
    Ok(home_in(uid, &read(root, "etc/passwd")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\nbroken\nana:x:1000:100::/home/ana:/bin/sh\n";
    const GROUP: &str = "root:x:0:root\nwheel:x:10:root,ana\nstaff:x:50:\n";

    #[test]
    fn users_of_every_form() {
        let cases: [(&str, u32, u32, &[u32], &str); 9] = [
            ("", 0, 0, &[0, 10], "/root"),
            ("root", 0, 0, &[0, 10], "/root"),
            ("ana", 1000, 100, &[100, 10], "/home/ana"),
            ("1000", 1000, 100, &[100, 10], "/home/ana"),
            ("ana:staff", 1000, 50, &[50], "/home/ana"),
            ("ana:77", 1000, 77, &[77], "/home/ana"),
            ("4242", 4242, 0, &[0], "/"),
            ("4242:4243", 4242, 4243, &[4243], "/"),
            ("0:staff", 0, 50, &[50], "/root"),
        ];
        for (text, uid, gid, groups, home) in cases {
            let found = resolve_in(text, PASSWD, GROUP).expect(text);
            let wanted = Identity {
                uid,
                gid,
                groups: groups.to_vec(),
                home: home.to_owned(),
            };
            assert_eq!(found, wanted, "{text:?}");
        }
    }

    #[test]
    fn unknown_names_have_dockers_words() {
        let cases = [
            (
                "bob",
                "unable to find user bob: no matching entries in passwd file",
            ),
            (
                "ana:none",
                "unable to find group none: no matching entries in group file",
            ),
            (
                "4294967295",
                "unable to find user 4294967295: no matching entries in passwd file",
            ),
            (
                "-1",
                "unable to find user -1: no matching entries in passwd file",
            ),
        ];
        for (text, message) in cases {
            assert_eq!(
                resolve_in(text, PASSWD, GROUP).expect_err(text).message,
                message
            );
        }
        assert_eq!(resolve_in("", "", "").expect("root").home, "/");
    }
}
