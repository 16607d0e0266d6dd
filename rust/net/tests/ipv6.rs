//! Networks of IPv6, alone and beside IPv4: what gets through and what does not, and that nobody waits for it.

mod world;

use std::collections::BTreeSet;
use std::net::{IpAddr, UdpSocket};
use std::os::fd::AsFd;
use std::time::Duration;

use knarr_net::{
    Balance, Bridge, Error, Family, Host, Interface, LinkName, Mac, Pool, PoolSize, Protocol,
    Publish, Sandbox, Served, set_default_route,
};
use world::{Server, World, ask, ask_in_vain, ask_udp, engine, on, port, run, until};

const OUTSIDE: &str = "[2001:db8::2]:7777";
const HOST6: &str = "2001:db8::1";

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

    /// A network and its containers, `::2`, `::3`, ... and 10.<net>.0.2, ... where it has IPv4.
    fn network<const N: usize>(&mut self, net: u8, bridge: &Bridge) -> [Sandbox; N] {
        let link = self.host.ensure(bridge).unwrap();
        let mut number = 2;
        [(); N].map(|()| {
            let mut sandbox = self.pool.take_linked(&link).unwrap();
            sandbox.configure(&interface(bridge, net, number)).unwrap();
            number += 1;
            sandbox
        })
    }

    fn publish(&mut self, addresses: &[&str], ports: &[Publish]) -> Vec<u16> {
        let addresses: Vec<IpAddr> = addresses.iter().map(|one| one.parse().unwrap()).collect();
        let published = self.host.publish("c", &addresses, ports).unwrap();
        let chosen = published.iter().map(|one| one.port.host_port).collect();
        std::mem::forget(published); // until the process ends
        chosen
    }
}

/// IPv6 on the wire between the host and its neighbour, who sends to the host what is for others.
fn world() -> World {
    wired(false)
}

fn wired(bridge_netfilter: bool) -> World {
    let world = World::new(bridge_netfilter);
    world.on_host(|| run(&format!("ip addr add {HOST6}/64 dev uplink nodad")));
    world.on_neighbour(|| {
        run("ip addr add 2001:db8::2/64 dev wire nodad");
        run(&format!("ip -6 route add default via {HOST6}"));
    });
    world
}

fn only6(net: u8) -> Bridge {
    let name = LinkName::parse(&format!("br-{net}")).unwrap();
    Bridge::new(name, format!("fd00:{net}::1/64").parse().unwrap())
}

fn dual(net: u8) -> Bridge {
    let mut bridge = only6(net);
    bridge
        .gateways
        .insert(0, format!("10.{net}.0.1/16").parse().unwrap());
    bridge
}

/// Of a container on that network, with everything that the network has.
fn interface(bridge: &Bridge, net: u8, number: u8) -> Interface {
    let mut addresses = vec![format!("fd00:{net}::{number:x}/64").parse().unwrap()];
    if bridge.gateway(Family::V4).is_some() {
        addresses.insert(0, format!("10.{net}.0.{number}/16").parse().unwrap());
    }
    let first: knarr_net::Cidr = addresses[0];
    Interface {
        mac: Some(Mac::of(first.address())),
        addresses,
        gateways: bridge
            .gateways
            .iter()
            .map(knarr_net::Cidr::address)
            .collect(),
    }
}

#[test]
fn containers_reach_one_another_the_host_and_the_world_at_once() {
    let world = world();
    let _outside = Server::tcp(world.neighbour.as_fd(), OUTSIDE);
    for bridge in [only6(70), dual(71)] {
        let net = if bridge.gateways.len() == 1 { 70 } else { 71 };
        let (mut knarr, [one, two]) = world.on_host(|| {
            let mut knarr = Engine::open();
            let containers = knarr.network(net, &bridge);
            (knarr, containers)
        });
        on(one.namespace(), || {
            let addresses = run("ip -6 -o addr show eth0");
            assert!(addresses.contains("fe80::"), "{addresses}");
            // Duplicate address detection takes a second or two.
            assert!(!addresses.contains("tentative"), "{addresses}");
        });
        let _server = Server::tcp(two.namespace(), "[::]:80");
        on(one.namespace(), || {
            assert_eq!(
                ask(&format!("[fd00:{net}::3]:80")).unwrap(),
                format!("fd00:{net}::2")
            );
            assert_eq!(ask(OUTSIDE).as_deref(), Some(HOST6), "masqueraded");
        });
        world.on_host(|| {
            assert!(ask(&format!("[fd00:{net}::3]:80")).is_some());
            knarr.host.remove(&bridge.name).unwrap();
            let table = run("nft list table inet knarr-0000aaaa");
            assert!(!table.contains("fd00:"), "{table}");
            knarr.host.destroy().unwrap();
        });
    }
}

