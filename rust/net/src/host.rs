//! The host's side: bridges, NAT and published ports of one engine.
//!
//! The kernel holds the truth; what is remembered here serves to answer "is all well" with two
//! questions, and to write everything anew when somebody has flushed the host's tables.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::net::{IpAddr, Ipv4Addr};

use knarr_sys::net::NetlinkFamily;

use crate::address::{Cidr, Family, Mac};
use crate::balance::Balance;
use crate::bridge::{Bridge, BridgeLink};
use crate::error::{Error, Result};
use crate::flows::{Forget, Forgetter};
use crate::ipv6::{self, has_ipv6, turn_on};
use crate::limits::Limits;
use crate::names::{EngineId, LinkName};
use crate::netlink::{Batch, Socket};
use crate::nft::{self, Forward, Handles, Transaction};
use crate::ports::{Protocol, Publish, Published};
use crate::reserve::reserve_all;
use crate::route::{self, By, Link};
use crate::watch::{Change, Watch};

/// What the MTU is taken from, and its limit: Docker's and everybody's default.
const SOMEWHERE: Ipv4Addr = Ipv4Addr::new(1, 1, 1, 1);
const MTU_MAX: u32 = 1500;

/// What still lives, and is not swept.
#[derive(Clone, Debug, Default)]
pub struct Live {
    /// Owners (container IDs) of published ports.
    pub owners: BTreeSet<String>,
    /// Host sides of veth pairs, those of a `Pool` included.
    pub links: BTreeSet<LinkName>,
    /// Balanced entries.
    pub entries: BTreeSet<String>,
}

/// What a sweep removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Published ports.
    pub ports: usize,
    /// Veth pairs.
    pub links: usize,
}

/// The host's networking as one engine sees it. Not shared between threads: one event loop owns it.
#[derive(Debug)]
pub struct Host {
    pub(crate) engine: EngineId,
    pub(crate) route: Socket,
    pub(crate) netfilter: Socket,
    ipv6: bool,
    bridges: BTreeMap<LinkName, (Bridge, BridgeLink)>,
    forwards: BTreeMap<String, Vec<Forward>>,
    pub(crate) balances: BTreeMap<String, Balance>,
    pub(crate) limits: Limits,
    forgetter: Option<Forgetter>,
    /// The generation of the host's nftables rules that was found to be well.
    checked: Option<u32>,
    /// Where our rules were in Docker's chain.
    handles: Handles,
    warnings: Warnings,
}

/// What the administrator should know, each thing said once.
#[derive(Debug, Default)]
struct Warnings {
    waiting: Vec<String>,
    said: BTreeSet<String>,
}

impl Warnings {
    fn add(&mut self, warning: String) {
        if self.said.insert(warning.clone()) {
            self.waiting.push(warning);
        }
    }
}

impl Host {
    /// Open the sockets it works through, into the calling thread's network namespace.
    pub fn open(engine: &EngineId) -> Result<Self> {
        Ok(Self {
            engine: engine.clone(),
            route: Socket::open(NetlinkFamily::Route)?,
            netfilter: Socket::open(NetlinkFamily::Netfilter)?,
            ipv6: has_ipv6(),
            bridges: BTreeMap::new(),
            forwards: BTreeMap::new(),
            balances: BTreeMap::new(),
            limits: Limits::default(),
            forgetter: None,
            checked: None,
            handles: Handles::new(),
            warnings: Warnings::default(),
        })
    }

    /// Whose it is.
    #[must_use]
    pub fn engine(&self) -> &EngineId {
        &self.engine
    }

    /// Create or repair a bridge and its NAT. Idempotent, also between processes; where all is well
    /// it costs two questions to the kernel, and a few more when anybody has changed nftables rules
    /// meanwhile, so call it before every start.
    pub fn ensure(&mut self, bridge: &Bridge) -> Result<BridgeLink> {
        if let Some((known, link)) = self.bridges.get(&bridge.name)
            && known == bridge
            && route::link(&mut self.route, By::Index(link.index))?
                .is_some_and(|found| found.up && found.name == bridge.name.as_str())
        {
            let link = link.clone();
            self.check_rules()?;
            return Ok(link);
        }
        let link = self.make_bridge(bridge)?;
        turn_on("/proc/sys/net/ipv4/ip_forward")?;
        if bridge.has_ipv6() {
            ipv6::forward()?;
        }
        self.limits.set_bridge(bridge);
        self.write_nat(Some(bridge))?;
        self.bridges
            .insert(bridge.name.clone(), (bridge.clone(), link.clone()));
        self.admit();
        if !bridge.internal {
            self.look_around(bridge);
        }
        Ok(link)
    }

