//! What /proc tells of processes that are not our children.

use std::fs;

use knarr_sys::supervise::Ended;
use rustix::thread::{CapabilitySet, capabilities};

/// Some fields of `/proc/<pid>/stat` (proc(5)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    zombie: bool,
    /// When the process came to be, in ticks since boot: tells it from another with its PID.
    pub ticks: u64,
    status: i32,
}

impl Stat {
    /// Of a process; None where there is none.
    #[must_use]
    pub fn of(pid: i32) -> Option<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        Self::parse(&text)
    }

    fn parse(text: &str) -> Option<Self> {
        // The name in parentheses may hold anything, so fields are counted from its end: it is the second.
        let fields: Vec<&str> = text.rsplit_once(") ")?.1.split_ascii_whitespace().collect();
        let field = |number: usize| fields.get(number - 3);
        Some(Self {
            zombie: matches!(*field(3)?, "Z" | "X"),
            ticks: field(22)?.parse().ok()?,
            status: field(52)?.parse().ok()?,
        })
    }

    /// Whether it has ended.
    #[must_use]
    pub fn is_zombie(&self) -> bool {
        self.zombie
    }

    /// How it ended: for one that has not been reaped, and those who may ask.
    #[must_use]
    pub fn ended(&self) -> Option<Ended> {
        let may_ask =
            capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_PTRACE));
        (self.zombie && may_ask).then(|| Ended::from_wait_status(self.status))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_told_from_another() {
        let own = i32::try_from(std::process::id()).unwrap();
        let stat = Stat::of(own).unwrap();
        assert!(stat.ticks > Stat::of(1).unwrap().ticks);
        assert!(!stat.is_zombie());
        assert_eq!(stat.ended(), None);
        assert_eq!(Stat::of(-1), None);
    }

    #[test]
    fn names_cannot_lie() {
        let fields: Vec<String> = (4..=52).map(|number| number.to_string()).collect();
        let text = format!("7 (a) Z 1 (b) c) Z {}", fields.join(" "));
        assert_eq!(
            Stat::parse(&text),
            Some(Stat {
                zombie: true,
                ticks: 22,
                status: 52
            })
        );
    }

    #[test]
    fn a_zombie_tells_how_it_ended() {
        let mut child = std::process::Command::new("sh")
            .args(["-c", "exit 42"])
            .spawn()
            .unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let zombie = (0..500).find_map(|_| {
            std::thread::sleep(std::time::Duration::from_millis(10));
            Stat::of(pid).filter(Stat::is_zombie)
        });
        assert_eq!(zombie.unwrap().ended(), Some(Ended::Exited(42)));
        child.wait().unwrap();
    }
}
