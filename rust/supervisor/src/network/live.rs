//! What changes of a container's network while it runs.
//!
//! From the event loop, one after another: so none meets the container's end halfway. Each is a few questions to the
//! kernel, and each that is asked for again finds itself done.

use std::os::fd::{AsFd, OwnedFd};

use knarr_net::{Family, LanRoute, LinkName};

use super::record::FAMILIES;
use super::{Attached, Network, NetworkRecord, lan, namespace_of, parts, unavailable};
use crate::link::Part;
use crate::protocol::{Connect, Disconnect, Failure, Id, Names, Port, WaysOut};

impl Network {
    /// Put a running container on a network: its record from now on, and what is to be held with it.
    pub fn plug(
        &self,
        pid: i32,
        record: &NetworkRecord,
        request: &Connect,
    ) -> Result<(NetworkRecord, Vec<(Part, OwnedFd)>), Failure> {
        let Connect {
            container: id,
            interface,
            dns,
            ports,
            ..
        } = request;
        let ways_out = [request.way_out.as_deref(), request.way_out6.as_deref()];
        let mut changed = record.clone();
        if changed.on(&interface.network).is_some() {
            return Ok((changed, Vec::new()));
        }
        let namespace = namespace_of(pid).map_err(|error| unavailable(&error))?;
        // Its address is limited before the link is there, and the link before anything comes by it.
        changed.interfaces.push(Attached {
            interface: interface.clone(),
            link: String::new(),
            index: 0,
        });
        let limit = self.limit(id, &changed)?;
        let prepare = |link: &LinkName| self.limit_link(id, limit.as_ref(), link);
        let plugged = self.plug_one(namespace.as_fd(), interface, [None; 2], prepare);
        changed.interfaces.pop();
        if plugged.is_err() {
            // What failed is the error to tell.
            let _ = self.limit(id, record);
        }
        let attached = plugged?;
        changed.interfaces.push(attached.clone());
        let done = self
            .follow(id, &namespace, record, &mut changed, ways_out, dns)
            .and_then(|mut held| {
                held.extend(self.publish_more(id, &mut changed, ports)?);
                Ok(held)
            });
        if done.is_err() {
            // What failed is the error to tell.
            let mut back = record.clone();
            let _ = self.take_out(&namespace, &attached);
            let _ = self.follow(id, &namespace, &changed, &mut back, record.ways_out(), &[]);
        }
        Ok((changed, done?))
    }

    /// Publish those of the ports that are not published yet: of a family that the container has only now. One that
    /// is on one address of its group already has the same port on the others.
    fn publish_more(
        &self,
        id: &Id,
        record: &mut NetworkRecord,
        ports: &[Port],
    ) -> Result<Vec<(Part, OwnedFd)>, Failure> {
        let mut there = record.ports.clone();
        let mut missing = Vec::new();
        for group in ports.chunk_by(|_, next| next.same_port) {
            let mut left = Vec::new();
            let mut chosen = None;
            for port in group {
                match there.iter().position(|one| one.is_of(port)) {
                    Some(at) => chosen = Some(there.swap_remove(at).host_port),
                    None => left.push(port.publish()?),
                }
            }
            if let Some(host_port) = chosen {
                for port in &mut left {
                    (port.host_port, port.host_port_last, port.same_port) =
                        (host_port, None, false);
                }
            }
            missing.extend(left);
        }
        if missing.is_empty() {
            return Ok(Vec::new());
        }
        let addresses = record.published()?;
        let mut host = self.host();
        let host = self.opened(&mut host)?;
        let published = host.publish(id.as_str(), &addresses, &missing)?;
        record
            .ports
            .extend(published.iter().map(|done| Port::from(&done.port)));
        let held = published.into_iter();
        Ok(held.map(|done| (Part::Port, done.reservation)).collect())
    }

