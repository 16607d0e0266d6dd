//! Networks of containers that run, as they change.

use std::os::fd::OwnedFd;

use serde_json::json;

use super::{Done, Postponed, Supervisor, Waiting};
use crate::link::Part;
use crate::network::{Network, NetworkRecord};
use crate::protocol::{
    Answer, BalanceRequest, Connect, Disconnect, Failure, Id, Names, ParentRequest, Target,
};

impl Supervisor {
    /// Put a running container on a network; not before those have gone that may have had the address.
    pub(super) fn connect(&mut self, client: u32, request: u64, connect: Box<Connect>) {
        let mut remains = self.torn_down.values();
        if remains.any(|remains| remains.network.delays(&connect.interface)) {
            self.waiting.push(Waiting {
                client,
                request,
                postponed: Postponed::Connect(connect),
            });
            return;
        }
        let answer = self.plug(&connect);
        self.answer(client, request, &answer);
    }

    fn plug(&mut self, request: &Connect) -> Answer {
        let (pid, record) = self.network_of(&request.container)?;
        let (record, held) = self.network.plug(pid, &record, request)?;
        let answer = json!({ "ports": record.ports });
        self.rewired(&request.container, record, held);
        Ok(answer)
    }

    pub(super) fn disconnect(&mut self, request: &Disconnect) -> Answer {
        let (pid, record) = self.network_of(&request.container)?;
        let record = self.network.unplug(pid, &record, request)?;
        self.rewired(&request.container, record, Vec::new());
        Ok(json!({}))
    }

    pub(super) fn rename(&mut self, request: &Names) -> Answer {
        let (_, record) = self.network_of(&request.container)?;
        let record = self.network.rename(&record, request)?;
        self.rewired(&request.container, record, Vec::new());
        Ok(json!({}))
    }

    /// From the event loop: so no member's end comes between the question whether it runs and the answer.
    pub(super) fn balance(&mut self, request: BalanceRequest) -> Answer {
        let runs = |id: &Id| self.running(&Target::container(id.clone())).is_ok();
        self.network.balance(request, runs)
    }

    /// Remove a bridge, on a worker: the kernel waits for those that look at it.
    pub(super) fn remove_network(&mut self, client: u32, request: u64, bridge: String) {
        self.on_helper(client, request, move |network| network.remove(&bridge));
    }

    /// Have the host's interface that a network is on.
    pub(super) fn make_parent(&mut self, client: u32, request: u64, parent: ParentRequest) {
        self.on_helper(client, request, move |network| network.make_parent(&parent));
    }

    /// Remove it where it was made.
    pub(super) fn remove_parent(&mut self, client: u32, request: u64, name: String) {
        self.on_helper(client, request, move |network| network.remove_parent(&name));
    }

    fn on_helper(
        &mut self,
        client: u32,
        request: u64,
        work: impl FnOnce(&Network) -> Result<(), Failure> + Send + 'static,
    ) {
        let network = std::sync::Arc::clone(&self.network);
        self.under_way += 1;
        self.helpers.submit(move || {
            let answer = work(&network).map(|()| json!({}));
            Done::Answer(client, request, answer)
        });
    }

    /// The process of a running container, and its network.
    fn network_of(&self, id: &Id) -> Result<(i32, NetworkRecord), Failure> {
        let target = Target::container(id.clone());
        self.running(&target)?;
        let container = self.containers.get(id);
        let container = container.ok_or_else(|| Failure::missing(&target))?;
        Ok((container.pid, container.network.clone()))
    }

    /// Remember a container's network as it is now, for us and for a successor.
    fn rewired(&mut self, id: &Id, record: NetworkRecord, mut held: Vec<(Part, OwnedFd)>) {
        if let Some(container) = self.containers.get(id) {
            let has = |wanted| container.held.iter().any(|(part, _)| *part == wanted);
            held.retain(|(part, _)| *part != Part::Namespace || !has(*part));
        }
        let target = Target::container(id.clone());
        if let Err(error) = self.records.write_network(&target, &record) {
            self.journal.say(format!(
                "the network of {target} cannot be recorded: {error}"
            ));
        }
        let pid = self.containers.get(id).map_or(0, |container| container.pid);
        self.deposit_more(&target, pid, &held);
        if let Some(container) = self.containers.get_mut(id) {
            container.network = record;
            container.held.extend(held);
        }
    }
}
