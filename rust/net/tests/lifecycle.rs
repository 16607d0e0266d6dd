//! Conflicts, repairs, sweeps and leaks.

mod world;

use std::collections::BTreeSet;
use std::net::{IpAddr, TcpListener, UdpSocket};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use knarr_net::{Error, Host, Live, Pool, PoolSize, Protocol, Publish, Swept};
use world::{
    Engine, Server, World, ask, ask_in_vain, bridge, engine, interface, on, port, run, until,
};

fn container() -> IpAddr {
    "10.88.0.2".parse().unwrap()
}

#[test]
fn a_port_in_use_is_a_conflict_that_names_it() {
    let world = World::new(false);
    world.on_host(|| {
        let mut knarr = Engine::start("0000aaaa", 88, 0);
        let mut refused = |host_ip: &str, number: u16, protocol| {
            let wanted = [
                port(Protocol::Tcp, "0.0.0.0", 6000, 80),
                port(protocol, host_ip, number, 80),
            ];
            let error = knarr
                .host
                .publish("b", &[container()], &wanted)
                .unwrap_err();
            assert_eq!(error.kind(), "Conflict", "{error}");
            error.to_string()
        };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = listener.local_addr().unwrap().port();
        let message = refused("0.0.0.0", taken, Protocol::Tcp);
        assert!(
            message.contains(&format!("0.0.0.0:{taken}/tcp")),
            "{message}"
        );
        assert!(message.contains("port is already allocated"), "{message}");
        assert!(
            message.contains(&format!("process {}", std::process::id())),
            "{message}"
        );
        refused("127.0.0.1", taken, Protocol::Tcp);
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        refused(
            "127.0.0.1",
            socket.local_addr().unwrap().port(),
            Protocol::Udp,
        );

        // None of the refused requests has left anything, its first port included.
        let first = knarr
            .host
            .publish(
                "a",
                &[container()],
                &[port(Protocol::Tcp, "0.0.0.0", 6000, 80)],
            )
            .unwrap();
        let wanted = [port(Protocol::Tcp, "127.0.0.1", 6000, 80)];
        let error = knarr
            .host
            .publish("b", &[container()], &wanted)
            .unwrap_err();
        assert!(
            matches!(&error, Error::PortOurs { owner, .. } if owner == "a"),
            "{error}"
        );
        assert_eq!(error.kind(), "Conflict");

        // While it is published nobody else gets it, with SO_REUSEADDR (Rust's listeners have it) or not.
        assert!(TcpListener::bind("0.0.0.0:6000").is_err());
        knarr.host.unpublish("a").unwrap();
        drop(first);
        // A process that another test is starting may have a copy of the socket for an instant.
        until(|| TcpListener::bind("0.0.0.0:6000").is_ok());
    });
}

#[test]
fn addresses_of_other_hosts_are_refused() {
    let world = World::new(false);
    world.on_host(|| {
        let mut knarr = Engine::start("0000aaaa", 88, 0);
        let error = knarr
            .host
            .publish(
                "a",
                &[container()],
                &[port(Protocol::Tcp, "203.0.113.9", 80, 80)],
            )
            .unwrap_err();
        assert_eq!(error.kind(), "InvalidArgument");
        assert!(error.to_string().contains("203.0.113.9"), "{error}");
        let error = knarr
            .host
            .publish("a", &[container()], &[port(Protocol::Tcp, "::", 80, 80)])
            .unwrap_err();
        assert_eq!(error.kind(), "InvalidArgument");
        assert!(error.to_string().contains("\"::\""), "{error}");
    });
}

