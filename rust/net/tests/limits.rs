//! What a limited container reaches, and what it does not.

mod world;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::thread;
use std::time::{Duration, Instant};

use knarr_net::{
    Balance, Change, Host, LinkName, Live, Pinned, Ports, Protocol, Reach, Served, Subject,
};
use world::{Engine, NEIGHBOUR, Server, World, ask, ask_in_vain, bridge, engine, on, port, run};

const LONG: Duration = Duration::from_secs(60);

fn reach(network: &str, ports: Ports) -> Reach {
    Reach {
        network: network.parse().unwrap(),
        ports,
    }
}

fn tcp(first: u16, last: u16) -> Ports {
    Ports::of(Some(Protocol::Tcp), first, last)
}

fn neighbour() -> IpAddr {
    NEIGHBOUR.parse().unwrap()
}

fn limit(knarr: &mut Engine, container: u8, list: &[Reach]) {
    let subject = Subject::Container {
        addresses: vec![IpAddr::from([10, knarr.net, 0, container + 2])],
        links: knarr.containers[usize::from(container)]
            .link()
            .into_iter()
            .cloned()
            .collect(),
    };
    let owner = format!("container-{container}");
    knarr.host.limit(&owner, subject, list).unwrap();
}

fn reaches(knarr: &Engine, container: usize, to: &str) -> bool {
    on(knarr.container(container), || ask_in_vain(to).is_some())
}

/// Whether it is told at once that it may not.
fn is_told(knarr: &Engine, container: usize, to: &str) -> bool {
    on(knarr.container(container), || {
        let begin = Instant::now();
        let refused = std::net::TcpStream::connect(to).is_err();
        refused && begin.elapsed() < Duration::from_secs(2)
    })
}

/// A world with servers on ports 80 to 82 of the neighbour and of the host, and on port 80 of every container.
fn world(
    knarr: impl Fn() -> Engine + Send + Sync,
    bridge_netfilter: bool,
) -> (World, Engine, Vec<Server>) {
    let world = World::new(bridge_netfilter);
    let knarr = world.on_host(&knarr);
    let mut servers = Vec::new();
    for number in 80..83 {
        let at = format!("0.0.0.0:{number}");
        for place in [&world.neighbour, &world.host] {
            servers.push(Server::tcp(std::os::fd::AsFd::as_fd(place), &at));
        }
    }
    for container in 0..knarr.containers.len() {
        servers.push(Server::tcp(knarr.container(container), "0.0.0.0:80"));
    }
    (world, knarr, servers)
}

fn table(world: &World) -> String {
    world.on_host(|| run("nft list ruleset"))
}

