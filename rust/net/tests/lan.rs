//! Networks on the host's own interfaces. The neighbour on the wire is another machine of the LAN.

mod world;

use std::os::fd::{AsFd, BorrowedFd};
use std::process::Command;

use knarr_net::{
    Family, Interface, IpvlanFlag, IpvlanMode, Lan, LanKind, LanRoute, LinkName, Mac, MacvlanMode,
    Parent, Pool, PoolSize, Sandbox, ensure_parent, has_parents, plug_lan, remove_parent,
    remove_parents, set_default_route, set_link_route, unplug_lan,
};
use world::{HOST, NEIGHBOUR, Server, World, ask, ask_in_vain, engine, on, run, until};

const OUTSIDE: &str = "192.0.2.2:7777";
const ENGINE: &str = "0000aaaa";

fn name(text: &str) -> LinkName {
    LinkName::parse(text).unwrap()
}

fn macvlan(mode: MacvlanMode) -> Lan {
    Lan {
        parent: name("uplink"),
        kind: LanKind::Macvlan(mode),
        mtu: None,
    }
}

fn ipvlan(mode: IpvlanMode) -> Lan {
    Lan {
        parent: name("uplink"),
        kind: LanKind::Ipvlan(mode, IpvlanFlag::Bridge),
        mtu: None,
    }
}

fn gateway() -> [LanRoute; 1] {
    [LanRoute::Gateway(NEIGHBOUR.parse().unwrap())]
}

/// The machine 192.0.2.<number>.
fn machine(number: u8) -> Interface {
    let address = std::net::Ipv4Addr::new(192, 0, 2, number);
    Interface {
        addresses: vec![format!("{address}/24").parse().unwrap()],
        gateways: Vec::new(),
        mac: Some(Mac::of_ipv4(address)),
    }
}

fn sandbox() -> Sandbox {
    let pool = Pool::start(&engine(ENGINE), PoolSize { bare: 0, linked: 0 }).unwrap();
    pool.take_bare().unwrap()
}

/// A container with that address, and the index of its link.
fn container(lan: &Lan, number: u8) -> (Sandbox, u32) {
    let sandbox = sandbox();
    let link = name("eth0");
    let index = plug_lan(
        lan,
        sandbox.namespace(),
        &link,
        &machine(number),
        &gateway(),
    );
    (sandbox, index.unwrap())
}

fn links(namespace: BorrowedFd<'_>) -> String {
    on(namespace, || run("ip -o link"))
}

/// Whether the kernel has such interfaces.
fn kernel_has(kind: &str) -> bool {
    let namespace = world::new_namespace();
    on(namespace.as_fd(), || {
        run("ip link add base type veth peer name other");
        let more = match kind {
            "vlan" => "link base name probe type vlan id 5",
            "ipvlan" => "link base name probe type ipvlan mode l3s",
            _ => "name probe type dummy",
        };
        let mut ip = Command::new("ip");
        let output = ip.args(["link", "add"]).args(more.split(' ')).output();
        output.unwrap().status.success()
    })
}

