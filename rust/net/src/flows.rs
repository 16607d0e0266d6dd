//! Forgetting flows in the background: the kernel walks its whole table for it, which takes
//! milliseconds, and no start or stop should wait for that.

use std::net::IpAddr;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};

use knarr_sys::net::NetlinkFamily;

use crate::conntrack::{forget_flows_to_container, forget_flows_to_host};
use crate::error::{Error, Result};
use crate::netlink::Socket;
use crate::nft::Forward;

/// One thing to forget. They are done in the order in which they came.
#[derive(Debug)]
pub(crate) enum Forget {
    /// A port was published: flows that the host itself has had, at these addresses of its.
    ToHost(Forward, Vec<IpAddr>),
    /// A port was withdrawn: flows that lead to the container.
    ToContainer(Forward),
}

/// The thread that does it; dropping this waits until all is done.
#[derive(Debug)]
pub(crate) struct Forgetter {
    queue: Option<Sender<Forget>>,
    thread: Option<JoinHandle<()>>,
}

impl Forgetter {
    /// In the calling thread's network namespace.
    pub(crate) fn start() -> Result<Self> {
        let mut socket = Socket::open(NetlinkFamily::Netfilter)?;
        let (queue, jobs) = channel();
        let thread = thread::Builder::new()
            .name("knarr-net-flows".to_owned())
            .spawn(move || work(&mut socket, &jobs))
            .map_err(|cause| Error::system("start a thread", cause))?;
        Ok(Self {
            queue: Some(queue),
            thread: Some(thread),
        })
    }

    /// False where the thread has died, and another should be started.
    pub(crate) fn forget(&self, what: Forget) -> bool {
        self.queue
            .as_ref()
            .is_some_and(|queue| queue.send(what).is_ok())
    }
}

impl Drop for Forgetter {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            // It has no result, and a panic of its has been printed.
            let _ = thread.join();
        }
    }
}

fn work(socket: &mut Socket, jobs: &Receiver<Forget>) {
    for job in jobs {
        let result = match &job {
            Forget::ToHost(forward, local) => forget_flows_to_host(socket, forward, |address| {
                address.is_loopback() || local.contains(&address)
            }),
            Forget::ToContainer(forward) => forget_flows_to_container(socket, forward),
        };
        if let Err(error) = result {
            // Safe to go on: a flow ends by itself, 30 s to 2 min after its last packet.
            eprintln!("knarr-net: {error}; UDP clients may have to pause before they are heard");
        }
    }
}
