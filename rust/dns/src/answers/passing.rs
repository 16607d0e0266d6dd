//! Questions that others answer: servers are asked one after another, by UDP, and by TCP for what is longer.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::time::Instant;

use rustix::event::epoll;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with};
use rustix::rand::{GetRandomFlags, getrandom};

use super::{Answers, Asker, PATIENCE, PENDING_OF_ONE, Source};
use crate::framed::{Framed, is_temporary};
use crate::message::{self, Outcome, Question};
use crate::response;
use crate::upstream::Upstreams;

/// A question that is passed on.
#[derive(Debug)]
pub(super) struct Passed {
    pub(super) client: String,
    asker: Asker,
    question: Question,
    /// As it was asked, but under our own number.
    packet: Vec<u8>,
    id: u16,
    servers: Vec<SocketAddr>,
}

/// A question that one of its servers has.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) passed: Passed,
    /// Which of the servers.
    at: usize,
    way: Way,
    pub(super) deadline: Instant,
}

/// How a server is asked.
#[derive(Debug)]
enum Way {
    Datagram(UdpSocket),
    Connection(Framed),
}

impl Answers {
    pub(super) fn forward(
        &mut self,
        name: &str,
        asker: Asker,
        question: Question,
        mut packet: Vec<u8>,
    ) {
        let Some(client) = self.clients.get_mut(name) else {
            return;
        };
        let servers = match &client.upstreams {
            Upstreams::Host => self.host.servers().to_vec(),
            Upstreams::Given(servers) => servers.iter().map(|one| (*one, 0).into()).collect(),
        };
        let mut id = [0; 2];
        let random = getrandom(&mut id, GetRandomFlags::empty());
        let full = client.pending >= PENDING_OF_ONE || self.pending.len() >= self.most;
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
            servers: at(servers, self.port),
        };
        self.ask(passed, 0);
    }

    /// Ask the servers from one on, until one can be asked.
    fn ask(&mut self, passed: Passed, from: usize) {
        for (at, server) in passed.servers.iter().enumerate().skip(from) {
            let Ok(socket) = asking(*server, &passed.packet) else {
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
    pub(super) fn ask_next(&mut self, key: u64) {
        if let Some(pending) = self.take(key) {
            self.ask(pending.passed, pending.at + 1);
        }
    }

    pub(super) fn upstream(&mut self, key: u64) {
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
            let addresses = response::addresses(&answer, &passed.question.name);
            if !addresses.is_empty() {
                let gate = self.shared.gate();
                gate.answered(&passed.client, &passed.question.name, &addresses);
            }
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
        let asked = connecting(passed.servers[at]).and_then(|stream| {
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
    pub(super) fn take(&mut self, key: u64) -> Option<Pending> {
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
}

/// Servers where they answer.
fn at(mut servers: Vec<SocketAddr>, port: u16) -> Vec<SocketAddr> {
    for server in &mut servers {
        server.set_port(port);
    }
    servers
}

/// A socket on a port that nobody guesses, which has sent the question and hears nobody but that server.
fn asking(server: SocketAddr, packet: &[u8]) -> io::Result<UdpSocket> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => [0, 0, 0, 0].into(),
        SocketAddr::V6(_) => [0_u16; 8].into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.set_nonblocking(true)?;
    socket.connect(server)?;
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
