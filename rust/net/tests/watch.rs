//! What others do to the rules is noticed, and mended.

mod world;

use std::thread;
use std::time::Duration;

use knarr_net::{Change, Protocol};
use world::{Engine, Server, World, ask, ask_in_vain, port, run};

#[test]
fn a_flushed_table_is_noticed_and_written_anew() {
    let world = World::new(false);
    let mut knarr = world.on_host(|| {
        let mut knarr = Engine::start("0000aaaa", 88, 2);
        knarr.publish(0, &[port(Protocol::Tcp, "0.0.0.0", 8080, 80)]);
        knarr
    });
    let _server = Server::tcp(knarr.container(0), "0.0.0.0:80");
    let watch = world.on_host(|| knarr.host.watch().unwrap());
    let reached = || world.on_neighbour(|| ask("192.0.2.1:8080").is_some());
    assert!(reached());
    for harm in [
        "nft flush ruleset",
        "nft delete table inet knarr-0000aaaa",
        "nft flush chain inet knarr-0000aaaa prerouting",
        "nft flush map inet knarr-0000aaaa forwards-any",
    ] {
        thread::scope(|scope| {
            let waiting = scope.spawn(|| watch.wait().unwrap());
            thread::sleep(Duration::from_millis(20)); // mostly it waits by now; if not, it finds it all the same
            world.on_host(|| run(harm));
            assert_eq!(waiting.join().unwrap(), Change::Ours, "{harm}");
        });
        assert!(
            world.on_neighbour(|| ask_in_vain("192.0.2.1:8080").is_none()),
            "{harm}"
        );
        world.on_host(|| knarr.host.repair(Change::Ours).unwrap());
        assert!(reached(), "{harm}");
    }
}

#[test]
fn only_others_changes_of_what_is_ours_are_told() {
    let world = World::new(false);
    let mut knarr = world.on_host(|| Engine::start("0000aaaa", 88, 2));
    let watch = world.on_host(|| knarr.host.watch().unwrap());
    world.on_host(|| {
        knarr.publish(0, &[port(Protocol::Tcp, "0.0.0.0", 8080, 80)]);
        knarr.host.repair(Change::Ours).unwrap();
        knarr.host.unpublish("container-0").unwrap();
        run("nft add table inet other");
        run("nft add chain inet other one");
        run("nft delete table inet other");
    });
    assert_eq!(watch.drain().unwrap(), None);
    for family in ["ip", "ip6"] {
        world.on_host(|| run(&format!("nft add table {family} filter")));
        assert_eq!(watch.drain().unwrap(), Some(Change::Dockers), "{family}");
    }
    world.on_host(|| {
        run("nft add chain inet knarr-0000aaaa other");
        run("nft delete table ip filter");
    });
    assert_eq!(watch.drain().unwrap(), Some(Change::Ours));
    assert_eq!(watch.drain().unwrap(), None);
}