#[test]
fn a_limited_container_reaches_what_is_on_its_list_and_its_own_network() {
    for bridge_netfilter in [false, true] {
        let start = || Engine::start("0000aaaa", 88, 3);
        let (world, mut knarr, _servers) = world(start, bridge_netfilter);
        let ports = [port(Protocol::Tcp, "0.0.0.0", 8080, 80)];
        world.on_host(|| {
            knarr.publish(0, &ports);
            knarr.publish(2, &[port(Protocol::Tcp, "0.0.0.0", 8082, 80)]);
            let list = [
                reach("192.0.2.2/32", tcp(80, 80)),
                reach("192.0.2.0/24", tcp(82, 82)),
                reach("203.0.113.0/24", Ports::all()),
            ];
            limit(&mut knarr, 0, &list);
        });
        for (to, reached) in [
            ("192.0.2.2:80", true),
            ("192.0.2.2:81", false),
            ("192.0.2.2:82", true),
            ("10.88.0.3:80", true),    // its own network
            ("10.88.0.1:80", false),   // the host, by its bridge
            ("192.0.2.1:80", false),   // the host, by another address
            ("192.0.2.1:82", true),    // which is on the list
            ("192.0.2.1:8082", false), // a published port: by what it is published on
        ] {
            assert_eq!(reaches(&knarr, 0, to), reached, "{to} {bridge_netfilter}");
            if !reached {
                assert!(is_told(&knarr, 0, to), "{to}");
            }
        }
        // Who is not limited, and who comes in, is not concerned.
        assert!(reaches(&knarr, 1, "192.0.2.2:81") && reaches(&knarr, 1, "10.88.0.1:80"));
        assert!(world.on_neighbour(|| ask("192.0.2.1:8080")).is_some());
        assert!(world.on_host(|| ask("10.88.0.2:80")).is_some());
        // Another list takes the place of the first.
        world.on_host(|| limit(&mut knarr, 0, &[reach("192.0.2.2/32", tcp(81, 81))]));
        assert!(reaches(&knarr, 0, "192.0.2.2:81") && !reaches(&knarr, 0, "192.0.2.2:80"));
        world.on_host(|| limit(&mut knarr, 0, &[]));
        assert!(!reaches(&knarr, 0, "192.0.2.2:81") && reaches(&knarr, 0, "10.88.0.3:80"));
        world.on_host(|| knarr.host.unlimit("container-0").unwrap());
        assert!(reaches(&knarr, 0, "192.0.2.2:80") && reaches(&knarr, 0, "10.88.0.1:80"));
        let left = table(&world);
        assert!(!left.contains("table bridge"), "{left}");
        for set in ["limited", "reachable"] {
            let list = format!("nft list set inet knarr-0000aaaa {set}");
            assert!(!world.on_host(|| run(&list)).contains("elements"), "{left}");
        }
    }
}

#[test]
fn a_forged_source_gets_nowhere() {
    let (world, mut knarr, _servers) = world(|| Engine::start("0000aaaa", 88, 2), false);
    world.on_host(|| limit(&mut knarr, 0, &[]));
    let try_as = |knarr: &Engine, address: &str| {
        on(knarr.container(0), || {
            run(&format!("ip addr add {address}/16 dev eth0"));
            run(&format!(
                "ip route replace default via 10.88.0.1 src {address}"
            ));
        });
        let reached = reaches(knarr, 0, "192.0.2.2:80");
        on(knarr.container(0), || {
            run(&format!("ip addr del {address}/16 dev eth0"))
        });
        reached
    };
    assert!(!try_as(&knarr, "10.88.0.77"), "nobody's address");
    assert!(!try_as(&knarr, "10.88.0.3"), "another container's");
    on(knarr.container(0), || {
        run("ip route replace default via 10.88.0.1");
    });
    assert!(reaches(&knarr, 0, "10.88.0.3:80"));
    // Without the guard both would: the test would notice.
    world.on_host(|| run("nft delete table bridge knarr-0000aaaa"));
    assert!(try_as(&knarr, "10.88.0.77"));
    world.on_host(|| knarr.host.repair(Change::Ours).unwrap());
    assert!(!try_as(&knarr, "10.88.0.78"));
}

