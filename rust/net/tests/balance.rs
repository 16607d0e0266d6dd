//! One address for several containers.

mod world;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use knarr_net::{Balance, Change, Host, LinkName, Live, Protocol, Served};
use world::{Engine, Server, World, ask, ask_in_vain, bridge, engine, on, port, run};

/// Enough that half and double of a fair share are more than four standard deviations away.
const DRAWS: u32 = 240;
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 88, 0, 200);

fn balance(members: &[u8]) -> Balance {
    Balance {
        bridge: LinkName::parse("knarr-0000aaaa").unwrap(),
        addresses: vec![ADDRESS.into()],
        ports: vec![Served {
            protocol: Protocol::Tcp,
            to: 80,
            published: vec![(Ipv4Addr::UNSPECIFIED.into(), 8080)],
        }],
        members: members
            .iter()
            .map(|number| Ipv4Addr::new(10, 88, 0, *number).into())
            .collect(),
    }
}

/// Servers that say which of them it is: each listens at its own address only.
fn servers(knarr: &Engine, containers: u8) -> Vec<Server> {
    (0..containers)
        .map(|number| {
            let at = format!("10.88.0.{}:80", number + 2);
            Server::named(knarr.container(number.into()), &at)
        })
        .collect()
}

#[test]
fn connections_are_shared_out_among_those_that_are_there() {
    let world = World::new(false);
    let mut knarr = world.on_host(|| Engine::start("0000aaaa", 88, 5));
    let _servers = servers(&knarr, 4);
    let mut ports = balance(&[]).ports;
    let reserved = world.on_host(|| knarr.host.reserve_served(&mut ports).unwrap());
    world.on_host(|| knarr.host.balance("web", balance(&[])).unwrap());
    assert!(
        world.on_neighbour(|| ask_in_vain("192.0.2.1:8080").is_none()),
        "nobody is there"
    );
    assert!(on(knarr.container(4), || ask_in_vain("10.88.0.200:80")
        .is_none()));
    assert!(world.on_host(|| ask_in_vain("10.88.0.200:80").is_none()));

    for members in [&[2, 3, 4, 5][..], &[3, 5]] {
        world.on_host(|| knarr.host.balance("web", balance(members)).unwrap());
        let count = |ask: &dyn Fn() -> Option<String>| {
            let mut found: BTreeMap<String, u32> = BTreeMap::new();
            for _ in 0..DRAWS {
                *found.entry(ask().unwrap()).or_default() += 1;
            }
            found
        };
        let ways = [
            world.on_neighbour(|| count(&|| ask("192.0.2.1:8080"))),
            on(knarr.container(4), || count(&|| ask("10.88.0.200:80"))),
            world.on_host(|| count(&|| ask("127.0.0.1:8080"))),
        ];
        for (way, found) in ways.iter().enumerate() {
            let share = DRAWS / u32::try_from(members.len()).unwrap();
            assert_eq!(found.len(), members.len(), "{way}: {found:?}");
            assert!(
                found
                    .values()
                    .all(|count| *count > share / 2 && *count < share * 2),
                "{way}: {found:?}"
            );
        }
    }
    world.on_host(|| knarr.host.unbalance("web").unwrap());
    let listed = world.on_host(|| run("nft list table inet knarr-0000aaaa"));
    assert!(!listed.contains("10.88.0.200"), "{listed}");
    assert!(
        !world
            .on_host(|| run("ip addr show dev knarr-0000aaaa"))
            .contains("10.88.0.200")
    );
    drop(reserved);
}

#[test]
fn ten_thousand_connections_are_spread_evenly() {
    const THREADS: u16 = 8;
    const EACH: u16 = 1250;
    let world = World::new(false);
    let mut knarr = world.on_host(|| Engine::start("0000aaaa", 88, 4));
    let _servers = servers(&knarr, 4);
    world.on_host(|| knarr.host.balance("web", balance(&[2, 3, 4, 5])).unwrap());
    let found = std::sync::Mutex::new(BTreeMap::<String, u32>::new());
    world.on_neighbour(|| {
        // A thread's namespace is its maker's.
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    for _ in 0..EACH {
                        let member = ask("192.0.2.1:8080").unwrap();
                        *found.lock().unwrap().entry(member).or_default() += 1;
                    }
                });
            }
        });
    });
    let found = found.into_inner().unwrap();
    let (most, least) = (found.values().max().unwrap(), found.values().min().unwrap());
    assert_eq!(found.len(), 4, "{found:?}");
    // 2,500 each, give or take 43: six of these are far below a ratio of 1.3.
    assert!(f64::from(*most) < 1.3 * f64::from(*least), "{found:?}");
}

#[test]
fn an_entrys_port_is_reserved_as_a_containers_is() {
    let world = World::new(false);
    let mut knarr = world.on_host(|| Engine::start("0000aaaa", 88, 1));
    world.on_host(|| {
        knarr.publish(0, &[port(Protocol::Tcp, "0.0.0.0", 8080, 80)]);
        let refused = knarr
            .host
            .reserve_served(&mut balance(&[]).ports)
            .unwrap_err();
        assert_eq!(refused.kind(), "Conflict");
        assert!(refused.to_string().contains("container-0"), "{refused}");
    });
}

#[test]
fn a_successor_takes_over_or_sweeps_what_there_is() {
    let world = World::new(false);
    let mut knarr = world.on_host(|| Engine::start("0000aaaa", 88, 3));
    let _servers = servers(&knarr, 2);
    world.on_host(|| {
        knarr.host.balance("web", balance(&[2, 3])).unwrap();
        let table = run("nft list table inet knarr-0000aaaa");
        let mut next = Host::open(&engine("0000aaaa")).unwrap();
        next.ensure(&bridge(next.engine(), 88)).unwrap();
        next.balance("web", balance(&[2, 3])).unwrap();
        assert_eq!(run("nft list table inet knarr-0000aaaa"), table);
        next.balance("web", balance(&[3])).unwrap();
        assert!(ask("10.88.0.200:80").is_some());
        run("nft flush ruleset");
        next.repair(Change::Ours).unwrap();
        assert!(ask("10.88.0.200:80").is_some(), "mended");
        run("ip link delete knarr-0000aaaa");
        next.ensure(&bridge(next.engine(), 88)).unwrap();
        assert!(run("ip addr show dev knarr-0000aaaa").contains("10.88.0.200/32"));
        Host::open(&engine("0000aaaa"))
            .unwrap()
            .sweep(&Live::default())
            .unwrap();
        assert!(!run("nft list table inet knarr-0000aaaa").contains("10.88.0.200"));
    });
}
