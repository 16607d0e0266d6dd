//! The packets between the daemon and the supervisor, as types. ARCHITECTURE.md has them as a table.
//!
//! A request is parsed whole before anything is done: an unknown operation or field, a name that could
//! be a path, a number out of range is an error answer and nothing else.

mod answer;
mod measure;
mod name;
mod network;
mod parse;
mod request;

pub use answer::{Answer, Event, Failure, Listed, Status, packet};
pub use measure::{Measure, Update};
pub use name::{Id, Target};
pub use network::{
    BalanceRequest, BridgeRequest, Connect, Disconnect, EgressRule, EntryPort, InterfaceRequest,
    LanRequest, Names, NetworkMode, NetworkRequest, ParentRequest, Port, WaysOut,
};
pub use parse::parse;
pub use request::{Attach, Exec, Hello, Logs, Operation, Request, Size, Start};