#[test]
fn a_network_of_ipv4_has_no_ipv6_and_believes_nobody() {
    let world = world();
    let (_knarr, [old], [new]) = world.on_host(|| {
        let mut knarr = Engine::open();
        let name = LinkName::parse("br-72").unwrap();
        let plain = Bridge::new(name, "10.72.0.1/16".parse().unwrap());
        let link = knarr.host.ensure(&plain).unwrap();
        let mut sandbox = knarr.pool.take_linked(&link).unwrap();
        sandbox.configure(&world::interface(72, 2)).unwrap();
        let both = knarr.network(73, &dual(73));
        // One that has begun with IPv4 joins a network of both, and the other way round.
        let with = knarr.host.ensure(&dual(73)).unwrap();
        let mut beside = interface(&dual(73), 73, 9);
        beside.gateways.clear();
        let eth1 = LinkName::parse("eth1").unwrap();
        knarr
            .pool
            .plug(sandbox.namespace(), &with, &eth1, &beside, |_| Ok(()))
            .unwrap();
        let mut beside = world::interface(72, 9);
        beside.gateways.clear();
        knarr
            .pool
            .plug(both[0].namespace(), &link, &eth1, &beside, |_| Ok(()))
            .unwrap();
        (knarr, [sandbox], both)
    });
    let setting = |link: &str, name: &str| {
        std::fs::read_to_string(format!("/proc/sys/net/ipv6/conf/{link}/{name}"))
            .unwrap()
            .trim()
            .to_owned()
    };
    for (container, without, with) in [(&old, "eth0", "eth1"), (&new, "eth1", "eth0")] {
        on(container.namespace(), || {
            assert_eq!(setting(without, "disable_ipv6"), "1");
            assert_eq!(setting(with, "disable_ipv6"), "0");
            assert_eq!(setting(with, "accept_ra"), "0");
            assert_eq!(setting(without, "accept_ra"), "0");
            assert_eq!(run(&format!("ip -6 -o addr show {without}")), "");
            assert!(run("ip -6 -o addr show lo").contains("::1"));
        });
    }
    on(old.namespace(), || {
        assert!(run("ip -6 -o addr show eth1").contains("fd00:73::9/64"));
    });
    world.on_host(|| {
        assert_eq!(setting("br-72", "disable_ipv6"), "1");
        assert_eq!(setting("br-73", "accept_ra"), "0");
        assert_eq!(setting("all", "forwarding"), "1");
    });
}

#[test]
fn a_host_that_begins_to_forward_still_believes_its_router() {
    let world = World::new(false);
    world.on_host(|| {
        let accepts =
            || std::fs::read_to_string("/proc/sys/net/ipv6/conf/uplink/accept_ra").unwrap();
        run("sysctl -qw net.ipv6.conf.lo.accept_ra=0");
        assert_eq!(accepts().trim(), "1");
        let mut knarr = Engine::open();
        knarr.host.ensure(&only6(70)).unwrap();
        assert_eq!(accepts().trim(), "2");
        let lo = std::fs::read_to_string("/proc/sys/net/ipv6/conf/lo/accept_ra").unwrap();
        assert_eq!(lo.trim(), "0", "as it was");
        let later = std::fs::read_to_string("/proc/sys/net/ipv6/conf/default/accept_ra").unwrap();
        assert_eq!(later.trim(), "1", "as it was");
        std::fs::write("/proc/sys/net/ipv6/conf/uplink/accept_ra", "1").unwrap();
        knarr.host.ensure(&only6(71)).unwrap();
        assert_eq!(accepts().trim(), "1", "the administrator's since");
    });
}

