//! The server over real sockets: the loopback interface stands in for a container's network namespace.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use knarr_dns::{Gate, Membership, Open, Server, Sockets, Upstreams};

const A: u16 = 1;
const PTR: u16 = 12;
const TXT: u16 = 16;
const AAAA: u16 = 28;
const PATIENCE: Duration = Duration::from_secs(30);

/// A client in its place: where it asks.
struct Client {
    udp: SocketAddr,
    tcp: SocketAddr,
}

fn sockets() -> (Client, Sockets) {
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = Client {
        udp: udp.local_addr().unwrap(),
        tcp: tcp.local_addr().unwrap(),
    };
    let sockets = Sockets {
        udp: udp.into(),
        tcp: tcp.into(),
    };
    (client, sockets)
}

fn serve(server: &Server, name: &str, upstreams: Upstreams) -> Client {
    let (client, sockets) = sockets();
    server.serve(name, sockets, upstreams).unwrap();
    client
}

fn server(port: u16) -> Server {
    Server::with(|complaint| panic!("{complaint}"), Open, &missing(), port).unwrap()
}

fn missing() -> PathBuf {
    PathBuf::from("/nonexistent/resolv.conf")
}

fn on(network: &str, last: u8, names: &[&str], external: bool) -> Membership {
    Membership {
        network: format!("{network}-id"),
        network_name: network.to_owned(),
        addresses: vec![IpAddr::from([10, 0, 0, last])],
        names: names.iter().map(ToString::to_string).collect(),
        links: std::collections::BTreeMap::new(),
        external,
        sole: false,
    }
}

fn question(name: &str, kind: u16) -> Vec<u8> {
    let mut packet = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        packet.push(u8::try_from(label.len()).unwrap());
        packet.extend(label.as_bytes());
    }
    packet.push(0);
    packet.extend(kind.to_be_bytes());
    packet.extend(1_u16.to_be_bytes());
    packet
}

fn send(client: &Client, packet: &[u8]) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.send_to(packet, client.udp).unwrap();
    socket
}

fn receive(socket: &UdpSocket) -> Vec<u8> {
    let mut buffer = vec![0; 65535];
    let length = socket.recv(&mut buffer).unwrap();
    buffer[..length].to_vec()
}

fn ask(client: &Client, name: &str, kind: u16) -> Vec<u8> {
    receive(&send(client, &question(name, kind)))
}

fn code(answer: &[u8]) -> u8 {
    assert_eq!(answer[..2], [0x12, 0x34]);
    answer[3] & 15
}

/// The data of the records in an answer to that question.
fn records(answer: &[u8], asked: &[u8]) -> Vec<Vec<u8>> {
    let mut rest = &answer[asked.len()..];
    let count = u16::from_be_bytes([answer[6], answer[7]]);
    (0..count)
        .map(|_| {
            let length = usize::from(u16::from_be_bytes([rest[10], rest[11]]));
            let data = rest[12..12 + length].to_vec();
            rest = &rest[12 + length..];
            data
        })
        .collect()
}

fn addresses(client: &Client, name: &str) -> Vec<Ipv4Addr> {
    let answer = ask(client, name, A);
    assert_eq!(code(&answer), 0, "{name}");
    records(&answer, &question(name, A))
        .iter()
        .map(|data| Ipv4Addr::from(<[u8; 4]>::try_from(&data[..]).unwrap()))
        .collect()
}

fn over_tcp(stream: &mut TcpStream, packet: &[u8]) -> Vec<u8> {
    let mut framed = u16::try_from(packet.len()).unwrap().to_be_bytes().to_vec();
    framed.extend(packet);
    stream.write_all(&framed).unwrap();
    let mut length = [0; 2];
    stream.read_exact(&mut length).unwrap();
    let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut answer).unwrap();
    answer
}

/// A server of the world's on a port of 127.0.0.1, by UDP and TCP: what it answers is up to `answer`.
fn world(
    answer: impl Fn(&[u8], bool) -> Option<Vec<u8>> + Send + Sync + 'static,
) -> (u16, Arc<AtomicUsize>) {
    let (udp, tcp) = loop {
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()) {
            break (udp, tcp);
        }
    };
    let port = udp.local_addr().unwrap().port();
    let asked = Arc::new(AtomicUsize::new(0));
    let (answer, count) = (Arc::new(answer), Arc::clone(&asked));
    let by_tcp = Arc::clone(&answer);
    thread::spawn(move || {
        let mut buffer = [0; 2048];
        while let Ok((length, from)) = udp.recv_from(&mut buffer) {
            count.fetch_add(1, Ordering::SeqCst);
            if let Some(answer) = answer(&buffer[..length], false) {
                udp.send_to(&answer, from).unwrap();
            }
        }
    });
    thread::spawn(move || {
        for stream in tcp.incoming() {
            let mut stream = stream.unwrap();
            let mut length = [0; 2];
            stream.read_exact(&mut length).unwrap();
            let mut packet = vec![0; usize::from(u16::from_be_bytes(length))];
            stream.read_exact(&mut packet).unwrap();
            if let Some(answer) = by_tcp(&packet, true) {
                let length = u16::try_from(answer.len()).unwrap().to_be_bytes();
                stream.write_all(&length).unwrap();
                stream.write_all(&answer).unwrap();
            }
        }
    });
    (port, asked)
}