#[test]
fn names_open_addresses_for_a_time() {
    let (world, mut knarr, _servers) = world(|| Engine::start("0000aaaa", 88, 1), false);
    // Nobody is limited: nothing happens.
    let early = world.on_host(|| {
        let host = &mut knarr.host;
        host.pin(
            "container-0",
            "example.org",
            neighbour(),
            &tcp(80, 80),
            LONG,
        )
    });
    assert_eq!(early.unwrap(), Pinned::Open);
    world.on_host(|| limit(&mut knarr, 0, &[reach("192.0.2.2/32", tcp(82, 82))]));
    assert!(!reaches(&knarr, 0, "192.0.2.2:80"));
    let mut pin = |address: &str, ports: Ports, lifetime| {
        let address = address.parse().unwrap();
        world.on_host(|| {
            knarr
                .host
                .pin("container-0", "example.org", address, &ports, lifetime)
                .unwrap()
        })
    };
    let short = Duration::from_millis(1500);
    assert_eq!(pin("192.0.2.2", tcp(80, 80), short), Pinned::Open);
    assert_eq!(pin("192.0.2.2", tcp(80, 82), short), Pinned::Open);
    for special in [
        "10.0.0.1",
        "127.0.0.1",
        "169.254.169.254",
        "192.0.2.1",
        "10.88.0.1",
        "::1",
    ] {
        assert_eq!(
            pin(special, Ports::all(), LONG),
            Pinned::Special,
            "{special}"
        );
    }
    let here = |to: &str| reaches(&knarr, 0, to);
    assert!(here("192.0.2.2:80") && here("192.0.2.2:81") && here("192.0.2.2:82"));
    assert!(!here("192.0.2.1:80") && !here("10.88.0.1:80"));
    thread::sleep(short);
    assert!(!here("192.0.2.2:80") && !here("192.0.2.2:81") && here("192.0.2.2:82"));
    // What has expired is pinned again, and longer.
    let mut again = |lifetime| {
        world.on_host(|| {
            let host = &mut knarr.host;
            host.pin(
                "container-0",
                "b.example.org",
                neighbour(),
                &tcp(80, 80),
                lifetime,
            )
            .unwrap();
        });
    };
    again(short);
    again(LONG);
    thread::sleep(short);
    assert!(reaches(&knarr, 0, "192.0.2.2:80") && !reaches(&knarr, 0, "192.0.2.2:81"));
    // Another list keeps what names are pinned to.
    world.on_host(|| limit(&mut knarr, 0, &[]));
    assert!(reaches(&knarr, 0, "192.0.2.2:80") && !reaches(&knarr, 0, "192.0.2.2:82"));
    // So does a table that is written anew.
    world.on_host(|| {
        run("nft flush ruleset");
        knarr.host.repair(Change::Ours).unwrap();
    });
    assert!(reaches(&knarr, 0, "192.0.2.2:80") && !reaches(&knarr, 0, "192.0.2.2:81"));
    world.on_host(|| knarr.host.unlimit("container-0").unwrap());
    let left = table(&world);
    assert!(!left.contains("example.org"), "{left}");
}

#[test]
fn more_names_than_there_is_room_for_push_out_those_that_end_first() {
    let (world, mut knarr, _servers) = world(|| Engine::start("0000aaaa", 88, 1), false);
    world.on_host(|| {
        limit(&mut knarr, 0, &[]);
        let host = &mut knarr.host;
        host.pin("container-0", "first", neighbour(), &tcp(80, 80), LONG / 2)
            .unwrap();
    });
    assert!(reaches(&knarr, 0, "192.0.2.2:80"));
    world.on_host(|| {
        for number in 0..4096_u32 {
            let [.., c, d] = number.to_be_bytes();
            let address = IpAddr::from([198, 18, c, d]);
            knarr
                .host
                .pin("container-0", "many", address, &tcp(80, 80), LONG)
                .unwrap();
        }
    });
    assert!(!reaches(&knarr, 0, "192.0.2.2:80"));
}