#[test]
fn connections_that_have_ended_do_not_keep_a_port() {
    let world = World::new(false);
    let mut knarr = world.on_host(|| Engine::start("0000aaaa", 88, 1));
    let _server = Server::tcp(knarr.container(0), "0.0.0.0:80");
    world.on_host(|| {
        // The server closes first, so the port is in TIME_WAIT when it has gone.
        let server = Server::tcp(world.host.as_fd(), "0.0.0.0:8080");
        assert!(ask("127.0.0.1:8080").is_some());
        drop(server);
        assert!(
            run("ss -Htan").contains("TIME-WAIT"),
            "the test does not test what it says"
        );
        knarr.publish(0, &[port(Protocol::Tcp, "0.0.0.0", 8080, 80)]);
        assert_eq!(ask("127.0.0.1:8080").as_deref(), Some("10.88.0.1"));
        assert!(
            TcpListener::bind("0.0.0.0:8080").is_err(),
            "and it is reserved all the same"
        );
    });
}

#[test]
fn the_kernel_chooses_a_port() {
    let world = World::new(false);
    let mut knarr = world.on_host(|| Engine::start("0000aaaa", 88, 1));
    let _server = Server::tcp(knarr.container(0), "0.0.0.0:80");
    world.on_host(|| {
        run("sysctl -qw net.ipv4.ip_local_port_range=50000\t50100");
        let ports = [
            port(Protocol::Tcp, "0.0.0.0", 0, 80),
            port(Protocol::Udp, "0.0.0.0", 0, 80),
        ];
        let chosen = knarr.publish(0, &ports);
        assert!(
            chosen.iter().all(|port| (50_000..=50_100).contains(port)),
            "{chosen:?}"
        );
        assert!(ask(&format!("127.0.0.1:{}", chosen[0])).is_some());
    });
}

#[test]
fn the_first_free_port_of_a_range_is_taken() {
    let world = World::new(false);
    let mut knarr = world.on_host(|| Engine::start("0000aaaa", 88, 2));
    let _server = Server::tcp(knarr.container(0), "0.0.0.0:80");
    world.on_host(|| {
        let _other = TcpListener::bind("0.0.0.0:8000").unwrap();
        let range = Publish {
            host_port_last: Some(8003),
            ..port(Protocol::Tcp, "0.0.0.0", 8000, 80)
        };
        assert_eq!(knarr.publish(0, &[range, range]), [8001, 8002]);
        assert!(ask("127.0.0.1:8001").is_some());
        assert_eq!(knarr.publish(1, &[range]), [8003]);
        let error = knarr
            .host
            .publish("c", &[container()], &[range])
            .unwrap_err();
        assert_eq!(error.kind(), "Conflict");
        assert_eq!(
            error.to_string(),
            "Bind for 0.0.0.0:8000-8003/tcp failed: all ports of the range are already allocated; publish others"
        );
        knarr.host.unpublish("container-0").unwrap();
        let udp = Publish {
            protocol: Protocol::Udp,
            ..range
        };
        assert_eq!(knarr.publish(1, &[udp]), [8000]);
        for (first, last) in [(0, 5), (10, 9)] {
            let backwards = Publish {
                host_port: first,
                host_port_last: Some(last),
                ..range
            };
            let error = knarr
                .host
                .publish("c", &[container()], &[backwards])
                .unwrap_err();
            assert_eq!(error.kind(), "InvalidArgument");
        }
    });
}