    /// Take a running container off a network: its record from now on.
    pub fn unplug(
        &self,
        pid: i32,
        record: &NetworkRecord,
        request: &Disconnect,
    ) -> Result<NetworkRecord, Failure> {
        let mut changed = record.clone();
        let Some(attached) = record.on(&request.network) else {
            return Ok(changed);
        };
        let namespace = namespace_of(pid).map_err(|error| unavailable(&error))?;
        self.take_out(&namespace, attached)?;
        changed
            .interfaces
            .retain(|attached| attached.interface.network != request.network);
        let id = &request.container;
        self.follow(
            id,
            &namespace,
            record,
            &mut changed,
            [request.way_out.as_deref(), request.way_out6.as_deref()],
            &[],
        )?;
        Ok(changed)
    }

    /// Delete an interface of a container.
    fn take_out(&self, namespace: &OwnedFd, attached: &Attached) -> Result<(), Failure> {
        if attached.interface.lan.is_some() {
            return Ok(knarr_net::unplug_lan(namespace.as_fd(), attached.index)?);
        }
        Ok(self.pool.unplug(&LinkName::parse(&attached.link)?)?)
    }

    /// Give a running container other names.
    pub fn rename(
        &self,
        record: &NetworkRecord,
        request: &Names,
    ) -> Result<NetworkRecord, Failure> {
        let mut changed = record.clone();
        for attached in &mut changed.interfaces {
            if let Some(names) = request.names.get(&attached.interface.network) {
                attached.interface.names.clone_from(names);
            }
        }
        self.answer_names(&request.container, &changed, None)?;
        Ok(changed)
    }

    /// Default routes, published ports and names follow the interfaces that there are now.
    fn follow(
        &self,
        id: &Id,
        namespace: &OwnedFd,
        before: &NetworkRecord,
        now: &mut NetworkRecord,
        ways_out: WaysOut<'_>,
        dns: &[std::net::IpAddr],
    ) -> Result<Vec<(Part, OwnedFd)>, Failure> {
        [now.way_out, now.way_out6] = ways_out.map(|network| network.map(str::to_owned));
        for (family, network) in FAMILIES.into_iter().zip(ways_out) {
            let attached = network.and_then(|network| now.on(network));
            // Without IPv6 before and after there is no such route.
            if family == Family::V4 || attached.is_some() || before.way_out6.is_some() {
                set_route(namespace, family, attached)?;
            }
        }
        self.limit(id, now)?;
        if before.published()? != now.published()? && !now.ports.is_empty() {
            self.opened(&mut self.host())?.unpublish(id.as_str())?;
            self.publish_again(id, now)?;
        }
        let mut held = Vec::from_iter(lan::held(now, namespace)?);
        let resolver = if now.has_resolver() && !before.has_resolver() {
            dns.clone_into(&mut now.dns);
            let resolver = knarr_net::resolver(namespace.as_fd())?;
            held.extend(parts(&resolver)?);
            Some(resolver)
        } else {
            None
        };
        if now.has_resolver() {
            self.answer_names(id, now, resolver)?;
        } else if before.has_resolver() {
            self.names.forget(id.as_str());
        }
        Ok(held)
    }
}

/// The default route of a family is by way of that interface from now on.
fn set_route(
    namespace: &OwnedFd,
    family: Family,
    way_out: Option<&Attached>,
) -> Result<(), Failure> {
    let gateway = match way_out.map(|attached| (attached, &attached.interface)) {
        None => None,
        Some((attached, interface)) => match (&interface.bridge, &interface.lan) {
            (Some(bridge), _) => bridge.bridge()?.gateway(family),
            (None, Some(lan)) => match lan.route(family)? {
                None => None,
                Some(LanRoute::Gateway(gateway)) => Some(gateway),
                Some(LanRoute::Link(family)) => {
                    let namespace = namespace.as_fd();
                    return Ok(knarr_net::set_link_route(
                        namespace,
                        attached.index,
                        family,
                    )?);
                }
            },
            (None, None) => None,
        },
    };
    Ok(knarr_net::set_default_route(
        namespace.as_fd(),
        family,
        gateway,
    )?)
}
