//! The extension protocol's handshake (BEP 10).

use bendy::encoding::{Encoder, Error};
use bytes::Bytes;
use core::net::IpAddr;
use serde::{Deserialize, Serialize};

use crate::bencode::{self, Value};

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
                m.emit_dict(|mut m| {
                    extensions.iter().try_for_each(|(name, id)| m.emit_pair(name.as_bytes(), *id))
                })
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

    /// From a bencoded dictionary; none when it is not one. Extensions beyond the first [`EXTENSIONS_MAX`] and names
    /// that are not UTF-8 are passed over; bytes after the dictionary are, too.
    pub fn decode(payload: &[u8]) -> Option<Self> {
        let (value, _) = bencode::parse_prefix(payload).ok()?;
        value.as_dict()?;
        let int = |key: &[u8]| value.get(key).and_then(Value::as_int);
        let number = |id: &Value<'_>| id.as_int().and_then(|id| u8::try_from(id).ok());
        let m = value.get(b"m").and_then(Value::as_dict).map_or_else(Vec::new, |m| {
            let named =
                m.iter().filter_map(|(name, id)| Some((str::from_utf8(name).ok()?.to_owned(), number(id)?)));
            named.take(EXTENSIONS_MAX).collect()
        });
        let yourip = value.get(b"yourip").and_then(Value::as_bytes).and_then(|ip| match ip.len() {
            4 => <[u8; 4]>::try_from(ip).ok().map(IpAddr::from),
            16 => <[u8; 16]>::try_from(ip).ok().map(IpAddr::from),
            _ => None,
        });
        let version = value.get(b"v").and_then(Value::as_bytes);
        Some(Self {
            m,
            p: int(b"p").and_then(|port| u16::try_from(port).ok()).filter(|port| *port != 0),
            v: version.map(|v| Bytes::copy_from_slice(v.get(..VERSION_BYTES_MAX).unwrap_or(v))),
            reqq: int(b"reqq"),
            yourip,
            upload_only: int(b"upload_only").map(|flag| flag != 0),
            metadata_size: int(b"metadata_size"),
        })
    }
}

/// Extensions of one peer that are looked at.
pub const EXTENSIONS_MAX: usize = 64;
/// Of a client's name and version that is kept.
const VERSION_BYTES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_decoded() {
        let handshake = ExtendedHandshake {
            m: vec![("ut_metadata".into(), 3), ("ut_pex".into(), 1)],
            p: Some(6881),
            v: Some(Bytes::from_static(b"taipei 0.1")),
            reqq: Some(500),
            yourip: Some(IpAddr::from([10, 0, 0, 1])),
            upload_only: Some(true),
            metadata_size: Some(12_345),
        };
        assert_eq!(ExtendedHandshake::decode(&handshake.encode()), Some(handshake));
        let nothing = ExtendedHandshake::default();
        assert_eq!(ExtendedHandshake::decode(&nothing.encode()), Some(nothing));
    }

    #[test]
    fn fields_of_a_wrong_type_are_as_if_absent() {
        let got = ExtendedHandshake::decode(b"d1:mi3e1:pi70000e4:reqq3:abc6:yourip3:abce");
        assert_eq!(got, Some(ExtendedHandshake::default()));
        assert_eq!(ExtendedHandshake::decode(b"le"), None);
        assert_eq!(ExtendedHandshake::decode(b""), None);
        let got = ExtendedHandshake::decode(b"d1:md1:ai300e1:bi2eee").map(|got| got.m);
        assert_eq!(got, Some(vec![("b".to_owned(), 2)]));
    }

    #[test]
    fn what_is_deep_or_long_is_no_handshake() {
        let deep = [&b"d1:m"[..], &b"l".repeat(1 << 20), b"e"].concat();
        assert_eq!(ExtendedHandshake::decode(&deep), None);
        assert_eq!(ExtendedHandshake::decode(&b"d1:a".repeat(250_000)), None);
        let mut many = b"d1:md".to_vec();
        (0..10_000).for_each(|n| many.extend(format!("5:{n:05}i1e").bytes()));
        many.extend(b"e1:v9999:");
        many.extend(vec![b'v'; 9999]);
        many.extend(b"e");
        let got = ExtendedHandshake::decode(&many).unwrap();
        assert_eq!((got.m.len(), got.v.map(|v| v.len())), (EXTENSIONS_MAX, Some(VERSION_BYTES_MAX)));
    }
}
