//! Connects containers, by way of the net crate, and lets them find one another by name, by way of the dns crate.
//!
//! [`Network`] is shared by the worker threads. Its lock is held for netlink's questions and answers only; the
//! host's sockets are opened when a bridge is first needed, so an engine without bridges leaves nftables alone.
//!
//! What a container has is in two places: a [`NetworkRecord`] in its `state.json`, from which a successor can withdraw
//! everything, and descriptors that the keeper has copies of: its ports stay reserved as long as these are open, and
//! what it asks for names waits in their sockets for a successor.

mod balanced;
mod egress;
mod lan;
mod live;
mod record;

use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use knarr_dns::{Server, Sockets, Upstreams};
use knarr_net::{
    Bridge, BridgeLink, Change, EngineId, Host, LinkName, Live, Pool, PoolSize, Publish, Resolver,
    Sandbox, Watch,
};
use knarr_runtime::Kind;

use crate::journal::Journal;
use crate::link::Part;
use crate::protocol::{
    BridgeRequest, Failure, Id, InterfaceRequest, NetworkMode, NetworkRequest, Port, WaysOut,
};
use balanced::Entries;
use egress::Egress;
pub use record::{Attached, NetworkRecord};

/// How many network namespaces of a kind are kept ready.
const READY: usize = 4;
/// How long others are left to finish what they change of the host's rules.
const SETTLING: Duration = Duration::from_millis(50);

/// A container's network at its start.
#[derive(Debug)]
pub struct Connection {
    /// The namespace to join; None for the host's.
    pub namespace: Option<OwnedFd>,
    /// What to withdraw at the end.
    pub record: NetworkRecord,
    /// What reserves its ports, and takes its questions for names.
    pub held: Vec<(Part, OwnedFd)>,
}

/// What must not be swept.
#[derive(Debug, Default)]
pub struct Survivors {
    /// Containers with published ports.
    pub owners: BTreeSet<String>,
    /// Host sides of veth pairs.
    pub links: Vec<String>,
    /// Balanced entries, which are remembered here.
    entries: Vec<String>,
}

