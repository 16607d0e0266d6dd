//! A netlink socket: send a batch, read its answers.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use knarr_sys::net::{NetlinkFamily, netlink_socket};
use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{RecvFlags, SendFlags, bind, getsockname, recv, send};

use super::reply::{Content, parse};
use super::{Batch, DUMP};
use crate::error::{Error, Result};

/// The kernel never makes a dump's datagram longer than this (`netlink_dump`).
const DATAGRAM: usize = 32 * 1024;
/// How often a dump is repeated that a change interrupted: on a host where hundreds of containers come and go it takes
/// some luck, so each attempt waits longer for it than the one before.
const DUMP_ATTEMPTS: u64 = 40;

/// The kernel's objects: their message types, and their bytes after the message's header.
type Objects = Vec<(u16, Vec<u8>)>;

/// A socket into the namespace that its maker was in.
///
/// The kernel has queued all its answers when `send` returns, and each next piece of a dump when
/// the one before is read. So nothing here ever waits, and an answer that is missing is an error.
#[derive(Debug)]
pub(crate) struct Socket {
    socket: OwnedFd,
    sequence: u32,
}

impl Socket {
    pub(crate) fn open(family: NetlinkFamily) -> Result<Self> {
        let socket = netlink_socket(family)
            .map_err(|cause| Error::system("open a netlink socket", cause))?;
        Ok(Self {
            socket,
            sequence: 0,
        })
    }

    /// One that is told of what happens to some groups of nfnetlink's (a bit each), and asks for nothing.
    pub(crate) fn listen(groups: u32) -> Result<Self> {
        let listener = Self::open(NetlinkFamily::Netfilter)?;
        bind(&listener.socket, &SocketAddrNetlink::new(0, groups))
            .map_err(|cause| Error::system("listen to a netlink group", cause))?;
        Ok(listener)
    }

    /// The number by which the kernel names it to others. It has one once it has sent something.
    pub(crate) fn port(&self) -> Result<u32> {
        let doing = "ask for the port of a netlink socket";
        let address = getsockname(&self.socket).map_err(|cause| Error::system(doing, cause))?;
        let address = SocketAddrNetlink::try_from(address);
        Ok(address.map_err(|cause| Error::system(doing, cause))?.pid())
    }

    /// The next datagram for a listener: port, type and body of each message. AGAIN where there is none.
    pub(crate) fn told(&self) -> std::result::Result<Vec<(u32, u16, Vec<u8>)>, Errno> {
        let mut buffer = vec![0; DATAGRAM];
        let length = self.receive(&mut buffer)?;
        let mut told = Vec::new();
        let whole = parse(&buffer[..length], |reply| {
            if let Content::Object { kind, body, .. } = reply.content {
                told.push((reply.port, kind, body));
            }
        });
        whole.map(|()| told).ok_or(Errno::PROTO)
    }

    /// Send the requests and report the first that failed. Without a `Transaction` around them
    /// (nftables), the others have been done nevertheless.
    pub(crate) fn run(&mut self, mut batch: Batch) -> Result<()> {
        if batch.len() == 0 {
            return Ok(());
        }
        let last = batch.len() - 1;
        self.exchange(&mut batch, last)
    }

    /// As `run`, where request `last` is the last that the kernel answers.
    pub(crate) fn exchange(&mut self, batch: &mut Batch, last: u32) -> Result<()> {
        batch.acknowledge(last);
        let first = self.send(batch)?;
        let mut failure: Option<(u32, i32, Option<String>)> = None;
        let mut acknowledged = false;
        let mut buffer = vec![0; DATAGRAM];
        while !acknowledged {
            let received = self.receive(&mut buffer);
            let length = match received {
                Ok(length) => length,
                // No acknowledgement after a failure: a batch may have ended early.
                Err(Errno::AGAIN) if failure.is_some() => break,
                Err(errno) => return Err(Error::system(batch.doing(last), errno)),
            };
            parse(&buffer[..length], |reply| {
                let index = reply.sequence.wrapping_sub(first);
                let Content::Status { errno, detail } = reply.content else {
                    return;
                };
                if index > last {
                    return;
                }
                acknowledged |= index == last;
                if errno != 0
                    && failure
                        .as_ref()
                        .is_none_or(|(earlier, ..)| index < *earlier)
                {
                    failure = Some((index, errno, detail));
                }
            })
            .ok_or_else(|| Error::malformed(batch.doing(last)))?;
        }
        match failure {
            None => Ok(()),
            Some((index, errno, detail)) => Err(Error::Refused {
                doing: batch.doing(index).to_owned(),
                cause: Content::cause(errno),
                detail,
            }),
        }
    }