#[test]
fn containers_are_machines_on_the_wire() {
    let world = World::new(false);
    let _outside = Server::tcp(world.neighbour.as_fd(), OUTSIDE);
    // Somebody else had the address before.
    world.on_neighbour(|| {
        run("ip neigh replace 192.0.2.10 lladdr 02:00:00:00:00:99 dev wire nud reachable");
    });
    world.on_host(|| {
        let lan = macvlan(MacvlanMode::Bridge);
        // The host has an interface of the container's name, and names of its own.
        run("ip link add eth0 type veth peer name eth1");
        let names = || {
            let links = run("ip -o link");
            let names = links.lines().filter_map(|line| line.split(": ").nth(1));
            names.map(str::to_owned).collect::<Vec<_>>()
        };
        let before = names();
        let (one, index) = container(&lan, 10);
        let (two, _) = container(&lan, 11);
        assert_eq!(names(), before);
        on(one.namespace(), || {
            let inside = run("ip -o addr show eth0");
            assert!(inside.contains("192.0.2.10/24 brd 192.0.2.255"), "{inside}");
            assert!(!inside.contains("inet6"), "{inside}");
            let link = run("ip -o -d link show eth0");
            assert!(link.contains("02:42:c0:00:02:0a"), "{link}");
            assert!(link.contains("macvlan mode bridge"), "{link}");
            let routes = run("ip route");
            assert!(
                routes.contains("default via 192.0.2.2 dev eth0"),
                "{routes}"
            );
        });
        world.on_neighbour(|| {
            until(|| run("ip neigh show 192.0.2.10").contains("02:42:c0:00:02:0a"));
        });

        let _server = Server::tcp(one.namespace(), "0.0.0.0:80");
        // Everybody sees everybody's own address.
        let seen = on(one.namespace(), || ask(OUTSIDE));
        assert_eq!(seen.as_deref(), Some("192.0.2.10"));
        let seen = world.on_neighbour(|| ask("192.0.2.10:80"));
        assert_eq!(seen.as_deref(), Some(NEIGHBOUR));
        let seen = on(two.namespace(), || ask("192.0.2.10:80"));
        assert_eq!(seen.as_deref(), Some("192.0.2.11"));
        // Not the host: that is the nature of such links.
        let _host = Server::tcp(world.host.as_fd(), &format!("{HOST}:7777"));
        let seen = on(two.namespace(), || ask_in_vain(&format!("{HOST}:7777")));
        assert_eq!(seen, None);

        // Whatever the container calls it.
        on(one.namespace(), || {
            run("ip link set eth0 down");
            run("ip link set eth0 name mine");
        });
        unplug_lan(one.namespace(), index).unwrap();
        unplug_lan(one.namespace(), index).unwrap();
        assert!(!links(one.namespace()).contains("mine"));
        // At once, with the same address.
        let (again, _) = container(&lan, 10);
        let _server = Server::tcp(again.namespace(), "0.0.0.0:80");
        world.on_neighbour(|| assert!(ask("192.0.2.10:80").is_some()));
    });
}

#[test]
fn modes_decide_whom_a_container_talks_to() {
    let world = World::new(false);
    let _outside = Server::tcp(world.neighbour.as_fd(), OUTSIDE);
    world.on_host(|| {
        for mode in [MacvlanMode::Private, MacvlanMode::Vepa] {
            let lan = macvlan(mode);
            let (one, first) = container(&lan, 10);
            let (two, second) = container(&lan, 11);
            let _server = Server::tcp(one.namespace(), "0.0.0.0:80");
            world.on_neighbour(|| assert!(ask("192.0.2.10:80").is_some(), "{mode:?}"));
            on(two.namespace(), || {
                assert!(ask(OUTSIDE).is_some(), "{mode:?}");
                assert_eq!(ask_in_vain("192.0.2.10:80"), None, "{mode:?}");
            });
            unplug_lan(one.namespace(), first).unwrap();
            unplug_lan(two.namespace(), second).unwrap();
        }
    });
}

#[test]
fn passthru_is_for_one() {
    let world = World::new(false);
    world.on_host(|| {
        let lan = macvlan(MacvlanMode::Passthru);
        let mac = || {
            let link = run("ip -o link show uplink");
            link.split("link/ether ").nth(1).unwrap()[..17].to_owned()
        };
        let own = mac();
        let (one, index) = container(&lan, 10);
        assert_eq!(mac(), "02:42:c0:00:02:0a");
        let other = sandbox();
        let second = |lan| plug_lan(lan, other.namespace(), &name("eth0"), &machine(11), &[]);
        let bridge = macvlan(MacvlanMode::Bridge);
        for lan in [&lan, &bridge] {
            let error = second(lan).unwrap_err();
            assert_eq!(error.kind(), "Conflict", "{error}");
            assert!(error.to_string().contains("mode passthru"), "{error}");
        }
        assert_eq!(links(other.namespace()).lines().count(), 1);
        unplug_lan(one.namespace(), index).unwrap();
        assert_eq!(mac(), own);
        second(&lan).unwrap();
    });
}