/// The question as an answer with one record of so many bytes.
fn answered(packet: &[u8], size: usize) -> Vec<u8> {
    let mut answer = packet.to_vec();
    answer[2] |= 0x80;
    answer[7] = 1;
    answer.extend([0xc0, 12, 0, 16, 0, 1, 0, 0, 0, 60]);
    answer.extend(u16::try_from(size).unwrap().to_be_bytes());
    answer.extend(vec![b'x'; size]);
    answer
}

fn loopback() -> Upstreams {
    Upstreams::Given(vec![Ipv4Addr::LOCALHOST.into()])
}

#[test]
fn containers_are_found_by_their_names() {
    let server = server(9);
    let client = serve(&server, "a", Upstreams::Host);
    server.set("a", vec![on("net", 1, &["one", "db"], true)]);
    server.set("b", vec![on("net", 2, &["two", "db"], true)]);
    assert_eq!(addresses(&client, "ONE"), [Ipv4Addr::new(10, 0, 0, 1)]);
    assert_eq!(addresses(&client, "two.net"), [Ipv4Addr::new(10, 0, 0, 2)]);
    let first: Vec<_> = (0..2).map(|_| addresses(&client, "db")[0]).collect();
    assert_ne!(first[0], first[1]);
    for kind in [AAAA, TXT] {
        let answer = ask(&client, "one", kind);
        assert_eq!((code(&answer), answer[7]), (0, 0));
    }
    let reverse = "2.0.0.10.in-addr.arpa";
    let data = records(&ask(&client, reverse, PTR), &question(reverse, PTR));
    assert_eq!(data, [b"\x03two\x03net\x00"]);
    server.forget("b");
    assert_eq!(addresses(&client, "db"), [Ipv4Addr::new(10, 0, 0, 1)]);
    assert_eq!(code(&ask(&client, "two", A)), 2); // passed on, to nobody
}

#[test]
fn addresses_of_both_families_have_their_own_questions() {
    let server = server(9);
    let client = serve(&server, "a", Upstreams::Host);
    let six: IpAddr = "fd00::a:2".parse().unwrap();
    let both = |last: u8, names: &[&str]| {
        let mut membership = on("net", last, names, true);
        membership.addresses.push(six);
        membership
    };
    let mut only = on("net", 1, &["one"], true);
    only.addresses = vec!["fd00::a:1".parse().unwrap()];
    server.set("a", vec![only]);
    server.set("b", vec![both(2, &["two"])]);
    let data = |name: &str, kind| records(&ask(&client, name, kind), &question(name, kind));
    let octets = |text: &str| {
        text.parse::<std::net::Ipv6Addr>()
            .unwrap()
            .octets()
            .to_vec()
    };
    assert_eq!(data("two", AAAA), [octets("fd00::a:2")]);
    assert_eq!(data("two", A), [vec![10, 0, 0, 2]]);
    assert_eq!(data("one", AAAA), [octets("fd00::a:1")]);
    let answer = ask(&client, "one", A);
    assert_eq!(
        (code(&answer), answer[7]),
        (0, 0),
        "it has the name, and no such address"
    );
    let zeros = "0.".repeat(23);
    let reverse = format!("2.0.0.0.a.0.0.0.{}d.f.ip6.arpa", &zeros[..44]);
    assert_eq!(data(&reverse, PTR), [b"\x03two\x03net\x00"]);
    server.forget("b");
    assert_eq!(
        code(&ask(&client, &reverse, PTR)),
        2,
        "passed on, to nobody"
    );
}

