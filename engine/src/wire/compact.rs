//! Compact peer lists: 6 bytes a peer for IPv4 (BEP 23), 18 for IPv6 (BEP 7), address then port, big-endian.
//!
//! Addresses come out as they were sent. Whether one may be dialled is for whoever asked to judge.

use core::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// Bytes of an IPv4 peer (BEP 23).
pub const COMPACT_V4_BYTES: usize = 6;
/// Bytes of an IPv6 peer (BEP 7).
pub const COMPACT_V6_BYTES: usize = 18;

/// What a compact list held.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CompactPeers {
    /// Its whole entries, in order, at most as many as were asked for.
    pub peers: Vec<SocketAddr>,
    /// Bytes after the last whole entry: the list was cut, or is no list. 0 in a sound one.
    pub spare_bytes: usize,
}

/// Reads a list of IPv4 peers; at most `max` of them are taken.
pub fn parse_v4(list: &[u8], max: usize) -> CompactPeers {
    let (entries, spare) = list.as_chunks::<COMPACT_V4_BYTES>();
    let peers = entries.iter().take(max).map(|[a, b, c, d, port @ ..]| {
        SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::new(*a, *b, *c, *d), u16::from_be_bytes(*port)))
    });
    CompactPeers { peers: peers.collect(), spare_bytes: spare.len() }
}

/// Reads a list of IPv6 peers; at most `max` of them are taken.
pub fn parse_v6(list: &[u8], max: usize) -> CompactPeers {
    let (entries, spare) = list.as_chunks::<COMPACT_V6_BYTES>();
    let peers = entries.iter().take(max).map(|entry| {
        let number = entry.iter().take(16).fold(0, |number: u128, byte| number << 8 | u128::from(*byte));
        let [.., high, low] = *entry;
        SocketAddr::V6(SocketAddrV6::new(Ipv6Addr::from_bits(number), u16::from_be_bytes([high, low]), 0, 0))
    });
    CompactPeers { peers: peers.collect(), spare_bytes: spare.len() }
}

/// Appends a peer to the list of its family.
pub fn encode(peer: SocketAddr, v4: &mut Vec<u8>, v6: &mut Vec<u8>) {
    let list = match peer {
        SocketAddr::V4(peer) => {
            v4.extend_from_slice(&peer.ip().octets());
            v4
        }
        SocketAddr::V6(peer) => {
            v6.extend_from_slice(&peer.ip().octets());
            v6
        }
    };
    list.extend_from_slice(&peer.port().to_be_bytes());
}

#[cfg(test)]
mod tests {
    use core::net::IpAddr;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn entries_are_address_then_port() {
        let list = parse_v4(&[10, 0, 0, 1, 0x1a, 0xe1], 9);
        assert_eq!(list.peers, ["10.0.0.1:6881".parse().unwrap()]);
        let mut bytes = [0; 18];
        (bytes[0], bytes[15], bytes[17]) = (0x20, 1, 80);
        assert_eq!(parse_v6(&bytes, 9).peers, ["[2000::1]:80".parse().unwrap()]);
    }

    #[test]
    fn a_cut_list_gives_its_whole_entries_and_says_so() {
        let list = parse_v4(&[10, 0, 0, 1, 0x1a, 0xe1, 10, 0, 0], 9);
        assert_eq!((list.peers.len(), list.spare_bytes), (1, 3));
        assert_eq!(parse_v6(&[1; 17], 9), CompactPeers { peers: vec![], spare_bytes: 17 });
    }

    #[test]
    fn no_more_are_taken_than_asked_for() {
        assert_eq!(parse_v4(&[1; 600], 7).peers.len(), 7);
        assert_eq!(parse_v6(&[1; 1800], 7).peers.len(), 7);
    }

    proptest! {
        #[test]
        fn lists_come_back_as_they_went(peers in proptest::collection::vec((any::<IpAddr>(), any::<u16>()), 0..40)) {
            let peers: Vec<SocketAddr> = peers.into_iter().map(SocketAddr::from).collect();
            let (mut v4, mut v6) = (Vec::new(), Vec::new());
            peers.iter().for_each(|peer| encode(*peer, &mut v4, &mut v6));
            let back = [parse_v4(&v4, 99).peers, parse_v6(&v6, 99).peers].concat();
            let (want_v4, want_v6): (Vec<_>, Vec<_>) = peers.iter().partition(|peer| peer.is_ipv4());
            prop_assert_eq!(back, [want_v4, want_v6].concat());
        }

        #[test]
        fn any_bytes_are_read(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            prop_assert_eq!(parse_v4(&bytes, 99).peers.len() * 6 + bytes.len() % 6, bytes.len());
            prop_assert_eq!(parse_v6(&bytes, 99).peers.len() * 18 + bytes.len() % 18, bytes.len());
        }
    }
}
