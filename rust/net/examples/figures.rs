//! What things cost here: `cargo run --release --example figures`, as root. It works in a network
//! namespace of its own.

use std::error::Error;
use std::time::{Duration, Instant};

use knarr_net::{
    Bridge, EngineId, Host, Interface, Mac, Pool, PoolSize, Protocol, Publish, Published, Sandbox,
};

const COUNT: u32 = 300;

fn main() -> Result<(), Box<dyn Error>> {
    knarr_sys::net::unshare_network()?;
    let engine = EngineId::parse("00f19e5e")?;
    let bridge = Bridge {
        name: engine.bridge(),
        gateway: "10.88.0.1/16".parse()?,
        mtu: None,
    };
    let mut host = Host::open(&engine)?;
    let mut link = None;
    report("ensure, at first", 1, |_| {
        Ok(link = Some(host.ensure(&bridge)?))
    })?;
    let link = link.ok_or("no bridge")?;
    report("ensure, all well", COUNT, |_| {
        host.ensure(&bridge).map(drop)
    })?;

    let none = Pool::start(&engine, PoolSize { bare: 0, linked: 0 })?;
    let mut made = Vec::new();
    report("make a bare sandbox on the spot", COUNT, |_| {
        Ok(made.push(none.take_bare()?))
    })?;
    report("drop it", COUNT, |_| Ok(drop(made.pop())))?;
    settle();
    report("make a linked sandbox on the spot", COUNT, |_| {
        Ok(made.push(none.take_linked(&link)?))
    })?;
    report("configure it", COUNT, |n| {
        made[n as usize].configure(&interface(n)?)
    })?;
    report("drop it", COUNT, |_| Ok(drop(made.pop())))?;
    settle();

    for rate in [50, 80, 150] {
        let pool = Pool::start(&engine, PoolSize { bare: 8, linked: 8 })?;
        pool.take_linked(&link)?;
        std::thread::sleep(Duration::from_millis(200));
        sustained(&format!("sustained, {rate} a second"), rate, || {
            pool.take_linked(&link)
        })?;
        settle();
    }

    let mut kept: Vec<Vec<Published>> = Vec::new();
    for filled in [0, 1000, 2000] {
        while kept.len() < filled {
            let number = u16::try_from(kept.len())?;
            kept.push(host.publish(
                &format!("kept-{number}"),
                "10.88.1.1".parse()?,
                &[port(20_000 + number)],
            )?);
        }
        let mut sockets = Vec::new();
        report(&format!("publish a port beside {filled}"), COUNT, |n| {
            Ok(sockets.push(host.publish(
                &format!("c{n}"),
                container(n),
                &[port(10_000 + n as u16)],
            )?))
        })?;
        report(&format!("unpublish it beside {filled}"), COUNT, |n| {
            host.unpublish(&format!("c{n}"))
        })?;
    }
    host.destroy()?;
    Ok(())
}

/// Take, configure, hold for a moment, drop: at a steady rate, for four seconds.
fn sustained(
    what: &str,
    rate: u32,
    take: impl Fn() -> knarr_net::Result<Sandbox>,
) -> Result<(), Box<dyn Error>> {
    let (mut takes, mut configures) = (Vec::new(), Vec::new());
    let mut live = std::collections::VecDeque::new();
    let start = Instant::now();
    for n in 0..rate * 4 {
        let due = Duration::from_secs(u64::from(n)) / rate;
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

fn report(
    what: &str,
    count: u32,
    mut work: impl FnMut(u32) -> knarr_net::Result<()>,
) -> Result<(), Box<dyn Error>> {
    let mut times = Vec::new();
    for n in 0..count {
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

/// Wait until the kernel has removed what was dropped.
fn settle() {
    std::thread::sleep(Duration::from_secs(2));
}

fn container(number: u32) -> std::net::IpAddr {
    std::net::Ipv4Addr::from(0x0a58_0002 + number).into()
}

fn interface(number: u32) -> knarr_net::Result<Interface> {
    let address = container(number);
    let mac = match address {
        std::net::IpAddr::V4(address) => Some(Mac::of_ipv4(address)),
        std::net::IpAddr::V6(_) => None,
    };
    let gateway = Some(std::net::Ipv4Addr::new(10, 88, 0, 1).into());
    Ok(Interface {
        address: knarr_net::Cidr::new(address, 16)?,
        gateway,
        mac,
    })
}

fn port(number: u16) -> Publish {
    Publish {
        protocol: Protocol::Tcp,
        host_ip: std::net::Ipv4Addr::UNSPECIFIED.into(),
        host_port: number,
        container_port: 80,
    }
}
