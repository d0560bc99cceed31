//! Everything the engine asks of the world.

use core::net::SocketAddr;

use bytes::Bytes;
use serde::Serialize;

use crate::alert::Alert;
use crate::disk::Job;
use crate::ids::{ConnectionId, HttpId, JobId, ResolveId};
use crate::wire::Message;

/// Asked by the engine; a driver takes them from [`crate::Engine::poll_output`], in order, after every input.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum Output {
    /// Dial a peer over TCP. Answered by `Connected` or `Closed`.
    Connect {
        /// Our name for it.
        connection: ConnectionId,
        /// Where.
        remote: SocketAddr,
    },
    /// Send these, in order, after what was sent before.
    Send {
        /// To whom.
        connection: ConnectionId,
        /// What.
        messages: Vec<Message>,
    },
    /// This many more bytes may be read from, written to a peer. Nothing may be without a grant.
    Grant {
        /// To which connection.
        connection: ConnectionId,
        /// More bytes to read.
        read_bytes: u64,
        /// More bytes to write.
        write_bytes: u64,
    },
    /// Takes back what was granted and not spent, as far as the engine knows. What the connection spent meanwhile, it owes:
    /// the next grants count against it.
    Revoke {
        /// From which connection.
        connection: ConnectionId,
        /// Fewer bytes to read.
        read_bytes: u64,
        /// Fewer bytes to write.
        write_bytes: u64,
    },
    /// Drop a connection, or a dial. No `Closed` follows.
    Close {
        /// Which.
        connection: ConnectionId,
    },
    /// Do this outside the owner. Answered by `JobDone`.
    Job {
        /// Our name for it.
        job: JobId,
        /// What.
        work: Job,
    },
    /// Find the addresses of a name. Answered by `Resolved`.
    Resolve {
        /// Our name for it.
        query: ResolveId,
        /// The name; never an address.
        host: String,
    },
    /// One HTTP GET. Answered by `HttpDone`.
    HttpGet(Box<HttpGet>),
    /// Forget a look-up or request; no answer follows.
    HttpCancel {
        /// Which.
        request: HttpId,
    },
    /// Send a datagram from our port, of the family of `remote`. It may get lost.
    SendDatagram {
        /// To whom.
        remote: SocketAddr,
        /// All of it.
        payload: Bytes,
    },
    /// Tell the embedder.
    Alert(Alert),
}

/// One HTTP request. All policy was decided already: the driver only performs it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct HttpGet {
    /// Our name for it.
    pub request: HttpId,
    /// Where to connect.
    pub target: SocketAddr,
    /// Whether over TLS, with the certificate checked against `host`.
    pub tls: bool,
    /// The name in the URL, for TLS.
    pub host: String,
    /// The `Host` header.
    pub authority: String,
    /// Path and query.
    pub path: String,
    /// The most of the body to take; more is [`crate::input::NetError::TooLarge`].
    pub body_bytes_max: u32,
}
