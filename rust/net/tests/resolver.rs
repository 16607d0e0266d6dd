//! What a container asks at 127.0.0.11:53 arrives at the sockets that are held outside, and the answer comes from there.

mod world;

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::BorrowedFd;
use std::thread;
use std::time::Duration;

use knarr_net::{Bridge, Host, Pool, PoolSize, Resolver, Sandbox, resolver};
use world::{Server, World, ask, ask_udp, bridge, engine, interface, on, run, until};

const ADDRESS: &str = "127.0.0.11:53";
const PATIENCE: Duration = Duration::from_secs(5);
const SILENCE: Duration = Duration::from_millis(300);

/// The held sockets, as the standard library's, and waiting.
struct Held {
    udp: UdpSocket,
    tcp: TcpListener,
}

impl From<Resolver> for Held {
    fn from(resolver: Resolver) -> Self {
        let held = Self {
            udp: resolver.udp.into(),
            tcp: resolver.tcp.into(),
        };
        held.udp.set_nonblocking(false).unwrap();
        held.udp.set_read_timeout(Some(PATIENCE)).unwrap();
        held.tcp.set_nonblocking(false).unwrap();
        held
    }
}

impl Held {
    /// Answer one question with itself and `!`.
    fn answer_udp(&self) {
        let mut question = [0; 2048];
        let (length, peer) = self.udp.recv_from(&mut question).unwrap();
        question[length] = b'!';
        self.udp.send_to(&question[..=length], peer).unwrap();
    }

    fn asked_over_udp(&self, client: &UdpSocket) {
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.connect(ADDRESS).unwrap();
        client.send(b"who is it").unwrap();
        self.answer_udp();
        let mut answer = [0; 64];
        // A connected socket hears its peer only.
        let length = client.recv(&mut answer).unwrap();
        assert_eq!(&answer[..length], b"who is it!");
    }

    /// So many bytes each way.
    fn asked_over_tcp(&self, length: usize) {
        let mut client = TcpStream::connect(ADDRESS).unwrap();
        assert_eq!(client.peer_addr().unwrap().to_string(), ADDRESS);
        let (mut stream, peer) = self.tcp.accept().unwrap();
        assert_eq!(peer, client.local_addr().unwrap());
        let question = vec![b'q'; length];
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut heard = vec![0; length];
                stream.read_exact(&mut heard).unwrap();
                stream.write_all(&heard).unwrap();
                drop(stream);
            });
            let mut writer = client.try_clone().unwrap();
            scope.spawn(move || writer.write_all(&question).unwrap());
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).unwrap();
            assert!(answer.len() == length && answer.iter().all(|byte| *byte == b'q'));
        });
    }

    /// From inside that namespace, in every way.
    fn works_in(&self, namespace: BorrowedFd<'_>) {
        on(namespace, || {
            self.asked_over_udp(&UdpSocket::bind("0.0.0.0:0").unwrap());
            self.asked_over_tcp(30);
        });
    }

    fn hears_nothing(&self) -> bool {
        self.udp.set_read_timeout(Some(SILENCE)).unwrap();
        self.tcp.set_nonblocking(true).unwrap();
        let heard = self.udp.recv(&mut [0; 64]).is_ok() || self.tcp.accept().is_ok();
        !heard
    }
}

/// A container on a network that has a resolver, made ahead by the pool or on the spot, and another one.
fn containers(pooled: bool) -> (Host, [Sandbox; 2]) {
    let engine = engine("0000aaaa");
    let mut host = Host::open(&engine).unwrap();
    let network = Bridge {
        resolver: true,
        ..bridge(&engine, 88)
    };
    let link = host.ensure(&network).unwrap();
    let linked = if pooled { 2 } else { 0 };
    let pool = Pool::start(&engine, PoolSize { bare: 0, linked }).unwrap();
    if pooled {
        drop(pool.take_linked(&link).unwrap());
        until(|| pool.ready(Some(link.name())) == 2);
    }
    let containers = [2, 3].map(|number| {
        let mut sandbox = pool.take_linked(&link).unwrap();
        sandbox.configure(&interface(88, number)).unwrap();
        sandbox
    });
    (host, containers)
}

