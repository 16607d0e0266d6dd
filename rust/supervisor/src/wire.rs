//! Packets over `SOCK_SEQPACKET` sockets, with descriptors.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

/// The longest packet, in bytes.
pub const PACKET_BYTES: usize = 128 * 1024;
/// The most descriptors of a packet.
pub const PACKET_DESCRIPTORS: usize = 16;

/// What came of an attempt to receive.
#[derive(Debug)]
pub enum Received {
    /// A packet: its length in the buffer, and its descriptors.
    Packet(usize, Vec<OwnedFd>),
    /// A packet longer than the buffer, or with more descriptors than allowed. It is gone.
    Oversized,
    /// Nothing yet.
    Nothing,
    /// The other side has closed the connection.
    End,
}

/// Receive one packet into `buffer`.
pub fn receive(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<Received> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(PACKET_DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut slices = [IoSliceMut::new(buffer)];
    let message = match recvmsg(socket, &mut slices, &mut control, RecvFlags::CMSG_CLOEXEC) {
        Ok(message) => message,
        Err(Errno::AGAIN | Errno::INTR) => return Ok(Received::Nothing),
        Err(Errno::CONNRESET) => return Ok(Received::End),
        Err(error) => return Err(error.into()),
    };
    let mut descriptors = Vec::new();
    for item in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = item {
            descriptors.extend(rights);
        }
    }
    if message
        .flags
        .intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC)
    {
        return Ok(Received::Oversized);
    }
    if message.bytes == 0 && descriptors.is_empty() {
        return Ok(Received::End);
    }
    Ok(Received::Packet(message.bytes, descriptors))
}

/// Send one packet, whole or not at all.
pub fn send(
    socket: impl AsFd,
    data: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> rustix::io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(PACKET_DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(Errno::TOOBIG);
    }
    loop {
        match sendmsg(
            &socket,
            &[IoSlice::new(data)],
            &mut control,
            SendFlags::NOSIGNAL,
        ) {
            Err(Errno::INTR) => {}
            result => return result.map(|_| ()),
        }
    }
}
