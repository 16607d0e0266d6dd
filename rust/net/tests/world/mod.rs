//! A world to test in: a network namespace that plays the host, and one that plays a neighbour on
//! its wire. The real host is never touched.
//!
//! Namespaces belong to threads, so every test can have its own world in one process.

// Each test program uses its own part of this.
#![allow(dead_code)]

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use knarr_net::{
    Bridge, EngineId, Host, Interface, Mac, Pool, PoolSize, Protocol, Publish, Published, Sandbox,
};
use knarr_sys::net::{enter_network, unshare_network};

/// The host's address on the wire, and the neighbour's.
pub const HOST: &str = "192.0.2.1";
pub const NEIGHBOUR: &str = "192.0.2.2";

/// How long a connection that should fail is given, and one that should work.
const SILENCE: Duration = Duration::from_millis(400);
const PATIENCE: Duration = Duration::from_secs(5);

pub struct World {
    pub host: OwnedFd,
    pub neighbour: OwnedFd,
}

impl World {
    /// `bridge_netfilter`: whether bridged frames pass the host's IP rules, as after `modprobe br_netfilter`.
    pub fn new(bridge_netfilter: bool) -> Self {
        let world = Self {
            host: new_namespace(),
            neighbour: new_namespace(),
        };
        world.on_host(|| {
            for family in ["iptables", "ip6tables"] {
                let switch = format!("/proc/sys/net/bridge/bridge-nf-call-{family}");
                if std::path::Path::new(&switch).exists() {
                    std::fs::write(&switch, if bridge_netfilter { "1" } else { "0" }).unwrap();
                } else {
                    assert!(!bridge_netfilter, "this kernel has no br_netfilter");
                }
            }
            run("ip link set lo up");
            run("ip link add uplink type veth peer name wire");
            let id = thread_id();
            on(world.neighbour.as_fd(), || {
                // The peer moves to the namespace of this thread.
                run_in(&format!("ip link set wire netns {}", thread_id()), &id);
                run("ip link set lo up");
                run(&format!("ip addr add {NEIGHBOUR}/24 dev wire"));
                run("ip link set wire up");
                run(&format!("ip route add default via {HOST}"));
            });
            run(&format!("ip addr add {HOST}/24 dev uplink"));
            run("ip link set uplink up");
        });
        world
    }

    pub fn on_host<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        on(self.host.as_fd(), work)
    }

    pub fn on_neighbour<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        on(self.neighbour.as_fd(), work)
    }
}

fn thread_id() -> String {
    let link = std::fs::read_link("/proc/thread-self").unwrap();
    link.file_name().unwrap().to_str().unwrap().to_owned()
}

/// Run a command in the namespace of another thread of ours.
fn run_in(command: &str, thread: &str) {
    run(&format!(
        "nsenter --net=/proc/{}/task/{thread}/ns/net {command}",
        std::process::id()
    ));
}

/// Do something on a thread in that namespace.
pub fn on<T: Send>(namespace: BorrowedFd<'_>, work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            enter_network(namespace).unwrap();
            work()
        });
        thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

pub fn new_namespace() -> OwnedFd {
    let thread = thread::spawn(|| {
        unshare_network().unwrap();
        OwnedFd::from(std::fs::File::open("/proc/thread-self/ns/net").unwrap())
    });
    thread.join().unwrap()
}

/// Run a command and give what it prints. It must succeed.
pub fn run(command: &str) -> String {
    let mut words = command.split(' ');
    let output = Command::new(words.next().unwrap())
        .args(words)
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// Wait for what the kernel or another thread does in its own time.
pub fn until(done: impl Fn() -> bool) {
    let limit = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(
            Instant::now() < limit,
            "it does not happen: {}",
            run("ip -o link")
        );
        thread::sleep(Duration::from_millis(10));
    }
}

pub fn engine(id: &str) -> EngineId {
    EngineId::parse(id).unwrap()
}

/// An engine's default bridge, 10.<net>.0.1/16.
pub fn bridge(engine: &EngineId, net: u8) -> Bridge {
    Bridge::new(engine.bridge(), format!("10.{net}.0.1/16").parse().unwrap())
}

/// The `eth0` of the container 10.<net>.0.<number>.
pub fn interface(net: u8, number: u8) -> Interface {
    let address = std::net::Ipv4Addr::new(10, net, 0, number);
    Interface {
        addresses: vec![format!("{address}/16").parse().unwrap()],
        gateways: vec![format!("10.{net}.0.1").parse().unwrap()],
        mac: Some(Mac::of_ipv4(address)),
    }
}

/// A port to publish.
pub fn port(protocol: Protocol, host_ip: &str, host_port: u16, container_port: u16) -> Publish {
    Publish {
        protocol,
        host_ip: host_ip.parse().unwrap(),
        host_port,
        host_port_last: None,
        same_port: false,
        container_port,
    }
}

/// An engine with containers 10.<net>.0.2, .3, ... on its bridge.
pub struct Engine {
    pub net: u8,
    pub host: Host,
    pub containers: Vec<Sandbox>,
    pub published: Vec<Published>,
}

