//! Published ports: who reaches them, who does not, and what the container sees.

mod world;

use knarr_net::Protocol;
use world::{Engine, HOST, NEIGHBOUR, Server, World, ask, ask_in_vain, ask_udp, on, port};

fn reachability(bridge_netfilter: bool) {
    let world = World::new(bridge_netfilter);
    let mut knarr = world.on_host(|| {
        let mut knarr = Engine::start("0000aaaa", 88, 2);
        let ports = [
            port(Protocol::Tcp, "0.0.0.0", 8080, 80),
            port(Protocol::Udp, "0.0.0.0", 8080, 80),
        ];
        knarr.publish(0, &ports);
        knarr.publish(1, &[port(Protocol::Tcp, HOST, 9090, 80)]);
        knarr
    });
    let _zero = Server::tcp(knarr.container(0), "0.0.0.0:80");
    let _zero_udp = Server::udp(knarr.container(0), "0.0.0.0:80");
    let _one = Server::tcp(knarr.container(1), "0.0.0.0:80");

    world.on_neighbour(|| {
        // The container sees its clients as they are.
        assert_eq!(ask("192.0.2.1:8080").as_deref(), Some(NEIGHBOUR));
        assert_eq!(ask_udp("192.0.2.1:8080").as_deref(), Some(NEIGHBOUR));
        assert_eq!(ask("192.0.2.1:9090").as_deref(), Some(NEIGHBOUR));
        assert_eq!(ask_in_vain("192.0.2.1:8081"), None);
    });
    world.on_host(|| {
        for (address, source) in [
            ("127.0.0.1:8080", "10.88.0.1"),
            ("127.9.9.9:8080", "10.88.0.1"),
            ("10.88.0.1:8080", "10.88.0.1"),
            ("192.0.2.1:8080", HOST),
            ("192.0.2.1:9090", HOST),
        ] {
            assert_eq!(
                ask(address).as_deref(),
                Some(source),
                "from the host to {address}"
            );
        }
        assert_eq!(
            ask_in_vain("127.0.0.1:9090"),
            None,
            "published on one address only"
        );
        assert_eq!(ask_udp("127.0.0.1:8080").as_deref(), Some("10.88.0.1"));
        assert_eq!(
            ask("10.88.0.2:80").as_deref(),
            Some("10.88.0.1"),
            "the host itself needs no port"
        );
    });
    on(knarr.container(0), || {
        for address in ["192.0.2.1:8080", "10.88.0.1:8080", "192.0.2.1:9090"] {
            assert!(ask(address).is_some(), "hairpin to {address}");
        }
        assert!(ask_udp("192.0.2.1:8080").is_some());
        assert_eq!(
            ask("10.88.0.3:80").as_deref(),
            Some("10.88.0.2"),
            "neighbours on the bridge"
        );
    });

    // What is withdrawn is gone, and what is not is not.
    world.on_host(|| knarr.host.unpublish("container-0").unwrap());
    world.on_neighbour(|| {
        assert_eq!(ask_in_vain("192.0.2.1:8080"), None);
        assert_eq!(ask("192.0.2.1:9090").as_deref(), Some(NEIGHBOUR));
    });
}

#[test]
fn ports_are_reached_from_everywhere() {
    reachability(false);
}

#[test]
fn ports_are_reached_where_bridged_frames_pass_the_hosts_rules() {
    reachability(true);
}
