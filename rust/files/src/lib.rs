//! The files of a container, from outside of it: looked at, packed, extracted to.
//!
//! [`View`] is a container's root file system with what is mounted on it, as descriptors that nobody else sees: no path of
//! the host leads there, and every path of the container is resolved below the root's descriptor. No code of the container's runs
//! for it, and none of ours is loaded from there: there are system calls and nothing else.
//!
//! Volumes are copied, packed and filled here as well, and given a size: by a project quota of the file system, or as a disk of their own.
//!
//! [`stream`] carries archives between a view and a client's socket.

mod copies;
mod error;
mod local;
mod look;
pub mod mounted;
mod namespace;
mod sized;
pub mod stream;
mod view;

pub use copies::{clone_volume, exchange, fill_volume, pack_volume};
pub use error::FilesError;
pub use local::{pack_local, unpack_local};
pub use look::PathStat;
pub use sized::{attach_disk, detach_disk, forget_project, limit_project, make_disk, project};
pub use view::{BindMount, Layers, View, shielded};
