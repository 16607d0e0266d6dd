//! The thread: it reads questions, answers those that are about containers, and passes the others on.
//!
//! Every descriptor is taken out of the epoll set before it is closed: the keeper has copies of clients' sockets.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with};
use rustix::rand::{GetRandomFlags, getrandom};

use crate::framed::{Framed, is_temporary};
use crate::message::{
    self, Outcome, Parsed, Question, Record, TYPE_A, TYPE_AAAA, TYPE_ANY, TYPE_PTR,
};
use crate::server::{Command, Shared};
use crate::upstream::{HostFile, Upstreams};

/// How long a server may take before the next is asked.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long a client's connection may be idle.
const IDLE: Duration = Duration::from_secs(10);
/// How often deadlines are looked at while there are any.
const TICK: Duration = Duration::from_millis(100);
/// Datagrams of one client that are read in a row.
const TURN: usize = 32;
/// Questions of one client, and of all, that are passed on and not answered yet.
const PENDING_OF_ONE: usize = 256;
const PENDING: usize = 4096;
/// Connections of one client.
const CONNECTIONS: usize = 32;
/// The longest message.
const MESSAGE: usize = 65535;
const WAKE: u64 = 0;

/// Whom a descriptor belongs to.
#[derive(Clone, Debug)]
enum Source {
    Datagrams(String),
    Listener(String),
    Connection,
    Upstream,
}

#[derive(Debug)]
struct Client {
    udp: UdpSocket,
    tcp: TcpListener,
    keys: [u64; 2],
    upstreams: Upstreams,
    pending: usize,
    connections: usize,
}

/// A client's connection.
#[derive(Debug)]
struct Connection {
    client: String,
    framed: Framed,
    since: Instant,
    pending: usize,
}

/// Who asks.
#[derive(Clone, Debug)]
enum Asker {
    Datagram(SocketAddr),
    Connection(u64),
}

impl Asker {
    /// How many bytes an answer may have.
    fn limit(&self, question: &Question) -> usize {
        match self {
            Self::Datagram(_) => question.limit(),
            Self::Connection(_) => MESSAGE,
        }
    }
}

/// A question that is passed on.
#[derive(Debug)]
struct Passed {
    client: String,
    asker: Asker,
    question: Question,
    /// As it was asked, but under our own number.
    packet: Vec<u8>,
    id: u16,
    servers: Vec<IpAddr>,
}

/// A question that one of its servers has.
#[derive(Debug)]
struct Pending {
    passed: Passed,
    /// Which of the servers.
    at: usize,
    way: Way,
    deadline: Instant,
}

/// How a server is asked.
#[derive(Debug)]
enum Way {
    Datagram(UdpSocket),
    Connection(Framed),
}

/// What becomes of a question.
enum Decision {
    Answer(Vec<u8>),
    Forward,
}

pub(crate) struct Answers {
    shared: Arc<Shared>,
    host: HostFile,
    port: u16,
    poll: OwnedFd,
    clients: HashMap<String, Client>,
    sources: HashMap<u64, Source>,
    connections: HashMap<u64, Connection>,
    pending: HashMap<u64, Pending>,
    last_key: u64,
    /// Counts answers with several addresses: each begins with another.
    turn: usize,
    buffer: Vec<u8>,
}

impl Answers {
    pub(crate) fn new(shared: Arc<Shared>, host: HostFile, port: u16) -> io::Result<Self> {
        let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let data = epoll::EventData::new_u64(WAKE);
        epoll::add(&poll, &shared.wake, data, epoll::EventFlags::IN)?;
        Ok(Self {
            shared,
            host,
            port,
            poll,
            clients: HashMap::new(),
            sources: HashMap::new(),
            connections: HashMap::new(),
            pending: HashMap::new(),
            last_key: WAKE,
            turn: 0,
            buffer: vec![0; MESSAGE],
        })
    }