#[test]
fn questions_arrive_and_answers_come_from_the_address_asked() {
    let world = World::new(false);
    for pooled in [false, true] {
        let (_host, [mut one, mut two]) = world.on_host(|| containers(pooled));
        let held: Held = one.take_resolver().unwrap().into();
        assert!(one.take_resolver().is_none());
        let other: Held = two.take_resolver().unwrap().into();
        held.works_in(one.namespace());
        other.works_in(two.namespace());
        on(one.namespace(), || {
            // A socket that is not connected says whom it has heard.
            let client = UdpSocket::bind("0.0.0.0:0").unwrap();
            client.set_read_timeout(Some(PATIENCE)).unwrap();
            client.send_to(b"?", ADDRESS).unwrap();
            held.answer_udp();
            let (_, from) = client.recv_from(&mut [0; 8]).unwrap();
            assert_eq!(from.to_string(), ADDRESS);
            // From its other address, and from the resolver's own.
            held.asked_over_udp(&UdpSocket::bind("10.88.0.2:0").unwrap());
            held.asked_over_udp(&UdpSocket::bind("127.0.0.11:0").unwrap());
            // Many packets, and long ones.
            held.asked_over_tcp(3_000_000);
        });
        drop((one, two));
        assert!(held.hears_nothing());
        let forgotten = (held, other);
        drop(forgotten);
        world.on_host(|| until(|| !run("ip -o link").contains("kv0000a")));
    }
}

#[test]
fn port_53_is_the_containers_own() {
    let world = World::new(false);
    let (_host, [mut one, two]) = world.on_host(|| containers(false));
    let held: Held = one.take_resolver().unwrap().into();
    let _tcp = Server::tcp(one.namespace(), "0.0.0.0:53");
    let _udp = Server::udp(one.namespace(), "0.0.0.0:53");
    on(two.namespace(), || {
        assert_eq!(ask("10.88.0.2:53").as_deref(), Some("10.88.0.3"));
        assert_eq!(ask_udp("10.88.0.2:53").as_deref(), Some("10.88.0.3"));
    });
    world.on_host(|| {
        assert_eq!(ask("10.88.0.2:53").as_deref(), Some("10.88.0.1"));
        assert_eq!(ask_udp("10.88.0.2:53").as_deref(), Some("10.88.0.1"));
    });
    on(one.namespace(), || {
        for own in ["127.0.0.1", "10.88.0.2"] {
            assert!(ask(&format!("{own}:53")).is_some());
            assert!(ask_udp(&format!("{own}:53")).is_some());
        }
    });
    held.works_in(one.namespace());
}

#[test]
fn a_namespace_in_use_gets_a_resolver_and_its_next() {
    let world = World::new(false);
    let container = world.on_host(|| {
        let size = PoolSize { bare: 0, linked: 0 };
        let pool = Pool::start(&engine("0000aaaa"), size).unwrap();
        let mut container = pool.take_bare().unwrap();
        assert!(container.take_resolver().is_none());
        container
    });
    let first: Held = resolver(container.namespace()).unwrap().into();
    first.works_in(container.namespace());
    // The first is a predecessor's, who may be dead or not.
    let second: Held = resolver(container.namespace()).unwrap().into();
    second.works_in(container.namespace());
    assert!(first.hears_nothing());
    drop(first);
    second.works_in(container.namespace());
    // Nobody listens any more.
    drop(second);
    on(container.namespace(), || {
        let error = TcpStream::connect(ADDRESS).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        assert_eq!(run("nft list tables"), "table ip knarr-dns\n");
    });
    world.on_host(|| assert_eq!(run("nft list tables"), ""));
}

