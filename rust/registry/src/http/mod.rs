//! A blocking HTTP/1.1 client, no more than a registry needs.
//!
//! Written here because a pull wants what the general clients do not give together: reads
//! straight into the caller's buffer, a limit on silence rather than on the whole transfer,
//! cancelling within half a second, and no redirect followed behind our back.

mod body;
mod client;
mod connection;
mod head;
mod proxy;
mod tls;
mod url;

pub(crate) use body::Body;
pub(crate) use client::{Client, Content, Method, Request, Response};
pub(crate) use connection::{Cancel, Trouble};
#[cfg(fuzzing)]
pub(crate) use head::Head;
pub(crate) use url::{Url, encode_query};
