//! Links of namespaces that are in use: networks that a container joins and leaves while it runs.

mod world;

use std::collections::BTreeSet;
use std::os::fd::AsFd;

use knarr_net::{
    Bridge, Family, Host, Interface, LinkName, Live, Pool, PoolSize, set_default_route,
};
use world::{Server, World, ask, ask_in_vain, engine, interface, on, run};

const OUTSIDE: &str = "192.0.2.2:7777";

fn name(text: &str) -> LinkName {
    LinkName::parse(text).unwrap()
}

/// The network 10.<net>.0.0/16.
fn network(net: u8) -> Bridge {
    let gateway = format!("10.{net}.0.1/16").parse().unwrap();
    Bridge::new(name(&format!("br-{net}")), gateway)
}

/// As `interface`, without a default route.
fn beside(net: u8, number: u8) -> Interface {
    Interface {
        gateways: Vec::new(),
        ..interface(net, number)
    }
}

fn open() -> (Host, Pool) {
    let engine = engine("0000aaaa");
    let size = PoolSize { bare: 0, linked: 0 };
    (
        Host::open(&engine).unwrap(),
        Pool::start(&engine, size).unwrap(),
    )
}

fn own_namespace() -> String {
    let link = std::fs::read_link("/proc/thread-self/ns/net").unwrap();
    link.to_str().unwrap().to_owned()
}

#[test]
fn a_container_joins_a_network_and_leaves_it() {
    let world = World::new(false);
    let _outside = Server::tcp(world.neighbour.as_fd(), OUTSIDE);
    world.on_host(|| {
        let (mut host, pool) = open();
        let first = host.ensure(&network(70)).unwrap();
        let second = host.ensure(&network(71)).unwrap();
        let mut container = pool.take_linked(&first).unwrap();
        container.configure(&interface(70, 2)).unwrap();
        let mut other = pool.take_linked(&second).unwrap();
        other.configure(&interface(71, 2)).unwrap();
        let _server = Server::tcp(container.namespace(), "0.0.0.0:80");
        let routes = || on(container.namespace(), || run("ip route"));
        let before = routes();

        let home = own_namespace();
        let link = pool
            .plug(
                container.namespace(),
                &second,
                &name("eth1"),
                &beside(71, 3),
                |_| Ok(()),
            )
            .unwrap();
        assert_eq!(own_namespace(), home);
        assert!(run(&format!("ip -o -d link show {link}")).contains("hairpin on"));
        on(container.namespace(), || {
            let inside = run("ip -o addr show eth1");
            assert!(
                inside.contains("10.71.0.3/16 brd 10.71.255.255"),
                "{inside}"
            );
            assert!(!inside.contains("fe80"), "{inside}");
            let inside = run("ip -o link show eth1");
            assert!(
                inside.contains("02:42:0a:47:00:03") && inside.contains("UP"),
                "{inside}"
            );
        });
        assert!(routes().contains("default via 10.70.0.1"), "{}", routes());
        on(other.namespace(), || assert!(ask("10.71.0.3:80").is_some()));
        assert!(ask("10.70.0.2:80").is_some());

        // The network that leads out is another one, then none, then again the first.
        let reaches = |expected: bool| {
            let ask = if expected { ask } else { ask_in_vain };
            on(container.namespace(), || ask(OUTSIDE).is_some()) == expected
        };
        for (net, expected) in [(71, true), (0, false), (0, false), (70, true)] {
            let gateway = (net > 0).then(|| format!("10.{net}.0.1").parse().unwrap());
            set_default_route(container.namespace(), Family::V4, gateway).unwrap();
            let default = routes()
                .lines()
                .filter(|line| line.starts_with("default"))
                .map(str::to_owned)
                .collect::<Vec<_>>();
            assert_eq!(default.len(), usize::from(expected), "{default:?}");
            if net > 0 {
                assert!(default[0].contains(&format!("via 10.{net}.0.1")));
            }
            assert!(reaches(expected), "by {net}");
        }
        let unreachable = Some("10.99.0.1".parse().unwrap());
        let error = set_default_route(container.namespace(), Family::V4, unreachable).unwrap_err();
        assert!(error.to_string().contains("10.99.0.1"), "{error}");
        assert!(reaches(true), "what was there stays");

        pool.unplug(&link).unwrap();
        assert_eq!(routes(), before);
        on(other.namespace(), || {
            assert_eq!(ask_in_vain("10.71.0.3:80"), None);
        });
        assert!(!run("ip -o link").contains(link.as_str()));
        pool.unplug(&link).unwrap();

        // Also the link that it was made with.
        pool.unplug(container.link().unwrap()).unwrap();
        assert_eq!(routes(), "");
        assert_eq!(own_namespace(), home);
    });
}

