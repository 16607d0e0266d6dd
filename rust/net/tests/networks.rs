//! Networks of one engine: what they keep apart. Each way is shown to be open without what shuts it.

mod world;

use std::os::fd::AsFd;

use knarr_net::{Bridge, Host, LinkName, Pool, PoolSize, Protocol, Sandbox};
use world::{Server, World, ask, ask_in_vain, engine, interface, on, port, run, until};

/// Where a neighbour serves.
const OUTSIDE: &str = "192.0.2.2:7777";

/// One engine with many networks.
struct Engine {
    host: Host,
    pool: Pool,
}

impl Engine {
    fn open() -> Self {
        let engine = engine("0000aaaa");
        Self {
            host: Host::open(&engine).unwrap(),
            pool: Pool::start(&engine, PoolSize { bare: 0, linked: 1 }).unwrap(),
        }
    }

    /// A network and its containers, 10.<net>.0.2, .3, ...
    fn network<const N: usize>(&mut self, net: u8, bridge: &Bridge) -> [Sandbox; N] {
        let link = self.host.ensure(bridge).unwrap();
        let mut number = 2;
        [(); N].map(|()| {
            let mut sandbox = self.pool.take_linked(&link).unwrap();
            sandbox.configure(&interface(net, number)).unwrap();
            number += 1;
            sandbox
        })
    }
}

fn name(net: u8) -> LinkName {
    LinkName::parse(&format!("br-{net}")).unwrap()
}

/// The network 10.<net>.0.0/16.
fn network(net: u8) -> Bridge {
    Bridge::new(name(net), format!("10.{net}.0.1/16").parse().unwrap())
}

fn internal(net: u8) -> Bridge {
    Bridge {
        internal: true,
        ..network(net)
    }
}

fn set(name: &str) -> String {
    run(&format!("nft list set inet knarr-0000aaaa {name}"))
}

#[test]
fn networks_of_an_engine_do_not_reach_one_another() {
    let world = World::new(false);
    let (mut knarr, [one], [two, third]) = world.on_host(|| {
        let mut knarr = Engine::open();
        let one = knarr.network(70, &network(70));
        let two = knarr.network(71, &network(71));
        (knarr, one, two)
    });
    let _one = Server::tcp(one.namespace(), "0.0.0.0:80");
    let _two = Server::tcp(two.namespace(), "0.0.0.0:80");
    on(one.namespace(), || {
        assert_eq!(ask_in_vain("10.71.0.2:80"), None);
    });
    on(two.namespace(), || {
        assert_eq!(ask_in_vain("10.70.0.2:80"), None);
    });
    on(third.namespace(), || {
        assert_eq!(ask("10.71.0.2:80").as_deref(), Some("10.71.0.3"));
    });
    world.on_host(|| {
        let address = "10.71.0.2".parse().unwrap();
        let ports = [port(Protocol::Tcp, "0.0.0.0", 8080, 80)];
        drop(knarr.host.publish("two", &[address], &ports).unwrap());
    });
    on(one.namespace(), || {
        assert!(
            ask("192.0.2.1:8080").is_some(),
            "what is published is for everyone"
        );
    });
    world.on_host(|| run("nft flush chain inet knarr-0000aaaa forward"));
    on(one.namespace(), || {
        assert!(
            ask("10.71.0.2:80").is_some(),
            "the attack itself does not work"
        );
    });
}

