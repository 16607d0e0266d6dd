//! Room for bytes on their way, in the kernel: made where a stream turns out to need it, as most never do.
//!
//! Each time a pipe or a socket is full its writer sleeps, and has to be woken; with the kernel's usual 64 KiB that is
//! most of what a fast stream costs.

use std::os::fd::AsFd;

use rustix::net::AddressFamily;
use rustix::net::sockopt;

/// What a pipe holds that nobody has changed, on most machines.
pub const PIPE_BYTES: usize = 64 * 1024;
/// What one holds whose process fills it.
const WIDE_PIPE_BYTES: usize = 1024 * 1024;
/// What a client's connection takes before we keep the rest ourselves.
const WIDE_SOCKET_BYTES: usize = 512 * 1024;

/// Let a pipe hold more.
pub fn widen_pipe(pipe: impl AsFd) {
    // A terminal, or what limits its user: it stays as it is.
    let _ = rustix::pipe::fcntl_setpipe_size(pipe, WIDE_PIPE_BYTES);
}

/// Let a connection take more. TCP finds its own measure.
pub fn widen_socket(socket: impl AsFd) {
    if sockopt::socket_domain(&socket) != Ok(AddressFamily::UNIX) {
        return;
    }
    if sockopt::set_socket_send_buffer_size_force(&socket, WIDE_SOCKET_BYTES).is_err() {
        // Rootless: as far as net.core.wmem_max goes. It takes what it takes.
        let _ = sockopt::set_socket_send_buffer_size(&socket, WIDE_SOCKET_BYTES);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{SocketFlags, SocketType, socketpair};

    #[test]
    fn a_pipe_holds_more_than_before() {
        let (read, _write) = rustix::pipe::pipe().unwrap();
        let before = rustix::pipe::fcntl_getpipe_size(&read).unwrap();
        widen_pipe(&read);
        assert!(rustix::pipe::fcntl_getpipe_size(&read).unwrap() > before);
    }

    #[test]
    fn a_unix_socket_takes_more_and_no_other_is_touched() {
        let pair = socketpair(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC,
            None,
        );
        let (unix, _other) = pair.unwrap();
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        for (socket, grows) in [(unix.as_fd(), true), (tcp.as_fd(), false)] {
            let before = sockopt::socket_send_buffer_size(socket).unwrap();
            widen_socket(socket);
            let after = sockopt::socket_send_buffer_size(socket).unwrap();
            assert_eq!(after > before, grows, "{before} {after}");
        }
    }
}
