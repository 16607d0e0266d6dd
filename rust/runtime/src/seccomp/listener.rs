//! Handing a notification descriptor to the agent that listens (config-linux.md, "listenerPath").

use std::os::fd::{AsFd, OwnedFd};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use crate::error::{Kind, LaunchError};
use crate::spec::LinuxSeccomp;

/// Pass the descriptor on, with the container process state that the specification asks for.
pub fn hand_over(listener: &OwnedFd, filter: &LinuxSeccomp, pid: i32) -> Result<(), LaunchError> {
    let failed = |error: std::io::Error| {
        LaunchError::new(
            Kind::Unavailable,
            format!("seccomp listener {:?}: {error}", filter.listener_path),
        )
    };
    let socket = socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )
    .map_err(|errno| failed(errno.into()))?;
    let address =
        SocketAddrUnix::new(&filter.listener_path).map_err(|errno| failed(errno.into()))?;
    connect(&socket, &address).map_err(|errno| failed(errno.into()))?;
    let state = serde_json::json!({
        "ociVersion": "1.2.0",
        "fds": ["seccompFd"],
        "pid": pid,
        "metadata": filter.listener_metadata,
        "state": {"ociVersion": "1.2.0", "status": "creating", "pid": pid},
    });
    knarr_sys::passing::send(
        socket.as_fd(),
        state.to_string().as_bytes(),
        &[listener.as_fd()],
    )
    .map_err(failed)
}