    /// Tells when somebody else has changed the rules that the containers' connections live by: then `repair` them.
    pub fn watch(&mut self) -> Result<Watch> {
        nft::generation(&mut self.netfilter)?; // a socket has its port from the first question on
        Watch::open(&self.engine, self.netfilter.port()?)
    }

    /// Write anew what somebody may have removed or changed.
    pub fn repair(&mut self, change: Change) -> Result<()> {
        if self.bridges.is_empty() {
            return Ok(());
        }
        if change == Change::Ours {
            self.write_nat(None)?;
        }
        self.checked = None;
        self.check_rules()
    }

    /// What has been found since the last call that the administrator should know: what else on this host
    /// stands in the way of its containers. Nothing is said twice.
    pub fn take_warnings(&mut self) -> Vec<String> {
        mem::take(&mut self.warnings.waiting)
    }

    /// Publish a container's ports, all or none, in one transaction.
    ///
    /// `owner` is the container's ID, `container` its addresses, one of each family that is published. A port in use is a
    /// Conflict that names it.
    pub fn publish(
        &mut self,
        owner: &str,
        container: &[IpAddr],
        ports: &[Publish],
    ) -> Result<Vec<Published>> {
        if let Some(port) = ports.iter().find(|port| to(container, port).is_none()) {
            return Err(Error::Invalid {
                what: "address to publish on",
                value: port.host_ip.to_string(),
                expected: "of a family that the container has an address of",
            });
        }
        let published = self.reserve(ports)?;
        let chosen: Vec<Publish> = published.iter().map(|published| published.port).collect();
        self.adopt(owner, container, &chosen)?;
        Ok(published)
    }

    /// Take over what an earlier process published: its reservations are somebody else's, so
    /// only the NAT elements are made sure of, and remembered. Ports of a family that the container has no address of
    /// lead nowhere.
    pub fn adopt(&mut self, owner: &str, container: &[IpAddr], ports: &[Publish]) -> Result<()> {
        let forwards = ports
            .iter()
            .filter_map(|port| Some(self.forward(owner, to(container, port)?, port)))
            .collect::<Result<Vec<_>>>()?;
        if forwards.is_empty() {
            return Ok(());
        }
        let retry = match self.add(&forwards) {
            // The table has gone: somebody flushed the host's rules.
            Err(error) if nft::is_missing(&error) => {
                self.write_nat(None)?;
                true
            }
            // We hold the port, so whatever is there is a dead container's.
            Err(error) if nft::is_occupied(&error) => {
                let mut stale = nft::forwards(&mut self.netfilter, &self.engine)?;
                stale.retain(|old| forwards.iter().any(|new| new.replaces(old)));
                self.withdraw(&stale)?;
                true
            }
            other => other.map(|()| false)?,
        };
        if retry {
            self.add(&forwards)?;
        }
        self.forget_flows_to_host(&forwards)?;
        self.forwards
            .entry(owner.to_owned())
            .or_default()
            .extend(forwards);
        Ok(())
    }

    /// Withdraw all of an owner's ports in one transaction. No ports is no error.
    pub fn unpublish(&mut self, owner: &str) -> Result<()> {
        let Some(forwards) = self.forwards.remove(owner) else {
            return Ok(());
        };
        self.withdraw(&forwards)?;
        self.forget_flows_to_containers(&forwards)
    }

