//! What things cost here: `cargo run --release --example figures`, as root. It works in a network
//! namespace of its own.

use std::error::Error;
use std::time::{Duration, Instant};

use knarr_net::{
    Bridge, EngineId, Family, Host, Interface, LinkName, Mac, Pool, PoolSize, Protocol, Publish,
    Published, Sandbox, resolver, set_default_route,
};

const COUNT: u16 = 300;

fn main() -> Result<(), Box<dyn Error>> {
    knarr_sys::net::unshare_network()?;
    let engine = EngineId::parse("00f19e5e")?;
    let bridge = Bridge::new(engine.bridge(), "10.88.0.1/16".parse()?);
    let mut host = Host::open(&engine)?;
    let first = Instant::now();
    let link = host.ensure(&bridge)?;
    line("ensure, at first", &mut [first.elapsed()]);
    report("ensure, all well", |_| host.ensure(&bridge).map(drop))?;
    let mut other = Host::open(&EngineId::parse("00f19e5f")?)?;
    let ports: Vec<u16> = (0..COUNT).collect();
    let mut after_changes = |what: &str| {
        let mut times = Vec::new();
        for port_number in &ports {
            let held = other.publish("other", &[container(0)], &[port(10_000 + port_number)])?;
            let begun = Instant::now();
            host.ensure(&bridge)?;
            times.push(begun.elapsed());
            other.unpublish("other")?;
            drop(held);
        }
        line(what, &mut times);
        knarr_net::Result::Ok(())
    };
    after_changes("ensure, after anybody's change of rules")?;
    nft("add table ip filter; add chain ip filter DOCKER-USER")?;
    after_changes("the same beside Docker")?;
    for _ in 0..100 {
        nft("add rule ip filter DOCKER-USER ip saddr 203.0.113.9 counter drop")?;
    }
    after_changes("the same beside Docker and 100 rules")?;

    let none = Pool::start(&engine, PoolSize { bare: 0, linked: 0 })?;
    let mut made = Vec::new();
    report("make a bare sandbox on the spot", |_| {
        none.take_bare().map(|sandbox| made.push(sandbox))
    })?;
    report("drop it", |_| {
        made.pop();
        Ok(())
    })?;
    settle()?;
    report("make a linked sandbox on the spot", |_| {
        none.take_linked(&link).map(|sandbox| made.push(sandbox))
    })?;
    let mut next = made.iter_mut();
    report("configure it, all on one bridge", |n| {
        next.next()
            .map_or(Ok(()), |sandbox| sandbox.configure(&interface(n)?))
    })?;
    report("drop it", |_| {
        made.pop();
        Ok(())
    })?;
    settle()?;

    user_defined(&engine, &mut host)?;

    for size in [4, 8, 16] {
        for rate in [50, 80, 120] {
            bursts(&engine, &link, size, rate)?;
            settle()?;
        }
    }
    for rate in [50, 80, 150] {
        let pool = Pool::start(&engine, PoolSize { bare: 8, linked: 8 })?;
        pool.take_linked(&link)?;
        std::thread::sleep(Duration::from_millis(200));
        sustained(&format!("sustained, {rate} a second"), rate, || {
            pool.take_linked(&link)
        })?;
        drop(pool);
        settle()?;
    }

    let mut kept: Vec<Vec<Published>> = Vec::new();
    for filled in [0, 1000, 2000] {
        while kept.len() < filled {
            let number = u16::try_from(kept.len())?;
            kept.push(host.publish(
                &format!("kept-{number}"),
                &["10.88.1.1".parse()?],
                &[port(20_000 + number)],
            )?);
        }
        let mut sockets = Vec::new();
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            report(&format!("publish a {protocol} port beside {filled}"), |n| {
                let ports = [Publish {
                    protocol,
                    ..port(10_000 + n)
                }];
                host.publish(&format!("c{n}"), &[container(n)], &ports)
                    .map(|published| sockets.push(published))
            })?;
            report(&format!("unpublish it beside {filled}"), |n| {
                host.unpublish(&format!("c{n}"))
            })?;
        }
    }
    host.destroy()?;
    Ok(())
}

