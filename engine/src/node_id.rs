//! Names of DHT nodes: 20 bytes (BEP 5), how near they are to each other, and which of them fit an address (BEP 42).

use core::net::IpAddr;
use std::fmt;

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};

use crate::address::Scope;
use crate::ids::InfoHash;
use crate::rng::Rng;

/// A node, or any other point of the space that nodes and info-hashes share.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeId(pub [u8; 20]);

impl NodeId {
    /// Any point.
    pub fn random(rng: &mut Rng) -> Self {
        let mut id = [0; 20];
        rng.fill(&mut id);
        Self(id)
    }

    /// An id that a node at this address may have (BEP 42). `draw` is for its last byte; the rest is random.
    pub fn for_address(ip: IpAddr, draw: u8, rng: &mut Rng) -> Self {
        let Self(mut id) = Self::random(rng);
        let prefix = prefix(ip, draw);
        id[0] = prefix[0];
        id[1] = prefix[1];
        id[2] = (prefix[2] & 0xf8) | (id[2] & 0x07);
        id[19] = draw;
        Self(id)
    }

    /// Whether a node at this address may have this id (BEP 42). On local networks every id may be had.
    pub fn fits(&self, ip: IpAddr) -> bool {
        if Scope::of(ip) != Scope::Public {
            return true;
        }
        let prefix = prefix(ip, self.0[19]);
        self.0[0] == prefix[0] && self.0[1] == prefix[1] && (self.0[2] ^ prefix[2]) & 0xf8 == 0
    }

    /// How far two points are apart: their XOR, which compares as a number.
    #[must_use]
    pub fn distance(&self, other: &Self) -> Self {
        let mut distance = self.0;
        distance.iter_mut().zip(other.0).for_each(|(byte, other)| *byte ^= other);
        Self(distance)
    }

    /// How many leading bits two points share: 0 to 160.
    pub fn shared_bits(&self, other: &Self) -> usize {
        let distance = self.distance(other).0;
        match distance.iter().position(|byte| *byte != 0) {
            Some(at) => at * 8 + distance[at].leading_zeros() as usize,
            None => 160,
        }
    }

    /// A random point that shares exactly this many leading bits with this one; all of them from 160 on.
    #[must_use]
    pub fn random_sharing(&self, bits: usize, rng: &mut Rng) -> Self {
        let Self(mut id) = Self::random(rng);
        for bit in 0..=bits.min(159) {
            let (at, mask) = (bit / 8, 0x80 >> (bit % 8));
            let wanted = (self.0[at] & mask) ^ if bit == bits { mask } else { 0 };
            id[at] = (id[at] & !mask) | wanted;
        }
        if bits >= 160 { *self } else { Self(id) }
    }
}

impl From<InfoHash> for NodeId {
    fn from(hash: InfoHash) -> Self {
        Self(hash.0)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The first three bytes that BEP 42 asks for; of the last one only the upper five bits count.
fn prefix(ip: IpAddr, draw: u8) -> [u8; 3] {
    let lower = u32::from(draw & 0x07);
    let sum = match ip.to_canonical() {
        IpAddr::V4(ip) => crc32c::crc32c(&((ip.to_bits() & 0x030f_3fff) | lower << 29).to_be_bytes()),
        IpAddr::V6(ip) => {
            let network = (ip.to_bits() >> 64) as u64;
            crc32c::crc32c(&((network & 0x0103_070f_1f3f_7fff) | u64::from(lower) << 61).to_be_bytes())
        }
    };
    let [a, b, c, _] = sum.to_be_bytes();
    [a, b, c]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_shares_as_many_bits_as_asked_for() {
        let mut rng = Rng::stream(1, "test", 0);
        let own = NodeId::random(&mut rng);
        for bits in 0..=160 {
            let other = own.random_sharing(bits, &mut rng);
            assert_eq!(own.shared_bits(&other), bits);
        }
        assert_eq!(own.distance(&own), NodeId([0; 20]));
    }

    #[test]
    fn ids_fit_the_vectors_of_bep_42() {
        let vectors = include_str!("../../tests/fixtures/torrents/vectors/bep42-node-ids.toml");
        let table: toml::Table = vectors.parse().unwrap();
        let mut rng = Rng::stream(1, "test", 0);
        for node in table["node"].as_array().unwrap() {
            let ip: IpAddr = node["ip"].as_str().unwrap().parse().unwrap();
            let id = HEXLOWER.decode(node["id"].as_str().unwrap().as_bytes()).unwrap();
            let id = NodeId(id.try_into().unwrap());
            assert_eq!(id.fits(ip), node["valid"].as_bool().unwrap(), "{ip}");
            if let Some(draw) = node.get("rand").and_then(toml::Value::as_integer) {
                let made = NodeId::for_address(ip, draw as u8, &mut rng);
                assert!(made.shared_bits(&id) >= 21 && made.0[19] == id.0[19], "{ip}");
            }
        }
    }

    #[test]
    fn made_ids_fit_their_address_and_no_other_network() {
        let mut rng = Rng::stream(1, "test", 0);
        for (ip, other) in [("2001:db8:1:2::9", "2001:db8:1:3::9"), ("203.0.113.9", "203.0.112.9")] {
            let id = NodeId::for_address(ip.parse().unwrap(), rng.next_u32() as u8, &mut rng);
            assert!(id.fits(ip.parse().unwrap()) && !id.fits(other.parse().unwrap()), "{ip}");
        }
        assert!(NodeId::random(&mut rng).fits("192.168.1.1".parse().unwrap()));
    }
}