    /// Ask for one object: its bytes after the message's header. An errno such as ENODEV is an error.
    pub(crate) fn get(&mut self, batch: Batch) -> Result<Vec<u8>> {
        let doing = batch.doing(0).to_owned();
        let objects = self.objects(batch, false)?.unwrap_or_default();
        objects
            .into_iter()
            .next()
            .map(|(_, body)| body)
            .ok_or_else(|| Error::malformed(doing))
    }

    /// Ask for all objects of a kind: their types and bytes. `request` makes the question.
    pub(crate) fn dump(&mut self, request: impl Fn(&mut Batch, u16)) -> Result<Objects> {
        let mut doing = String::new();
        for attempt in 0..DUMP_ATTEMPTS {
            std::thread::sleep(Duration::from_millis(attempt / 4));
            let mut batch = Batch::new();
            request(&mut batch, DUMP);
            batch.doing(0).clone_into(&mut doing);
            if let Some(objects) = self.objects(batch, true)? {
                return Ok(objects);
            }
        }
        Err(Error::Refused {
            doing,
            cause: Errno::AGAIN.into(),
            detail: Some("it never stopped changing".to_owned()),
        })
    }

    /// None for a dump that a change interrupted.
    fn objects(&mut self, mut batch: Batch, dump: bool) -> Result<Option<Objects>> {
        let sequence = self.send(&mut batch)?;
        let mut objects = Vec::new();
        let mut end = None;
        let mut torn = false;
        let mut buffer = vec![0; DATAGRAM];
        while end.is_none() {
            let length = self
                .receive(&mut buffer)
                .map_err(|errno| Error::system(batch.doing(0), errno))?;
            parse(&buffer[..length], |reply| {
                if reply.sequence != sequence {
                    return;
                }
                match reply.content {
                    Content::Object {
                        kind,
                        body,
                        interrupted,
                    } => {
                        objects.push((kind, body));
                        torn |= interrupted;
                        if !dump {
                            end = Some((0, None));
                        }
                    }
                    Content::Status { errno, detail } => end = Some((errno, detail)),
                    Content::Done { errno, interrupted } => {
                        torn |= interrupted;
                        end = Some((errno, None));
                    }
                }
            })
            .ok_or_else(|| Error::malformed(batch.doing(0)))?;
        }
        match end {
            Some((errno, detail)) if errno != 0 => Err(Error::Refused {
                doing: batch.doing(0).to_owned(),
                cause: Content::cause(errno),
                detail,
            }),
            _ => Ok((!torn).then_some(objects)),
        }
    }

    fn send(&mut self, batch: &mut Batch) -> Result<u32> {
        if batch.overflowed() {
            return Err(Error::malformed(format!(
                "{}: the request is too long",
                batch.doing(0)
            )));
        }
        let first = self.sequence.wrapping_add(1);
        self.sequence = self.sequence.wrapping_add(batch.len());
        let doing = batch.doing(0).to_owned();
        let bytes = batch.numbered(first);
        let wanted = bytes.len();
        match send(&self.socket, bytes, SendFlags::empty()) {
            Ok(sent) if sent == wanted => Ok(first),
            Ok(_) => Err(Error::malformed(doing)),
            Err(errno) => Err(Error::system(doing, errno)),
        }
    }

    fn receive(&self, buffer: &mut [u8]) -> std::result::Result<usize, Errno> {
        loop {
            match recv(
                &self.socket,
                &mut *buffer,
                RecvFlags::DONTWAIT | RecvFlags::TRUNC,
            ) {
                Ok((_, length)) if length > buffer.len() => return Err(Errno::MSGSIZE),
                Ok((_, length)) => return Ok(length),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
