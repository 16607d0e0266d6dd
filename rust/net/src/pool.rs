//! Ready sandboxes, made off the start path.
//!
//! One thread makes them, in its own time. One mutex guards what is ready; it is held to put in and
//! to take out, never while a sandbox is made. A thread that fails ends, and the next take starts another.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use knarr_sys::net::NetlinkFamily;

use crate::bridge::BridgeLink;
use crate::error::{Error, Result};
use crate::maker::{Maker, Numbers};
use crate::names::{EngineId, LinkName};
use crate::netlink::Socket;
use crate::route;
use crate::sandbox::{Interface, Sandbox};
use crate::visit::aside;

/// How long nobody must have taken anything before a shelf that is not low is filled up.
const QUIET: Duration = Duration::from_millis(5);
/// Of how many bridges sandboxes are kept.
const SHELVES: usize = 8;

/// How many ready sandboxes of a kind to keep.
#[derive(Clone, Copy, Debug)]
pub struct PoolSize {
    /// Without a link.
    pub bare: usize,
    /// With a veth pair, for each bridge that has been asked for.
    pub linked: usize,
}

/// Sandboxes made by a thread of the pool's own, bounded, and refilled after each take.
///
/// A kind of sandbox begins to be kept when the first of it is taken. Of many bridges only those that were asked for
/// last have any: a host of a hundred networks does not keep four hundred namespaces ready.
#[derive(Debug)]
pub struct Pool {
    engine: EngineId,
    numbers: Numbers,
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Shared {
    size: PoolSize,
    stock: Mutex<Stock>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Stock {
    bare: Option<VecDeque<Sandbox>>,
    linked: BTreeMap<LinkName, Shelf>,
    /// Takes from shelves so far.
    takes: u64,
    stopping: bool,
}

#[derive(Debug)]
struct Shelf {
    bridge: BridgeLink,
    /// The count of takes when the last was from here.
    last: u64,
    ready: VecDeque<Sandbox>,
}

/// What the thread makes next: a bare sandbox, or one on that bridge.
type Wanted = Option<BridgeLink>;

impl Pool {
    /// A pool whose sandboxes have their other side in the calling thread's network namespace.
    pub fn start(engine: &EngineId, size: PoolSize) -> Result<Self> {
        let shared = Shared {
            size,
            stock: Mutex::default(),
            changed: Condvar::new(),
        };
        Ok(Self {
            engine: engine.clone(),
            numbers: Numbers::new()?,
            shared: Arc::new(shared),
            thread: Mutex::new(None),
        })
    }

    /// A sandbox with `lo` only. Never waits for the refill: an empty pool makes one on the spot.
    pub fn take_bare(&self) -> Result<Sandbox> {
        let ready = self.shared.lock().bare.get_or_insert_default().pop_front();
        self.refill()?;
        ready.map_or_else(|| self.make(None), Ok)
    }

    /// A sandbox with `eth0` on that bridge. Those on an earlier bridge of the name, or on one with other properties,
    /// are let go.
    pub fn take_linked(&self, bridge: &BridgeLink) -> Result<Sandbox> {
        let (ready, stale) = self.shared.lock().take(bridge);
        drop(stale);
        self.refill()?;
        ready.map_or_else(|| self.make(Some(bridge)), Ok)
    }

    /// Keep no more sandboxes on that bridge: before the bridge goes.
    pub fn forget(&self, bridge: &LinkName) {
        let stale = self.shared.lock().linked.remove(bridge);
        drop(stale);
    }

    /// Keep no more sandboxes on any bridge.
    pub fn forget_all(&self) {
        let stale = std::mem::take(&mut self.shared.lock().linked);
        drop(stale);
    }

    /// How many sandboxes are ready: bare, and on that bridge.
    #[must_use]
    pub fn ready(&self, bridge: Option<&LinkName>) -> usize {
        let stock = self.shared.lock();
        match bridge {
            None => stock.bare.as_ref().map_or(0, VecDeque::len),
            Some(name) => stock.linked.get(name).map_or(0, |shelf| shelf.ready.len()),
        }
    }

    /// The host's sides of all that is ready: a sweep must leave them.
    #[must_use]
    pub fn links(&self) -> Vec<LinkName> {
        let stock = self.shared.lock();
        stock
            .linked
            .values()
            .flat_map(|shelf| &shelf.ready)
            .filter_map(|sandbox| sandbox.link().cloned())
            .collect()
    }

    /// One more link of a namespace that exists, a running container's or a fresh sandbox's: a port of the bridge on
    /// the host, and inside a link of that name with its address, and the default route if it has a gateway. All or
    /// nothing. The result is the host's side, which a sweep must leave; `prepare` is told of it before anything can
    /// come by that way.
    pub fn plug(
        &self,
        namespace: BorrowedFd<'_>,
        bridge: &BridgeLink,
        name: &LinkName,
        interface: &Interface,
        prepare: impl FnOnce(&LinkName) -> Result<()> + Send,
    ) -> Result<LinkName> {
        aside(|| {
            let maker = Maker::open(&self.engine, self.numbers.clone())?;
            maker.plug(namespace, bridge, name, interface, prepare)
        })
    }

    /// Delete a link that was plugged, or a sandbox's own, both its sides and the routes through it. One that has gone is
    /// fine.
    pub fn unplug(&self, link: &LinkName) -> Result<()> {
        if !link.as_str().starts_with(&self.engine.veth_prefix()) {
            return Err(Error::Invalid {
                what: "host's side of a container's link",
                value: link.to_string(),
                expected: "one of this engine's",
            });
        }
        route::delete_link(&mut Socket::open(NetlinkFamily::Route)?, link)
    }

    /// On a thread of its own: making a sandbox visits another namespace, and a caller that could
    /// not return from there would be lost.
    fn make(&self, wanted: Option<&BridgeLink>) -> Result<Sandbox> {
        aside(|| Maker::open(&self.engine, self.numbers.clone())?.make(wanted))
    }

    /// Wake the thread, or start it where there is none.
    fn refill(&self) -> Result<()> {
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if thread.as_ref().is_none_or(JoinHandle::is_finished) {
            let mut maker = Maker::open(&self.engine, self.numbers.clone())?;
            let shared = Arc::clone(&self.shared);
            let work = move || shared.fill(&mut maker);
            let started = thread::Builder::new()
                .name("knarr-net-pool".to_owned())
                .spawn(work);
            *thread = Some(started.map_err(|cause| Error::system("start a thread", cause))?);
        }
        self.shared.changed.notify_one();
        Ok(())
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.lock().stopping = true;
        self.shared.changed.notify_one();
        let thread = self
            .thread
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(thread) = thread {
            // It ends without a result, and a panic of its has been printed.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Stock> {
        self.stock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The thread's work: until the pool stops, or making fails. Whoever takes next makes one for
    /// himself, and so gets the reason of the failure.
    fn fill(&self, maker: &mut Maker) {
        while let Some(wanted) = self.next_wanted() {
            let Ok(sandbox) = maker.make(wanted.as_ref()) else {
                return;
            };
            let mut stock = self.lock();
            let unwanted = match wanted {
                None => {
                    stock.bare.get_or_insert_default().push_back(sandbox);
                    None
                }
                Some(bridge) => match stock
                    .linked
                    .get_mut(&bridge.name)
                    .filter(|shelf| shelf.bridge == bridge)
                {
                    Some(place) => {
                        place.ready.push_back(sandbox);
                        None
                    }
                    None => Some(sandbox),
                },
            };
            drop(stock);
            drop(unwanted);
        }
    }

    /// Wait until something is missing; None when the pool stops. The emptiest shelf comes first.
    ///
    /// While no shelf is below half, it waits for a quiet moment: making a sandbox holds the kernel's
    /// lock on links, and who has just taken one needs that lock to configure it.
    fn next_wanted(&self) -> Option<Wanted> {
        let mut stock = self.lock();
        loop {
            if stock.stopping {
                return None;
            }
            let Some((wanted, low)) = stock.emptiest(self.size) else {
                let woken = self.changed.wait(stock);
                stock = woken.unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            if low {
                return Some(wanted);
            }
            let woken = self.changed.wait_timeout(stock, QUIET);
            let (guard, result) = woken.unwrap_or_else(PoisonError::into_inner);
            if result.timed_out() {
                return Some(wanted);
            }
            stock = guard;
        }
    }
}

impl Stock {
    /// A ready sandbox of a bridge, and a shelf that has to go.
    fn take(&mut self, bridge: &BridgeLink) -> (Option<Sandbox>, Option<Shelf>) {
        self.takes += 1;
        let mut stale = None;
        let known = self.linked.get(&bridge.name);
        if known.is_none_or(|shelf| shelf.bridge != *bridge) {
            let empty = Shelf {
                bridge: bridge.clone(),
                last: self.takes,
                ready: VecDeque::new(),
            };
            stale = self.linked.insert(bridge.name.clone(), empty);
            if self.linked.len() > SHELVES {
                let oldest = self.linked.values().min_by_key(|shelf| shelf.last);
                let oldest = oldest.map(|shelf| shelf.bridge.name.clone());
                stale = oldest.and_then(|name| self.linked.remove(&name));
            }
        }
        let Some(place) = self.linked.get_mut(&bridge.name) else {
            return (None, stale);
        };
        place.last = self.takes;
        (place.ready.pop_front(), stale)
    }

    /// The shelf that is furthest from full, if one is not full, and whether it is below half.
    fn emptiest(&self, size: PoolSize) -> Option<(Wanted, bool)> {
        let bare = self.bare.iter().map(|ready| (None, ready.len(), size.bare));
        let linked = self
            .linked
            .values()
            .map(|shelf| (Some(&shelf.bridge), shelf.ready.len(), size.linked));
        let missing = bare.chain(linked).filter(|(_, ready, full)| ready < full);
        let (bridge, ready, full) = missing.max_by_key(|(_, ready, full)| full - ready)?;
        Some((bridge.cloned(), ready * 2 < full))
    }
}