#[test]
fn a_network_without_a_resolver_has_none() {
    let world = World::new(false);
    world.on_host(|| {
        let (mut host, _) = containers(true);
        let id = engine("0000aaaa");
        let pool = Pool::start(&id, PoolSize { bare: 0, linked: 2 }).unwrap();
        let plain = bridge(&id, 88);
        let asking = Bridge {
            resolver: true,
            ..plain.clone()
        };
        // What has been made ahead for the one is not given for the other.
        for bridge in [&plain, &asking, &plain, &asking] {
            let link = host.ensure(bridge).unwrap();
            for _ in 0..2 {
                let mut sandbox = pool.take_linked(&link).unwrap();
                assert_eq!(sandbox.take_resolver().is_some(), bridge.resolver);
                until(|| pool.ready(Some(link.name())) == 2);
            }
        }
    });
}

#[test]
fn the_sockets_are_not_inherited_and_do_not_wait() {
    let world = World::new(false);
    let (_host, [mut one, _]) = world.on_host(|| containers(false));
    let Resolver { udp, tcp } = one.take_resolver().unwrap();
    for socket in [&udp, &tcp] {
        use std::os::fd::AsRawFd;
        let info = format!("/proc/self/fdinfo/{}", socket.as_raw_fd());
        let info = std::fs::read_to_string(info).unwrap();
        let flags = info.lines().find(|line| line.starts_with("flags")).unwrap();
        let flags = flags.split_whitespace().nth(1).unwrap();
        let flags = u32::from_str_radix(flags, 8).unwrap();
        assert_eq!(flags & 0o2_004_000, 0o2_004_000, "{flags:o}");
    }
    let (udp, tcp) = (UdpSocket::from(udp), TcpListener::from(tcp));
    let error = udp.recv(&mut [0; 8]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    assert_eq!(tcp.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
    for address in [udp.local_addr(), tcp.local_addr()] {
        let address = address.unwrap();
        assert_eq!(address.ip(), Ipv4Addr::new(127, 0, 0, 11));
        assert_ne!(address.port(), 53);
    }
    on(one.namespace(), || {
        let backlog = run("ss -Hltn src 127.0.0.11");
        assert_eq!(backlog.split_whitespace().nth(2), Some("128"), "{backlog}");
    });
}

#[test]
fn beside_a_containers_own_firewall() {
    let world = World::new(false);
    let (_host, [mut one, _]) = world.on_host(|| containers(false));
    let held: Held = one.take_resolver().unwrap().into();
    on(one.namespace(), || {
        run("iptables -t nat -A POSTROUTING -o eth0 -j MASQUERADE");
        run("iptables -P OUTPUT DROP");
        for protocol in ["udp", "tcp"] {
            run(&format!(
                "iptables -A OUTPUT -d 127.0.0.11 -p {protocol} --dport 53 -j ACCEPT"
            ));
        }
        run("iptables -A OUTPUT -m conntrack --ctstate ESTABLISHED -j ACCEPT");
        run("iptables -I OUTPUT -m conntrack --ctstate INVALID -j DROP");
    });
    held.works_in(one.namespace());
    on(one.namespace(), || held.asked_over_tcp(1_000_000));
}

#[test]
fn the_table_is_the_one_that_is_documented() {
    let world = World::new(false);
    let (_host, [mut one, _]) = world.on_host(|| containers(false));
    let held: Held = one.take_resolver().unwrap().into();
    let listed = on(one.namespace(), || run("nft list table ip knarr-dns"));
    let port = |address: std::io::Result<std::net::SocketAddr>| address.unwrap().port().to_string();
    let source = include_str!("../src/nft/resolver.rs");
    let documented = source
        .split("```")
        .nth(1)
        .unwrap()
        .replace("<port of the udp socket>", &port(held.udp.local_addr()))
        .replace("<port of the tcp socket>", &port(held.tcp.local_addr()));
    let rules = |text: &str| -> Vec<String> {
        let lines = text
            .lines()
            .map(|line| line.trim_start_matches("//!").trim());
        let rules = lines.filter(|line| line.starts_with("ip "));
        rules.map(str::to_owned).collect()
    };
    assert_eq!(rules(&listed), rules(&documented));
    assert_eq!(rules(&listed).len(), 4, "{listed}");
}