/// One engine's networks.
#[derive(Debug)]
pub struct Network {
    engine: EngineId,
    pool: Pool,
    host: Arc<Mutex<Option<Host>>>,
    egress: Arc<Egress>,
    names: Server,
    entries: Mutex<Entries>,
    journal: Journal,
    this: Weak<Self>,
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
    pub fn new(engine: &str, run_root: &Path, journal: Journal) -> Result<Arc<Self>, Failure> {
        let engine = EngineId::parse(engine)?;
        let pool = Pool::start(
            &engine,
            PoolSize {
                bare: READY,
                linked: READY,
            },
        )?;
        let complaints = journal.clone();
        let host = Arc::default();
        let egress = Arc::new(Egress::new(Arc::clone(&host), journal.clone()));
        let gate = Arc::clone(&egress);
        let names = Server::start(move |complaint| complaints.say(complaint), gate)
            .map_err(|error| unavailable(&error))?;
        Ok(Arc::new_cyclic(|this| Self {
            this: Weak::clone(this),
            engine,
            pool,
            host,
            egress,
            names,
            entries: Mutex::new(Entries::new(run_root)),
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
            held: Vec::new(),
        };
        let bridged = !request.interfaces.is_empty()
            || !request.ports.is_empty()
            || !request.dns.is_empty()
            || request.egress.is_some()
            || request.ways_out() != [None; 2];
        if request.mode != NetworkMode::Bridge && bridged {
            return Err(invalid(
                id,
                "only a bridge has interfaces, ports and an allow-list",
            ));
        }
        match request.mode {
            NetworkMode::Host => Ok(plain(None)),
            NetworkMode::None => Ok(plain(Some(self.pool.take_bare()?.into_namespace()))),
            NetworkMode::Container => match other {
                Some(namespace) => Ok(plain(Some(namespace))),
                None => Err(invalid(id, "the mode `container` needs a `container`")),
            },
            NetworkMode::Bridge => self.bridged(id, request),
        }
    }

    fn bridged(&self, id: &Id, request: &NetworkRequest) -> Result<Connection, Failure> {
        let wanted = request
            .ports
            .iter()
            .map(Port::publish)
            .collect::<Result<Vec<_>, _>>()?;
        let mut record = NetworkRecord {
            way_out: request.way_out.clone(),
            way_out6: request.way_out6.clone(),
            dns: request.dns.clone(),
            egress: request.egress.clone(),
            ..NetworkRecord::default()
        };
        let mut sandbox = self.sandbox(id, request, &mut record)?;
        let mut held = Vec::from_iter(lan::held(&record, sandbox.namespace())?);
        let joined = self.furnish(id, &wanted, &mut sandbox, &mut record, &mut held);
        if let Err(failure) = joined {
            // The container's own failure is the one to tell; a successor's sweep takes what stays.
            let _ = self.disconnect(id, &record, &held);
            return Err(failure);
        }
        Ok(Connection {
            namespace: Some(sandbox.into_namespace()),
            record,
            held,
        })
    }

    /// What a container's namespace needs besides its interfaces: answers for names, and published ports.
    fn furnish(
        &self,
        id: &Id,
        wanted: &[Publish],
        sandbox: &mut Sandbox,
        record: &mut NetworkRecord,
        held: &mut Vec<(Part, OwnedFd)>,
    ) -> Result<(), Failure> {
        self.limit(id, record)?;
        let resolver = if record.has_resolver() {
            let resolver = match sandbox.take_resolver() {
                Some(resolver) => resolver,
                None => knarr_net::resolver(sandbox.namespace())?,
            };
            held.extend(parts(&resolver)?);
            Some(resolver)
        } else {
            None
        };
        if !wanted.is_empty() {
            let addresses = record.published()?;
            if addresses.is_empty() {
                return Err(invalid(id, "ports need a bridge with a way out"));
            }
            let published =
                self.opened(&mut self.host())?
                    .publish(id.as_str(), &addresses, wanted)?;
            record.ports = published.iter().map(|done| (&done.port).into()).collect();
            held.extend(
                published
                    .into_iter()
                    .map(|done| (Part::Port, done.reservation)),
            );
        }
        self.answer_names(id, record, resolver)
    }

    /// A namespace with all interfaces.
    fn sandbox(
        &self,
        id: &Id,
        request: &NetworkRequest,
        record: &mut NetworkRecord,
    ) -> Result<Sandbox, Failure> {
        let ways_out = request.ways_out();
        let Some((first, others)) = request.interfaces.split_first() else {
            return Err(invalid(id, "the mode `bridge` needs `interfaces`"));
        };
        if first.name != "eth0" {
            return Err(invalid(id, "the first interface is eth0"));
        }
        let (sandbox, others) = match &first.bridge {
            Some(bridge) => {
                let bridge = self.ensure(bridge)?;
                let mut sandbox = self.pool.take_linked(&bridge)?;
                sandbox.configure(&first.interface(ways_out)?)?;
                let link = sandbox.link().map(ToString::to_string).unwrap_or_default();
                record.interfaces.push(Attached {
                    interface: first.clone(),
                    link,
                    index: 0,
                });
                (sandbox, others)
            }
            // Nothing of a link on the host's own interface can be made before it is known whose it is.
            None => (self.pool.take_bare()?, &request.interfaces[..]),
        };
        for interface in others {
            match self.plug_one(sandbox.namespace(), interface, ways_out, |_| Ok(())) {
                Ok(attached) => record.interfaces.push(attached),
                Err(failure) => {
                    // The first failure is the one to tell; what stays goes with the namespace.
                    let _ = lan::unplug_all(sandbox.namespace(), record);
                    return Err(failure);
                }
            }
        }
        Ok(sandbox)
    }

    /// One more interface of a namespace; `prepare` is told of its other side before anything comes by it.
    fn plug_one(
        &self,
        namespace: BorrowedFd<'_>,
        interface: &InterfaceRequest,
        ways_out: WaysOut<'_>,
        prepare: impl FnOnce(&LinkName) -> Result<(), knarr_net::Error> + Send,
    ) -> Result<Attached, Failure> {
        let bridge = match (&interface.bridge, &interface.lan) {
            (Some(bridge), None) => self.ensure(bridge)?,
            (None, Some(lan)) => return self.plug_lan(namespace, interface, lan, ways_out),
            _ => {
                let what = format!("{}: an interface has a `bridge` or a `lan`", interface.name);
                return Err(Failure::new(Kind::InvalidArgument, what));
            }
        };
        let link = self.pool.plug(
            namespace,
            &bridge,
            &interface.link_name()?,
            &interface.interface(ways_out)?,
            prepare,
        )?;
        Ok(Attached {
            interface: interface.clone(),
            link: link.to_string(),
            index: 0,
        })
    }

    /// Have it found by its names, and its own questions answered.
    fn answer_names(
        &self,
        id: &Id,
        record: &NetworkRecord,
        resolver: Option<Resolver>,
    ) -> Result<(), Failure> {
        let memberships = record.memberships()?;
        if !memberships.is_empty() {
            self.names.set(id.as_str(), memberships);
        }
        let Some(Resolver { udp, tcp }) = resolver else {
            return Ok(());
        };
        let upstreams = if record.dns.is_empty() {
            Upstreams::Host
        } else {
            Upstreams::Given(record.dns.clone())
        };
        self.names
            .serve(id.as_str(), Sockets { udp, tcp }, upstreams)
            .map_err(|error| unavailable(&error))
    }

    /// Withdraw what is on the host. The namespace and its veth pairs go with the last process, and with what is held.
    pub fn disconnect(
        &self,
        id: &Id,
        record: &NetworkRecord,
        held: &[(Part, OwnedFd)],
    ) -> Result<(), Failure> {
        if record.has_resolver() {
            self.names.forget(id.as_str());
        }
        let namespace = held.iter().find(|(part, _)| *part == Part::Namespace);
        let unplugged = namespace.map_or(Ok(()), |(_, namespace)| {
            lan::unplug_all(namespace.as_fd(), record)
        });
        if !record.ports.is_empty() {
            self.opened(&mut self.host())?.unpublish(id.as_str())?;
        }
        self.unlimit(id, record)?;
        unplugged
    }

    /// Take over what a predecessor has made, whose descriptors are still held; what is to be held besides them.
    pub fn adopt(
        &self,
        id: &Id,
        pid: i32,
        record: &NetworkRecord,
        held: &[(Part, OwnedFd)],
    ) -> Result<Vec<(Part, OwnedFd)>, Failure> {
        for attached in &record.interfaces {
            if let Some(bridge) = &attached.interface.bridge {
                self.ensure(bridge)?;
            }
        }
        self.limit(id, record)?;
        self.publish_again(id, record)?;
        let (mut found, mut more) = (resolver(held)?, Vec::new());
        if record.has_lan() && !held.iter().any(|(part, _)| *part == Part::Namespace) {
            let namespace = namespace_of(pid).map_err(|error| unavailable(&error))?;
            more.extend(lan::held(record, &namespace)?);
        }
        if found.is_none() && record.has_resolver() {
            // Nobody held its sockets: the keeper has died as well.
            let namespace = namespace_of(pid).map_err(|error| unavailable(&error))?;
            let resolver = knarr_net::resolver(namespace.as_fd())?;
            more.extend(parts(&resolver)?);
            found = Some(resolver);
        }
        self.answer_names(id, record, found)?;
        Ok(more)
    }

    /// Publish a container's ports, which are reserved, to the address that it has now.
    fn publish_again(&self, id: &Id, record: &NetworkRecord) -> Result<(), Failure> {
        if record.ports.is_empty() {
            return Ok(());
        }
        let ports = record
            .ports
            .iter()
            .map(Port::publish)
            .collect::<Result<Vec<_>, _>>()?;
        let mut host = self.host();
        Ok(self
            .opened(&mut host)?
            .adopt(id.as_str(), &record.published()?, &ports)?)
    }

    /// What predecessors have left of other containers is removed when the host's sockets are opened.
    pub fn spare(&self, mut survivors: Survivors) {
        survivors.entries = self.remembered_entries();
        *self.spared.lock().unwrap_or_else(PoisonError::into_inner) = survivors;
    }

    /// Remove the bridge of a network that nobody is on.
    pub fn remove(&self, bridge: &str) -> Result<(), Failure> {
        let name = LinkName::parse(bridge)?;
        self.pool.forget(&name);
        let mut host = self.host();
        if host.is_none() && !exists(&name) {
            return Ok(());
        }
        Ok(self.opened(&mut host)?.remove(&name)?)
    }

    /// Remove everything from the host. Nothing may run any more.
    pub fn destroy(&self) -> Result<(), Failure> {
        knarr_net::remove_parents(&self.engine)?;
        let mut host = self.host();
        if host.is_none() && !Host::has_left_anything(&self.engine)? {
            return Ok(());
        }
        self.pool.forget_all();
        self.forget_entries();
        self.opened(&mut host)?;
        match host.take() {
            Some(host) => Ok(host.destroy()?),
            None => Ok(()),
        }
    }

    /// Have the bridge, and say what stands in its containers' way.
    fn ensure(&self, request: &BridgeRequest) -> Result<BridgeLink, Failure> {
        let bridge: Bridge = request.bridge()?;
        let mut host = self.host();
        let host = self.opened(&mut host)?;
        let ensured = host.ensure(&bridge);
        for warning in host.take_warnings() {
            self.journal.say(warning);
        }
        Ok(ensured?)
    }

    /// Have the host's rules repaired when somebody else has changed them, for as long as that host is open.
    fn watch(&self, host: &mut Host) -> Result<(), Failure> {
        let (watch, network) = (host.watch()?, Weak::clone(&self.this));
        std::thread::Builder::new()
            .name("knarr-rules".to_owned())
            .spawn(move || {
                while let (change, Some(network)) = (watch.wait(), network.upgrade()) {
                    if !network.repair(&watch, change) {
                        return;
                    }
                }
            })
            .map_err(|error| unavailable(&error))?;
        Ok(())
    }

    /// Once whoever changes rules has come to rest. False: there is nothing to watch over any more.
    fn repair(&self, watch: &Watch, change: Result<Change, knarr_net::Error>) -> bool {
        std::thread::sleep(SETTLING);
        let mut host = self.host();
        let Some(host) = host.as_mut() else {
            return false;
        };
        let repaired = change.and_then(|change| {
            let change = change.max(watch.drain()?.unwrap_or(change));
            host.repair(change)?;
            Ok(change)
        });
        match repaired {
            Ok(Change::Ours) => self
                .journal
                .say("somebody else has changed the engine's nftables table: it is written anew"),
            Ok(Change::Dockers) => {}
            Err(error) => {
                self.journal.say(format!(
                    "{error}: what others do to the rules is seen by the next start on a bridge"
                ));
                return false;
            }
        }
        true
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
                entries: spared.entries.iter().cloned().collect(),
            })?;
            self.watch(&mut opened)?;
            *host = Some(opened);
        }
        host.as_mut()
            .ok_or_else(|| Failure::new(Kind::Internal, "the host's network is not open"))
    }
}