#[test]
fn flushed_rules_and_a_lost_bridge_are_made_anew() {
    let world = World::new(false);
    let mut knarr = world.on_host(|| {
        let mut knarr = Engine::start("0000aaaa", 88, 2);
        knarr.publish(0, &[port(Protocol::Tcp, "0.0.0.0", 8080, 80)]);
        knarr
    });
    let _server = Server::tcp(knarr.container(0), "0.0.0.0:80");
    let description = bridge(knarr.host.engine(), 88);
    let reached = || world.on_neighbour(|| ask("192.0.2.1:8080").is_some());
    let cut_off = || world.on_neighbour(|| ask_in_vain("192.0.2.1:8080").is_none());
    assert!(reached());

    world.on_host(|| run("nft flush ruleset"));
    assert!(cut_off());
    world.on_host(|| knarr.host.ensure(&description).unwrap());
    assert!(reached(), "by ensure");

    world.on_host(|| run("nft flush ruleset"));
    world.on_host(|| knarr.publish(1, &[port(Protocol::Tcp, "0.0.0.0", 9090, 80)]));
    assert!(reached(), "by publishing another");

    world.on_host(|| {
        let before = run("nft list ruleset");
        knarr.host.ensure(&description).unwrap();
        Host::open(&engine("0000aaaa"))
            .unwrap()
            .ensure(&description)
            .unwrap();
        assert_eq!(
            run("nft list ruleset"),
            before,
            "ensuring what is well changes nothing"
        );
    });

    // A bridge that somebody deletes takes its containers' links with it, but the next start works.
    world.on_host(|| {
        let pool = Pool::start(knarr.host.engine(), PoolSize { bare: 0, linked: 2 }).unwrap();
        let first = knarr.host.ensure(&description).unwrap();
        drop(pool.take_linked(&first).unwrap());
        run("ip link delete knarr-0000aaaa");
        let link = knarr.host.ensure(&description).unwrap();
        assert_ne!(first, link);
        let mut sandbox = pool.take_linked(&link).unwrap();
        sandbox.configure(&interface(88, 9)).unwrap();
        let _server = Server::tcp(sandbox.namespace(), "0.0.0.0:80");
        assert!(ask("10.88.0.9:80").is_some());
    });
}

#[test]
fn a_link_that_is_no_bridge_is_left_alone() {
    let world = World::new(false);
    world.on_host(|| {
        run("ip link add knarr-0000aaaa type veth peer name other");
        let engine = engine("0000aaaa");
        let error = Host::open(&engine)
            .unwrap()
            .ensure(&bridge(&engine, 88))
            .unwrap_err();
        assert_eq!(error.kind(), "Conflict");
        assert!(error.to_string().contains("knarr-0000aaaa"), "{error}");
        assert!(run("ip -d link show knarr-0000aaaa").contains("veth"));
    });
}

#[test]
fn a_changed_network_replaces_the_old_one() {
    let world = World::new(false);
    world.on_host(|| {
        let engine = engine("0000aaaa");
        let mut description = bridge(&engine, 88);
        Host::open(&engine).unwrap().ensure(&description).unwrap();
        description.gateways = vec!["10.88.0.1/24".parse().unwrap()];
        Host::open(&engine).unwrap().ensure(&description).unwrap();
        let subnets = run("nft list set inet knarr-0000aaaa subnets");
        assert!(
            subnets.contains("10.88.0.0/24") && !subnets.contains("10.88.0.0/16"),
            "{subnets}"
        );
    });
}

#[test]
fn a_sweep_removes_what_a_killed_engine_left_and_nothing_else() {
    let world = World::new(false);
    let mut other = world.on_host(|| Engine::start("0000bbbb", 89, 1));
    let _other_server = Server::tcp(other.container(0), "0.0.0.0:80");
    let first = world.on_host(|| {
        other.publish(0, &[port(Protocol::Tcp, "0.0.0.0", 9090, 80)]);
        let mut knarr = Engine::start("0000aaaa", 88, 3);
        knarr.publish(0, &[port(Protocol::Tcp, "0.0.0.0", 8080, 80)]);
        knarr.publish(
            1,
            &[
                port(Protocol::Tcp, "0.0.0.0", 8081, 80),
                port(Protocol::Udp, "127.0.0.1", 8081, 80),
            ],
        );
        knarr
    });
    let _server = Server::tcp(first.container(0), "0.0.0.0:80");
    let live_link = first.containers[0].link().unwrap().clone();

    // The engine dies: its sockets are closed, but namespaces live on (here: 3, by their descriptors).
    let Engine {
        host,
        containers,
        published,
        ..
    } = first;
    drop((host, published));
    world.on_host(|| until(|| run("ip -o link").matches("kv0000a").count() == 3));
    let mut next = world.on_host(|| Host::open(&engine("0000aaaa")).unwrap());
    let live = Live {
        owners: BTreeSet::from(["container-0".to_owned()]),
        links: BTreeSet::from([live_link]),
        ..Live::default()
    };
    world.on_host(|| {
        assert_eq!(next.sweep(&live).unwrap(), Swept { ports: 2, links: 2 });
        assert_eq!(next.sweep(&live).unwrap(), Swept::default());
        next.adopt(
            "container-0",
            &[container()],
            &[port(Protocol::Tcp, "0.0.0.0", 8080, 80)],
        )
        .unwrap();
    });
    world.on_neighbour(|| {
        assert!(
            ask("192.0.2.1:8080").is_some(),
            "what lives is still reached"
        );
        assert!(
            ask("192.0.2.1:9090").is_some(),
            "and so is the other engine's"
        );
        assert_eq!(ask_in_vain("192.0.2.1:8081"), None);
    });
    world.on_host(|| next.unpublish("container-0").unwrap());
    world.on_neighbour(|| assert_eq!(ask_in_vain("192.0.2.1:8080"), None));

    world.on_host(|| next.destroy().unwrap());
    world.on_host(|| {
        let left = [run("nft list tables"), run("ip -o link")].concat();
        assert!(
            !left.contains("0000aaaa") && !left.contains("kv0000aa"),
            "{left}"
        );
        assert!(left.contains("knarr-0000bbbb"), "{left}");
    });
    world.on_neighbour(|| assert!(ask("192.0.2.1:9090").is_some()));
    drop(containers);
}

