//! Everything that can happen to the engine.

use core::fmt;
use core::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::command::Command;
use crate::disk::JobResult;
use crate::ids::{ConnectionId, HttpId, JobId, ResolveId};
use crate::limits::MESSAGES_READ_MAX;
use crate::wire::{Message, WireError};

/// Something happened. A driver gives it to [`crate::Engine::handle_input`] with the time.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Input {
    /// The time that [`crate::Engine::poll_timeout`] named has come.
    Timeout,
    /// The embedder asks for something.
    Command(Command),
    /// Peers can reach us at this port. Comes before the first `Accepted`.
    Listening {
        /// For trackers and for the extended handshake.
        port: u16,
        /// Whether there is a listener for IPv4, for IPv6.
        families: (bool, bool),
    },
    /// Somebody connected to us. Nothing may be read from it before a grant.
    Accepted {
        /// Chosen by the driver, [`ConnectionId::accepted`].
        connection: ConnectionId,
        /// Who.
        remote: SocketAddr,
    },
    /// A dial succeeded.
    Connected {
        /// As in [`crate::Output::Connect`].
        connection: ConnectionId,
        /// Our address and port on this connection.
        local: SocketAddr,
    },
    /// A connection is gone, or never came. Nothing more comes of it.
    Closed {
        /// Which.
        connection: ConnectionId,
        /// Why.
        reason: CloseReason,
    },
    /// Everything that one read gave.
    Received {
        /// From whom.
        connection: ConnectionId,
        /// Bytes of the grant that this read spent, framing included.
        read_bytes: u32,
        /// The messages that it completed, [`MESSAGES_READ_MAX`] at most.
        #[serde(deserialize_with = "messages_of_a_read")]
        messages: Vec<Message>,
    },
    /// Bytes went out to a peer's socket.
    Sent {
        /// To whom.
        connection: ConnectionId,
        /// Bytes, framing included.
        written_bytes: u32,
    },
    /// A job is done.
    JobDone {
        /// As in [`crate::Output::Job`].
        job: JobId,
        /// What came of it.
        result: JobResult,
    },
    /// A look-up is done.
    Resolved {
        /// As in [`crate::Output::Resolve`].
        query: ResolveId,
        /// The addresses, or why there are none.
        result: Result<Vec<IpAddr>, NetError>,
    },
    /// A datagram came to our port. From anybody: the engine judges.
    Datagram {
        /// Who says to have sent it.
        remote: SocketAddr,
        /// All of it.
        payload: Bytes,
    },
    /// A request is done.
    HttpDone {
        /// As in [`crate::Output::HttpGet`].
        request: HttpId,
        /// The answer, whatever its status, or why there is none.
        result: Result<HttpResponse, NetError>,
    },
}

/// Why a connection ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error, Serialize, Deserialize)]
pub enum CloseReason {
    /// It never came about.
    #[error("could not connect: {0}")]
    ConnectFailed(NetError),
    /// The other side closed it.
    #[error("closed by the peer")]
    EndOfStream,
    /// The network did.
    #[error("connection lost: {0}")]
    Network(NetError),
    /// What came was no BitTorrent.
    #[error("{0}")]
    Wire(WireError),
}

/// What the network said. The same set in every world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum NetError {
    /// Nobody listens there.
    #[error("connection refused")]
    Refused,
    /// Cut by the other side.
    #[error("connection reset")]
    Reset,
    /// No answer in time.
    #[error("timed out")]
    TimedOut,
    /// No way there.
    #[error("network or host unreachable")]
    Unreachable,
    /// The name has no address.
    #[error("name not found")]
    NotFound,
    /// TLS refused the other side: its certificate does not hold for the name.
    #[error("TLS: the server's certificate was not accepted")]
    Certificate,
    /// What came was not HTTP.
    #[error("not a valid HTTP answer")]
    BadHttp,
    /// More came than was allowed.
    #[error("answer too large")]
    TooLarge,
    /// Out of descriptors or memory here.
    #[error("too many open files")]
    Exhausted,
    /// Anything else that the system said.
    #[error("network error")]
    Other,
}

/// An answer over HTTP. Redirects are answers too: the engine decides about them.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct HttpResponse {
    /// The status code.
    pub status: u16,
    /// The `Location` header, where there is one.
    pub location: Option<String>,
    /// The body, as it came, at most the cap that was asked for.
    pub body: Bytes,
    /// Whether the body is compressed with gzip.
    pub gzip: bool,
}

/// In memory a message is many times as large as the byte that a recording has of it, so a recording could ask for gigabytes.
fn messages_of_a_read<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Message>, D::Error> {
    struct Messages;

    impl<'de> Visitor<'de> for Messages {
        type Value = Vec<Message>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "the messages of one read")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
            let mut messages = Vec::with_capacity(list.size_hint().unwrap_or(0).min(64));
            while let Some(message) = list.next_element()? {
                if messages.len() == MESSAGES_READ_MAX {
                    return Err(A::Error::custom("more messages than one read has"));
                }
                messages.push(message);
            }
            Ok(messages)
        }
    }

    from.deserialize_seq(Messages)
}
