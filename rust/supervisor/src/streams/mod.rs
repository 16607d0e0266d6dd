//! What flows between containers and their clients: frames, detach keys, room on the way, what a slow client has not
//! read yet.

mod detach;
mod frame;
mod room;
mod spill;

pub use detach::{Detach, Typed};
pub use frame::header;
pub use room::{PIPE_BYTES, widen_pipe, widen_socket};
pub use spill::{Overrun, Spill};

/// One of a process's two outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Descriptor 1, or the terminal.
    Stdout,
    /// Descriptor 2.
    Stderr,
}

impl Stream {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Stdout, Self::Stderr];

    /// 0 or 1, for tables with an entry a stream.
    #[must_use]
    pub const fn index(self) -> usize {
        match self {
            Self::Stdout => 0,
            Self::Stderr => 1,
        }
    }

    /// The word in logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}