#[test]
fn published_ports_are_reached_from_everywhere() {
    reachability(false);
}

#[test]
fn published_ports_are_reached_where_bridged_frames_pass_the_hosts_rules() {
    reachability(true);
}

fn reachability(bridge_netfilter: bool) {
    let world = wired(bridge_netfilter);
    let (mut knarr, [one, two]) = world.on_host(|| {
        let mut knarr = Engine::open();
        let containers = knarr.network(70, &dual(70));
        (knarr, containers)
    });
    let same = |publish: Publish| Publish {
        same_port: true,
        ..publish
    };
    world.on_host(|| {
        let ports = [
            port(Protocol::Tcp, "0.0.0.0", 8080, 80),
            same(port(Protocol::Tcp, "::", 8080, 80)),
            port(Protocol::Udp, "::", 8080, 80),
            port(Protocol::Tcp, HOST6, 9090, 80),
            port(Protocol::Tcp, "::1", 7070, 80),
        ];
        let chosen = knarr.publish(&["10.70.0.2", "fd00:70::2"], &ports);
        assert_eq!(chosen, [8080, 8080, 8080, 9090, 7070]);
    });
    let _tcp = Server::tcp(one.namespace(), "[::]:80");
    let _udp = Server::udp(one.namespace(), "[::]:80");
    world.on_neighbour(|| {
        assert_eq!(
            ask("[2001:db8::1]:8080").as_deref(),
            Some("2001:db8::2"),
            "its own address"
        );
        assert_eq!(ask("192.0.2.1:8080").as_deref(), Some("::ffff:192.0.2.2"));
        assert_eq!(
            ask_udp("[2001:db8::1]:8080").as_deref(),
            Some("2001:db8::2")
        );
        assert!(ask("[2001:db8::1]:9090").is_some());
        assert_eq!(ask_in_vain("[2001:db8::1]:7070"), None, "loopback's only");
        assert_eq!(
            ask_in_vain("[fd00:70::2]:80"),
            None,
            "by the host's address"
        );
        assert_eq!(ask_in_vain("192.0.2.1:9090"), None);
    });
    world.on_host(|| {
        for (address, source) in [
            ("[::1]:8080", "fd00:70::1"),
            ("[::1]:7070", "fd00:70::1"),
            ("[fd00:70::1]:8080", "fd00:70::1"),
            ("[2001:db8::1]:8080", HOST6),
            ("[2001:db8::1]:9090", HOST6),
        ] {
            assert_eq!(ask(address).as_deref(), Some(source), "{address}");
        }
        assert_eq!(ask_udp("[::1]:8080").as_deref(), Some("fd00:70::1"));
        assert_eq!(ask_in_vain("[::1]:9090"), None);
        // The host's own services on ::1 are where they were.
        let _own = Server::tcp(world.host.as_fd(), "[::1]:6666");
        assert_eq!(ask("[::1]:6666").as_deref(), Some("::1"));
    });
    for container in [&one, &two] {
        on(container.namespace(), || {
            assert!(ask("[2001:db8::1]:8080").is_some(), "hairpin");
            assert_eq!(ask_in_vain("[fd00:70::1]:7070"), None);
        });
    }
    world.on_host(|| knarr.host.unpublish("c").unwrap());
    world.on_neighbour(|| assert_eq!(ask_in_vain("[2001:db8::1]:8080"), None));
}

