//! Whose datagram is it? One socket a family carries the DHT, uTP and UDP trackers; another hears the local network, and
//! what comes there is told by the same look.

use crate::wire::lsd;

/// A protocol over UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// Bencoded dictionaries (BEP 5).
    Dht,
    /// Version 1 and a packet type from 0 to 4 in the first byte (BEP 29).
    Utp,
    /// An action from 0 to 3 in the first four bytes (BEP 15).
    Tracker,
    /// Text that begins with a word of its own (BEP 14).
    Lsd,
}

/// Tells by the first bytes, which no two protocols share; none when it is of none of them.
pub(crate) fn classify(payload: &[u8]) -> Option<Protocol> {
    match payload {
        [b'd', .., b'e'] => Some(Protocol::Dht),
        [b'B', ..] if lsd::is_announce(payload) => Some(Protocol::Lsd),
        [0, 0, 0, 0..=3, ..] if payload.len() >= 8 => Some(Protocol::Tracker),
        [0x01 | 0x11 | 0x21 | 0x31 | 0x41, ..] if payload.len() >= UTP_HEADER_BYTES => Some(Protocol::Utp),
        _ => None,
    }
}

/// A uTP packet without payload or extensions (BEP 29).
const UTP_HEADER_BYTES: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::tracker_udp::UdpAnswer;

    #[test]
    fn protocols_are_told_apart() {
        assert_eq!(
            classify(b"d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:t2:aa1:y1:qe"),
            Some(Protocol::Dht)
        );
        let answers = [
            UdpAnswer::Connected { transaction: 7, connection_id: 8 },
            UdpAnswer::Scraped { transaction: 7, entries: Vec::new() },
            UdpAnswer::Failed { transaction: 7, message: String::new() },
        ];
        for answer in answers {
            assert_eq!(classify(&answer.encode(false)), Some(Protocol::Tracker));
        }
        assert_eq!(classify(b"BT-SEARCH * HTTP/1.1\r\n"), Some(Protocol::Lsd));
        let mut syn = [0; 20];
        syn[0] = 0x41;
        assert_eq!((classify(&syn), classify(&syn[..19])), (Some(Protocol::Utp), None));
        for junk in
            [&b""[..], b"d", b"BT-", b"\0\0\0\x04\0\0\0\0", b"\0\0\0\0\0\0\0", &[0x51; 30], &[0x42; 30]]
        {
            assert_eq!(classify(junk), None, "{junk:?}");
        }
    }
}
