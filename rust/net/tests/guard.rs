//! What must not get through. Each attack is shown to work once its guard is gone.

mod world;

use knarr_net::Protocol;
use world::{Engine, HOST, Server, World, ask, ask_in_vain, on, port, run};

/// In a container or a neighbour: send what is for 127.0.0.0/8 to the host instead.
fn aim_loopback_at(gateway: &str, link: &str) {
    std::fs::write(
        format!("/proc/sys/net/ipv4/conf/{link}/route_localnet"),
        "1",
    )
    .unwrap();
    run("ip addr del 127.0.0.1/8 dev lo");
    run(&format!(
        "ip route add 127.0.0.0/8 via {gateway} dev {link}"
    ));
}

#[test]
fn containers_do_not_reach_the_hosts_loopback() {
    let world = World::new(false);
    let knarr = world.on_host(|| Engine::start("0000aaaa", 88, 1));
    let _service = Server::tcp(std::os::fd::AsFd::as_fd(&world.host), "127.0.0.1:7777");
    world.on_host(|| assert!(ask("127.0.0.1:7777").is_some()));
    on(knarr.container(0), || {
        aim_loopback_at("10.88.0.1", "eth0");
        assert_eq!(ask_in_vain("127.0.0.1:7777"), None);
    });
    world.on_host(|| run("nft flush chain inet knarr-0000aaaa guard"));
    on(knarr.container(0), || {
        assert!(
            ask("127.0.0.1:7777").is_some(),
            "the attack itself does not work"
        );
    });
}

#[test]
fn containers_cannot_pretend_to_be_the_hosts_loopback() {
    let world = World::new(false);
    let knarr = world.on_host(|| Engine::start("0000aaaa", 88, 1));
    let counted = || run("nft list chain inet knarr-0000aaaa guard");
    world.on_host(|| {
        // Count what reaches the second rule; the first is about destinations.
        run("nft insert rule inet knarr-0000aaaa guard ip saddr 127.0.0.0/8 iifname != lo counter");
        assert!(counted().contains("packets 0"), "{}", counted());
    });
    on(knarr.container(0), || {
        std::fs::write("/proc/sys/net/ipv4/conf/eth0/route_localnet", "1").unwrap();
        assert_eq!(ask_in_vain("10.88.0.1:7777"), None); // learns the host's MAC address
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.send_to(b"x", "10.88.0.1:7777").unwrap();
    });
    world.on_host(|| {
        let rules = counted();
        assert!(
            !rules.contains("packets 0"),
            "the packet did not arrive: {rules}"
        );
        assert!(rules.contains("ip saddr 127.0.0.0/8 drop"), "{rules}");
    });
}

#[test]
fn neighbours_do_not_reach_ports_published_on_loopback() {
    let world = World::new(false);
    let mut knarr = world.on_host(|| Engine::start("0000aaaa", 88, 1));
    let _server = Server::tcp(knarr.container(0), "0.0.0.0:80");
    world.on_host(|| {
        knarr.publish(0, &[port(Protocol::Tcp, "127.0.0.1", 8080, 80)]);
        assert_eq!(ask("127.0.0.1:8080").as_deref(), Some("10.88.0.1"));
        assert_eq!(ask_in_vain("192.0.2.1:8080"), None);
    });
    world.on_neighbour(|| {
        assert_eq!(ask_in_vain("192.0.2.1:8080"), None);
        aim_loopback_at(HOST, "wire");
        assert_eq!(ask_in_vain("127.0.0.1:8080"), None);
    });
    world.on_host(|| {
        run("nft flush chain inet knarr-0000aaaa prerouting");
        run("nft add rule inet knarr-0000aaaa prerouting dnat ip to meta l4proto . ip daddr . th dport map @forwards");
    });
    world.on_neighbour(|| {
        assert!(
            ask("127.0.0.1:8080").is_some(),
            "the attack itself does not work"
        );
    });
}

#[test]
fn neighbours_do_not_reach_what_is_not_published() {
    let world = World::new(false);
    let mut knarr = world.on_host(|| {
        let mut knarr = Engine::start("0000aaaa", 88, 1);
        knarr.publish(0, &[port(Protocol::Tcp, "0.0.0.0", 8080, 80)]);
        knarr
    });
    let _server = Server::tcp(knarr.container(0), "0.0.0.0:80");
    let _other = Server::tcp(knarr.container(0), "0.0.0.0:81");
    world.on_neighbour(|| {
        // The neighbour's default route is the host: it can send to the container directly.
        assert!(ask("192.0.2.1:8080").is_some());
        assert_eq!(
            ask_in_vain("10.88.0.2:80"),
            None,
            "also the port that is published goes by the host's address"
        );
        assert_eq!(ask_in_vain("10.88.0.2:81"), None);
    });
    world.on_host(|| run("nft flush chain inet knarr-0000aaaa forward"));
    world.on_neighbour(|| {
        assert!(
            ask("10.88.0.2:81").is_some(),
            "the attack itself does not work"
        );
    });
    world.on_host(|| knarr.host.unpublish("container-0").unwrap());
}

#[test]
fn engines_do_not_reach_one_another() {
    let world = World::new(false);
    let (one, mut two) = world.on_host(|| {
        (
            Engine::start("0000aaaa", 88, 1),
            Engine::start("0000bbbb", 89, 1),
        )
    });
    let _server = Server::tcp(two.container(0), "0.0.0.0:80");
    on(one.container(0), || {
        assert_eq!(ask_in_vain("10.89.0.2:80"), None);
    });
    world.on_host(|| two.publish(0, &[port(Protocol::Tcp, "0.0.0.0", 8080, 80)]));
    on(one.container(0), || {
        assert!(
            ask("192.0.2.1:8080").is_some(),
            "what is published is for everyone"
        );
    });
}
