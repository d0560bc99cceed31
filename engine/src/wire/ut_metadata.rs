//! The messages of the metadata extension (BEP 9): the info dictionary in blocks of 16 KiB.

use bytes::Bytes;

use crate::bencode::{self, Value};

/// One message. Block numbers are as they came: nothing here was compared with a size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetadataMessage {
    /// The sender wants a block.
    Request {
        /// Which.
        block: u32,
    },
    /// A block.
    Data {
        /// Which.
        block: u32,
        /// Of the whole info dictionary, as the sender says; some leave it out.
        total_bytes: Option<i64>,
        /// Its bytes.
        data: Bytes,
    },
    /// The sender does not give this block.
    Reject {
        /// Which.
        block: u32,
    },
    /// Of a kind that nobody knows yet, to be passed over (BEP 9).
    Unknown,
}

impl MetadataMessage {
    /// What follows the number of the extension.
    pub fn encode(&self) -> Bytes {
        let (kind, block, total, data) = match self {
            Self::Request { block } => (REQUEST, *block, None, None),
            Self::Data { block, total_bytes, data } => (DATA, *block, *total_bytes, Some(data)),
            Self::Reject { block } => (REJECT, *block, None, None),
            Self::Unknown => (UNKNOWN, 0, None, None),
        };
        let entries = [
            Some(("msg_type", Value::Int(kind))),
            Some(("piece", Value::Int(i64::from(block)))),
            total.map(|total| ("total_size", Value::Int(total))),
        ];
        let entries = entries.into_iter().flatten().map(|(key, value)| (key.as_bytes(), value));
        let mut bytes = bencode::encode(&Value::dict(entries));
        bytes.extend_from_slice(data.map_or(&[], |data| data));
        bytes.into()
    }

    /// From what follows the number of the extension; none when it is no such message.
    pub fn decode(payload: &Bytes) -> Option<Self> {
        let (value, end) = bencode::parse_prefix(payload).ok()?;
        let int = |key: &[u8]| value.get(key).and_then(Value::as_int);
        let kind = int(b"msg_type")?;
        if !(REQUEST..=REJECT).contains(&kind) {
            return Some(Self::Unknown);
        }
        let block = int(b"piece").and_then(|block| u32::try_from(block).ok())?;
        Some(match kind {
            REQUEST => Self::Request { block },
            DATA => Self::Data { block, total_bytes: int(b"total_size"), data: payload.slice(end..) },
            _ => Self::Reject { block },
        })
    }
}

const REQUEST: i64 = 0;
const DATA: i64 = 1;
const REJECT: i64 = 2;
const UNKNOWN: i64 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_decoded() {
        for message in [
            MetadataMessage::Request { block: 0 },
            MetadataMessage::Data { block: 7, total_bytes: Some(34_256), data: Bytes::from_static(b"d1:ae") },
            MetadataMessage::Data { block: 7, total_bytes: None, data: Bytes::new() },
            MetadataMessage::Reject { block: u32::MAX },
            MetadataMessage::Unknown,
        ] {
            assert_eq!(MetadataMessage::decode(&message.encode()), Some(message));
        }
    }

    #[test]
    fn the_examples_of_the_bep_are_read() {
        let check = |bytes: &'static [u8], want| {
            assert_eq!(MetadataMessage::decode(&Bytes::from_static(bytes)), want, "{}", bytes.escape_ascii());
        };
        let data = Bytes::from_static(b"xx");
        check(b"d8:msg_typei0e5:piecei0ee", Some(MetadataMessage::Request { block: 0 }));
        check(
            b"d8:msg_typei1e5:piecei0e10:total_sizei34256eexx",
            Some(MetadataMessage::Data { block: 0, total_bytes: Some(34_256), data }),
        );
        check(b"d8:msg_typei2e5:piecei0ee", Some(MetadataMessage::Reject { block: 0 }));
        check(b"d8:msg_typei9ee", Some(MetadataMessage::Unknown));
        for nonsense in
            [&b""[..], b"le", b"d5:piecei0ee", b"d8:msg_typei0ee", b"d8:msg_typei0e5:piecei-1ee", b"d8:msg_"]
        {
            check(nonsense, None);
        }
    }
}
