//! Connects containers, by way of the net crate.
//!
//! [`Network`] is shared by the worker threads. Its lock is held for netlink's questions and answers only; the
//! host's sockets are opened when a bridge is first needed, so an engine without bridges leaves nftables alone.
//!
//! What a container has is in two places: a [`NetworkRecord`] in its `state.json`, from which a successor can withdraw
//! everything, and the [`Connection`]'s descriptors: its ports stay reserved as long as copies of these are open.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use knarr_net::{
    Bridge, BridgeLink, Cidr, EngineId, Host, Interface, LinkName, Live, Mac, Pool, PoolSize,
    Publish,
};
use knarr_runtime::Kind;
use serde::{Deserialize, Serialize};

use crate::journal::Journal;
use crate::protocol::{Failure, Id, NetworkMode, NetworkRequest, Port};

/// How many network namespaces of a kind are kept ready.
const READY: usize = 4;

/// What has to be withdrawn when a container ends.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(default)]
pub struct NetworkRecord {
    /// Its bridge and that bridge's address.
    pub bridge: Option<(String, String)>,
    /// The host's side of its veth pair.
    pub link: Option<String>,
    /// Its address.
    pub address: Option<IpAddr>,
    /// Its published ports.
    pub ports: Vec<Port>,
}

/// A container's network at its start.
#[derive(Debug)]
pub struct Connection {
    /// The namespace to join; None for the host's.
    pub namespace: Option<OwnedFd>,
    /// What to withdraw at the end.
    pub record: NetworkRecord,
    /// What reserves its ports.
    pub reservations: Vec<OwnedFd>,
}

/// What must not be swept.
#[derive(Debug, Default)]
pub struct Survivors {
    /// Containers with published ports.
    pub owners: BTreeSet<String>,
    /// Host sides of veth pairs.
    pub links: Vec<String>,
}

/// One engine's networks.
#[derive(Debug)]
pub struct Network {
    engine: EngineId,
    pool: Pool,
    host: Mutex<Option<Host>>,
    journal: Journal,
    /// What the sweep leaves that comes with opening `host`; None once it has been.
    spared: Mutex<Survivors>,
}

impl From<knarr_net::Error> for Failure {
    fn from(error: knarr_net::Error) -> Self {
        let kind = match error.kind() {
            "NotFound" => Kind::NotFound,
            "Conflict" => Kind::Conflict,
            "InvalidArgument" => Kind::InvalidArgument,
            "PermissionDenied" => Kind::PermissionDenied,
            "Unavailable" => Kind::Unavailable,
            "Corrupt" => Kind::Corrupt,
            "Unsupported" => Kind::Unsupported,
            _ => Kind::Internal,
        };
        Self::new(kind, error.to_string())
    }
}

impl Network {
    /// The networks of an engine, none of which exists yet.
    pub fn new(engine: &str, journal: Journal) -> Result<Arc<Self>, Failure> {
        let engine = EngineId::parse(engine)?;
        let pool = Pool::start(
            &engine,
            PoolSize {
                bare: READY,
                linked: READY,
            },
        )?;
        Ok(Arc::new(Self {
            engine,
            pool,
            host: Mutex::new(None),
            journal,
            spared: Mutex::default(),
        }))
    }

    /// Make a container's network. `other` is the namespace of the container whose network is shared.
    pub fn connect(
        &self,
        id: &Id,
        request: &NetworkRequest,
        other: Option<OwnedFd>,
    ) -> Result<Connection, Failure> {
        let plain = |namespace| Connection {
            namespace,
            record: NetworkRecord::default(),
            reservations: Vec::new(),
        };
        let bridged = [
            request.bridge.is_some(),
            request.address.is_some(),
            request.gateway.is_some(),
            request.mac.is_some(),
        ];
        if request.mode != NetworkMode::Bridge
            && (bridged.contains(&true) || !request.ports.is_empty())
        {
            return Err(invalid(id, "only a bridge has an address and ports"));
        }
        match request.mode {
            NetworkMode::Host => Ok(plain(None)),
            NetworkMode::None => Ok(plain(Some(self.pool.take_bare()?.into_namespace()))),
            NetworkMode::Container => match other {
                Some(namespace) => Ok(plain(Some(namespace))),
                None => Err(invalid(id, "the mode `container` needs a `container`")),
            },
            NetworkMode::Bridge => self.bridge(id, request),
        }
    }