    /// Remove published ports and veth pairs of this engine that nobody in `live` owns.
    pub fn sweep(&mut self, live: &Live) -> Result<Swept> {
        let mut dead = nft::forwards(&mut self.netfilter, &self.engine)?;
        dead.retain(|forward| !live.owners.contains(&forward.owner));
        self.withdraw(&dead)?;
        self.forget_flows_to_containers(&dead)?;
        self.forwards.retain(|owner, _| live.owners.contains(owner));
        for entry in nft::balances(&mut self.netfilter, &self.engine)? {
            if !live.entries.contains(&entry) {
                self.unbalance(&entry)?;
            }
        }
        let mut swept = Swept {
            ports: dead.len(),
            links: 0,
        };
        for name in self.veths()? {
            if !live.links.contains(&name) {
                route::delete_link(&mut self.route, &name)?;
                swept.links += 1;
            }
        }
        self.sweep_limits(live)?; // not before those are gone who were limited
        Ok(swept)
    }

    /// Remove a bridge, its part of the NAT, and its rules in Docker's chain.
    pub fn remove(&mut self, bridge: &LinkName) -> Result<()> {
        self.bridges.remove(bridge);
        nft::dismiss(&mut self.netfilter, bridge)?;
        let subnets = nft::subnets_of(&mut self.netfilter, &self.engine, bridge)?;
        self.unlimit(bridge.as_str())?;
        let mut transaction = Transaction::new(&self.engine);
        nft::delete_bridge(&mut transaction, bridge);
        nft::delete_subnets(&mut transaction, &subnets);
        match transaction.commit(&mut self.netfilter) {
            Err(error) if nft::is_missing(&error) => {} // there is no table
            other => other?,
        }
        match route::link(&mut self.route, By::Name(bridge))? {
            None => Ok(()),
            Some(link) => {
                is_bridge(&link)?;
                route::delete_link(&mut self.route, bridge)
            }
        }
    }

    /// Whether a predecessor may have left anything that `destroy` removes.
    pub fn has_left_anything(engine: &EngineId) -> Result<bool> {
        let mut route = Socket::open(NetlinkFamily::Route)?;
        if route::link(&mut route, By::Name(&engine.bridge()))?.is_some() {
            return Ok(true);
        }
        nft::table_exists(&mut Socket::open(NetlinkFamily::Netfilter)?, engine)
    }

    /// Remove everything of this engine: bridges that it has ensured, or a predecessor of it, its default bridge, veth
    /// pairs, table. For good.
    pub fn destroy(mut self) -> Result<()> {
        for name in self.veths()? {
            route::delete_link(&mut self.route, &name)?;
        }
        let mut names: BTreeSet<LinkName> = self.bridges.keys().cloned().collect();
        names.extend(nft::bridges(&mut self.netfilter, &self.engine)?);
        names.insert(self.engine.bridge());
        for name in &names {
            self.remove(name)?;
        }
        for delete in [Transaction::delete_table, nft::delete_guard] {
            let mut transaction = Transaction::new(&self.engine);
            delete(&mut transaction);
            match transaction.commit(&mut self.netfilter) {
                Err(error) if nft::is_missing(&error) => {}
                other => other?,
            }
        }
        Ok(())
    }

    fn forward(&self, owner: &str, container: IpAddr, port: &Publish) -> Result<Forward> {
        let by = match container {
            IpAddr::V4(_) => container, // which nobody asks about
            IpAddr::V6(_) => self.bridge_of(container)?,
        };
        Ok(Forward {
            protocol: port.protocol,
            host_ip: Some(port.host_ip).filter(|host| !host.is_unspecified()),
            host_port: port.host_port,
            to: (container, port.container_port),
            by,
            owner: owner.to_owned(),
        })
    }

    /// The own address, in a container's network, of the bridge that it is on.
    fn bridge_of(&self, container: IpAddr) -> Result<IpAddr> {
        let own = self.gateways().find(|gateway| gateway.contains(container));
        own.map(Cidr::address).ok_or_else(|| Error::Invalid {
            what: "address to publish",
            value: container.to_string(),
            expected: "one of a network whose bridge there is",
        })
    }

    /// The bridges' own addresses, with their networks.
    pub(crate) fn gateways(&self) -> impl Iterator<Item = &Cidr> {
        self.bridges.values().flat_map(|(known, _)| &known.gateways)
    }

    fn add(&mut self, forwards: &[Forward]) -> Result<()> {
        let mut transaction = Transaction::new(&self.engine);
        nft::add_forwards(&mut transaction, forwards);
        transaction.commit(&mut self.netfilter)
    }

