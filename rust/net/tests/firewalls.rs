//! Other programs' rules: Docker's, and those of firewalls. Each way is shown to be shut without ours.

mod world;

use std::os::fd::AsFd;
use std::sync::Barrier;

use knarr_net::{Host, Protocol};
use world::{Engine, NEIGHBOUR, Server, World, ask, ask_in_vain, bridge, engine, on, port, run};

const IN: &str = "-A DOCKER-USER -i knarr-0000aaaa -j ACCEPT";
const OUT: &str = "-A DOCKER-USER -o knarr-0000aaaa -j ACCEPT";

/// What Docker does, by the program that it does it with.
fn docker() {
    run("iptables -P FORWARD DROP");
    run("iptables -N DOCKER-USER");
    run("iptables -I FORWARD -j DOCKER-USER");
}

/// The rules of Docker's chain, as iptables reads them.
fn rules() -> Vec<String> {
    let listed = run("iptables -S DOCKER-USER");
    listed.lines().skip(1).map(str::to_owned).collect()
}

/// A world with that on its host, and then an engine with a container that has a published port.
fn beside(firewall: impl FnOnce() + Send) -> (World, Engine) {
    let world = World::new(false);
    let knarr = world.on_host(|| {
        firewall();
        let mut knarr = Engine::start("0000aaaa", 88, 1);
        knarr.publish(0, &[port(Protocol::Tcp, "0.0.0.0", 8080, 80)]);
        knarr
    });
    (world, knarr)
}

/// Whether a neighbour reaches the container's port, and the container a neighbour. Who expects that they do is
/// more patient.
fn ways(world: &World, knarr: &Engine, expected: bool) -> [bool; 2] {
    let ask = if expected { ask } else { ask_in_vain };
    let _inside = Server::tcp(knarr.container(0), "0.0.0.0:80");
    let outside = format!("{NEIGHBOUR}:7777");
    let _outside = Server::tcp(world.neighbour.as_fd(), &outside);
    [
        world.on_neighbour(|| ask("192.0.2.1:8080").is_some()),
        on(knarr.container(0), || ask(&outside).is_some()),
    ]
}

fn is_open(world: &World, knarr: &Engine) -> bool {
    ways(world, knarr, true) == [true; 2]
}

/// Both ways.
fn is_shut(world: &World, knarr: &Engine) -> bool {
    ways(world, knarr, false) == [false; 2]
}

#[test]
fn beside_docker_containers_reach_others_and_are_reached() {
    let (world, mut knarr) = beside(docker);
    assert!(is_open(&world, &knarr));
    world.on_host(|| {
        assert_eq!(rules(), [IN, OUT]);
        let saved = run("iptables-save");
        assert!(saved.contains(IN) && saved.contains(OUT), "{saved}");
        assert_eq!(knarr.host.take_warnings(), [""; 0]);

        // What is there is found, by another process too, also where iptables has written it.
        let again = || {
            let link = bridge(&engine("0000aaaa"), 88);
            Host::open(&engine("0000aaaa"))
                .unwrap()
                .ensure(&link)
                .unwrap();
        };
        again();
        assert_eq!(rules(), [IN, OUT]);
        run("iptables -F DOCKER-USER");
        run("iptables -A DOCKER-USER -o knarr-0000aaaa -j ACCEPT");
        again();
        assert_eq!(rules(), [OUT, IN]);
        run("nft flush chain ip filter DOCKER-USER");
        run("nft add rule ip filter DOCKER-USER iifname knarr-0000aaaa accept");
        again();
        assert_eq!(rules(), [IN, OUT]);
        run("iptables -F DOCKER-USER");
    });
    assert!(
        is_shut(&world, &knarr),
        "it is not Docker's rules that shut the way"
    );
}

#[test]
fn what_is_not_published_stays_shut_beside_docker() {
    let (world, knarr) = beside(docker);
    let _other = Server::tcp(knarr.container(0), "0.0.0.0:81");
    world.on_neighbour(|| assert_eq!(ask_in_vain("10.88.0.2:81"), None));
    world.on_host(|| run("nft flush chain inet knarr-0000aaaa forward"));
    world.on_neighbour(|| assert!(ask("10.88.0.2:81").is_some()));
}

