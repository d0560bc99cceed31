//! What lies between hosts.

use serde::{Deserialize, Serialize};

use super::check::At;
use super::is_default;
use crate::network::geography::Geography;
use crate::network::path::{Burst, Jitter, Reorder};
use crate::units::{MILLISECOND, Share, TimeRange};

/// `[net]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Net {
    /// One way, between any two hosts; with a range, each pair draws its own.
    #[serde(default, skip_serializing_if = "is_default")]
    pub latency: TimeRange,
    /// Instead: each host is drawn to a place, and latency is that between places.
    pub geography: Option<Geography>,
    /// On top, for each packet.
    #[serde(default, skip_serializing_if = "is_default")]
    pub jitter: Jitter,
    /// Of all packets. A segment of a stream arrives a retransmission later.
    pub loss: Option<Share>,
    /// On top, in bursts.
    pub burst: Option<Burst>,
    /// Of all datagrams: they come twice.
    pub duplicate: Option<Share>,
    /// Datagrams that are overtaken.
    pub reorder: Option<Reorder>,
    /// What a look-up takes.
    #[serde(default = "dns_default", skip_serializing_if = "is_dns_default")]
    pub dns: TimeRange,
}

impl Default for Net {
    fn default() -> Self {
        Self {
            latency: TimeRange::default(),
            geography: None,
            jitter: Jitter::default(),
            loss: None,
            burst: None,
            duplicate: None,
            reorder: None,
            dns: dns_default(),
        }
    }
}

impl Net {
    pub(super) fn check(&self, in_turmoil: bool) -> Result<(), At> {
        if self.geography.is_some() && self.latency != TimeRange::default() {
            return Err(("geography", "wants no `latency` beside it".to_owned()));
        }
        if in_turmoil && self.reorder.is_some() {
            return Err(("reorder", "only in the event world".to_owned()));
        }
        // Bursts that nothing ends, and loss of everything, leave no path.
        if self.loss.is_some_and(|share| share.part == share.of) {
            return Err(("loss", "wants less than everything".to_owned()));
        }
        if self.burst.is_some_and(|burst| burst.leave.part == 0) {
            return Err(("burst", "`leave`: wants more than nothing".to_owned()));
        }
        Ok(())
    }
}

fn is_dns_default(dns: &TimeRange) -> bool {
    *dns == dns_default()
}

fn dns_default() -> TimeRange {
    TimeRange { low: 10 * MILLISECOND, high: 10 * MILLISECOND }
}