/// A neighbour and a container that send what is for `::1` to the host.
#[test]
fn nobody_reaches_ports_on_the_loopback_of_the_host() {
    // With br_netfilter the rules see what is for ::1; without it the kernel drops it before.
    let bridge_netfilter = std::path::Path::new("/proc/sys/net/bridge").exists();
    let world = wired(bridge_netfilter);
    let (mut knarr, [one, two]) = world.on_host(|| {
        let mut knarr = Engine::open();
        let containers = knarr.network(70, &only6(70));
        (knarr, containers)
    });
    let _server = Server::tcp(one.namespace(), "[::]:80");
    let _service = Server::tcp(world.host.as_fd(), "[::1]:7777");
    world.on_host(|| {
        knarr.publish(&["fd00:70::2"], &[port(Protocol::Tcp, "::1", 8080, 80)]);
        assert!(ask("[::1]:8080").is_some() && ask("[::1]:7777").is_some());
    });
    let counted = "nft insert rule inet knarr-0000aaaa guard ip6 daddr ::1 iifname != lo counter";
    world.on_host(|| run(counted));
    let aim = |link: &str, gateway: &str| {
        run("ip addr del ::1/128 dev lo");
        run(&format!("ip -6 route add ::1/128 via {gateway} dev {link}"));
        assert_eq!(ask_in_vain("[::1]:8080"), None);
        assert_eq!(ask_in_vain("[::1]:7777"), None);
    };
    on(two.namespace(), || aim("eth0", "fd00:70::1"));
    world.on_neighbour(|| aim("wire", HOST6));
    world.on_host(|| {
        let guard = run("nft list chain inet knarr-0000aaaa guard");
        assert!(guard.contains("ip6 daddr ::1 drop") && guard.contains("ip6 saddr ::1 drop"));
        assert!(
            !bridge_netfilter || !guard.contains("packets 0"),
            "nothing came: {guard}"
        );
    });
}

#[test]
fn networks_keep_apart_what_they_keep_apart_of_ipv4() {
    let world = world();
    let shut = Bridge {
        internal: true,
        ..dual(70)
    };
    let isolated = Bridge {
        isolated: true,
        ..dual(72)
    };
    let plain = Bridge {
        masquerade: false,
        ..dual(73)
    };
    let (_knarr, [one, two], [other], [left, right], [routed]) = world.on_host(|| {
        let mut knarr = Engine::open();
        let inside = knarr.network(70, &shut);
        let other = knarr.network(71, &dual(71));
        let apart = knarr.network(72, &isolated);
        let routed = knarr.network(73, &plain);
        (knarr, inside, other, apart, routed)
    });
    let _outside = Server::tcp(world.neighbour.as_fd(), OUTSIDE);
    let _one = Server::tcp(one.namespace(), "[::]:80");
    let _other = Server::tcp(other.namespace(), "[::]:80");
    let _left = Server::tcp(left.namespace(), "[::]:80");
    on(two.namespace(), || {
        assert!(ask("[fd00:70::2]:80").is_some());
    });
    on(routed.namespace(), || {
        assert_eq!(ask(OUTSIDE).as_deref(), Some("fd00:73::2"));
    });
    let ask = |open: bool, to: &str| if open { ask(to) } else { ask_in_vain(to) }.is_some();
    let out = |open| on(two.namespace(), || ask(open, OUTSIDE));
    let across = |open| on(two.namespace(), || ask(open, "[fd00:71::2]:80"));
    let back = |open| on(other.namespace(), || ask(open, "[fd00:70::2]:80"));
    let into = |open| world.on_neighbour(|| ask(open, "[fd00:71::2]:80"));
    let ways: [&dyn Fn(bool) -> bool; 4] = [&out, &across, &back, &into];
    assert_eq!(ways.map(|way| way(false)), [false; 4]);
    on(right.namespace(), || {
        assert!(ask(true, OUTSIDE));
        assert!(!ask(false, "[fd00:72::2]:80"), "ICC is off");
    });
    world.on_host(|| run("nft flush chain inet knarr-0000aaaa forward"));
    assert_eq!(ways.map(|way| way(true)), [true; 4]);
}