/// Copies of a resolver's sockets, for the keeper.
fn parts(resolver: &Resolver) -> Result<Vec<(Part, OwnedFd)>, Failure> {
    [
        (Part::Names, &resolver.udp),
        (Part::NamesTcp, &resolver.tcp),
    ]
    .into_iter()
    .map(|(part, socket)| {
        let copy = socket.try_clone().map_err(|error| unavailable(&error))?;
        Ok((part, copy))
    })
    .collect()
}

/// The resolver's sockets among what is held.
fn resolver(held: &[(Part, OwnedFd)]) -> Result<Option<Resolver>, Failure> {
    let copy = |wanted: Part| -> Result<Option<OwnedFd>, Failure> {
        let found = held.iter().find(|(part, _)| *part == wanted);
        found
            .map(|(_, socket)| socket.try_clone().map_err(|error| unavailable(&error)))
            .transpose()
    };
    Ok(copy(Part::Names)?
        .zip(copy(Part::NamesTcp)?)
        .map(|(udp, tcp)| Resolver { udp, tcp }))
}

fn exists(name: &LinkName) -> bool {
    Path::new("/sys/class/net").join(name.as_str()).exists()
}

fn unavailable(error: &std::io::Error) -> Failure {
    Failure::new(
        Kind::Unavailable,
        format!("the engine's answers for names: {error}"),
    )
}

fn invalid(id: &Id, what: &str) -> Failure {
    Failure::new(
        Kind::InvalidArgument,
        format!("start: the network of container {id}: {what}"),
    )
}

/// The network namespace of a process.
pub fn namespace_of(pid: i32) -> std::io::Result<OwnedFd> {
    std::fs::File::open(format!("/proc/{pid}/ns/net")).map(OwnedFd::from)
}
