//! NAT-PMP (RFC 6886): its datagrams as values and back. Decides nothing.

use core::net::Ipv4Addr;

use super::Protocol;

/// What a router is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Request {
    /// Its address towards the world (3.2).
    ExternalAddress,
    /// To forward a port, or with a lifetime of 0 to do so no more (3.3, 3.4).
    Map {
        protocol: Protocol,
        internal: u16,
        /// The one that we would like; 0 when it is to be forgotten.
        external: u16,
        seconds: u32,
    },
}

/// What it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Response {
    /// For how long it has had its state, in seconds (3.6).
    pub(super) epoch: u32,
    /// Or the code of its refusal (3.5).
    pub(super) outcome: Result<Outcome, u16>,
}

/// What it did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    ExternalAddress(Ipv4Addr),
    Mapped { internal: u16, external: u16, seconds: u32 },
}

impl Request {
    /// As bytes.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION, self.opcode()];
        if let Self::Map { internal, external, seconds, .. } = self {
            bytes.extend([0, 0]);
            bytes.extend(internal.to_be_bytes());
            bytes.extend(external.to_be_bytes());
            bytes.extend(seconds.to_be_bytes());
        }
        bytes
    }

    /// The answer to this one; none when it is something else.
    pub(super) fn parse_response(&self, bytes: &[u8]) -> Option<Response> {
        let [VERSION, opcode, result @ ..] = bytes else { return None };
        if *opcode != RESPONSE | self.opcode() {
            return None;
        }
        let (result, rest) = result.split_first_chunk()?;
        let (epoch, rest) = match rest.split_first_chunk() {
            Some((epoch, rest)) => (u32::from_be_bytes(*epoch), rest),
            // Some send a refusal without the rest.
            None if *result != [0, 0] => (0, rest),
            None => return None,
        };
        let outcome = match (u16::from_be_bytes(*result), self) {
            (0, Self::ExternalAddress) => {
                let (ip, _) = rest.split_first_chunk::<4>()?;
                Ok(Outcome::ExternalAddress(Ipv4Addr::from(*ip)))
            }
            (0, Self::Map { internal, .. }) => {
                let (said, rest) = rest.split_first_chunk()?;
                let (external, rest) = rest.split_first_chunk()?;
                let (seconds, _) = rest.split_first_chunk()?;
                if u16::from_be_bytes(*said) != *internal {
                    return None;
                }
                Ok(Outcome::Mapped {
                    internal: *internal,
                    external: u16::from_be_bytes(*external),
                    seconds: u32::from_be_bytes(*seconds),
                })
            }
            (code, _) => Err(code),
        };
        Some(Response { epoch, outcome })
    }

    fn opcode(&self) -> u8 {
        match self {
            Self::ExternalAddress => 0,
            Self::Map { protocol: Protocol::Udp, .. } => 1,
            Self::Map { protocol: Protocol::Tcp, .. } => 2,
        }
    }
}

const VERSION: u8 = 0;
/// What is added to an opcode in the answer.
const RESPONSE: u8 = 128;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn map(protocol: Protocol, internal: u16) -> Request {
        Request::Map { protocol, internal, external: 7000, seconds: 3600 }
    }

    #[test]
    fn requests_are_as_the_rfc_has_them() {
        assert_eq!(Request::ExternalAddress.encode(), [0, 0]);
        assert_eq!(map(Protocol::Udp, 6881).encode(), [0, 1, 0, 0, 0x1a, 0xe1, 0x1b, 0x58, 0, 0, 0x0e, 0x10]);
        assert_eq!(map(Protocol::Tcp, 6881).encode()[1], 2);
    }

    #[test]
    fn answers_are_read() {
        let address = Request::ExternalAddress.parse_response(&[0, 128, 0, 0, 0, 0, 1, 0, 1, 2, 3, 4]);
        let outcome = Ok(Outcome::ExternalAddress(Ipv4Addr::new(1, 2, 3, 4)));
        assert_eq!(address, Some(Response { epoch: 256, outcome }));
        let tcp = map(Protocol::Tcp, 6881);
        let answer = [0, 130, 0, 0, 0, 0, 0, 9, 0x1a, 0xe1, 0x1b, 0x59, 0, 0, 2, 0];
        let outcome = Ok(Outcome::Mapped { internal: 6881, external: 7001, seconds: 512 });
        assert_eq!(tcp.parse_response(&answer), Some(Response { epoch: 9, outcome }));
        // Not to this question.
        assert_eq!(map(Protocol::Udp, 6881).parse_response(&answer), None);
        assert_eq!(map(Protocol::Tcp, 6882).parse_response(&answer), None);
        assert_eq!(Request::ExternalAddress.parse_response(&answer), None);
        // Refused, with and without the rest.
        let refused = |bytes: &[u8]| tcp.parse_response(bytes).map(|response| response.outcome);
        assert_eq!(refused(&[0, 130, 0, 2, 0, 0, 0, 9, 0x1a, 0xe1, 0, 0, 0, 0, 0, 0]), Some(Err(2)));
        assert_eq!(refused(&[0, 130, 0, 1]), Some(Err(1)));
        // Cut off.
        for length in 0..answer.len() {
            assert_eq!(tcp.parse_response(&answer[..length]), None, "{length}");
        }
        assert_eq!(tcp.parse_response(&tcp.encode()), None, "a question is no answer");
    }

    proptest! {
        #[test]
        fn hostile_answers_are_no_panic(bytes in proptest::collection::vec(any::<u8>(), 0..40), internal in any::<u16>()) {
            let mut framed = vec![0, 130, 0, 0];
            framed.extend(&bytes);
            for request in [Request::ExternalAddress, map(Protocol::Tcp, internal), map(Protocol::Udp, internal)] {
                request.parse_response(&bytes);
                if let Some(Response { outcome: Ok(Outcome::Mapped { internal: said, .. }), .. }) = request.parse_response(&framed) {
                    prop_assert_eq!(said, internal);
                }
            }
        }
    }
}