#[test]
fn default_routes_come_and_go_by_family() {
    let world = world();
    world.on_host(|| {
        let mut knarr = Engine::open();
        let [one] = knarr.network(70, &dual(70));
        let second = knarr.host.ensure(&dual(71)).unwrap();
        let mut beside = interface(&dual(71), 71, 9);
        beside.gateways.clear();
        let eth1 = LinkName::parse("eth1").unwrap();
        let link = knarr
            .pool
            .plug(one.namespace(), &second, &eth1, &beside, |_| Ok(()))
            .unwrap();
        let default = |family: &str| {
            let routes = on(one.namespace(), || {
                run(&format!("ip {family} route show default"))
            });
            assert!(routes.lines().count() <= 1, "{routes}");
            routes.split(' ').nth(2).map(str::to_owned)
        };
        assert_eq!(default("-4").as_deref(), Some("10.70.0.1"));
        assert_eq!(default("-6").as_deref(), Some("fd00:70::1"));
        let lead = |family, to: Option<&str>| {
            let to = to.map(|to| to.parse().unwrap());
            set_default_route(one.namespace(), family, to).unwrap();
        };
        lead(Family::V6, Some("fd00:71::1"));
        assert_eq!(default("-4").as_deref(), Some("10.70.0.1"));
        assert_eq!(default("-6").as_deref(), Some("fd00:71::1"));
        lead(Family::V6, None);
        lead(Family::V6, None);
        assert_eq!(default("-6"), None);
        assert_eq!(default("-4").as_deref(), Some("10.70.0.1"));
        lead(Family::V6, Some("fd00:71::1"));
        knarr.pool.unplug(&link).unwrap();
        assert_eq!(default("-6"), None);
    });
}

#[test]
fn one_host_port_for_both_families() {
    let world = world();
    world.on_host(|| {
        let mut knarr = Engine::open();
        let [_one] = knarr.network::<1>(70, &dual(70));
        let pair = |first: u16, last: Option<u16>| {
            let any = Publish {
                host_port_last: last,
                ..port(Protocol::Tcp, "0.0.0.0", first, 80)
            };
            let any6 = Publish {
                host_ip: "::".parse().unwrap(),
                same_port: true,
                ..any
            };
            [any, any6]
        };
        let both = ["10.70.0.2", "fd00:70::2"];
        let chosen = knarr.publish(&both, &pair(0, None));
        assert_eq!(chosen[0], chosen[1]);
        // Somebody has the first of a range, of one family only.
        let _taken = std::net::TcpListener::bind("[fd00:70::1]:8000").unwrap();
        assert_eq!(knarr.publish(&both, &pair(8000, Some(8003))), [8001, 8001]);
        let addresses = both.map(|one| one.parse().unwrap());
        let refused = |knarr: &mut Engine, ports: &[Publish]| {
            knarr.host.publish("d", &addresses, ports).unwrap_err()
        };
        let error = refused(&mut knarr, &pair(8000, None));
        let text = error.to_string();
        assert!(
            text.contains("[::]:8000/tcp") && text.contains("process"),
            "{text}"
        );
        let error = refused(&mut knarr, &pair(8001, None));
        assert!(
            matches!(&error, Error::PortOurs { owner, .. } if owner == "c"),
            "{error}"
        );
        let error = refused(&mut knarr, &[port(Protocol::Tcp, "2001:db8::99", 80, 80)]);
        assert!(matches!(error, Error::NotLocal { .. }), "{error}");
        // Of the same number, another's of the other family is none of our business.
        let _other = std::net::TcpListener::bind("127.0.0.1:8100").unwrap();
        assert_eq!(
            knarr.publish(&both, &[port(Protocol::Tcp, "::", 8100, 80)]),
            [8100]
        );
        assert!(std::net::TcpListener::bind("[::1]:8100").is_err());
    });
}

