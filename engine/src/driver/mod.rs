//! The only code that waits: moves bytes and time between an [`crate::Engine`] and the world.
//!
//! [`start`] gives a [`Handle`], its [`Alerts`] and an [`Owner`]. The owner is one task that holds the engine: inputs come
//! to it through bounded channels, outputs go out after each. Each connection has a reader and a writer task that move
//! bytes and frames; what one read gave is one hand-over. Nothing here decides about BitTorrent.
//!
//! What it never does: wait for anything but its inputs in the owner, use a channel without a bound, or depend on an
//! order that the runtime does not fix (on a single thread, a run repeats exactly).

mod alerts;
mod connection;
mod datagram;
pub mod doors;
mod handle;
mod http;
mod owner;
mod read_buffers;
mod recorder;
mod task;
#[cfg(test)]
mod testing;

use std::io;

pub use doors::{Clock, Connection, Jobs, ListenError, ReadWrite, SecureStream, Transport};
pub use handle::{Alerts, Handle, Options, SessionOver, WeakHandle, start};
pub use http::get as http_get;
pub use owner::Owner;
pub use recorder::Recorder;

use crate::input::NetError;

/// What an error of a stream is called here, as far as its kind tells. The kinds that the standard library does not
/// know (too many open files) are for the transport.
pub fn net_error(error: &io::Error) -> NetError {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => NetError::Refused,
        io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::NotConnected
        | io::ErrorKind::WriteZero
        | io::ErrorKind::UnexpectedEof => NetError::Reset,
        io::ErrorKind::TimedOut => NetError::TimedOut,
        io::ErrorKind::HostUnreachable
        | io::ErrorKind::NetworkUnreachable
        | io::ErrorKind::NetworkDown
        | io::ErrorKind::AddrNotAvailable => NetError::Unreachable,
        io::ErrorKind::NotFound => NetError::NotFound,
        io::ErrorKind::OutOfMemory => NetError::Exhausted,
        _ => NetError::Other,
    }
}