/// What user-defined networks have besides: resolvers, and containers that join and leave.
fn user_defined(engine: &EngineId, host: &mut Host) -> Result<(), Box<dyn Error>> {
    let pool = Pool::start(engine, PoolSize { bare: 0, linked: 0 })?;
    let mut network = Bridge::new(LinkName::parse("kf-network")?, "10.89.0.1/16".parse()?);
    for (resolver, with) in [(false, "without"), (true, "with"), (false, "without")] {
        network.resolver = resolver;
        let link = host.ensure(&network)?;
        let mut made = Vec::new();
        report(&format!("make a linked sandbox {with} a resolver"), |_| {
            pool.take_linked(&link).map(|sandbox| made.push(sandbox))
        })?;
        report("drop it", |_| {
            made.pop();
            Ok(())
        })?;
        settle()?;
    }
    let link = host.ensure(&network)?;
    let container = pool.take_bare()?;
    let (namespace, name) = (container.namespace(), LinkName::parse("eth0")?);
    let (mut plugs, mut routes, mut unplugs) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..COUNT {
        let interface = Interface {
            addresses: vec!["10.89.0.2/16".parse()?],
            gateways: Vec::new(),
            mac: None,
        };
        let begun = Instant::now();
        let plugged = pool.plug(namespace, &link, &name, &interface, |_| Ok(()))?;
        plugs.push(begun.elapsed());
        let begun = Instant::now();
        set_default_route(namespace, Family::V4, network.gateway(Family::V4))?;
        routes.push(begun.elapsed());
        let begun = Instant::now();
        pool.unplug(&plugged)?;
        unplugs.push(begun.elapsed());
    }
    line("plug a link into a namespace in use", &mut plugs);
    line("set its default route", &mut routes);
    line("unplug it", &mut unplugs);
    let mut bare = Vec::new();
    for _ in 0..COUNT {
        bare.push(pool.take_bare()?);
    }
    for what in ["give a namespace in use a resolver", "replace it"] {
        let mut next = bare.iter();
        report(what, |_| {
            next.next()
                .map_or(Ok(()), |sandbox| resolver(sandbox.namespace()).map(drop))
        })?;
    }
    host.remove(&network.name)?;
    Ok(())
}

fn nft(commands: &str) -> Result<(), Box<dyn Error>> {
    let status = std::process::Command::new("nft").arg(commands).status()?;
    if status.success() {
        return Ok(());
    }
    Err(format!("nft {commands}: {status}").into())
}

/// Take, configure, hold for a moment, drop: at a steady rate, for four seconds.
fn sustained(
    what: &str,
    rate: u16,
    take: impl Fn() -> knarr_net::Result<Sandbox>,
) -> Result<(), Box<dyn Error>> {
    let (mut takes, mut configures) = (Vec::new(), Vec::new());
    let mut live = std::collections::VecDeque::new();
    let start = Instant::now();
    for n in 0..rate * 4 {
        let due = Duration::from_secs(u64::from(n)) / u32::from(rate);
        std::thread::sleep(due.saturating_sub(start.elapsed()));
        let begun = Instant::now();
        let mut sandbox = take()?;
        takes.push(begun.elapsed());
        let begun = Instant::now();
        sandbox.configure(&interface(n)?)?;
        configures.push(begun.elapsed());
        live.push_back(sandbox);
        if live.len() > 4 {
            live.pop_front();
        }
    }
    line(&format!("{what}: take"), &mut takes);
    line(&format!("{what}: configure"), &mut configures);
    println!(
        "{:48} {:.1} a second",
        format!("{what}: reached"),
        f64::from(rate * 4) / start.elapsed().as_secs_f64()
    );
    Ok(())
}