impl Engine {
    pub fn start(id: &str, net: u8, containers: u8) -> Self {
        Self::with(id, &bridge(&engine(id), net), net, containers)
    }

    /// The same, on a bridge of that description.
    pub fn with(id: &str, bridge: &Bridge, net: u8, containers: u8) -> Self {
        let engine = engine(id);
        let mut host = Host::open(&engine).unwrap();
        let link = host.ensure(bridge).unwrap();
        let pool = Pool::start(&engine, PoolSize { bare: 0, linked: 1 }).unwrap();
        let containers = (0..containers).map(|number| {
            let mut sandbox = pool.take_linked(&link).unwrap();
            sandbox.configure(&interface(net, number + 2)).unwrap();
            sandbox
        });
        Self {
            net,
            containers: containers.collect(),
            host,
            published: Vec::new(),
        }
    }

    pub fn publish(&mut self, container: u8, ports: &[Publish]) -> Vec<u16> {
        let address: IpAddr = format!("10.{}.0.{}", self.net, container + 2)
            .parse()
            .unwrap();
        let published = self
            .host
            .publish(&format!("container-{container}"), &[address], ports)
            .unwrap();
        let chosen = published
            .iter()
            .map(|published| published.port.host_port)
            .collect();
        self.published.extend(published);
        chosen
    }

    pub fn container(&self, number: usize) -> BorrowedFd<'_> {
        self.containers[number].namespace()
    }
}

/// A TCP server in that namespace, which tells each client its address as it sees it, until dropped.
pub struct Server {
    stop: mpsc::Sender<()>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Server {
    pub fn tcp(namespace: BorrowedFd<'_>, at: &str) -> Self {
        let at = at.to_owned();
        Self::start(namespace, move || {
            let listener = TcpListener::bind(&at).unwrap();
            listener.set_nonblocking(true).unwrap();
            move || {
                if let Ok((mut stream, peer)) = listener.accept() {
                    let _ = stream.write_all(peer.ip().to_string().as_bytes());
                }
            }
        })
    }

    /// A TCP server that tells each client which address it has been reached at.
    pub fn named(namespace: BorrowedFd<'_>, at: &str) -> Self {
        let at = at.to_owned();
        Self::start(namespace, move || {
            let listener = TcpListener::bind(&at).unwrap();
            listener.set_nonblocking(true).unwrap();
            move || {
                while let Ok((mut stream, _)) = listener.accept() {
                    let own = stream.local_addr().unwrap().ip();
                    let _ = stream.write_all(own.to_string().as_bytes());
                }
            }
        })
    }

    pub fn udp(namespace: BorrowedFd<'_>, at: &str) -> Self {
        let at = at.to_owned();
        Self::start(namespace, move || {
            let socket = UdpSocket::bind(&at).unwrap();
            socket
                .set_read_timeout(Some(Duration::from_millis(5)))
                .unwrap();
            move || {
                if let Ok((_, peer)) = socket.recv_from(&mut [0; 16]) {
                    let _ = socket.send_to(peer.ip().to_string().as_bytes(), peer);
                }
            }
        })
    }

    fn start<F: FnMut()>(
        namespace: BorrowedFd<'_>,
        open: impl FnOnce() -> F + Send + 'static,
    ) -> Self {
        let namespace = namespace.try_clone_to_owned().unwrap();
        let (stop, stopped) = mpsc::channel();
        let (ready, is_ready) = mpsc::channel();
        let thread = thread::spawn(move || {
            enter_network(namespace.as_fd()).unwrap();
            let mut serve = open();
            ready.send(()).unwrap();
            while stopped.try_recv() == Err(mpsc::TryRecvError::Empty) {
                serve();
                thread::sleep(Duration::from_millis(2));
            }
        });
        is_ready
            .recv_timeout(PATIENCE)
            .expect("the server did not start");
        Self {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.stop.send(());
        let _ = self.thread.take().unwrap().join();
    }
}

/// What the TCP server there says of us; None where nobody answers.
pub fn ask(to: &str) -> Option<String> {
    ask_within(to, PATIENCE)
}

/// The same for where nobody should answer.
pub fn ask_in_vain(to: &str) -> Option<String> {
    ask_within(to, SILENCE)
}

fn ask_within(to: &str, wait: Duration) -> Option<String> {
    let address: SocketAddr = to.parse().unwrap();
    let mut stream = TcpStream::connect_timeout(&address, wait).ok()?;
    stream.set_read_timeout(Some(wait)).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer).filter(|answer| !answer.is_empty())
}

/// The same over UDP.
pub fn ask_udp(to: &str) -> Option<String> {
    let from = if to.starts_with('[') {
        "[::]:0"
    } else {
        "0.0.0.0:0"
    };
    let socket = UdpSocket::bind(from).unwrap();
    socket.connect(to).ok()?;
    socket
        .set_read_timeout(Some(Duration::from_millis(800)))
        .unwrap();
    for _ in 0..3 {
        socket.send(b"?").ok()?;
        let mut answer = [0; 64];
        if let Ok(length) = socket.recv(&mut answer) {
            return Some(String::from_utf8_lossy(&answer[..length]).into_owned());
        }
    }
    None
}
