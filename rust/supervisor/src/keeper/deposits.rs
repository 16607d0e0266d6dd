//! What the keeper holds.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use knarr_sys::supervise::Ended;

use crate::link::{Message, Part};
use crate::protocol::Target;
use crate::wire::PACKET_DESCRIPTORS;

/// Descriptors by process.
#[derive(Debug, Default)]
pub struct Deposits {
    held: BTreeMap<Target, Deposit>,
}

#[derive(Debug)]
struct Deposit {
    pid: i32,
    parts: Vec<(Part, OwnedFd)>,
    ended: Option<Ended>,
}

impl Deposits {
    /// Hold more of a process.
    pub fn add(&mut self, target: Target, pid: i32, parts: Vec<Part>, descriptors: Vec<OwnedFd>) {
        let deposit = self.held.entry(target).or_insert(Deposit {
            pid,
            parts: Vec::new(),
            ended: None,
        });
        deposit.parts.extend(parts.into_iter().zip(descriptors));
    }

    /// Close these parts of a process; without parts, all of it.
    pub fn withdraw(&mut self, target: &Target, parts: &[Part]) {
        if parts.is_empty() {
            self.held.remove(target);
        } else if let Some(deposit) = self.held.get_mut(target) {
            deposit.parts.retain(|(part, _)| !parts.contains(part));
        }
    }

    /// Remember how a process ended. False for one that we know nothing of.
    pub fn ended(&mut self, pid: i32, ended: Ended) -> bool {
        let deposit = self
            .held
            .values_mut()
            .find(|deposit| deposit.pid == pid && deposit.ended.is_none());
        deposit.map(|deposit| deposit.ended = Some(ended)).is_some()
    }

    /// How many of the processes have not ended, as far as we know.
    pub fn running(&self) -> usize {
        self.held
            .iter()
            .filter(|(target, deposit)| target.exec.is_none() && deposit.ended.is_none())
            .count()
    }

    /// Everything, as messages to a new supervisor.
    pub fn each(
        &self,
        mut send: impl FnMut(Message, &[BorrowedFd<'_>]) -> io::Result<()>,
    ) -> io::Result<()> {
        for (target, deposit) in &self.held {
            for parts in deposit.parts.chunks(PACKET_DESCRIPTORS) {
                let (kinds, descriptors): (Vec<Part>, Vec<BorrowedFd<'_>>) = parts
                    .iter()
                    .map(|(part, descriptor)| (*part, descriptor.as_fd()))
                    .unzip();
                send(
                    Message::Deposit {
                        target: target.clone(),
                        pid: deposit.pid,
                        parts: kinds,
                    },
                    &descriptors,
                )?;
            }
            if let Some(ended) = deposit.ended {
                send(
                    Message::Exited {
                        pid: deposit.pid,
                        ended: ended.into(),
                    },
                    &[],
                )?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Id;

    fn descriptor() -> OwnedFd {
        std::fs::File::open("/dev/null").unwrap().into()
    }

    fn told(deposits: &Deposits) -> Vec<Message> {
        let mut messages = Vec::new();
        deposits
            .each(|message, _| {
                messages.push(message);
                Ok(())
            })
            .unwrap();
        messages
    }

    #[test]
    fn what_is_deposited_is_handed_on_until_it_is_withdrawn() {
        let mut deposits = Deposits::default();
        let target = Target::container(Id::parse("c").unwrap());
        deposits.add(
            target.clone(),
            7,
            vec![Part::Pidfd, Part::Stdin],
            vec![descriptor(), descriptor()],
        );
        deposits.withdraw(&target, &[Part::Stdin]);
        assert!(deposits.ended(7, Ended::Exited(3)));
        assert!(!deposits.ended(8, Ended::Exited(3)));
        let deposit = Message::Deposit {
            target: target.clone(),
            pid: 7,
            parts: vec![Part::Pidfd],
        };
        let exited = Message::Exited {
            pid: 7,
            ended: crate::link::Ended::Exited(3),
        };
        assert_eq!(told(&deposits), [deposit, exited]);
        assert_eq!(deposits.running(), 0);
        deposits.withdraw(&target, &[]);
        assert!(told(&deposits).is_empty());
    }

    #[test]
    fn no_packet_has_too_many_descriptors() {
        let mut deposits = Deposits::default();
        let target = Target::container(Id::parse("c").unwrap());
        deposits.add(
            target,
            7,
            vec![Part::Port; 40],
            (0..40).map(|_| descriptor()).collect(),
        );
        assert_eq!(told(&deposits).len(), 3);
    }
}
