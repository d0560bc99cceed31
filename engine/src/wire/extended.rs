//! The extension protocol's handshake (BEP 10).

use bytes::Bytes;
use core::net::IpAddr;
use serde::{Deserialize, Serialize};

/// What a peer says of itself (BEP 10). Every field is optional on the wire; one of a wrong type is as if absent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ExtendedHandshake {
    /// Extension names and the numbers their messages must carry; 0 switches one off.
    pub m: Vec<(String, u8)>,
    /// The sender's listening port.
    pub p: Option<u16>,
    /// The sender's client name and version, as it came.
    pub v: Option<Bytes>,
    /// Requests the sender queues, as it came.
    pub reqq: Option<i64>,
    /// Our address as the sender sees it.
    pub yourip: Option<IpAddr>,
    /// The sender will not download (BEP 21).
    pub upload_only: Option<bool>,
    /// Bytes of the info dictionary (BEP 9), as it came.
    pub metadata_size: Option<i64>,
}