#[test]
fn a_server_of_ipv6_is_asked() {
    let upstream = UdpSocket::bind("[::1]:0").unwrap();
    let server = server(upstream.local_addr().unwrap().port());
    let given = Upstreams::Given(vec![std::net::Ipv6Addr::LOCALHOST.into()]);
    let client = serve(&server, "a", given);
    server.set("a", vec![on("net", 1, &["one"], true)]);
    let asking = send(&client, &question("far.example", AAAA));
    let mut buffer = [0; 512];
    upstream.set_read_timeout(Some(PATIENCE)).unwrap();
    let (length, from) = upstream.recv_from(&mut buffer).unwrap();
    buffer[2] |= 0x80; // an answer, without records
    upstream.send_to(&buffer[..length], from).unwrap();
    assert_eq!(code(&receive(&asking)), 0);
}

#[test]
fn what_is_asked_by_tcp_is_answered_in_turn() {
    let server = server(9);
    let client = serve(&server, "a", Upstreams::Host);
    server.set("a", vec![on("net", 1, &["one"], true)]);
    for other in 2..60 {
        server.set(
            &format!("c{other}"),
            vec![on("net", other, &["many"], true)],
        );
    }
    let cut = ask(&client, "many", A);
    assert!(cut[2] & 2 != 0 && cut.len() <= 512);
    let mut stream = TcpStream::connect(client.tcp).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    for name in ["one", "many", "one"] {
        let asked = question(name, A);
        let answer = over_tcp(&mut stream, &asked);
        assert_eq!(
            records(&answer, &asked).len(),
            if name == "one" { 1 } else { 58 }
        );
    }
    stream.write_all(&[0, 3, 1, 2, 3]).unwrap(); // no question, and no reason to close
    assert_eq!(over_tcp(&mut stream, &question("one", A))[7], 1);
    server.forget("a");
    assert_eq!(stream.read(&mut [0; 10]).unwrap(), 0);
}

#[test]
fn other_names_are_asked_of_the_next_server_that_answers() {
    let (port, asked) = world(|packet, _| Some(answered(packet, 4)));
    let server = server(port);
    // Nobody is at the first, the second says nothing, the third does.
    let silent = UdpSocket::bind((Ipv4Addr::new(127, 0, 0, 3), port)).unwrap();
    let servers = [[127, 0, 0, 2], [127, 0, 0, 3], [127, 0, 0, 1]].map(IpAddr::from);
    let client = serve(&server, "a", Upstreams::Given(servers.to_vec()));
    server.set("a", vec![on("net", 1, &["one"], true)]);
    let answer = ask(&client, "example.org", TXT);
    assert_eq!(records(&answer, &question("example.org", TXT)), [b"xxxx"]);
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    drop(silent);
}

#[test]
fn a_server_that_fails_is_passed_over_and_answers_of_others_do_not_count() {
    let (port, _) = world(|packet, _| {
        let mut forged = answered(packet, 1);
        forged[0] ^= 1;
        Some(forged)
    });
    let server = server(port);
    let client = serve(&server, "a", loopback());
    server.set("a", vec![on("net", 1, &["one"], true)]);
    assert_eq!(code(&ask(&client, "example.org", TXT)), 2);
}

#[test]
fn long_answers_come_by_tcp() {
    let (port, _) = world(|packet, tcp| {
        let mut answer = answered(packet, if tcp { 5000 } else { 1 });
        answer[2] |= if tcp { 0 } else { 2 };
        Some(answer)
    });
    let server = server(port);
    let client = serve(&server, "a", loopback());
    server.set("a", vec![on("net", 1, &["one"], true)]);
    assert!(ask(&client, "example.org", TXT)[2] & 2 != 0);
    let mut stream = TcpStream::connect(client.tcp).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let asked = question("example.org", TXT);
    let answer = over_tcp(&mut stream, &asked);
    assert_eq!(records(&answer, &asked)[0].len(), 5000);
}

#[test]
fn from_an_internal_network_nothing_is_passed_on() {
    let (port, asked) = world(|packet, _| Some(answered(packet, 1)));
    let server = server(port);
    let client = serve(&server, "a", loopback());
    server.set("a", vec![on("net", 1, &["one"], false)]);
    assert_eq!(addresses(&client, "one"), [Ipv4Addr::new(10, 0, 0, 1)]);
    assert_eq!(code(&ask(&client, "example.org", TXT)), 5);
    assert_eq!(code(&ask(&client, "9.9.9.9.in-addr.arpa", PTR)), 5);
    assert_eq!(asked.load(Ordering::SeqCst), 0);
}

/// Lets one name through, and remembers what it has heard.
#[derive(Clone, Default)]
struct One(Arc<Mutex<Vec<String>>>);

impl Gate for One {
    fn admits(&self, client: &str, name: &str) -> bool {
        client == "a" && name == "good.example"
    }