#[test]
fn nothing_leaves_an_internal_network_and_nothing_enters() {
    let world = World::new(false);
    let (mut knarr, [one, two], [other]) = world.on_host(|| {
        let mut knarr = Engine::open();
        let inside = knarr.network(70, &internal(70));
        let other = knarr.network(71, &network(71));
        (knarr, inside, other)
    });
    let _neighbour = Server::tcp(world.neighbour.as_fd(), OUTSIDE);
    let _host = Server::tcp(world.host.as_fd(), "10.70.0.1:7777");
    let _inside = Server::tcp(one.namespace(), "0.0.0.0:80");
    let _other = Server::tcp(other.namespace(), "0.0.0.0:80");
    world.on_host(|| {
        let ports = |number| [port(Protocol::Tcp, "0.0.0.0", number, 80)];
        let mut publish = |owner, address: &str, number| {
            let address = address.parse().unwrap();
            drop(
                knarr
                    .host
                    .publish(owner, &[address], &ports(number))
                    .unwrap(),
            );
        };
        publish("one", "10.70.0.2", 8070);
        publish("other", "10.71.0.2", 8071);
    });
    on(two.namespace(), || {
        assert_eq!(ask("10.70.0.2:80").as_deref(), Some("10.70.0.3"));
        assert_eq!(ask("10.70.0.1:7777").as_deref(), Some("10.70.0.3"));
    });
    world.on_host(|| assert!(ask("10.70.0.2:80").is_some()));
    on(other.namespace(), || {
        assert!(ask(OUTSIDE).is_some(), "the other network is open");
    });
    world.on_neighbour(|| assert!(ask("192.0.2.1:8071").is_some()));
    // Each: whether the way is open, to try with the rules and without.
    let ask = |open: bool, to: &str| if open { ask(to) } else { ask_in_vain(to) }.is_some();
    let out = |open| on(two.namespace(), || ask(open, OUTSIDE));
    let to_published = |open| on(two.namespace(), || ask(open, "192.0.2.1:8071"));
    let to_other = |open| on(two.namespace(), || ask(open, "10.71.0.2:80"));
    let into = |open| world.on_neighbour(|| ask(open, "10.70.0.2:80"));
    let into_published = |open| world.on_neighbour(|| ask(open, "192.0.2.1:8070"));
    let from_other = |open| on(other.namespace(), || ask(open, "10.70.0.2:80"));
    let ways: [&dyn Fn(bool) -> bool; 6] = [
        &out,
        &to_published,
        &to_other,
        &into,
        &into_published,
        &from_other,
    ];
    assert_eq!(ways.map(|way| way(false)), [false; 6]);
    world.on_host(|| run("nft flush chain inet knarr-0000aaaa forward"));
    assert_eq!(ways.map(|way| way(true)), [true; 6]);
}

#[test]
fn flows_that_are_under_way_end_when_a_network_becomes_internal() {
    let world = World::new(false);
    let (mut knarr, [one]) = world.on_host(|| {
        let mut knarr = Engine::open();
        let containers = knarr.network(70, &network(70));
        (knarr, containers)
    });
    let server = world.on_neighbour(|| std::net::UdpSocket::bind(OUTSIDE).unwrap());
    let client = on(one.namespace(), || {
        std::net::UdpSocket::bind("0.0.0.0:0").unwrap()
    });
    let limit = std::time::Duration::from_millis(300);
    server.set_read_timeout(Some(limit)).unwrap();
    client.set_read_timeout(Some(limit)).unwrap();
    let exchange = || {
        client.send_to(b"?", OUTSIDE).unwrap();
        let (_, peer) = server.recv_from(&mut [0; 8]).ok()?;
        server.send_to(b"!", peer).unwrap();
        client.recv(&mut [0; 8]).ok().map(|_| peer)
    };
    let peer = exchange().unwrap();
    world.on_host(|| knarr.host.ensure(&internal(70)).unwrap());
    assert_eq!(exchange(), None);
    server.send_to(b"!", peer).unwrap();
    assert!(client.recv(&mut [0; 8]).is_err());
}

#[test]
fn internal_networks_beside_docker_and_bridge_netfilter() {
    // Docker's chain and policy see what br_netfilter shows them: frames within the network.
    let bridge_netfilter = std::path::Path::new("/proc/sys/net/bridge").exists();
    let world = World::new(bridge_netfilter);
    let (mut knarr, [one, two]) = world.on_host(|| {
        run("iptables -P FORWARD DROP");
        run("iptables -N DOCKER-USER");
        run("iptables -I FORWARD -j DOCKER-USER");
        let mut knarr = Engine::open();
        let inside = knarr.network(70, &internal(70));
        (knarr, inside)
    });
    let _inside = Server::tcp(one.namespace(), "0.0.0.0:80");
    let _neighbour = Server::tcp(world.neighbour.as_fd(), OUTSIDE);
    on(two.namespace(), || {
        assert!(ask("10.70.0.2:80").is_some());
        assert_eq!(ask_in_vain(OUTSIDE), None);
    });
    world.on_neighbour(|| assert_eq!(ask_in_vain("10.70.0.2:80"), None));
    world.on_host(|| {
        assert_eq!(knarr.host.take_warnings(), [""; 0]);
        knarr.host.remove(&name(70)).unwrap();
        assert!(!run("iptables -S").contains("br-70"));
    });
}

