//! Clients: connections, packets in, packets out.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};

use super::Supervisor;
use crate::poll::{Interest, Ready, Token, Watched};
use crate::protocol::{Answer, Event, Failure, packet, parse};
use crate::wire::{self, PACKET_BYTES, PACKET_DESCRIPTORS, Received};
use knarr_runtime::Kind;

/// The most that waits for a client that does not read; then it is disconnected.
const QUEUE_BYTES: usize = 16 * 1024 * 1024;
/// Packets of one client before others have their turn.
const TURN: usize = 32;

/// A connected client.
#[derive(Debug)]
pub struct Client {
    socket: Watched,
    queue: VecDeque<Vec<u8>>,
    queued: usize,
    /// Whether it is told of events.
    pub subscribed: bool,
}

impl Client {
    /// Send a packet, now or as soon as the socket takes it. False for a client that is to be dropped.
    fn send(&mut self, packet: Vec<u8>) -> bool {
        self.queued += packet.len();
        self.queue.push_back(packet);
        self.flush() && self.queued <= QUEUE_BYTES
    }

    fn flush(&mut self) -> bool {
        while let Some(packet) = self.queue.front() {
            match wire::send(&self.socket, packet, &[]) {
                Ok(()) => {
                    self.queued -= packet.len();
                    self.queue.pop_front();
                }
                Err(Errno::AGAIN) => return self.socket.set(Interest::of(true, true)).is_ok(),
                Err(_) => return false,
            }
        }
        self.socket.set(Interest::READ).is_ok()
    }
}

impl Supervisor {
    pub(super) fn accept(&mut self) {
        loop {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            match accept_with(self.listener.as_fd(), flags) {
                Ok(socket) => self.take_client(socket),
                Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => return,
                Err(error) => {
                    self.journal.say(format!("cannot accept a client: {error}"));
                    return;
                }
            }
        }
    }

    pub(super) fn take_client(&mut self, socket: OwnedFd) {
        let key = self.key();
        match self.poll.watch(socket, Token::Client(key), Interest::READ) {
            Ok(socket) => {
                let client = Client {
                    socket,
                    queue: VecDeque::new(),
                    queued: 0,
                    subscribed: false,
                };
                self.clients.insert(key, client);
            }
            Err(error) => self
                .journal
                .say(format!("a client cannot be served: {error}")),
        }
    }

    pub(super) fn on_client(&mut self, key: u32, ready: Ready) {
        if ready.write && !self.clients.get_mut(&key).is_none_or(Client::flush) {
            self.clients.remove(&key);
            return;
        }
        let mut buffer = std::mem::take(&mut self.packet);
        self.serve_client(key, &mut buffer);
        self.packet = buffer;
    }

    fn serve_client(&mut self, key: u32, buffer: &mut [u8]) {
        for _ in 0..TURN {
            let Some(client) = self.clients.get(&key) else {
                return;
            };
            match wire::receive(&client.socket, buffer) {
                Ok(Received::Packet(length, descriptors)) => match parse(&buffer[..length]) {
                    Ok(request) => self.requested(key, request, descriptors),
                    Err((id, failure)) => self.answer(key, id, &Err(failure)),
                },
                Ok(Received::Oversized) => {
                    let most = format!(
                        "a packet of more than {PACKET_BYTES} bytes or {PACKET_DESCRIPTORS} descriptors was dropped"
                    );
                    self.answer(key, 0, &Err(Failure::new(Kind::InvalidArgument, most)));
                }
                Ok(Received::Nothing) => return,
                Ok(Received::End) | Err(_) => {
                    self.clients.remove(&key);
                    return;
                }
            }
        }
    }

    /// Answer a request; a client that has gone misses it.
    pub(super) fn answer(&mut self, key: u32, request: u64, answer: &Answer) {
        self.send(key, packet(request, answer));
    }

    /// Tell every subscriber.
    pub(super) fn publish(&mut self, event: Event<'_>) {
        let subscribers: Vec<u32> = self
            .clients
            .iter()
            .filter(|(_, client)| client.subscribed)
            .map(|(key, _)| *key)
            .collect();
        if subscribers.is_empty() {
            return;
        }
        let packet = event.packet();
        for key in subscribers {
            self.send(key, packet.clone());
        }
    }

    pub(super) fn send(&mut self, key: u32, packet: Vec<u8>) {
        if let Some(client) = self.clients.get_mut(&key)
            && !client.send(packet)
        {
            self.clients.remove(&key);
        }
    }
}
