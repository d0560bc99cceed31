//! Networks whose nodes count as one party where few may speak for many.

use core::net::IpAddr;

use crate::address::Scope;

/// A public /24 of IPv4, a /48 of IPv6: what one party gets easily.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Network(u64);

impl Network {
    /// The network of an address; none on local networks, where no limit holds.
    pub(crate) fn of(ip: IpAddr) -> Option<Self> {
        (Scope::of(ip) == Scope::Public).then(|| match ip.to_canonical() {
            IpAddr::V4(ip) => Self(u64::from(ip.to_bits() >> 8)),
            IpAddr::V6(ip) => Self(1 << 63 | (ip.to_bits() >> 80) as u64),
        })
    }
}
