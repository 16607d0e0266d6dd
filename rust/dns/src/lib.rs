//! The names of an engine's containers, answered over DNS (RFC 1034, RFC 1035).
//!
//! A container on a user-defined network asks 127.0.0.11, where sockets of the supervisor's are bound in the
//! container's own network namespace. [`Server`] is given these sockets, and told where each container is and what it
//! is called ([`Membership`]); it answers for the containers of the asker's networks, and passes everything else on to
//! the host's servers or to given ones ([`Upstreams`]), from the namespace that it runs in, as far as a [`Gate`] lets it.

mod answers;
mod framed;
mod gate;
mod message;
mod response;
mod server;
mod upstream;
mod zones;

pub use gate::{Gate, Open};
pub use server::{Server, Sockets};
pub use upstream::Upstreams;
pub use zones::Membership;