#[test]
fn the_next_start_restores_what_was_flushed_or_made_later() {
    let (world, mut knarr) = beside(|| {});
    assert!(is_open(&world, &knarr));
    let description = bridge(knarr.host.engine(), 88);
    world.on_host(|| {
        docker();
        assert_eq!(rules(), [""; 0]);
    });
    assert!(is_shut(&world, &knarr));
    world.on_host(|| {
        for damage in [
            "true",
            "iptables -F DOCKER-USER",
            "iptables -D DOCKER-USER 1",
            "iptables -D DOCKER-USER 2",
        ] {
            run(damage);
            knarr.host.ensure(&description).unwrap();
            let mut rules = rules();
            rules.sort();
            assert_eq!(rules, [IN, OUT], "after {damage}");
        }
    });
    assert!(is_open(&world, &knarr));
    world.on_host(|| {
        // In a table made anew, other rules have the handles that ours had.
        run("nft delete table ip filter");
        run("nft add table ip filter");
        run(
            "nft add chain ip filter FORWARD { type filter hook forward priority 0 ; policy drop ; }",
        );
        run("iptables -N DOCKER-USER");
        for _ in 0..20 {
            run("iptables -A DOCKER-USER -s 203.0.113.9 -j DROP");
        }
        run("iptables -I FORWARD -j DOCKER-USER");
        knarr.host.ensure(&description).unwrap();
        assert_eq!(rules()[20..], [IN, OUT]);
        let all_well = run("nft list ruleset");
        knarr.host.ensure(&description).unwrap();
        assert_eq!(run("nft list ruleset"), all_well);
    });
    assert!(is_open(&world, &knarr));
}

#[test]
fn the_administrators_rules_are_asked_first_and_stay() {
    let (world, mut knarr) = beside(|| {
        docker();
        run(&format!("iptables -A DOCKER-USER -s {NEIGHBOUR} -j DROP"));
        run("iptables -A DOCKER-USER -j RETURN");
    });
    let theirs = format!("-A DOCKER-USER -s {NEIGHBOUR}/32 -j DROP");
    world.on_host(|| {
        assert_eq!(rules(), [&theirs, IN, OUT, "-A DOCKER-USER -j RETURN"]);
    });
    assert!(is_shut(&world, &knarr));
    world.on_host(|| run("iptables -D DOCKER-USER 1"));
    assert!(is_open(&world, &knarr));
    world.on_host(|| {
        run(&format!("iptables -I DOCKER-USER -s {NEIGHBOUR} -j DROP"));
        // One whose condition ours could be mistaken for, and another engine's.
        run("iptables -A DOCKER-USER -i knarr-0000aaaa -p udp -j ACCEPT");
        run("iptables -A DOCKER-USER -i knarr-0000bbbb -j ACCEPT");
        let description = bridge(knarr.host.engine(), 88);
        knarr.host.ensure(&description).unwrap();
        knarr.host.destroy().unwrap();
        assert_eq!(
            rules(),
            [
                &theirs,
                "-A DOCKER-USER -j RETURN",
                "-A DOCKER-USER -i knarr-0000aaaa -p udp -j ACCEPT",
                "-A DOCKER-USER -i knarr-0000bbbb -j ACCEPT",
            ]
        );
        assert!(!run("nft list tables").contains("knarr"));
    });
}