    fn answered(&self, client: &str, name: &str, addresses: &[(IpAddr, Duration)]) {
        for (address, keep) in addresses {
            let heard = format!("{client} {name} {address} {}", keep.as_secs());
            self.0.lock().unwrap().push(heard);
        }
    }
}

#[test]
fn a_gate_says_what_is_passed_on_and_hears_of_the_answer_first() {
    let (port, asked) = world(|packet, _| {
        let mut answer = packet.to_vec();
        answer[2] |= 0x80;
        answer[7] = 1;
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 6, 7, 8, 9]);
        Some(answer)
    });
    let gate = One::default();
    let complain = |complaint| panic!("{complaint}");
    let server = Server::with(complain, gate.clone(), &missing(), port).unwrap();
    let client = serve(&server, "a", loopback());
    server.set("a", vec![on("net", 1, &["one"], true)]);
    for name in ["bad.example", "x.good.example", "xgood.example"] {
        assert_eq!(code(&ask(&client, name, A)), 5, "{name}");
    }
    assert_eq!(asked.load(Ordering::SeqCst), 0);
    assert_eq!(addresses(&client, "one"), [Ipv4Addr::new(10, 0, 0, 1)]);
    assert_eq!(
        addresses(&client, "Good.Example"),
        [Ipv4Addr::new(6, 7, 8, 9)]
    );
    assert_eq!(*gate.0.lock().unwrap(), ["a good.example 6.7.8.9 60"]);
}

#[test]
fn the_hosts_file_is_followed() {
    let (port, asked) = world(|packet, _| Some(answered(packet, 1)));
    let path = std::env::temp_dir().join(format!("knarr-dns-host-{}.conf", std::process::id()));
    let server = Server::with(|complaint| panic!("{complaint}"), Open, &path, port).unwrap();
    let client = serve(&server, "a", Upstreams::Host);
    server.set("a", vec![on("net", 1, &["one"], true)]);
    assert_eq!(code(&ask(&client, "example.org", TXT)), 2);
    std::fs::write(&path, "nameserver 127.0.0.1\n").unwrap();
    let begun = std::time::Instant::now();
    while code(&ask(&client, "example.org", TXT)) != 0 {
        assert!(begun.elapsed() < PATIENCE);
        thread::sleep(Duration::from_millis(50));
    }
    assert!(asked.load(Ordering::SeqCst) > 0);
    std::fs::remove_file(path).unwrap();
}

#[test]
fn a_flood_of_what_nobody_answers_leaves_room_for_others() {
    let (port, _) = world(|_, _| None);
    let server = server(port);
    let flooding = serve(&server, "a", loopback());
    let other = serve(&server, "b", loopback());
    server.set("a", vec![on("net", 1, &["one"], true)]);
    server.set("b", vec![on("net", 2, &["two"], true)]);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    // So many wait for their answers; of those that come then, each is told so at once.
    for number in 0..300 {
        socket
            .send_to(&question(&format!("n{number}.example"), A), flooding.udp)
            .unwrap();
        if number > 256 {
            assert_eq!(code(&receive(&socket)), 2);
        } else {
            thread::sleep(Duration::from_micros(200));
        }
    }
    assert_eq!(addresses(&other, "one"), [Ipv4Addr::new(10, 0, 0, 1)]);
    assert_eq!(addresses(&flooding, "two"), [Ipv4Addr::new(10, 0, 0, 2)]);
}

#[test]
fn rubbish_is_refused_or_ignored_and_survived() {
    let server = server(9);
    let client = serve(&server, "a", Upstreams::Host);
    server.set("a", vec![on("net", 1, &["one"], true)]);
    send(&client, b"");
    send(&client, b"x");
    let mut odd = question("one", A);
    odd[2] = 0x80;
    send(&client, &odd);
    odd[2] = 0x28;
    assert_eq!(code(&receive(&send(&client, &odd))), 4);
    odd[2] = 1;
    odd[5] = 2;
    assert_eq!(code(&receive(&send(&client, &odd))), 1);
    odd[5] = 1;
    odd[12] = 0xc0;
    assert_eq!(code(&receive(&send(&client, &odd))), 1);
    assert_eq!(addresses(&client, "one"), [Ipv4Addr::new(10, 0, 0, 1)]);
}

#[test]
fn a_client_that_is_served_anew_is_answered_where_it_is_now() {
    let server = server(9);
    serve(&server, "a", Upstreams::Host);
    let client = serve(&server, "a", Upstreams::Host);
    server.set("a", vec![on("net", 1, &["one"], true)]);
    assert_eq!(addresses(&client, "one"), [Ipv4Addr::new(10, 0, 0, 1)]);
}