#[test]
fn sctp_ports_are_in_the_map_or_refused_by_name() {
    let world = world();
    world.on_host(|| {
        let mut knarr = Engine::open();
        let [_one] = knarr.network::<1>(70, &dual(70));
        let addresses = ["10.70.0.2".parse().unwrap(), "fd00:70::2".parse().unwrap()];
        let ports = [
            port(Protocol::Sctp, "0.0.0.0", 80, 80),
            port(Protocol::Sctp, "::1", 80, 80),
        ];
        match knarr.host.publish("c", &addresses, &ports) {
            Ok(_) => {}
            Err(error) => {
                assert_eq!(error.kind(), "Unsupported");
                assert!(
                    error.to_string().contains("publishing sctp ports"),
                    "{error}"
                );
                knarr.host.adopt("c", &addresses, &ports).unwrap();
            }
        }
        let table = run("nft list table inet knarr-0000aaaa");
        for element in [
            "sctp . 80 ",
            "10.70.0.2 . 80",
            "sctp . ::1 . 80 ",
            "fd00:70::2 . 80",
        ] {
            assert!(table.contains(element), "{element}: {table}");
        }
        knarr.host.unpublish("c").unwrap();
        assert!(!run("nft list table inet knarr-0000aaaa").contains("sctp . "));
    });
}

#[test]
fn a_successor_takes_over_and_a_sweep_removes_what_is_nobodys() {
    let world = world();
    world.on_host(|| {
        let mut first = Engine::open();
        let [one] = first.network(70, &dual(70));
        let ports = [port(Protocol::Tcp, "::", 8080, 80)];
        first.publish(&["fd00:70::2"], &ports);
        drop(first);
        let mut next = Engine::open();
        next.host.ensure(&dual(70)).unwrap();
        run("nft flush ruleset");
        let address = ["fd00:70::2".parse().unwrap()];
        next.host.adopt("c", &address, &ports).unwrap();
        let _server = Server::tcp(one.namespace(), "[::]:80");
        world.on_neighbour(|| assert!(ask("[2001:db8::1]:8080").is_some()));
        assert_eq!(
            next.host.sweep(&knarr_net::Live::default()).unwrap().ports,
            1
        );
        world.on_neighbour(|| assert_eq!(ask_in_vain("[2001:db8::1]:8080"), None));
        // Without IPv6 from now on.
        let mut without = dual(70);
        without.gateways.pop();
        next.host.ensure(&without).unwrap();
        assert_eq!(run("ip -6 -o addr show br-70"), "");
        let table = run("nft list set inet knarr-0000aaaa subnets6");
        assert!(!table.contains("fd00"), "{table}");
    });
}

#[test]
fn dockers_chain_of_ipv6_lets_it_through() {
    let world = world();
    let _outside = Server::tcp(world.neighbour.as_fd(), OUTSIDE);
    world.on_host(|| {
        run("ip6tables -P FORWARD DROP");
        run("ip6tables -N DOCKER-USER");
        run("ip6tables -I FORWARD -j DOCKER-USER");
        let mut knarr = Engine::open();
        let [one] = knarr.network(70, &dual(70));
        on(one.namespace(), || assert!(ask(OUTSIDE).is_some()));
        assert_eq!(knarr.host.take_warnings(), [""; 0]);
        run("ip6tables -F DOCKER-USER");
        knarr.host.ensure(&dual(70)).unwrap();
        on(one.namespace(), || assert!(ask(OUTSIDE).is_some()));
        knarr.host.remove(&dual(70).name).unwrap();
        assert!(!run("ip6tables -S").contains("br-70"));
        run("ip6tables -F FORWARD");
        run("ip6tables -X DOCKER-USER");
        knarr.host.ensure(&dual(71)).unwrap();
        let warnings = knarr.host.take_warnings();
        assert!(
            warnings.len() == 1 && warnings[0].contains("nft insert rule ip6 filter FORWARD"),
            "{warnings:?}"
        );
    });
}

