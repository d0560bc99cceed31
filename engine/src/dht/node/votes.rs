//! What our address is, by what many others say (BEP 42).

use core::net::IpAddr;
use std::collections::VecDeque;

use super::network::Network;
use crate::address::Scope;

#[derive(Debug, Default)]
pub(crate) struct Votes {
    /// The latest last, one a network.
    cast: VecDeque<(Option<Network>, IpAddr)>,
    elected: Option<IpAddr>,
}

impl Votes {
    /// A node says where our question came from; our new address, if that decides it.
    pub(crate) fn cast(&mut self, voter: IpAddr, ours: IpAddr) -> Option<IpAddr> {
        let ours = ours.to_canonical();
        if Scope::of(ours) != Scope::Public {
            return None;
        }
        let network = Network::of(voter);
        if network.is_some() {
            self.cast.retain(|(other, _)| *other != network);
        }
        self.cast.push_back((network, ours));
        if self.cast.len() > VOTES_MAX {
            self.cast.pop_front();
        }
        let agree = self.cast.iter().filter(|(_, vote)| *vote == ours).count();
        let decides = agree >= VOTES_MIN && agree * 2 > self.cast.len() && self.elected != Some(ours);
        decides.then(|| *self.elected.insert(ours))
    }
}

/// Votes that are remembered.
const VOTES_MAX: usize = 16;
/// Votes without which nothing is decided.
const VOTES_MIN: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_networks_decide_and_one_does_not() {
        let mut votes = Votes::default();
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        for n in 0..200 {
            assert_eq!(votes.cast(ip(&format!("203.0.113.{n}")), ip("192.0.2.66")), None);
            assert_eq!(votes.cast(ip("198.51.100.1"), ip("10.0.0.1")), None);
        }
        let mut cast = |n: u8| votes.cast(ip(&format!("198.51.{n}.1")), ip("192.0.2.1"));
        assert_eq!([0, 1, 2].map(&mut cast), [None; 3]);
        assert_eq!(cast(3), Some(ip("192.0.2.1")));
        assert_eq!(cast(4), None);
    }
}
