//! PCP (RFC 6887): its datagrams as values and back, as far as mapping ports goes. Decides nothing.

use core::net::{Ipv4Addr, Ipv6Addr};

use super::Protocol;

/// To forward a port, or with a lifetime of 0 to do so no more (11.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MapRequest {
    /// Ours, as the packet's header has it too.
    pub(super) client: Ipv4Addr,
    /// The secret by which a router knows us again.
    pub(super) nonce: [u8; 12],
    pub(super) protocol: Protocol,
    pub(super) internal: u16,
    /// The one that we would like; 0 for any.
    pub(super) external: u16,
    pub(super) seconds: u32,
}

/// What a router says to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MapResponse {
    /// For how long it has had its state, in seconds (8.5).
    pub(super) epoch: u32,
    /// Or the code of its refusal (7.4).
    pub(super) outcome: Result<Mapped, u8>,
}

/// What it did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mapped {
    pub(super) external: u16,
    /// None where it forwards between IPv6 addresses, which we did not ask for.
    pub(super) external_ip: Option<Ipv4Addr>,
    pub(super) seconds: u32,
}

impl MapRequest {
    /// As bytes.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION, MAP, 0, 0];
        bytes.extend(self.seconds.to_be_bytes());
        bytes.extend(self.client.to_ipv6_mapped().octets());
        bytes.extend(self.nonce);
        bytes.extend([self.protocol.number(), 0, 0, 0]);
        bytes.extend(self.internal.to_be_bytes());
        bytes.extend(self.external.to_be_bytes());
        // No wish, of the family that we want (11.1).
        bytes.extend(Ipv4Addr::UNSPECIFIED.to_ipv6_mapped().octets());
        bytes
    }

    /// The answer to this one; none when it is something else.
    pub(super) fn parse_response(&self, bytes: &[u8]) -> Option<MapResponse> {
        if bytes.len() > DATAGRAM_BYTES_MAX {
            return None;
        }
        // One that only speaks NAT-PMP refuses our version in its own (RFC 6886, 3.5; RFC 6887, appendix A).
        if let [0, _, 0, 1, ..] = bytes {
            return Some(MapResponse { epoch: 0, outcome: Err(UNSUPPORTED_VERSION) });
        }
        let [version, RESPONSE_TO_MAP, _, code, rest @ ..] = bytes else { return None };
        if *version != VERSION {
            let refuses = *code == UNSUPPORTED_VERSION;
            return refuses.then_some(MapResponse { epoch: 0, outcome: Err(UNSUPPORTED_VERSION) });
        }
        let (seconds, rest) = rest.split_first_chunk()?;
        let (epoch, rest) = rest.split_first_chunk()?;
        let (_reserved, rest) = rest.split_first_chunk::<12>()?;
        let (nonce, rest) = rest.split_first_chunk::<12>()?;
        let ([protocol, ..], rest) = rest.split_first_chunk::<4>()?;
        let (internal, rest) = rest.split_first_chunk()?;
        let (external, rest) = rest.split_first_chunk()?;
        let (external_ip, _options) = rest.split_first_chunk::<16>()?;
        let is_ours = *nonce == self.nonce
            && *protocol == self.protocol.number()
            && u16::from_be_bytes(*internal) == self.internal;
        let outcome = match *code {
            0 => Ok(Mapped {
                external: u16::from_be_bytes(*external),
                external_ip: Ipv6Addr::from(*external_ip).to_ipv4_mapped(),
                seconds: u32::from_be_bytes(*seconds),
            }),
            code => Err(code),
        };
        is_ours.then_some(MapResponse { epoch: u32::from_be_bytes(*epoch), outcome })
    }
}

/// The code by which a router says that it speaks another version.
pub(super) const UNSUPPORTED_VERSION: u8 = 1;

const VERSION: u8 = 2;
const MAP: u8 = 1;
const RESPONSE_TO_MAP: u8 = 0x80 | MAP;
/// No packet is longer (7).
const DATAGRAM_BYTES_MAX: usize = 1100;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn request() -> MapRequest {
        MapRequest {
            client: Ipv4Addr::new(192, 168, 0, 2),
            nonce: [7; 12],
            protocol: Protocol::Tcp,
            internal: 6881,
            external: 7000,
            seconds: 3600,
        }
    }

    /// What a router makes of a request that it grants.
    fn answer(external: u16, ip: Ipv4Addr) -> Vec<u8> {
        let mut bytes = request().encode();
        bytes[1] |= 0x80;
        bytes[4..8].copy_from_slice(&600u32.to_be_bytes());
        bytes[8..12].copy_from_slice(&77u32.to_be_bytes());
        bytes[42..44].copy_from_slice(&external.to_be_bytes());
        bytes[44..60].copy_from_slice(&ip.to_ipv6_mapped().octets());
        bytes
    }

    #[test]
    fn a_request_is_as_the_rfc_has_it() {
        let bytes = request().encode();
        assert_eq!(bytes.len(), 60);
        assert_eq!(bytes[..8], [2, 1, 0, 0, 0, 0, 0x0e, 0x10]);
        assert_eq!(bytes[8..24], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 168, 0, 2]);
        assert_eq!(bytes[24..36], [7; 12]);
        assert_eq!(bytes[36..44], [6, 0, 0, 0, 0x1a, 0xe1, 0x1b, 0x58]);
        assert_eq!(bytes[44..], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0]);
    }

    #[test]
    fn answers_are_read() {
        let ip = Ipv4Addr::new(1, 2, 3, 4);
        let good = answer(7001, ip);
        let outcome = Ok(Mapped { external: 7001, external_ip: Some(ip), seconds: 600 });
        assert_eq!(request().parse_response(&good), Some(MapResponse { epoch: 77, outcome }));
        let changed = |at: usize, to: u8| {
            let mut bytes = good.clone();
            bytes[at] = to;
            request().parse_response(&bytes).map(|response| response.outcome)
        };
        assert_eq!(changed(3, 8), Some(Err(8)), "refused");
        assert_eq!((changed(0, 1), changed(1, 1), changed(1, 0x82)), (None, None, None), "no answer");
        assert_eq!((changed(24, 8), changed(36, 17), changed(41, 0)), (None, None, None), "not to us");
        assert_eq!(changed(44, 1), Some(Ok(Mapped { external: 7001, external_ip: None, seconds: 600 })));
        for length in 0..good.len() {
            assert_eq!(request().parse_response(&good[..length]), None, "{length}");
        }
        let mut long = good.clone();
        long.resize(DATAGRAM_BYTES_MAX + 1, 0);
        assert_eq!(request().parse_response(&long), None);
    }

    #[test]
    fn a_router_of_another_version_is_understood() {
        let refused = Some(MapResponse { epoch: 0, outcome: Err(UNSUPPORTED_VERSION) });
        assert_eq!(request().parse_response(&[0, 129, 0, 1, 0, 0, 0, 9]), refused);
        assert_eq!(request().parse_response(&[3, 0x81, 0, 1]), refused);
    }

    proptest! {
        #[test]
        fn hostile_answers_are_no_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80), cut in 0usize..61) {
            request().parse_response(&bytes);
            let mut meddled = answer(7001, Ipv4Addr::LOCALHOST);
            meddled.truncate(cut);
            meddled.extend(&bytes);
            request().parse_response(&meddled);
        }
    }
}
