//! Questions a second, and how long they take, over the loopback interface: `flood [SECONDS] [ASKERS]`.

use std::net::{IpAddr, TcpListener, UdpSocket};
use std::time::{Duration, Instant};

use knarr_dns::{Membership, Server, Sockets, Upstreams};

fn main() {
    let mut arguments = std::env::args()
        .skip(1)
        .filter_map(|text| text.parse::<u64>().ok());
    let seconds = Duration::from_secs(arguments.next().unwrap_or(3));
    let askers = arguments.next().unwrap_or(8);
    let server =
        Server::start(|complaint| eprintln!("{complaint}"), knarr_dns::Open).expect("a server");
    let udp = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let to = udp.local_addr().expect("its address");
    let tcp = TcpListener::bind("127.0.0.1:0").expect("a socket");
    let sockets = Sockets {
        udp: udp.into(),
        tcp: tcp.into(),
    };
    let client = Membership {
        network: "n".to_owned(),
        network_name: "net".to_owned(),
        addresses: vec![IpAddr::from([10, 0, 0, 1])],
        names: vec!["web".to_owned()],
        links: std::collections::BTreeMap::new(),
        external: false,
        sole: false,
    };
    server.set("client", vec![client]);
    server
        .serve("client", sockets, Upstreams::Host)
        .expect("a thread");
    let threads: Vec<_> = (0..askers)
        .map(|_| {
            std::thread::spawn(move || {
                let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
                socket.connect(to).expect("a server");
                let packet =
                    b"\x00\x01\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03web\x00\x00\x01\x00\x01";
                let (begun, mut times) = (Instant::now(), Vec::new());
                while begun.elapsed() < seconds {
                    let asked = Instant::now();
                    socket.send(packet).expect("a question");
                    socket.recv(&mut [0; 512]).expect("an answer");
                    times.push(asked.elapsed());
                }
                times
            })
        })
        .collect();
    let mut times: Vec<Duration> = Vec::new();
    for thread in threads {
        times.extend(thread.join().expect("a thread"));
    }
    times.sort_unstable();
    let rate = u64::try_from(times.len()).unwrap_or(u64::MAX) / seconds.as_secs().max(1);
    let (half, most) = (times[times.len() / 2], times[times.len() * 99 / 100]);
    println!("{rate} questions a second from {askers} askers: p50 {half:?}, p99 {most:?}");
}
