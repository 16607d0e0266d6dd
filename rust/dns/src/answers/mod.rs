//! The thread: it reads questions, answers those that are about containers, and passes the others on.
//!
//! Every descriptor is taken out of the epoll set before it is closed: the keeper has copies of clients' sockets.

mod passing;

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::process::{Resource, getrlimit};

use crate::framed::{Framed, is_temporary};
use crate::message::{
    self, Outcome, Parsed, Question, Record, TYPE_A, TYPE_AAAA, TYPE_ANY, TYPE_PTR,
};
use crate::server::{Command, Shared};
use crate::upstream::{HostFile, Upstreams};
use passing::Pending;

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
const PENDING: usize = 1024;
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
    /// Clients whose listening sockets are left alone for a moment.
    resting: Vec<String>,
    /// How many questions may be passed on at a time: each has a descriptor.
    most: usize,
    last_key: u64,
    /// Counts answers with several addresses: each begins with another.
    turn: usize,
    buffer: Vec<u8>,
}

impl Answers {
    pub(crate) fn new(shared: Arc<Shared>, host: HostFile, port: u16) -> io::Result<Self> {
        let files = getrlimit(Resource::Nofile).current;
        let files = files.and_then(|files| usize::try_from(files).ok());
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
            resting: Vec::new(),
            most: files.map_or(PENDING, |files| PENDING.min(files / 4)),
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
            let busy = !self.pending.is_empty()
                || !self.connections.is_empty()
                || !self.resting.is_empty();
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
        let stream = match client.tcp.accept() {
            Ok((stream, _)) => stream,
            Err(error) if is_temporary(&error) => return,
            // The host is short of something, or whoever came has gone: not to be told of at once again.
            Err(_) => return self.rest(name),
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

    /// Leave a client's listening socket alone until the next tick.
    fn rest(&mut self, name: &str) {
        if let Some(client) = self.clients.get(name) {
            self.resting.push(name.to_owned());
            self.listen(client, epoll::EventFlags::empty());
        }
    }

    fn listen(&self, client: &Client, flags: epoll::EventFlags) {
        // It is in the set, so this cannot fail but for want of memory: then it is told of too often.
        let _ = epoll::modify(
            &self.poll,
            &client.tcp,
            epoll::EventData::new_u64(client.keys[1]),
            flags,
        );
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
        let external = zones.is_external(client);
        drop(zones); // whoever has it may be about to tell us something
        if external && self.shared.gate().admits(client, &question.name) {
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

    // --- time

    fn expire(&mut self) {
        for name in std::mem::take(&mut self.resting) {
            if let Some(client) = self.clients.get(&name) {
                self.listen(client, epoll::EventFlags::IN);
            }
        }
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
