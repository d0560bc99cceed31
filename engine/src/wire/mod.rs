//! Bytes to values and back. No decisions are made here.

pub mod compact;
pub mod extended;
pub mod gzip;
pub mod krpc;
pub mod lsd;
pub mod message;
pub mod stream;
pub mod tracker_http;
pub mod tracker_udp;
pub mod ut_metadata;
pub mod ut_pex;

pub use extended::ExtendedHandshake;
pub use lsd::LsdAnnounce;
pub use message::{Handshake, Message, Request, Reserved};
pub use stream::{Stream, WireError};
pub use ut_metadata::MetadataMessage;
pub use ut_pex::{PexMessage, PexPeer};