    fn bridge(&self, id: &Id, request: &NetworkRequest) -> Result<Connection, Failure> {
        let (Some(name), Some(address), Some(gateway)) =
            (&request.bridge, &request.address, request.gateway)
        else {
            return Err(invalid(
                id,
                "the mode `bridge` needs `bridge`, `address` and `gateway`",
            ));
        };
        let address: Cidr = address.parse()?;
        let bridge = Bridge {
            name: LinkName::parse(name)?,
            gateway: Cidr::new(gateway, address.prefix())?,
            mtu: None,
        };
        let mac = request.mac.as_deref().map(str::parse::<Mac>).transpose()?;
        let wanted = request
            .ports
            .iter()
            .map(publish)
            .collect::<Result<Vec<_>, _>>()?;
        let mut host = self.host();
        let link = self.ensure(&mut host, &bridge)?;
        drop(host);
        let mut sandbox = self.pool.take_linked(&link)?;
        sandbox.configure(&Interface {
            address,
            gateway: Some(gateway),
            mac,
        })?;
        let published = if wanted.is_empty() {
            Vec::new()
        } else {
            self.opened(&mut self.host())?
                .publish(id.as_str(), address.address(), &wanted)?
        };
        let ports = published
            .iter()
            .map(|published| port(&published.port))
            .collect();
        let record = NetworkRecord {
            bridge: Some((name.clone(), bridge.gateway.to_string())),
            link: sandbox.link().map(ToString::to_string),
            address: Some(address.address()),
            ports,
        };
        let reservations = published
            .into_iter()
            .map(|published| published.reservation)
            .collect();
        Ok(Connection {
            namespace: Some(sandbox.into_namespace()),
            record,
            reservations,
        })
    }

    /// Withdraw what is on the host. The namespace and its veth pair go with the last process.
    pub fn disconnect(&self, id: &Id, record: &NetworkRecord) -> Result<(), Failure> {
        if record.ports.is_empty() {
            return Ok(());
        }
        Ok(self.opened(&mut self.host())?.unpublish(id.as_str())?)
    }

    /// Take over what a predecessor has published, whose reservations are still held.
    pub fn adopt(&self, id: &Id, record: &NetworkRecord) -> Result<(), Failure> {
        let mut host = self.host();
        if let Some((name, gateway)) = &record.bridge {
            let bridge = Bridge {
                name: LinkName::parse(name)?,
                gateway: gateway.parse()?,
                mtu: None,
            };
            self.ensure(&mut host, &bridge)?;
        }
        if let (Some(address), false) = (record.address, record.ports.is_empty()) {
            let ports = record
                .ports
                .iter()
                .map(publish)
                .collect::<Result<Vec<_>, _>>()?;
            self.opened(&mut host)?
                .adopt(id.as_str(), address, &ports)?;
        }
        Ok(())
    }

    /// What predecessors have left of other containers is removed when the host's sockets are opened.
    pub fn spare(&self, survivors: Survivors) {
        *self.spared.lock().unwrap_or_else(PoisonError::into_inner) = survivors;
    }

    /// Remove everything from the host. Nothing may run any more.
    pub fn destroy(&self) -> Result<(), Failure> {
        let mut host = self.host();
        if host.is_none()
            && !Path::new("/sys/class/net")
                .join(self.engine.bridge().as_str())
                .exists()
        {
            return Ok(());
        }
        self.pool.forget(&self.engine.bridge());
        self.opened(&mut host)?;
        match host.take() {
            Some(host) => Ok(host.destroy()?),
            None => Ok(()),
        }
    }

    /// Have the bridge, and say what stands in its containers' way.
    fn ensure(&self, host: &mut Option<Host>, bridge: &Bridge) -> Result<BridgeLink, Failure> {
        let host = self.opened(host)?;
        let ensured = host.ensure(bridge);
        for warning in host.take_warnings() {
            self.journal.say(warning);
        }
        Ok(ensured?)
    }

    fn host(&self) -> MutexGuard<'_, Option<Host>> {
        self.host.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn opened<'a>(&self, host: &'a mut Option<Host>) -> Result<&'a mut Host, Failure> {
        if host.is_none() {
            let mut opened = Host::open(&self.engine)?;
            let spared = self.spared.lock().unwrap_or_else(PoisonError::into_inner);
            let links = spared
                .links
                .iter()
                .map(|link| LinkName::parse(link))
                .collect::<Result<_, _>>()?;
            opened.sweep(&Live {
                owners: spared.owners.clone(),
                links,
            })?;
            *host = Some(opened);
        }
        host.as_mut()
            .ok_or_else(|| Failure::new(Kind::Internal, "the host's network is not open"))
    }
}

fn invalid(id: &Id, what: &str) -> Failure {
    Failure::new(
        Kind::InvalidArgument,
        format!("start: the network of container {id}: {what}"),
    )
}

fn publish(port: &Port) -> Result<Publish, Failure> {
    let Port {
        host_ip,
        host_port,
        host_port_last,
        container_port,
        ..
    } = *port;
    Ok(Publish {
        protocol: port.protocol.parse()?,
        host_ip,
        host_port,
        host_port_last,
        container_port,
    })
}

fn port(publish: &Publish) -> Port {
    let Publish {
        protocol,
        host_ip,
        host_port,
        host_port_last,
        container_port,
    } = *publish;
    Port {
        protocol: protocol.to_string(),
        host_ip,
        host_port,
        host_port_last,
        container_port,
    }
}