#[test]
fn a_container_without_a_network_joins_one() {
    let world = World::new(false);
    let _outside = Server::tcp(world.neighbour.as_fd(), OUTSIDE);
    world.on_host(|| {
        let (mut host, pool) = open();
        let network = host.ensure(&network(70)).unwrap();
        let container = pool.take_bare().unwrap();
        let plug = || {
            let namespace = container.namespace();
            pool.plug(
                namespace,
                &network,
                &name("eth0"),
                &interface(70, 2),
                |_| Ok(()),
            )
        };
        let link = plug().unwrap();
        on(container.namespace(), || assert!(ask(OUTSIDE).is_some()));
        pool.unplug(&link).unwrap();
        plug().unwrap();
        on(container.namespace(), || assert!(ask(OUTSIDE).is_some()));
    });
}

#[test]
fn what_cannot_be_plugged_leaves_nothing() {
    let world = World::new(false);
    world.on_host(|| {
        let (mut host, pool) = open();
        let first = host.ensure(&network(70)).unwrap();
        let container = pool.take_bare().unwrap();
        let namespace = container.namespace();
        let refused = |bridge, name: &LinkName, wanted: &Interface| {
            let inside = on(namespace, || run("ip -o addr"));
            let error = pool
                .plug(namespace, bridge, name, wanted, |_| Ok(()))
                .unwrap_err();
            assert_eq!(on(namespace, || run("ip -o addr")), inside);
            error
        };
        let error = refused(&first, &name("lo"), &interface(70, 2));
        assert_eq!(error.kind(), "Conflict", "{error}");
        assert!(error.to_string().contains("named lo exists"), "{error}");
        let mut wanted = interface(70, 2);
        wanted.gateways = vec!["10.99.0.1".parse().unwrap()];
        let error = refused(&first, &name("eth1"), &wanted);
        assert!(error.to_string().contains("10.99.0.1"), "{error}");
        host.remove(first.name()).unwrap();
        refused(&first, &name("eth1"), &interface(70, 2));
        assert!(!run("ip -o link").contains("kv0000a"));

        run("ip link add other type bridge");
        let error = pool.unplug(&name("other")).unwrap_err();
        assert_eq!(error.kind(), "InvalidArgument");
        assert!(run("ip -o link").contains("other"));
    });
}

#[test]
fn what_is_plugged_has_the_networks_properties() {
    let world = World::new(false);
    let _outside = Server::tcp(world.neighbour.as_fd(), OUTSIDE);
    world.on_host(|| {
        let (mut host, pool) = open();
        let closed = host
            .ensure(&Bridge {
                internal: true,
                isolated: true,
                ..network(70)
            })
            .unwrap();
        let containers = [2, 3].map(|number| {
            let container = pool.take_bare().unwrap();
            let (name, interface) = (name("eth1"), beside(70, number));
            let link = pool.plug(
                container.namespace(),
                &closed,
                &name,
                &interface,
                |_| Ok(()),
            );
            (container, link.unwrap())
        });
        let [(one, link), (two, dead)] = containers;
        let _server = Server::tcp(one.namespace(), "0.0.0.0:80");
        assert!(ask("10.70.0.2:80").is_some());
        on(two.namespace(), || {
            assert_eq!(ask_in_vain("10.70.0.2:80"), None);
            run("ip route add default via 10.70.0.1");
            assert_eq!(ask_in_vain(OUTSIDE), None);
        });
        let live = Live {
            owners: BTreeSet::new(),
            links: BTreeSet::from([link.clone()]),
            ..Live::default()
        };
        assert_eq!(host.sweep(&live).unwrap().links, 1);
        let links = run("ip -o link");
        assert!(links.contains(link.as_str()) && !links.contains(dead.as_str()));
    });
}