#[test]
fn a_limited_network_is_limited_whatever_its_containers_say() {
    let start = || {
        let mut bridge = bridge(&engine("0000aaaa"), 88);
        bridge.reach = Some(vec![reach("192.0.2.0/24", tcp(80, 81))]);
        Engine::with("0000aaaa", &bridge, 88, 2)
    };
    let (world, mut knarr, _servers) = world(start, false);
    let entry = Balance {
        bridge: LinkName::parse("knarr-0000aaaa").unwrap(),
        addresses: vec![IpAddr::from([10, 88, 0, 200])],
        ports: vec![Served {
            protocol: Protocol::Tcp,
            to: 80,
            published: Vec::new(),
        }],
        members: vec![IpAddr::from([10, 88, 0, 3])],
    };
    world.on_host(|| knarr.host.balance("web", entry).unwrap());
    for (to, reached) in [
        ("192.0.2.2:80", true),
        ("192.0.2.2:81", true),
        ("192.0.2.2:82", false),
        ("10.88.0.1:80", false),
        ("10.88.0.3:80", true),
        ("10.88.0.200:80", true),
    ] {
        assert_eq!(reaches(&knarr, 0, to), reached, "{to}");
    }
    // A container's own list takes away from it, and cannot add.
    world.on_host(|| limit(&mut knarr, 0, &[reach("192.0.2.2/32", tcp(81, 82))]));
    for (to, reached) in [
        ("192.0.2.2:80", false),
        ("192.0.2.2:81", true),
        ("192.0.2.2:82", false),
        ("10.88.0.200:80", true),
    ] {
        assert_eq!(reaches(&knarr, 0, to), reached, "{to}");
    }
    let name = LinkName::parse("knarr-0000aaaa").unwrap();
    world.on_host(|| {
        let host = &mut knarr.host;
        host.pin(
            name.as_str(),
            "example.org",
            neighbour(),
            &tcp(82, 82),
            LONG,
        )
        .unwrap();
        host.unlimit("container-0").unwrap();
    });
    assert!(reaches(&knarr, 0, "192.0.2.2:82") && reaches(&knarr, 1, "192.0.2.2:82"));
    // The same bridge without a list.
    world.on_host(|| knarr.host.ensure(&bridge(&engine("0000aaaa"), 88)).unwrap());
    assert!(reaches(&knarr, 0, "10.88.0.1:80"));
    let left = table(&world);
    assert!(!left.contains("example.org"), "{left}");
}

#[test]
fn a_successor_knows_whom_it_finds_limited() {
    let (world, mut knarr, _servers) = world(|| Engine::start("0000aaaa", 88, 2), false);
    let live: BTreeSet<String> = ["container-0".to_owned()].into();
    let live = Live {
        owners: live,
        ..Live::default()
    };
    world.on_host(|| {
        limit(&mut knarr, 0, &[reach("192.0.2.2/32", tcp(81, 81))]);
        limit(&mut knarr, 1, &[]);
        let host = &mut knarr.host;
        host.pin(
            "container-0",
            "example.org",
            neighbour(),
            &tcp(80, 80),
            LONG,
        )
        .unwrap();
        *host = Host::open(&engine("0000aaaa")).unwrap();
    });
    let mut live = live;
    live.links = knarr
        .containers
        .iter()
        .filter_map(|one| one.link().cloned())
        .collect();
    world.on_host(|| knarr.host.sweep(&live).unwrap());
    // The dead one's is gone, the other's is as it was.
    let still = |knarr: &Engine| {
        assert!(reaches(knarr, 0, "192.0.2.2:80") && reaches(knarr, 0, "192.0.2.2:81"));
        assert!(!reaches(knarr, 0, "192.0.2.2:82"));
        assert!(reaches(knarr, 1, "192.0.2.2:82"));
    };
    still(&knarr);
    world.on_host(|| {
        knarr.host.ensure(&bridge(&engine("0000aaaa"), 88)).unwrap();
        limit(&mut knarr, 0, &[reach("192.0.2.2/32", tcp(81, 81))]);
    });
    still(&knarr);
    world.on_host(|| {
        knarr
            .host
            .sweep(&Live {
                links: live.links.clone(),
                ..Live::default()
            })
            .unwrap()
    });
    assert!(reaches(&knarr, 0, "192.0.2.2:82"));
    let left = table(&world);
    assert!(
        !left.contains("example.org") && !left.contains("container-0"),
        "{left}"
    );
}

