//! The only code that waits: moves bytes and time between an [`crate::Engine`] and the world.

pub mod doors;

pub use doors::{Clock, Connection, Jobs, ListenError, ReadWrite, SecureStream, Transport};
