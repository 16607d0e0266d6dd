//! The parent of every container: event loop, stdio, logs, exits, and the keeper behind it.
//!
//! One program in two processes. The **keeper** ([`keeper`]) owns the run root's lock and the listening socket, is
//! the supervisor's parent and a child subreaper, and holds a copy of every descriptor without which a
//! container would suffer. The **supervisor** ([`supervisor`]) does everything else and may die at any
//! time: the keeper starts another, which takes over ([`supervisor`], adoption).
//!
//! Invariants:
//! - A container is started only after its `state.json` says that it is about to be, so that a successor
//!   can undo a start that nobody was told of.
//! - An exit is in `exit.json` before the process is reaped, and stays there until it is forgotten.
//! - Nothing that a client does or leaves undone holds up a container or another client.

mod base64;
mod clock;
mod exits;
mod journal;
mod keeper;
mod link;
mod logs;
mod network;
mod options;
mod poll;
mod process;
mod procfs;
mod protocol;
mod records;
mod roles;
mod session;
mod streams;
mod supervisor;
mod wire;
mod workers;

pub use options::USAGE;
pub use roles::run;
