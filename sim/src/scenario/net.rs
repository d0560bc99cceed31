//! What lies between hosts.

use serde::{Deserialize, Serialize};

use crate::units::{Share, TimeRange};

/// `[net]`.
#[derive(Clone, Debug, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Net {
    /// One way, between any two hosts; with a range, each pair draws its own.
    #[serde(default)]
    pub latency: TimeRange,
    /// Of a segment of a stream: it arrives a retransmission later.
    pub loss: Option<Share>,
}
