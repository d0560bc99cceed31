//! The message of peer exchange (BEP 11): who is new among the sender's peers, and who is gone.

use core::net::SocketAddr;

use bytes::Bytes;

use super::compact;
use crate::bencode::{self, Value};
use crate::limits::PEX_PEERS_READ_MAX;

/// What changed among a peer's peers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PexMessage {
    /// Connected now.
    pub added: Vec<PexPeer>,
    /// Not any more.
    pub dropped: Vec<SocketAddr>,
}

/// A peer of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PexPeer {
    /// Where it can be dialled.
    pub address: SocketAddr,
    /// What is known of it: [`PEX_SEED`], [`PEX_REACHABLE`] and others.
    pub flags: u8,
}

/// It fetches nothing: a seed, or a partial one.
pub const PEX_SEED: u8 = 0x02;
/// The sender dialled it, so it can be.
pub const PEX_REACHABLE: u8 = 0x10;

impl PexMessage {
    /// What follows the number of the extension. All keys are there: some clients want them.
    pub fn encode(&self) -> Bytes {
        let (mut added, mut added6, mut flags, mut flags6) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for peer in &self.added {
            compact::encode(peer.address, &mut added, &mut added6);
            let flags = if peer.address.is_ipv6() { &mut flags6 } else { &mut flags };
            flags.push(peer.flags);
        }
        let (mut dropped, mut dropped6) = (Vec::new(), Vec::new());
        self.dropped.iter().for_each(|peer| compact::encode(*peer, &mut dropped, &mut dropped6));
        let entries = [
            ("added", added),
            ("added.f", flags),
            ("added6", added6),
            ("added6.f", flags6),
            ("dropped", dropped),
            ("dropped6", dropped6),
        ];
        let entries = entries.map(|(key, list)| (key.as_bytes(), Value::bytes(list)));
        bencode::encode(&Value::dict(entries)).into()
    }

    /// From what follows the number of the extension; none when it is no dictionary. Of each list no more than
    /// [`PEX_PEERS_READ_MAX`] are read; a list that is no list of peers is as if empty, flags that lack are zero.
    pub fn decode(payload: &[u8]) -> Option<Self> {
        let (value, _) = bencode::parse_prefix(payload).ok()?;
        value.as_dict()?;
        let list = |key: &[u8]| value.get(key).and_then(Value::as_bytes).unwrap_or_default();
        let sound = |peers: compact::CompactPeers| {
            if peers.spare_bytes == 0 { peers.peers } else { Vec::new() }
        };
        let v4 = |key| sound(compact::parse_v4(list(key), PEX_PEERS_READ_MAX));
        let v6 = |key| sound(compact::parse_v6(list(key), PEX_PEERS_READ_MAX));
        let with_flags = |peers: Vec<SocketAddr>, flags: &[u8]| {
            let flags = flags.iter().copied().chain(std::iter::repeat(0));
            let peers = peers.into_iter().zip(flags).map(|(address, flags)| PexPeer { address, flags });
            peers.collect::<Vec<_>>()
        };
        let mut added = with_flags(v4(b"added"), list(b"added.f"));
        added.extend(with_flags(v6(b"added6"), list(b"added6.f")));
        let mut dropped = v4(b"dropped");
        dropped.extend(v6(b"dropped6"));
        Some(Self { added, dropped })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(text: &str, flags: u8) -> PexPeer {
        PexPeer { address: text.parse().unwrap(), flags }
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        let added = vec![
            peer("192.0.2.1:6881", PEX_SEED),
            peer("192.0.2.2:1", 0),
            peer("[2001:db8::1]:6881", PEX_REACHABLE),
        ];
        let dropped = vec!["192.0.2.9:5".parse().unwrap(), "[2001:db8::9]:5".parse().unwrap()];
        for message in [PexMessage { added, dropped }, PexMessage::default()] {
            assert_eq!(PexMessage::decode(&message.encode()), Some(message));
        }
    }

    #[test]
    fn lists_that_are_none_are_empty_and_long_ones_are_cut() {
        assert_eq!(PexMessage::decode(b"le"), None);
        assert_eq!(PexMessage::decode(b"d5:added"), None);
        assert_eq!(PexMessage::decode(b"d5:added7:1234567e"), Some(PexMessage::default()));
        assert_eq!(PexMessage::decode(b"d5:addedi7ee"), Some(PexMessage::default()));
        let without_flags = PexMessage::decode(b"d5:added6:\xc0\x00\x02\x01\x1a\xe1e").map(|read| read.added);
        assert_eq!(without_flags, Some(vec![peer("192.0.2.1:6881", 0)]));
        let mut many = format!("d5:added{}:", 6 * 10_000).into_bytes();
        many.extend(std::iter::repeat_n(1, 6 * 10_000));
        many.push(b'e');
        assert_eq!(PexMessage::decode(&many).map(|read| read.added.len()), Some(PEX_PEERS_READ_MAX));
    }
}