#[test]
fn isolated_containers_do_not_reach_one_another() {
    let world = World::new(false);
    let (mut knarr, [one, two]) = world.on_host(|| {
        let mut knarr = Engine::open();
        let isolated = Bridge {
            isolated: true,
            ..network(70)
        };
        let containers = knarr.network(70, &isolated);
        (knarr, containers)
    });
    let _one = Server::tcp(one.namespace(), "0.0.0.0:80");
    let _outside = Server::tcp(world.neighbour.as_fd(), OUTSIDE);
    on(two.namespace(), || {
        assert_eq!(ask_in_vain("10.70.0.2:80"), None);
    });
    world.on_host(|| {
        assert!(ask("10.70.0.2:80").is_some());
        let address = "10.70.0.2".parse().unwrap();
        let ports = [port(Protocol::Tcp, "0.0.0.0", 8080, 80)];
        drop(knarr.host.publish("one", &[address], &ports).unwrap());
    });
    on(two.namespace(), || {
        assert!(ask(OUTSIDE).is_some());
        assert!(ask("192.0.2.1:8080").is_some());
    });
    world.on_neighbour(|| assert!(ask("192.0.2.1:8080").is_some()));

    // Who helps: both send what is for the other to the host, for it to send it back.
    let help = |verb: &str| {
        on(one.namespace(), || {
            run(&format!("ip route {verb} 10.70.0.3/32 via 10.70.0.1"));
        });
        on(two.namespace(), || {
            run(&format!("ip route {verb} 10.70.0.2/32 via 10.70.0.1"));
        });
    };
    help("add");
    on(two.namespace(), || {
        assert_eq!(ask_in_vain("10.70.0.2:80"), None);
    });
    help("del");
    world.on_host(|| run("nft flush chain inet knarr-0000aaaa forward"));
    on(two.namespace(), || {
        assert_eq!(ask_in_vain("10.70.0.2:80"), None, "the bridge shuts it");
    });
    help("add");
    on(two.namespace(), || {
        assert!(
            ask("10.70.0.2:80").is_some(),
            "the attack itself does not work"
        );
    });
}

#[test]
fn without_masquerade_a_container_keeps_its_address() {
    let world = World::new(false);
    let (_knarr, [one, two], [hidden]) = world.on_host(|| {
        let mut knarr = Engine::open();
        let plain = Bridge {
            masquerade: false,
            ..network(70)
        };
        let containers = knarr.network(70, &plain);
        let hidden = knarr.network(71, &network(71));
        (knarr, containers, hidden)
    });
    let _outside = Server::tcp(world.neighbour.as_fd(), OUTSIDE);
    let _inside = Server::tcp(two.namespace(), "0.0.0.0:80");
    on(one.namespace(), || {
        assert_eq!(ask(OUTSIDE).as_deref(), Some("10.70.0.2"));
    });
    on(hidden.namespace(), || {
        assert_eq!(ask(OUTSIDE).as_deref(), Some("192.0.2.1"));
    });
    world.on_neighbour(|| assert_eq!(ask_in_vain("10.70.0.3:80"), None, "not published"));
}

