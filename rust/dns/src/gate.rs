//! Who may ask the world for what, and who hears what the world has answered.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// What stands between a client's questions and the servers that they are passed to.
pub trait Gate: Send + Sync {
    /// Whether a client may have others asked for a name (in lower case, without the final dot).
    fn admits(&self, client: &str, name: &str) -> bool;

    /// A name's addresses, and for how long each may be kept, as a server has told them: the client is answered once
    /// this returns.
    fn answered(&self, client: &str, name: &str, addresses: &[(IpAddr, Duration)]);
}

impl<T: Gate + ?Sized> Gate for Arc<T> {
    fn admits(&self, client: &str, name: &str) -> bool {
        (**self).admits(client, name)
    }

    fn answered(&self, client: &str, name: &str, addresses: &[(IpAddr, Duration)]) {
        (**self).answered(client, name, addresses);
    }
}

/// Everybody may ask for everything.
#[derive(Clone, Copy, Debug)]
pub struct Open;

impl Gate for Open {
    fn admits(&self, _client: &str, _name: &str) -> bool {
        true
    }

    fn answered(&self, _client: &str, _name: &str, _addresses: &[(IpAddr, Duration)]) {}
}