#[test]
fn five_hundred_sandboxes_leave_nothing() {
    let world = World::new(false);
    world.on_host(|| {
        let engine = engine("0000aaaa");
        let mut host = Host::open(&engine).unwrap();
        let link = host.ensure(&bridge(&engine, 88)).unwrap();
        let pool = Pool::start(&engine, PoolSize { bare: 4, linked: 4 }).unwrap();
        let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
        for round in 0..250u16 {
            drop(pool.take_bare().unwrap());
            let mut sandbox = pool.take_linked(&link).unwrap();
            sandbox
                .configure(&interface(88, u8::try_from(round % 200).unwrap() + 2))
                .unwrap();
            let owner = format!("c{round}");
            let published = host
                .publish(
                    &owner,
                    &[container()],
                    &[port(Protocol::Tcp, "0.0.0.0", 10_000 + round, 80)],
                )
                .unwrap();
            drop(sandbox);
            host.unpublish(&owner).unwrap();
            drop(published);
        }
        drop(pool);
        until(|| !run("ip -o link").contains("kv0000a"));
        for map in ["forwards", "forwards-any"] {
            let map = run(&format!("nft list map inet knarr-0000aaaa {map}"));
            assert!(!map.contains("elements"), "{map}");
        }
        // Other tests run beside this one: a leak would be one descriptor a round.
        assert!(
            descriptors() < 300,
            "{} descriptors are open",
            descriptors()
        );
    });
}

#[test]
fn what_a_sandbox_looks_like_from_inside() {
    let world = World::new(false);
    let knarr = world.on_host(|| {
        run("ip link set uplink mtu 1400");
        run("ip route add default via 192.0.2.2");
        Engine::start("0000aaaa", 88, 1)
    });
    on(knarr.container(0), || {
        let link = run("ip -o -d link show eth0");
        assert!(
            link.contains("02:42:0a:58:00:02") && link.contains("mtu 1400") && link.contains("UP"),
            "{link}"
        );
        let addresses = run("ip -o addr");
        assert!(
            addresses.contains("10.88.0.2/16 brd 10.88.255.255"),
            "{addresses}"
        );
        assert!(addresses.contains("127.0.0.1/8"), "{addresses}");
        assert!(!addresses.contains("fe80"), "{addresses}");
        assert!(run("ip route").contains("default via 10.88.0.1 dev eth0"));
        let low = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap();
        assert_eq!(low.trim(), "0");
    });
}