#[test]
fn a_network_made_anew_is_what_it_is_said_to_be() {
    let world = World::new(false);
    let closed = Bridge {
        internal: true,
        masquerade: false,
        isolated: true,
        ..network(70)
    };
    let _outside = Server::tcp(world.neighbour.as_fd(), OUTSIDE);
    // With and without a removal between; by the process that made the other, and by the next one.
    for (removed, same) in [(true, true), (true, false), (false, true), (false, false)] {
        let mut first = world.on_host(Engine::open);
        let [shut, beside]: [Sandbox; 2] = world.on_host(|| first.network(70, &closed));
        on(shut.namespace(), || assert_eq!(ask_in_vain(OUTSIDE), None));
        let old = [&shut, &beside].map(|sandbox| sandbox.link().unwrap().to_string());
        drop((shut, beside));
        // Until they have gone, they answer to the addresses that the next ones get.
        world.on_host(|| {
            until(|| {
                let links = run("ip -o link");
                !old.iter().any(|old| links.contains(old))
            });
        });
        let mut next = if same {
            first
        } else {
            world.on_host(Engine::open)
        };
        world.on_host(|| {
            if removed {
                next.host.remove(&name(70)).unwrap();
                for set_name in ["bridges", "paths", "internal", "routed", "subnets"] {
                    assert!(!set(set_name).contains("elements"), "{}", set(set_name));
                }
                assert!(!run("ip -o link").contains("br-70"));
                next.host.remove(&name(70)).unwrap();
            }
        });
        let [one, two] = world.on_host(|| next.network(70, &network(70)));
        let _server = Server::tcp(two.namespace(), "0.0.0.0:80");
        on(one.namespace(), || {
            assert_eq!(ask(OUTSIDE).as_deref(), Some("192.0.2.1"));
            assert!(ask("10.70.0.3:80").is_some());
        });
        world.on_host(|| {
            for set_name in ["internal", "routed"] {
                assert!(!set(set_name).contains("elements"), "{}", set(set_name));
            }
            next.host.destroy().unwrap();
        });
    }
}

#[test]
fn what_is_said_of_a_network_half_is_removed_whole() {
    let world = World::new(false);
    world.on_host(|| {
        let mut knarr = Engine::open();
        knarr.host.ensure(&internal(70)).unwrap();
        knarr.host.ensure(&network(71)).unwrap();
        run("nft delete element inet knarr-0000aaaa bridges { br-70 }");
        run("ip link delete br-70");
        knarr.host.remove(&name(70)).unwrap();
        assert!(!set("internal").contains("elements"));
        let subnets = set("subnets");
        assert!(
            subnets.contains("10.71.0.0/16") && !subnets.contains("10.70.0.0/16"),
            "{subnets}"
        );
        assert!(set("bridges").contains("elements"), "the other's");
    });
}

#[test]
fn destroy_removes_a_predecessors_networks_and_nobody_elses() {
    let world = World::new(false);
    world.on_host(|| {
        run("iptables -N DOCKER-USER");
        let mut other = Host::open(&engine("0000bbbb")).unwrap();
        other.ensure(&network(90)).unwrap();
        run("ip link add br-docker type bridge");
        let mut first = Engine::open();
        let containers: [Sandbox; 1] = first.network(70, &network(70));
        first.host.ensure(&internal(71)).unwrap();
        drop(first);
        // Not even the default bridge has been asked for.
        Host::open(&engine("0000aaaa")).unwrap().destroy().unwrap();
        drop(containers);
        let left = [
            run("ip -o link"),
            run("nft list tables"),
            run("iptables -S"),
        ]
        .concat();
        for gone in ["br-70", "br-71", "0000aaaa", "kv0000aa"] {
            assert!(!left.contains(gone), "{gone}: {left}");
        }
        for stays in ["br-90", "br-docker", "knarr-0000bbbb"] {
            assert!(left.contains(stays), "{stays}: {left}");
        }
        Host::open(&engine("0000aaaa")).unwrap().destroy().unwrap();
    });
}

#[test]
fn of_many_bridges_only_those_asked_for_last_have_ready_sandboxes() {
    let world = World::new(false);
    world.on_host(|| {
        let mut knarr = Engine::open();
        for net in 70..80 {
            let [sandbox] = knarr.network(net, &network(net));
            drop(sandbox);
        }
        until(|| (72..80).all(|net| knarr.pool.ready(Some(&name(net))) == 1));
        assert_eq!(knarr.pool.ready(Some(&name(70))), 0);
        assert_eq!(knarr.pool.ready(Some(&name(71))), 0);
        let [again] = knarr.network(70, &network(70));
        drop(again);
        until(|| knarr.pool.ready(Some(&name(70))) == 1);
        assert_eq!(knarr.pool.ready(Some(&name(72))), 0);
    });
}