#[test]
fn both_families_or_ipv6_alone() {
    const OUTSIDE6: &str = "[2001:db8::2]:7777";
    let world = World::new(false);
    world.on_neighbour(|| run("ip addr add 2001:db8::2/64 dev wire nodad"));
    let _outside = Server::tcp(world.neighbour.as_fd(), OUTSIDE6);
    world.on_host(|| {
        let lan = macvlan(MacvlanMode::Bridge);
        let next = LanRoute::Gateway("2001:db8::2".parse().unwrap());
        let eth0 = name("eth0");
        let [both, alone] = [sandbox(), sandbox()];
        let mut wanted = machine(10);
        wanted.addresses.push("2001:db8::a/64".parse().unwrap());
        let routes = [gateway()[0], next];
        let index = plug_lan(&lan, both.namespace(), &eth0, &wanted, &routes).unwrap();
        wanted = machine(11);
        wanted.addresses = vec!["2001:db8::b/64".parse().unwrap()];
        plug_lan(&lan, alone.namespace(), &eth0, &wanted, &[next]).unwrap();
        let default = |family| run(&format!("ip {family} route show default"));
        on(both.namespace(), || {
            assert!(default("-4").contains("via 192.0.2.2 dev eth0"));
            assert!(default("-6").contains("via 2001:db8::2 dev eth0"));
            assert_eq!(ask(OUTSIDE6).as_deref(), Some("2001:db8::a"));
        });
        on(alone.namespace(), || {
            assert_eq!(default("-4"), "");
            assert_eq!(ask(OUTSIDE6).as_deref(), Some("2001:db8::b"));
        });
        set_link_route(both.namespace(), index, Family::V6).unwrap();
        on(both.namespace(), || {
            assert!(
                default("-6").starts_with("default dev eth0"),
                "{}",
                default("-6")
            );
            assert!(default("-4").contains("via 192.0.2.2 dev eth0"));
        });
        set_default_route(both.namespace(), Family::V6, None).unwrap();
        on(both.namespace(), || assert_eq!(default("-6"), ""));
    });
}

#[test]
fn what_cannot_be_plugged_leaves_nothing() {
    let world = World::new(false);
    world.on_host(|| {
        let lan = macvlan(MacvlanMode::Bridge);
        let (_first, _) = container(&lan, 10);
        let other = sandbox();
        let refused = |lan: &Lan, link: &str, interface: &Interface| {
            let before = links(other.namespace());
            let error = plug_lan(lan, other.namespace(), &name(link), interface, &gateway());
            assert_eq!(links(other.namespace()), before);
            error.unwrap_err()
        };
        let elsewhere = |parent| Lan {
            parent: name(parent),
            ..lan.clone()
        };
        let error = refused(&elsewhere("nosuch"), "eth0", &machine(11));
        assert_eq!(error.kind(), "Unavailable", "{error}");
        assert!(
            error.to_string().contains("nosuch was not found"),
            "{error}"
        );
        let error = refused(&lan, "lo", &machine(11));
        assert!(error.to_string().contains("named lo exists"), "{error}");
        // Both link and address are the first container's.
        let error = refused(&lan, "eth0", &machine(10));
        assert_eq!(error.kind(), "Conflict", "{error}");
        assert!(error.to_string().contains("has that address"), "{error}");
        let mut wanted = machine(11);
        wanted.addresses = vec!["10.1.1.1/24".parse().unwrap()];
        let error = refused(&lan, "eth0", &wanted);
        assert!(error.to_string().contains("192.0.2.2"), "{error}");
        run("ip link add bridge0 type bridge");
        run("ip link add port0 type veth peer name port1");
        run("ip link set port0 master bridge0");
        let error = refused(&elsewhere("port0"), "eth0", &machine(11));
        assert_eq!(error.kind(), "Conflict", "{error}");
        assert!(error.to_string().contains("part of a bridge"), "{error}");
        let large = Lan {
            mtu: Some(9000),
            ..lan.clone()
        };
        let error = refused(&large, "eth0", &machine(11));
        assert!(error.to_string().contains("MTU"), "{error}");

        // What somebody who was killed has left of a link is no obstacle.
        let small = Lan {
            mtu: Some(1400),
            ..lan.clone()
        };
        on(other.namespace(), || {
            run("ip link add knarr-new type veth peer name knarr-old");
        });
        plug_lan(
            &small,
            other.namespace(),
            &name("eth0"),
            &machine(11),
            &gateway(),
        )
        .unwrap();
        let found = links(other.namespace());
        assert!(
            found.contains("eth0") && found.contains("mtu 1400"),
            "{found}"
        );
        assert!(!found.contains("knarr-new"), "{found}");
    });
}

