//! Boxes that translate addresses, as scenarios describe them.

use serde::{Deserialize, Serialize};

use crate::units::{SECOND, Time};

/// `[[nat]]`: a box between hosts and the network, with one public address (RFC 4787, RFC 5382).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct NatBox {
    /// Its name, for `behind`.
    pub name: String,
    /// When what a host sends from one port gets another port outside.
    #[serde(default)]
    pub mapping: Rule,
    /// Who may answer to a port.
    #[serde(default)]
    pub filtering: Rule,
    /// How long a mapping for datagrams lives after the last one out.
    #[serde(default = "two_minutes")]
    pub udp_idle: Time,
    /// How long one for a stream lives after its last segment.
    #[serde(default = "two_hours")]
    pub tcp_idle: Time,
    /// Whether those behind it reach each other by its public address.
    #[serde(default)]
    pub hairpin: bool,
    /// The host behind it to which the port for peers is forwarded.
    pub forward: Option<String>,
}

/// What a mapping or a filter depends on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// On the inner endpoint alone: RFC 4787 calls it endpoint-independent.
    #[default]
    Endpoint,
    /// On the other address as well: address-dependent.
    Address,
    /// On the other address and port: address-and-port-dependent.
    AddressAndPort,
}

fn two_minutes() -> Time {
    Time(120 * SECOND)
}

/// And four minutes, the least that RFC 5382 asks for.
fn two_hours() -> Time {
    Time(124 * 60 * SECOND)
}