    /// Until it is told to stop.
    pub(crate) fn run(&mut self) {
        let mut events = Vec::with_capacity(64);
        loop {
            let tick = Timespec {
                tv_sec: 0,
                tv_nsec: i64::from(TICK.subsec_nanos()),
            };
            let busy = !self.pending.is_empty() || !self.connections.is_empty();
            events.clear();
            match epoll::wait(
                &self.poll,
                spare_capacity(&mut events),
                busy.then_some(&tick),
            ) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => {
                    self.shared
                        .complain(format!("names are not answered any more: {error}"));
                    return;
                }
            }
            for event in &events {
                let key = event.data.u64();
                if key == WAKE {
                    if !self.obey() {
                        return;
                    }
                    continue;
                }
                match self.sources.get(&key).cloned() {
                    Some(Source::Datagrams(client)) => self.datagrams(&client),
                    Some(Source::Listener(client)) => self.accept(&client),
                    Some(Source::Connection) => self.connection(key),
                    Some(Source::Upstream) => self.upstream(key),
                    None => {} // closed by an event before it
                }
            }
            if busy {
                self.expire();
            }
        }
    }

    /// False: stop.
    fn obey(&mut self) -> bool {
        for command in self.shared.commands() {
            match command {
                Command::Serve(client, udp, tcp, upstreams) => {
                    self.forget(&client);
                    if let Err(error) = self.serve(&client, udp, tcp, upstreams) {
                        let what =
                            format!("the names that {client} asks for are not answered: {error}");
                        self.shared.complain(what);
                    }
                }
                Command::Forget(client) => self.forget(&client),
                Command::Stop => return false,
            }
        }
        true
    }

    fn serve(
        &mut self,
        name: &str,
        udp: UdpSocket,
        tcp: TcpListener,
        upstreams: Upstreams,
    ) -> io::Result<()> {
        let keys = [
            self.watch(&udp, Source::Datagrams(name.to_owned()), false)?,
            self.watch(&tcp, Source::Listener(name.to_owned()), false)?,
        ];
        let client = Client {
            udp,
            tcp,
            keys,
            upstreams,
            pending: 0,
            connections: 0,
        };
        self.clients.insert(name.to_owned(), client);
        Ok(())
    }

    fn forget(&mut self, name: &str) {
        let Some(client) = self.clients.remove(name) else {
            return;
        };
        self.unwatch(client.keys[0], &client.udp);
        self.unwatch(client.keys[1], &client.tcp);
        let of = |found: &String| found == name;
        let connections = self.connections.iter().filter(|(_, one)| of(&one.client));
        for key in connections.map(|(key, _)| *key).collect::<Vec<_>>() {
            self.close(key);
        }
        let pending = self
            .pending
            .iter()
            .filter(|(_, one)| of(&one.passed.client));
        for key in pending.map(|(key, _)| *key).collect::<Vec<_>>() {
            self.take(key);
        }
    }

    // --- clients

    fn datagrams(&mut self, name: &str) {
        for _ in 0..TURN {
            let Some(client) = self.clients.get(name) else {
                return;
            };
            match client.udp.recv_from(&mut self.buffer) {
                Ok((length, from)) => {
                    let packet = self.buffer[..length].to_vec();
                    self.asked(name, Asker::Datagram(from), packet);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => {} // that somebody was not there to read an answer
            }
        }
    }

    fn accept(&mut self, name: &str) {
        let Some(client) = self.clients.get(name) else {
            return;
        };
        // Whoever has gone again, or whatever the host is short of: the next event tries the next.
        let Ok((stream, _)) = client.tcp.accept() else {
            return;
        };
        if client.connections >= CONNECTIONS || stream.set_nonblocking(true).is_err() {
            return;
        }
        let Ok(key) = self.watch(&stream, Source::Connection, false) else {
            return;
        };
        let connection = Connection {
            client: name.to_owned(),
            framed: Framed::new(stream),
            since: Instant::now(),
            pending: 0,
        };
        self.connections.insert(key, connection);
        if let Some(client) = self.clients.get_mut(name) {
            client.connections += 1;
        }
    }

    fn connection(&mut self, key: u64) {
        let Some(connection) = self.connections.get_mut(&key) else {
            return;
        };
        let open = connection
            .framed
            .flush()
            .and_then(|()| connection.framed.fill());
        if !open.is_ok_and(|open| open) {
            return self.close(key);
        }
        let client = connection.client.clone();
        while let Some(connection) = self.connections.get_mut(&key) {
            let Some(packet) = connection.framed.next() else {
                break;
            };
            connection.since = Instant::now();
            self.asked(&client, Asker::Connection(key), packet);
        }
        self.wait_for_room(key);
    }

    /// Be told of room as long as something waits to be sent, and read nothing meanwhile.
    fn wait_for_room(&self, key: u64) {
        if let Some(connection) = self.connections.get(&key) {
            let waits = connection.framed.waits();
            let flags = if waits {
                epoll::EventFlags::OUT
            } else {
                epoll::EventFlags::IN
            };
            // It is in the set, so this cannot fail but for want of memory; then the idle one is closed.
            let data = epoll::EventData::new_u64(key);
            let _ = epoll::modify(&self.poll, &connection.framed.stream, data, flags);
        }
    }

    fn close(&mut self, key: u64) {
        if let Some(connection) = self.connections.remove(&key) {
            self.unwatch(key, &connection.framed.stream);
            if let Some(client) = self.clients.get_mut(&connection.client) {
                client.connections -= 1;
            }
        }
    }

    fn asked(&mut self, client: &str, asker: Asker, packet: Vec<u8>) {
        let question = match message::parse(&packet) {
            Parsed::Question(question) => question,
            Parsed::Refused(answer) => return self.reply(client, &asker, &answer),
            Parsed::Ignored => return,
        };
        match self.decide(client, &asker, &question) {
            Decision::Answer(answer) => self.reply(client, &asker, &answer),
            Decision::Forward => self.forward(client, asker, question, packet),
        }
    }

    fn decide(&mut self, client: &str, asker: &Asker, question: &Question) -> Decision {
        let zones = self.shared.zones();
        let limit = asker.limit(question);
        if question.is_internet() {
            if let Some(addresses) = zones.addresses(client, &question.name) {
                let wanted = |address: &IpAddr| match question.kind {
                    TYPE_A => address.is_ipv4(),
                    TYPE_AAAA => address.is_ipv6(),
                    kind => kind == TYPE_ANY,
                };
                let mut records: Vec<Record> = addresses
                    .into_iter()
                    .filter(wanted)
                    .map(Record::Address)
                    .collect();
                if records.len() > 1 {
                    self.turn = self.turn.wrapping_add(1);
                    let first = self.turn % records.len();
                    records.rotate_left(first);
                }
                return Decision::Answer(question.answer(&records, limit));
            }
            let reverse = question.reverse().filter(|_| question.kind == TYPE_PTR);
            if let Some(name) = reverse.and_then(|address| zones.name(client, address)) {
                let record = Record::Name(name.to_owned());
                return Decision::Answer(question.answer(&[record], limit));
            }
        }
        if zones.is_external(client) {
            Decision::Forward
        } else {
            Decision::Answer(question.outcome(Outcome::Refused))
        }
    }

    fn reply(&mut self, client: &str, asker: &Asker, answer: &[u8]) {
        match asker {
            Asker::Datagram(to) => {
                if let Some(client) = self.clients.get(client) {
                    // A client that has gone, or does not read: it asks again if it cares.
                    let _ = client.udp.send_to(answer, to);
                }
            }
            Asker::Connection(key) => {
                let Some(connection) = self.connections.get_mut(key) else {
                    return;
                };
                if connection.framed.send(answer).is_err() {
                    return self.close(*key);
                }
                self.wait_for_room(*key);
            }
        }
    }

    // --- other servers

    fn forward(&mut self, name: &str, asker: Asker, question: Question, mut packet: Vec<u8>) {
        let Some(client) = self.clients.get_mut(name) else {
            return;
        };
        let servers = match &client.upstreams {
            Upstreams::Host => self.host.servers().to_vec(),
            Upstreams::Given(servers) => servers.clone(),
        };
        let mut id = [0; 2];
        let random = getrandom(&mut id, GetRandomFlags::empty());
        let full = client.pending >= PENDING_OF_ONE || self.pending.len() >= PENDING;
        if full || servers.is_empty() || random.is_err() {
            return self.reply(name, &asker, &question.outcome(Outcome::Failed));
        }
        let id = u16::from_ne_bytes(id);
        message::renumber(&mut packet, id);
        client.pending += 1;
        if let Asker::Connection(key) = asker
            && let Some(connection) = self.connections.get_mut(&key)
        {
            connection.pending += 1;
        }
        let passed = Passed {
            client: name.to_owned(),
            asker,
            question,
            packet,
            id,
            servers,
        };
        self.ask(passed, 0);
    }

    /// Ask the servers from one on, until one can be asked.
    fn ask(&mut self, passed: Passed, from: usize) {
        for (at, server) in passed.servers.iter().enumerate().skip(from) {
            let Ok(socket) = asking(*server, self.port, &passed.packet) else {
                continue;
            };
            let Ok(key) = self.watch(&socket, Source::Upstream, false) else {
                continue;
            };
            let pending = Pending {
                passed,
                at,
                way: Way::Datagram(socket),
                deadline: Instant::now() + PATIENCE,
            };
            self.pending.insert(key, pending);
            return;
        }
        let answer = passed.question.outcome(Outcome::Failed);
        self.settle(&passed, &answer);
    }

    /// The one that was asked does not answer: ask the next.
    fn ask_next(&mut self, key: u64) {
        if let Some(pending) = self.take(key) {
            self.ask(pending.passed, pending.at + 1);
        }
    }

    fn upstream(&mut self, key: u64) {
        let Some(pending) = self.pending.get_mut(&key) else {
            return;
        };
        let received = match &mut pending.way {
            Way::Datagram(socket) => match socket.recv(&mut self.buffer) {
                Ok(length) => Some(self.buffer[..length].to_vec()),
                Err(error) if is_temporary(&error) => return,
                Err(_) => None,
            },
            Way::Connection(framed) => {
                let open = framed.flush().and_then(|()| framed.fill());
                match framed.next() {
                    Some(message) => Some(message),
                    None if open.is_ok_and(|open| open) => {
                        if !framed.waits() {
                            let data = epoll::EventData::new_u64(key);
                            // As in wait_for_room: the deadline is there if it fails.
                            let _ = epoll::modify(
                                &self.poll,
                                &framed.stream,
                                data,
                                epoll::EventFlags::IN,
                            );
                        }
                        return;
                    }
                    None => None,
                }
            }
        };
        let Some(mut answer) = received else {
            return self.ask_next(key);
        };
        let passed = &pending.passed;
        if !passed.question.is_answered_by(&answer, passed.id) {
            return; // somebody else's: the deadline decides
        }
        if pending.at + 1 < passed.servers.len() && message::has_failed(&answer) {
            return self.ask_next(key);
        }
        let by_datagram = matches!(pending.way, Way::Datagram(_));
        let whole = matches!(passed.asker, Asker::Connection(_));
        if by_datagram && whole && message::is_truncated(&answer) {
            return self.ask_for_the_whole(key);
        }
        if let Some(Pending { passed, .. }) = self.take(key) {
            message::renumber(&mut answer, passed.question.id);
            if answer.len() > passed.asker.limit(&passed.question) {
                answer = passed.question.truncated();
            }
            self.settle(&passed, &answer);
        }
    }

    /// Ask the same server by TCP.
    fn ask_for_the_whole(&mut self, key: u64) {
        let Some(Pending { passed, at, .. }) = self.take(key) else {
            return;
        };
        let asked = connecting(SocketAddr::new(passed.servers[at], self.port)).and_then(|stream| {
            let mut framed = Framed::new(stream);
            framed.send(&passed.packet)?;
            let key = self.watch(&framed.stream, Source::Upstream, true)?;
            Ok((key, framed))
        });
        let Ok((key, framed)) = asked else {
            let answer = passed.question.outcome(Outcome::Failed);
            return self.settle(&passed, &answer);
        };
        let pending = Pending {
            passed,
            at,
            way: Way::Connection(framed),
            deadline: Instant::now() + PATIENCE,
        };
        self.pending.insert(key, pending);
    }

    /// Take a question out of those that wait for a server.
    fn take(&mut self, key: u64) -> Option<Pending> {
        let pending = self.pending.remove(&key)?;
        match &pending.way {
            Way::Datagram(socket) => self.unwatch(key, socket),
            Way::Connection(framed) => self.unwatch(key, &framed.stream),
        }
        Some(pending)
    }

    /// Answer a question that was passed on.
    fn settle(&mut self, passed: &Passed, answer: &[u8]) {
        if let Some(client) = self.clients.get_mut(&passed.client) {
            client.pending = client.pending.saturating_sub(1);
        }
        if let Asker::Connection(key) = passed.asker
            && let Some(connection) = self.connections.get_mut(&key)
        {
            connection.pending = connection.pending.saturating_sub(1);
            connection.since = Instant::now();
        }
        self.reply(&passed.client, &passed.asker, answer);
    }

    fn expire(&mut self) {
        let now = Instant::now();
        let late = self.pending.iter().filter(|(_, one)| one.deadline <= now);
        for key in late.map(|(key, _)| *key).collect::<Vec<_>>() {
            self.ask_next(key);
        }
        let idle = |one: &Connection| one.pending == 0 && one.since + IDLE <= now;
        let late = self.connections.iter().filter(|(_, one)| idle(one));
        for key in late.map(|(key, _)| *key).collect::<Vec<_>>() {
            self.close(key);
        }
    }

    // --- descriptors

    fn watch(&mut self, socket: impl AsFd, source: Source, writes: bool) -> io::Result<u64> {
        let key = self.last_key + 1;
        let mut flags = epoll::EventFlags::IN;
        flags.set(epoll::EventFlags::OUT, writes);
        epoll::add(&self.poll, socket, epoll::EventData::new_u64(key), flags)?;
        self.last_key = key;
        self.sources.insert(key, source);
        Ok(key)
    }

    fn unwatch(&mut self, key: u64, socket: impl AsFd) {
        self.sources.remove(&key);
        // What is in the set can be taken out of it.
        let _ = epoll::delete(&self.poll, socket);
    }
}

/// A socket on a port that nobody guesses, which has sent the question and hears nobody but that server.
fn asking(server: IpAddr, port: u16, packet: &[u8]) -> io::Result<UdpSocket> {
    let any: IpAddr = match server {
        IpAddr::V4(_) => [0, 0, 0, 0].into(),
        IpAddr::V6(_) => [0_u16; 8].into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.set_nonblocking(true)?;
    socket.connect((server, port))?;
    socket.send(packet)?;
    Ok(socket)
}

/// A connection that is being made.
fn connecting(server: SocketAddr) -> io::Result<TcpStream> {
    let family = if server.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::STREAM, flags, None)?;
    match connect(&socket, &server) {
        Ok(()) | Err(rustix::io::Errno::INPROGRESS) => Ok(TcpStream::from(socket)),
        Err(error) => Err(error.into()),
    }
}