#[test]
fn ipvlan_shares_the_interfaces_mac_address() {
    let world = World::new(false);
    let _outside = Server::tcp(world.neighbour.as_fd(), OUTSIDE);
    let there = kernel_has("ipvlan");
    world.on_host(|| {
        let wanted = |number| Interface {
            mac: None,
            ..machine(number)
        };
        let eth0 = name("eth0");
        let [one, two] = [sandbox(), sandbox()];
        if !there {
            let lan = ipvlan(IpvlanMode::L2);
            let error =
                plug_lan(&lan, one.namespace(), &eth0, &wanted(10), &gateway()).unwrap_err();
            assert_eq!(error.kind(), "Unsupported", "{error}");
            assert!(error.to_string().contains("ipvlan"), "{error}");
            assert_eq!(links(one.namespace()).lines().count(), 1);
            return;
        }
        for mode in [IpvlanMode::L2, IpvlanMode::L3, IpvlanMode::L3s] {
            let lan = ipvlan(mode);
            let (route, default) = if lan.kind.is_routed() {
                ([LanRoute::Link(Family::V4)], "default dev eth0")
            } else {
                (gateway(), "default via 192.0.2.2 dev eth0")
            };
            let first = plug_lan(&lan, one.namespace(), &eth0, &wanted(10), &route).unwrap();
            let second = plug_lan(&lan, two.namespace(), &eth0, &wanted(11), &route).unwrap();
            if lan.kind.is_routed() {
                // No ARP: whoever is on the wire is told where the containers are.
                world.on_neighbour(|| {
                    run("ip route replace 192.0.2.10/32 via 192.0.2.1 dev wire");
                    run("ip route replace 192.0.2.11/32 via 192.0.2.1 dev wire");
                });
            }
            on(one.namespace(), || {
                let routes = run("ip route");
                assert!(routes.contains(default), "{mode:?}: {routes}");
                assert_eq!(ask(OUTSIDE).as_deref(), Some("192.0.2.10"), "{mode:?}");
            });
            let _server = Server::tcp(one.namespace(), "0.0.0.0:80");
            world.on_neighbour(|| assert!(ask("192.0.2.10:80").is_some(), "{mode:?}"));
            on(two.namespace(), || {
                assert!(ask("192.0.2.10:80").is_some(), "{mode:?}");
            });
            let error =
                plug_lan(&lan, two.namespace(), &name("eth1"), &wanted(10), &[]).unwrap_err();
            assert_eq!(error.kind(), "Conflict", "{error}");
            let other = macvlan(MacvlanMode::Bridge);
            let error =
                plug_lan(&other, two.namespace(), &name("eth1"), &machine(12), &[]).unwrap_err();
            assert!(error.to_string().contains("the other kind"), "{error}");
            unplug_lan(one.namespace(), first).unwrap();
            unplug_lan(two.namespace(), second).unwrap();
        }
    });
}

