//! Mount options, as mount(8) and config.md name them.

use crate::error::{Kind, LaunchError};

const RDONLY: u64 = 0x1;
const NOSUID: u64 = 0x2;
const NODEV: u64 = 0x4;
const NOEXEC: u64 = 0x8;
const ATIME: u64 = 0x70;
const NOATIME: u64 = 0x10;
const STRICTATIME: u64 = 0x20;
const NODIRATIME: u64 = 0x80;
const NOSYMFOLLOW: u64 = 0x0020_0000;

const MS_UNBINDABLE: u64 = 1 << 17;
const MS_PRIVATE: u64 = 1 << 18;
const MS_SLAVE: u64 = 1 << 19;
const MS_SHARED: u64 = 1 << 20;

/// A change of mount attributes (`MOUNT_ATTR_*`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Attributes to set.
    pub set: u64,
    /// Attributes to clear.
    pub clear: u64,
}

impl Change {
    fn apply(&mut self, set: u64, clear: u64) {
        self.set = self.set & !clear | set;
        self.clear = self.clear & !set | clear;
    }

    /// Whether it changes nothing.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.set == 0 && self.clear == 0
    }
}

/// Options, sorted by who takes them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Attributes of the mount itself.
    pub own: Change,
    /// Attributes of the whole tree (`rro` and its like).
    pub tree: Change,
    /// Propagation of the mount: one of `MS_SHARED` ... and whether it is recursive.
    pub propagation: Option<(u64, bool)>,
    /// Whether this is a bind mount, and whether a recursive one.
    pub bind: Option<bool>,
    /// Whether a tmpfs begins with what was at its place.
    pub copy_up: bool,
    /// `idmap` (false) or `ridmap` (true).
    pub idmap: Option<bool>,
    /// Whether the source's owner is the process's user: `knarr.idmap=match-user`, which config.md does not have.
    pub match_user: bool,
    /// What is bound lies there below the source and nowhere else: `knarr.beneath=PATH`, which config.md does not have.
    pub beneath: Option<String>,
    /// What the file system itself takes: `key` or `key=value`.
    pub data: Vec<String>,
}

impl Options {
    /// Whether the mount is read-only.
    #[must_use]
    pub const fn readonly(&self) -> bool {
        self.own.set & RDONLY != 0
    }

    /// The attributes without the read-only one.
    #[must_use]
    pub const fn writable(&self) -> u64 {
        self.own.set & !RDONLY
    }
}

/// The propagation flag and recursion that a word means.
#[must_use]
pub fn propagation(word: &str) -> Option<(u64, bool)> {
    Some(match word {
        "shared" => (MS_SHARED, false),
        "rshared" => (MS_SHARED, true),
        "slave" => (MS_SLAVE, false),
        "rslave" => (MS_SLAVE, true),
        "private" => (MS_PRIVATE, false),
        "rprivate" => (MS_PRIVATE, true),
        "unbindable" => (MS_UNBINDABLE, false),
        "runbindable" => (MS_UNBINDABLE, true),
        _ => return None,
    })
}

/// (set, clear) of an attribute's word.
fn attribute(word: &str) -> Option<(u64, u64)> {
    Some(match word {
        "ro" => (RDONLY, 0),
        "rw" => (0, RDONLY),
        "nosuid" => (NOSUID, 0),
        "suid" => (0, NOSUID),
        "nodev" => (NODEV, 0),
        "dev" => (0, NODEV),
        "noexec" => (NOEXEC, 0),
        "exec" => (0, NOEXEC),
        "noatime" => (NOATIME, ATIME & !NOATIME),
        "strictatime" => (STRICTATIME, ATIME & !STRICTATIME),
        "relatime" | "atime" | "nostrictatime" | "norelatime" => (0, ATIME),
        "nodiratime" => (NODIRATIME, 0),
        "diratime" => (0, NODIRATIME),
        "nosymfollow" => (NOSYMFOLLOW, 0),
        "symfollow" => (0, NOSYMFOLLOW),
        _ => return None,
    })
}

/// Sort a mount's options.
pub fn parse(options: &[String]) -> Result<Options, LaunchError> {
    let mut parsed = Options::default();
    for option in options.iter().flat_map(|option| option.split(',')) {
        if let Some((set, clear)) = attribute(option) {
            parsed.own.apply(set, clear);
        } else if let Some((set, clear)) = option.strip_prefix('r').and_then(attribute) {
            parsed.tree.apply(set, clear);
        } else if let Some(found) = propagation(option) {
            parsed.propagation = Some(found);
        } else {
            match option {
                "" | "defaults" | "async" | "nouser" | "noauto" | "auto" | "nofail" | "loud"
                | "z" | "Z" => {}
                "bind" => parsed.bind = Some(parsed.bind.unwrap_or(false)),
                "rbind" => parsed.bind = Some(true),
                "tmpcopyup" => parsed.copy_up = true,
                "knarr.idmap=match-user" => parsed.match_user = true,
                "idmap" => parsed.idmap = Some(false),
                "ridmap" => parsed.idmap = Some(true),
                "remount" | "mand" | "nomand" | "iversion" | "noiversion" => {
                    return Err(LaunchError::new(
                        Kind::Unsupported,
                        format!("mount option {option:?} is not supported: leave it out"),
                    ));
                }
                other => match other.strip_prefix("knarr.beneath=") {
                    Some(path) => parsed.beneath = Some(path.to_owned()),
                    None => parsed.data.push(other.to_owned()),
                },
            }
        }
    }
    // Attributes that are only cleared mean nothing to a fresh mount, and everything to a bind.
    Ok(parsed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Options {
        parse(&text.split(' ').map(str::to_owned).collect::<Vec<_>>()).expect(text)
    }

    #[test]
    fn words_go_where_they_belong() {
        let options = parsed("nosuid noexec nodev mode=1777 size=64k");
        assert_eq!(options.own.set, NOSUID | NOEXEC | NODEV);
        assert_eq!(options.data, ["mode=1777", "size=64k"]);
        assert_eq!(parsed("rbind ro rslave").bind, Some(true));
        assert_eq!(parsed("rbind bind").bind, Some(true));
        assert_eq!(
            parsed("rbind ro rslave").propagation,
            Some((MS_SLAVE, true))
        );
        assert_eq!(
            parsed("rro").tree,
            Change {
                set: RDONLY,
                clear: 0
            }
        );
        assert_eq!(
            parsed("ro rw").own,
            Change {
                set: 0,
                clear: RDONLY
            }
        );
        assert_eq!(parsed("relatime").own.clear, ATIME);
    }

    #[test]
    fn the_last_access_time_policy_wins() {
        assert_eq!(parsed("noatime strictatime").own.set, STRICTATIME);
        assert_eq!(parsed("noatime relatime").own.set, 0);
    }
}