#[test]
fn ipv6_is_limited_as_well() {
    let world = World::new(false);
    let mut bridge = bridge(&engine("0000aaaa"), 88);
    bridge.gateways.push("fd00:88::1/64".parse().unwrap());
    let mut knarr = world.on_host(|| {
        let mut knarr = Engine::with("0000aaaa", &bridge, 88, 0);
        let link = knarr.host.ensure(&bridge).unwrap();
        let size = knarr_net::PoolSize { bare: 0, linked: 1 };
        let pool = knarr_net::Pool::start(&engine("0000aaaa"), size).unwrap();
        for number in 2..4 {
            let mut interface = world::interface(88, number);
            interface
                .addresses
                .push(format!("fd00:88::{number}/64").parse().unwrap());
            interface.gateways.push("fd00:88::1".parse().unwrap());
            let mut sandbox = pool.take_linked(&link).unwrap();
            sandbox.configure(&interface).unwrap();
            knarr.containers.push(sandbox);
        }
        run("ip -6 addr add 2001:db8::1/64 dev uplink nodad");
        knarr
    });
    world.on_neighbour(|| {
        run("ip -6 addr add 2001:db8::2/64 dev wire nodad");
        run("ip -6 route add default via 2001:db8::1");
    });
    let _servers: Vec<Server> = (80..82)
        .map(|port| {
            Server::tcp(
                std::os::fd::AsFd::as_fd(&world.neighbour),
                &format!("[::]:{port}"),
            )
        })
        .chain([Server::tcp(knarr.container(1), "[::]:80")])
        .collect();
    assert!(on(knarr.container(0), || ask("[2001:db8::2]:80")).is_some());
    let subject = Subject::Container {
        addresses: vec!["10.88.0.2".parse().unwrap(), "fd00:88::2".parse().unwrap()],
        links: knarr.containers[0].link().into_iter().cloned().collect(),
    };
    let list = [reach("2001:db8::/32", tcp(81, 81))];
    world.on_host(|| knarr.host.limit("container-0", subject, &list).unwrap());
    let here = |knarr: &Engine, to: &str| reaches(knarr, 0, to);
    assert!(here(&knarr, "[2001:db8::2]:81") && !here(&knarr, "[2001:db8::2]:80"));
    assert!(here(&knarr, "[fd00:88::3]:80") && !here(&knarr, "192.0.2.2:80"));
    on(knarr.container(0), || {
        run("ip -6 addr add fd00:88::77/64 dev eth0 nodad")
    });
    on(knarr.container(0), || {
        run("ip -6 route replace default via fd00:88::1 src fd00:88::77")
    });
    assert!(!here(&knarr, "[2001:db8::2]:80"));
    on(knarr.container(0), || {
        run("ip -6 addr del fd00:88::77/64 dev eth0")
    });
    let address = "2001:db8::2".parse().unwrap();
    world.on_host(|| {
        let host = &mut knarr.host;
        host.pin("container-0", "example.org", address, &tcp(80, 80), LONG)
            .unwrap();
    });
    on(knarr.container(0), || {
        run("ip -6 route replace default via fd00:88::1")
    });
    assert!(here(&knarr, "[2001:db8::2]:80"));
    world.on_host(|| knarr.host.unlimit("container-0").unwrap());
}

#[test]
fn the_guard_is_the_one_that_is_documented() {
    let (world, mut knarr, _servers) = world(|| Engine::start("0000aaaa", 88, 1), false);
    world.on_host(|| limit(&mut knarr, 0, &[]));
    let listed = world.on_host(|| run("nft list table bridge knarr-0000aaaa"));
    let documented = include_str!("../src/nft/guard.rs")
        .split("```")
        .nth(1)
        .unwrap();
    let rules = |text: &str| -> Vec<String> {
        let lines = text
            .lines()
            .map(|line| line.trim_start_matches("//!").split('#').next().unwrap());
        let words = lines.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
        let shown = words.map(|line| {
            line.replace("meta protocol ip6 ", "")
                .replace("meta protocol ip ", "")
        });
        let shown = shown.map(|line| line.replace("meta protocol arp ", ""));
        shown
            .filter(|line| line.contains('@') || line.ends_with("accept"))
            .collect()
    };
    assert_eq!(rules(&listed), rules(documented));
    assert_eq!(rules(&listed).len(), 6, "{listed}");
}