#[test]
fn the_default_route_goes_from_one_to_another() {
    let world = World::new(false);
    world.on_host(|| {
        let (one, index) = container(&macvlan(MacvlanMode::Bridge), 10);
        let default = || {
            let routes = on(one.namespace(), || run("ip route"));
            let mut found = routes.lines().filter(|line| line.starts_with("default"));
            let first = found.next().unwrap_or_default().to_owned();
            assert_eq!(found.next(), None, "{routes}");
            first
        };
        set_link_route(one.namespace(), index, Family::V4).unwrap();
        assert!(default().contains("default dev eth0"), "{}", default());
        set_default_route(
            one.namespace(),
            Family::V4,
            Some(NEIGHBOUR.parse().unwrap()),
        )
        .unwrap();
        assert!(default().contains("via 192.0.2.2"), "{}", default());
        set_link_route(one.namespace(), index, Family::V4).unwrap();
        set_default_route(one.namespace(), Family::V4, None).unwrap();
        assert_eq!(default(), "");
    });
}

#[test]
fn parents_that_are_made_are_told_from_those_that_were_there() {
    let world = World::new(false);
    world.on_host(|| {
        let ours = engine(ENGINE);
        let there = |link: &str| run("ip -o link").contains(link);
        for (link, dummy, kind) in [
            ("uplink.10", false, "vlan"),
            ("dm-0123456789ab", true, "dummy"),
        ] {
            let parent = Parent {
                name: name(link),
                dummy,
            };
            if !kernel_has(kind) {
                let error = ensure_parent(&ours, &parent).unwrap_err();
                assert_eq!(error.kind(), "Unsupported", "{error}");
                assert!(error.to_string().contains(link), "{error}");
                assert!(!there(link) && !has_parents(&ours).unwrap());
                // As if it had been made here.
                run(&format!("ip link add {link} type veth peer name peer0"));
                run(&format!("ip link set {link} alias knarr-{ENGINE}"));
            }
            ensure_parent(&ours, &parent).unwrap();
            ensure_parent(&ours, &parent).unwrap();
            let shown = run(&format!("ip -o -d link show {link}"));
            assert!(shown.contains(",UP"), "{shown}");
            assert!(shown.contains(&format!("alias knarr-{ENGINE}")), "{shown}");
            assert!(has_parents(&ours).unwrap());
            remove_parent(&engine("0000bbbb"), &parent.name).unwrap();
            assert!(there(link), "it is another engine's");
            remove_parent(&ours, &parent.name).unwrap();
            assert!(!there(link));
            remove_parent(&ours, &parent.name).unwrap();
        }
        let parent = |text| Parent {
            name: name(text),
            dummy: false,
        };
        if kernel_has("vlan") {
            // What cannot be brought up is not left behind.
            run("ip link set uplink down");
            let error = ensure_parent(&ours, &parent("uplink.10")).unwrap_err();
            assert!(error.to_string().contains("enable uplink.10"), "{error}");
            assert!(!there("uplink.10"));
            run("ip link set uplink up");
        }
        ensure_parent(&ours, &parent("uplink")).unwrap();
        assert!(!has_parents(&ours).unwrap());
        for missing in ["nosuch", "nosuch.5", "uplink.5000"] {
            let error = ensure_parent(&ours, &parent(missing)).unwrap_err();
            assert_eq!(error.kind(), "Unavailable", "{error}");
            assert!(error.to_string().contains(missing), "{error}");
        }
        remove_parent(&ours, &name("uplink")).unwrap();
        run("ip link add marked type veth peer name plain");
        run(&format!("ip link set marked alias knarr-{ENGINE}"));
        run("ip link add other type veth peer name another");
        run("ip link set other alias knarr-0000bbbb");
        remove_parents(&ours).unwrap();
        assert!(there("uplink") && there("other") && !there("marked"));
    });
}