    /// Reserve ports on the host, group by group.
    pub(crate) fn reserve(&self, ports: &[Publish]) -> Result<Vec<Published>> {
        reserve_all(ports, |port| self.ours(port))
    }

    /// What of ours has that host port.
    fn ours(&self, port: &Publish) -> Option<&Forward> {
        self.forwards
            .values()
            .flatten()
            .find(|forward| forward.conflicts(port))
    }

    fn make_bridge(&mut self, bridge: &Bridge) -> Result<BridgeLink> {
        let name = &bridge.name;
        if let Some(link) = route::link(&mut self.route, By::Name(name))? {
            is_bridge(&link)?;
        }
        let mtu = match bridge.mtu {
            Some(mtu) => mtu,
            None => route::outgoing_link(&mut self.route, SOMEWHERE)?
                .map_or(MTU_MAX, |link| link.mtu.min(MTU_MAX)),
        };
        // Without one that is given, it would be that of one of its containers.
        let mac = bridge.gateways.first().map(|own| Mac::of(own.address()));
        let mut batch = Batch::new();
        route::create_bridge(&mut batch, name, mac, mtu);
        self.route.run(batch)?;
        let vanished = || Error::Occupied {
            link: name.to_string(),
            wanted: "ours alone: it was deleted meanwhile",
        };
        let link = route::link(&mut self.route, By::Name(name))?.ok_or_else(vanished)?;
        let mut batch = Batch::new();
        route::allow_loopback_routes(&mut batch, name);
        if bridge.has_ipv6() {
            ipv6::set_link(name, true)?;
        } else if self.ipv6 {
            route::no_own_ipv6(&mut batch, By::Index(link.index));
        }
        for gateway in &bridge.gateways {
            route::add_address(&mut batch, link.index, *gateway);
        }
        for balance in self.balances.values().filter(|one| one.bridge == *name) {
            for address in balance.cidrs()? {
                route::add_address(&mut batch, link.index, address);
            }
        }
        route::set_up(&mut batch, By::Index(link.index));
        self.route.run(batch)?;
        if self.ipv6 && !bridge.has_ipv6() {
            // A container's router advertisements must not reach the host.
            turn_on(&format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"))?;
        }
        Ok(BridgeLink {
            name: name.clone(),
            index: link.index,
            mtu: link.mtu,
            isolated: bridge.isolated,
            resolver: bridge.resolver,
            ipv6: bridge.has_ipv6(),
        })
    }

    /// Whether the rules are in place, ours and those in Docker's chain; what is missing is written.
    fn check_rules(&mut self) -> Result<()> {
        // First, so that what is changed while we look is looked at the next time.
        let generation = nft::generation(&mut self.netfilter)?;
        if self.checked == Some(generation) {
            return Ok(());
        }
        if !nft::table_exists(&mut self.netfilter, &self.engine)? {
            self.write_nat(None)?;
        }
        self.admit();
        self.checked = Some(generation);
        Ok(())
    }

    /// Have Docker's chain accept our bridges. It is somebody else's: where that fails, a container can start
    /// all the same.
    fn admit(&mut self) {
        let of = |family| {
            let bridges = self.bridges.values().map(|(bridge, _)| bridge);
            let bridges = bridges.filter(move |bridge| bridge.gateway(family).is_some());
            bridges.map(|bridge| &bridge.name).collect::<Vec<_>>()
        };
        for family in [Family::V4, Family::V6] {
            let admitted = nft::admit(&mut self.netfilter, family, &of(family), &mut self.handles);
            if let Err(error) = admitted {
                self.warnings.add(format!(
                    "{error}; containers may not reach other hosts, nor be reached from there"
                ));
            }
        }
    }

    /// Look for what else on this host drops what the bridge forwards. Whether that can be known or not, a
    /// container can start.
    fn look_around(&mut self, bridge: &Bridge) {
        match nft::obstacles(&mut self.netfilter, bridge) {
            Ok(obstacles) => obstacles
                .into_iter()
                .for_each(|obstacle| self.warnings.add(obstacle)),
            Err(error) => self.warnings.add(format!(
                "{error}; so it is not known whether another firewall stands in the way of {}",
                bridge.name
            )),
        }
    }

    /// Write the table whole: its rules, one more bridge, and all that is remembered.
    pub(crate) fn write_nat(&mut self, bridge: Option<&Bridge>) -> Result<()> {
        let mut transaction = Transaction::new(&self.engine);
        nft::write_ruleset(&mut transaction);
        if let Some(bridge) = bridge {
            let mut stale = nft::subnets_of(&mut self.netfilter, &self.engine, &bridge.name)?;
            stale.retain(|network| {
                let mut ours = bridge.gateways.iter();
                ours.all(|gateway| gateway.range() != network.range())
            });
            nft::delete_subnets(&mut transaction, &stale);
        }
        let others = self.bridges.values().map(|(known, _)| known);
        let others = others.filter(|known| bridge.is_none_or(|bridge| bridge.name != known.name));
        for bridge in others.chain(bridge) {
            nft::add_bridge(&mut transaction, bridge);
        }
        nft::add_forwards(&mut transaction, self.forwards.values().flatten());
        for (name, balance) in &self.balances {
            nft::add_balance(&mut transaction, name, balance);
        }
        self.limits.write(&mut transaction);
        transaction.commit(&mut self.netfilter)?;
        self.limits.written();
        Ok(())
    }

    /// All at once; one by one where some of them have gone before.
    fn withdraw(&mut self, forwards: &[Forward]) -> Result<()> {
        let mut transaction = Transaction::new(&self.engine);
        nft::delete_forwards(&mut transaction, forwards);
        match transaction.commit(&mut self.netfilter) {
            Err(error) if nft::is_missing(&error) => {}
            other => return other,
        }
        for forward in forwards {
            let mut transaction = Transaction::new(&self.engine);
            nft::delete_forwards(&mut transaction, [forward]);
            match transaction.commit(&mut self.netfilter) {
                Err(error) if nft::is_missing(&error) => {}
                other => other?,
            }
        }
        Ok(())
    }

    fn forget_flows_to_host(&mut self, forwards: &[Forward]) -> Result<()> {
        let mut local: Option<Vec<IpAddr>> = None;
        for forward in forwards
            .iter()
            .filter(|forward| forward.protocol == Protocol::Udp)
        {
            let addresses = match &local {
                Some(addresses) => addresses.clone(),
                None => local
                    .insert(route::local_addresses(&mut self.route)?)
                    .clone(),
            };
            self.forget(|| Forget::ToHost(forward.clone(), addresses.clone()))?;
        }
        Ok(())
    }

    fn forget_flows_to_containers(&mut self, forwards: &[Forward]) -> Result<()> {
        for forward in forwards
            .iter()
            .filter(|forward| forward.protocol == Protocol::Udp)
        {
            self.forget(|| Forget::ToContainer(forward.clone()))?;
        }
        Ok(())
    }

    fn forget(&mut self, what: impl Fn() -> Forget) -> Result<()> {
        if self
            .forgetter
            .as_ref()
            .is_some_and(|forgetter| forgetter.forget(what()))
        {
            return Ok(());
        }
        let forgetter = Forgetter::start()?;
        forgetter.forget(what());
        self.forgetter = Some(forgetter);
        Ok(())
    }

    fn veths(&mut self) -> Result<Vec<LinkName>> {
        let prefix = self.engine.veth_prefix();
        let ours =
            |link: &Link| link.kind.as_deref() == Some("veth") && link.name.starts_with(&prefix);
        let links = route::links(&mut self.route)?;
        links
            .iter()
            .filter(|link| ours(link))
            .map(|link| LinkName::parse(&link.name))
            .collect()
    }
}

fn is_bridge(link: &Link) -> Result<()> {
    if link.kind.as_deref() == Some("bridge") {
        return Ok(());
    }
    Err(Error::Occupied {
        link: link.name.clone(),
        wanted: "a bridge",
    })
}

/// The container's address that a port leads to.
fn to(container: &[IpAddr], port: &Publish) -> Option<IpAddr> {
    let of = |address: &&IpAddr| Family::of(**address) == Family::of(port.host_ip);
    container.iter().find(of).copied()
}