/// Four clients that start at once, so often that there are so many starts a second; each holds a
/// sandbox for a while.
fn bursts(
    engine: &EngineId,
    link: &knarr_net::BridgeLink,
    size: usize,
    rate: u16,
) -> Result<(), Box<dyn Error>> {
    let pool = Pool::start(
        engine,
        PoolSize {
            bare: 0,
            linked: size,
        },
    )?;
    pool.take_linked(link)?;
    std::thread::sleep(Duration::from_millis(300));
    let empty = std::sync::atomic::AtomicU32::new(0);
    let together = std::sync::Barrier::new(4);
    let rounds = rate;
    let start = Instant::now();
    let client = |client: u16| {
        let mut live = std::collections::VecDeque::new();
        let mut times = Vec::new();
        for round in 0..rounds {
            let due = Duration::from_secs(u64::from(round) * 4) / u32::from(rate);
            std::thread::sleep(due.saturating_sub(start.elapsed()));
            together.wait();
            let begun = Instant::now();
            if pool.ready(Some(link.name())) == 0 {
                empty.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            }
            let taken = pool
                .take_linked(link)
                .and_then(|mut sandbox| {
                    sandbox.configure(&interface(round * 4 + client)?)?;
                    Ok(sandbox)
                })
                .map_err(|error| error.to_string());
            times.push(begun.elapsed());
            live.push_back(taken);
            if live.len() > 2 {
                live.pop_front();
            }
        }
        let failed = live.into_iter().find_map(Result::err);
        (times, failed)
    };
    let outcomes: Vec<_> = std::thread::scope(|scope| {
        let client = &client;
        let threads: Vec<_> = (0..4).map(|n| scope.spawn(move || client(n))).collect();
        threads
            .into_iter()
            .map(std::thread::ScopedJoinHandle::join)
            .collect()
    });
    let reached = f64::from(rounds * 4) / start.elapsed().as_secs_f64();
    let mut times = Vec::new();
    for outcome in outcomes {
        let (more, failed) = outcome.map_err(|_| "a client panicked")?;
        if let Some(error) = failed {
            return Err(error.into());
        }
        times.extend(more);
    }
    let what = format!("four at once, {rate} a second, {size} ready");
    line(&format!("{what}: take, configure"), &mut times);
    println!(
        "{:48} {} of {}, at {reached:.1} a second",
        "  found none ready",
        empty.into_inner(),
        times.len()
    );
    Ok(())
}

fn report(
    what: &str,
    mut work: impl FnMut(u16) -> knarr_net::Result<()>,
) -> Result<(), Box<dyn Error>> {
    let mut times = Vec::new();
    for n in 0..COUNT {
        let begun = Instant::now();
        work(n)?;
        times.push(begun.elapsed());
    }
    line(what, &mut times);
    Ok(())
}

fn line(what: &str, times: &mut [Duration]) {
    times.sort_unstable();
    let at = |percent: usize| times[(times.len() - 1) * percent / 100].as_secs_f64() * 1e6;
    println!(
        "{what:48} median {:8.0} µs   p95 {:8.0} µs   worst {:8.0} µs",
        at(50),
        at(95),
        at(100)
    );
}

/// How long the kernel takes to remove what was dropped: namespaces and their veth pairs.
fn settle() -> Result<(), Box<dyn Error>> {
    let begun = Instant::now();
    let limit = begun + Duration::from_secs(20);
    while std::fs::read_to_string("/proc/thread-self/net/dev")?.contains("kv00f19")
        && Instant::now() < limit
    {
        std::thread::sleep(Duration::from_millis(1));
    }
    println!(
        "{:48} {:6.0} ms",
        "until all that was dropped had gone",
        begun.elapsed().as_secs_f64() * 1e3
    );
    Ok(())
}

fn container(number: u16) -> std::net::IpAddr {
    std::net::Ipv4Addr::from(0x0a58_0002 + u32::from(number)).into()
}

fn interface(number: u16) -> knarr_net::Result<Interface> {
    let address = container(number);
    let mac = match address {
        std::net::IpAddr::V4(address) => Some(Mac::of_ipv4(address)),
        std::net::IpAddr::V6(_) => None,
    };
    Ok(Interface {
        addresses: vec![knarr_net::Cidr::new(address, 16)?],
        gateways: vec![std::net::Ipv4Addr::new(10, 88, 0, 1).into()],
        mac,
    })
}

fn port(number: u16) -> Publish {
    Publish {
        protocol: Protocol::Tcp,
        host_ip: std::net::Ipv4Addr::UNSPECIFIED.into(),
        host_port: number,
        host_port_last: None,
        same_port: false,
        container_port: 80,
    }
}