#[test]
fn an_address_that_moves_is_announced() {
    let world = World::new(false);
    world.on_host(|| {
        let engine = engine("0000aaaa");
        let link = Host::open(&engine)
            .unwrap()
            .ensure(&bridge(&engine, 88))
            .unwrap();
        let pool = Pool::start(&engine, PoolSize { bare: 0, linked: 2 }).unwrap();
        let ready = || until(|| pool.ready(Some(link.name())) == 2);
        drop(pool.take_linked(&link).unwrap());
        // The same address with one MAC address after another: the host must not go on with the last.
        for last in 1..4u8 {
            ready();
            let mut sandbox = pool.take_linked(&link).unwrap();
            let mut wanted = interface(88, 2);
            wanted.mac = Some(format!("02:42:00:00:00:0{last}").parse().unwrap());
            sandbox.configure(&wanted).unwrap();
            let _server = Server::tcp(sandbox.namespace(), "0.0.0.0:80");
            let begun = Instant::now();
            assert!(ask("10.88.0.2:80").is_some());
            assert!(
                begun.elapsed() < Duration::from_millis(900),
                "only after a timeout"
            );
        }
    });
}

#[test]
fn a_udp_client_that_never_stops_gets_the_new_container() {
    let world = World::new(false);
    let mut knarr = world.on_host(|| Engine::start("0000aaaa", 88, 2));
    let _zero = Server::udp(knarr.container(0), "0.0.0.0:80");
    let _one = Server::udp(knarr.container(1), "0.0.0.0:80");
    let client = world.on_neighbour(|| UdpSocket::bind("0.0.0.0:4000").unwrap());
    client.connect("192.0.2.1:8080").unwrap();
    client
        .set_read_timeout(Some(Duration::from_millis(300)))
        .unwrap();
    let answered = || {
        client
            .send(b"?")
            .ok()
            .and_then(|_| client.recv(&mut [0; 64]).ok())
            .is_some()
    };
    for wildcard in [true, false] {
        let host_ip = if wildcard { "0.0.0.0" } else { "192.0.2.1" };
        for container in 0..2 {
            until(|| !answered()); // a flow of the host's own
            let published = world.on_host(|| {
                let address = format!("10.88.0.{}", container + 2).parse().unwrap();
                let ports = [port(Protocol::Udp, host_ip, 8080, 80)];
                knarr.host.publish("c", &[address], &ports).unwrap()
            });
            until(answered);
            world.on_host(|| knarr.host.unpublish("c").unwrap());
            drop(published);
        }
    }
}

#[test]
fn the_table_is_the_one_that_is_documented() {
    let world = World::new(false);
    let listed = world.on_host(|| {
        let knarr = Engine::start("0000aaaa", 88, 1);
        drop(knarr);
        run("nft list table inet knarr-0000aaaa")
    });
    let source = include_str!("../src/nft/ruleset.rs");
    let documented = source.split("```").nth(1).unwrap();
    let documented = documented.trim_start_matches("text").replace("//!", "");
    // The rules: each of them looks something up in a set.
    let rules = |text: &str| -> Vec<String> {
        let lines = text.lines().map(|line| line.split('#').next().unwrap());
        let words = lines.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
        words.filter(|line| line.contains('@')).collect()
    };
    assert_eq!(rules(&listed), rules(&documented));
    assert_eq!(rules(&listed).len(), 47, "{listed}");
}

#[test]
fn what_a_dead_container_left_under_a_port_is_replaced() {
    let world = World::new(false);
    let mut knarr = world.on_host(|| Engine::start("0000aaaa", 88, 2));
    let _server = Server::tcp(knarr.container(1), "0.0.0.0:80");
    world.on_host(|| {
        let mut killed = Host::open(&engine("0000aaaa")).unwrap();
        let ports = [
            port(Protocol::Tcp, "0.0.0.0", 8080, 80),
            port(Protocol::Tcp, "127.0.0.1", 8081, 80),
        ];
        drop(killed.publish("dead", &[container()], &ports).unwrap());
        drop(killed);
        knarr.publish(1, &ports);
        assert!(ask("127.0.0.1:8080").is_some());
        assert!(ask("127.0.0.1:8081").is_some());
    });
}