#[test]
fn a_udp_client_that_never_stops_gets_the_new_container() {
    let world = world();
    let (mut knarr, [zero, one]) = world.on_host(|| {
        let mut knarr = Engine::open();
        let containers = knarr.network(70, &only6(70));
        (knarr, containers)
    });
    let _zero = Server::udp(zero.namespace(), "[::]:80");
    let _one = Server::udp(one.namespace(), "[::]:80");
    let client = world.on_neighbour(|| UdpSocket::bind("[::]:4000").unwrap());
    client.connect("[2001:db8::1]:8080").unwrap();
    client
        .set_read_timeout(Some(Duration::from_millis(100)))
        .unwrap();
    let answered = || {
        let sent = client.send(b"?").ok();
        sent.and_then(|_| client.recv(&mut [0; 64]).ok()).is_some()
    };
    for (host_ip, container) in [("::", "fd00:70::2"), (HOST6, "fd00:70::3")] {
        until(|| !answered()); // a flow of the host's own
        let published = world.on_host(|| {
            let address = [container.parse().unwrap()];
            let ports = [port(Protocol::Udp, host_ip, 8080, 80)];
            knarr.host.publish("c", &address, &ports).unwrap()
        });
        until(answered);
        world.on_host(|| knarr.host.unpublish("c").unwrap());
        drop(published);
    }
}

#[test]
fn an_entry_of_both_families_leads_to_its_members() {
    let world = world();
    let (mut knarr, members) = world.on_host(|| {
        let mut knarr = Engine::open();
        let containers: [Sandbox; 3] = knarr.network(71, &dual(71));
        (knarr, containers)
    });
    let _servers: Vec<Server> = (0..2)
        .flat_map(|number: usize| {
            let namespace = members[number].namespace();
            let last = number + 2;
            [
                format!("10.71.0.{last}:80"),
                format!("[fd00:71::{last}]:80"),
            ]
            .map(|at| Server::named(namespace, &at))
        })
        .collect();
    let mut balance = Balance {
        bridge: dual(71).name,
        addresses: ["10.71.0.200", "fd00:71::200"]
            .map(|one| one.parse().unwrap())
            .into(),
        ports: vec![Served {
            protocol: Protocol::Tcp,
            to: 80,
            published: ["0.0.0.0", "::"]
                .map(|one| (one.parse().unwrap(), 8080))
                .into(),
        }],
        members: Vec::new(),
    };
    let reserved = world.on_host(|| {
        knarr.host.balance("web", balance.clone()).unwrap();
        knarr.host.reserve_served(&mut balance.ports).unwrap()
    });
    assert_eq!(reserved.len(), 2);
    let ways: [(&str, &str); 6] = [
        ("neighbour", "192.0.2.1:8080"),
        ("neighbour", "[2001:db8::1]:8080"),
        ("host", "127.0.0.1:8080"),
        ("host", "[::1]:8080"),
        ("container", "10.71.0.200:80"),
        ("container", "[fd00:71::200]:80"),
    ];
    let asked = |from: &str, to: &str| match from {
        "neighbour" => world.on_neighbour(|| ask_in_vain(to)),
        "host" => world.on_host(|| ask_in_vain(to)),
        _ => on(members[2].namespace(), || ask_in_vain(to)),
    };
    for (from, to) in ways {
        assert!(asked(from, to).is_none(), "nobody is behind {to} yet");
    }
    balance.members = ["10.71.0.2", "fd00:71::2", "10.71.0.3", "fd00:71::3"]
        .map(|one| one.parse().unwrap())
        .into();
    world.on_host(|| knarr.host.balance("web", balance.clone()).unwrap());
    for (from, to) in ways {
        let found: BTreeSet<String> = (0..40).filter_map(|_| asked(from, to)).collect();
        let wanted = if to.starts_with('[') {
            ["fd00:71::2", "fd00:71::3"]
        } else {
            ["10.71.0.2", "10.71.0.3"]
        };
        assert_eq!(found, wanted.map(str::to_owned).into(), "{from} {to}");
    }
    // Members of one family only are that family's.
    balance.members.truncate(1);
    world.on_host(|| knarr.host.balance("web", balance).unwrap());
    for (from, to) in ways {
        assert_eq!(
            asked(from, to).is_some(),
            !to.starts_with('['),
            "{from} {to}"
        );
    }
    world.on_host(|| knarr.host.unbalance("web").unwrap());
    let left = world.on_host(|| run("nft list ruleset") + &run("ip addr"));
    assert!(
        !left.contains("fd00:71::200") && !left.contains("\"web\""),
        "{left}"
    );
}
