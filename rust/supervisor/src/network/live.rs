//! What changes of a container's network while it runs.
//!
//! From the event loop, one after another: so none meets the container's end halfway. Each is a few questions to the
//! kernel, and each that is asked for again finds itself done.

use std::os::fd::{AsFd, OwnedFd};

use knarr_net::LinkName;

use super::{Attached, Network, NetworkRecord, namespace_of, parts, unavailable};
use crate::link::Part;
use crate::protocol::{Connect, Disconnect, Failure, Id, Names};

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
            way_out,
            dns,
        } = request;
        let mut changed = record.clone();
        if changed.on(&interface.network).is_some() {
            return Ok((changed, Vec::new()));
        }
        let namespace = namespace_of(pid).map_err(|error| unavailable(&error))?;
        let bridge = self.ensure(&interface.bridge)?;
        let link = self.pool.plug(
            namespace.as_fd(),
            &bridge,
            &interface.link_name()?,
            &interface.interface(None)?,
        )?;
        changed.interfaces.push(Attached {
            interface: interface.clone(),
            link: link.to_string(),
        });
        let done = self.follow(id, &namespace, record, &mut changed, way_out.as_ref(), dns);
        if done.is_err() {
            // What failed is the error to tell.
            let mut back = record.clone();
            let way_out = record.way_out.as_ref();
            let _ = self.pool.unplug(&link);
            let _ = self.follow(id, &namespace, &changed, &mut back, way_out, &[]);
        }
        Ok((changed, done?))
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
        self.pool.unplug(&LinkName::parse(&attached.link)?)?;
        changed
            .interfaces
            .retain(|attached| attached.interface.network != request.network);
        let id = &request.container;
        self.follow(
            id,
            &namespace,
            record,
            &mut changed,
            request.way_out.as_ref(),
            &[],
        )?;
        Ok(changed)
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

    /// Default route, published ports and names follow the interfaces that there are now.
    fn follow(
        &self,
        id: &Id,
        namespace: &OwnedFd,
        before: &NetworkRecord,
        now: &mut NetworkRecord,
        way_out: Option<&String>,
        dns: &[std::net::IpAddr],
    ) -> Result<Vec<(Part, OwnedFd)>, Failure> {
        now.way_out = way_out.cloned();
        let gateway = match way_out.and_then(|network| now.on(network)) {
            Some(attached) => Some(attached.interface.bridge.bridge()?.gateway.address()),
            None => None,
        };
        knarr_net::set_default_route(namespace.as_fd(), gateway)?;
        if before.published()? != now.published()? && !now.ports.is_empty() {
            self.opened(&mut self.host())?.unpublish(id.as_str())?;
            self.publish_again(id, now)?;
        }
        let mut held = Vec::new();
        let resolver = if now.has_resolver() && !before.has_resolver() {
            dns.clone_into(&mut now.dns);
            let resolver = knarr_net::resolver(namespace.as_fd())?;
            held = parts(&resolver)?;
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