#[test]
fn engines_that_start_at_once_write_no_rule_twice() {
    const ENGINES: [&str; 2] = ["0000aaaa", "0000bbbb"];
    const ROUNDS: usize = 120;
    let world = World::new(false);
    world.on_host(docker);
    let together = Barrier::new(6);
    let work = |number: usize| {
        let id = engine(ENGINES[number % 2]);
        let description = bridge(&id, [88, 89][number % 2]);
        let mut host = Host::open(&id).unwrap();
        let (mut counts, mut failures) = (Vec::new(), Vec::new());
        host.ensure(&description).unwrap();
        for _ in 0..ROUNDS {
            if together.wait().is_leader() {
                run("iptables -F DOCKER-USER");
            }
            together.wait();
            // Not to panic here: the others would wait for ever.
            failures.extend(host.ensure(&description).err());
            if together.wait().is_leader() {
                let mut rules = rules();
                rules.sort();
                rules.dedup();
                counts.push((rules.len(), self::rules().len()));
            }
        }
        assert!(failures.is_empty(), "{failures:?}");
        assert_eq!(host.take_warnings(), [""; 0]);
        counts
    };
    let counts = std::thread::scope(|scope| {
        let (world, work) = (&world, &work);
        let threads: Vec<_> = (0..6)
            .map(|number| scope.spawn(move || world.on_host(|| work(number))))
            .collect();
        let counts = threads.into_iter().map(|thread| thread.join().unwrap());
        counts.flatten().collect::<Vec<_>>()
    });
    // So many different rules, and so many in all.
    assert_eq!(counts, [(4, 4); ROUNDS]);
}

#[test]
fn a_table_that_drops_is_named_with_what_to_allow() {
    let (world, mut knarr) = beside(|| {
        run("nft add table inet wall");
        run(
            "nft add chain inet wall gate { type filter hook forward priority 10 ; policy drop ; }",
        );
        // These are in nobody's way.
        run("nft add chain inet wall input { type filter hook input priority 0 ; policy drop ; }");
        run("nft add table ip6 filter");
        run(
            "nft add chain ip6 filter FORWARD { type filter hook forward priority 0 ; policy drop ; }",
        );
        run("nft add rule inet wall input iifname uplink accept");
    });
    let warnings = world.on_host(|| knarr.host.take_warnings());
    let [warning] = &warnings[..] else {
        panic!("{warnings:?}")
    };
    assert!(warning.contains("`inet wall`"), "{warning}");
    assert!(warning.contains("`gate`"), "{warning}");
    world.on_host(|| assert_eq!(knarr.host.take_warnings(), [""; 0]));
    assert!(is_shut(&world, &knarr));

    // The remedy that it names is one, and with it there is no warning.
    world.on_host(|| {
        let remedies: Vec<&str> = warning
            .split('`')
            .filter(|part| part.starts_with("nft insert"))
            .collect();
        assert_eq!(remedies.len(), 2, "{warning}");
        for remedy in remedies {
            run(remedy);
        }
    });
    assert!(is_open(&world, &knarr));
    world.on_host(|| {
        let mut next = Host::open(&engine("0000aaaa")).unwrap();
        next.ensure(&bridge(&engine("0000aaaa"), 88)).unwrap();
        assert_eq!(next.take_warnings(), [""; 0]);
    });
}

#[test]
fn forward_chains_without_a_way_to_dockers_are_named() {
    for made in [&[][..], &["iptables -N DOCKER-USER"]] {
        let (world, mut knarr) = beside(|| {
            run("iptables -P FORWARD DROP");
            for command in made {
                run(command);
            }
        });
        let warnings = world.on_host(|| knarr.host.take_warnings());
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(warnings[0].contains("`ip filter`"), "{warnings:?}");
        assert!(warnings[0].contains("`FORWARD`"), "{warnings:?}");
        assert!(is_shut(&world, &knarr));
    }
}

#[test]
fn a_rule_about_all_our_bridges_is_recognised() {
    let (world, mut knarr) = beside(|| {
        run("iptables -P FORWARD DROP");
        run("iptables -N user");
        run("iptables -A FORWARD -j user");
        run("iptables -A user -i knarr-+ -j ACCEPT");
        run("iptables -A user -o knarr-+ -j ACCEPT");
    });
    assert!(is_open(&world, &knarr));
    world.on_host(|| assert_eq!(knarr.host.take_warnings(), [""; 0]));
}
