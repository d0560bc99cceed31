//! A block of payload as the engine sees it: a length, and bytes that it never looks at.

use std::fmt;
use std::hash::{Hash, Hasher};

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Payload that passes through the engine unseen.
///
/// Behind it are slices of the read buffers it arrived in (a block that crosses two reads has two parts), so nothing
/// is copied on the way to the disk. In a recording only the length is kept; replayed, it is `absent`. The event
/// world passes slices of generated content.
#[derive(Clone, Default)]
pub struct BlockData {
    length: u32,
    parts: Parts,
}

#[derive(Clone, Default)]
enum Parts {
    #[default]
    Absent,
    One(Bytes),
    Many(Vec<Bytes>),
}

impl BlockData {
    /// Of a given length, without bytes: what a replay has.
    pub fn absent(length: u32) -> Self {
        Self { length, parts: Parts::Absent }
    }

    /// From the slices that hold it, in order.
    ///
    /// # Panics
    /// When the parts are 4 GiB or more together; the wire caps a block long before that.
    pub fn from_parts(parts: Vec<Bytes>) -> Self {
        let length = parts.iter().map(Bytes::len).sum::<usize>();
        Self {
            length: u32::try_from(length).expect("a block is capped by the wire"),
            parts: Parts::Many(parts),
        }
    }

    /// Its length in bytes.
    pub fn len(&self) -> u32 {
        self.length
    }

    /// Whether its length is zero.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The slices that hold it, in order. Empty for an absent block. For the disk and the wire only.
    pub fn parts(&self) -> &[Bytes] {
        match &self.parts {
            Parts::Absent => &[],
            Parts::One(bytes) => std::slice::from_ref(bytes),
            Parts::Many(parts) => parts,
        }
    }
}

impl From<Bytes> for BlockData {
    fn from(bytes: Bytes) -> Self {
        let length = u32::try_from(bytes.len()).expect("a block is capped by the wire");
        Self { length, parts: Parts::One(bytes) }
    }
}

impl fmt::Debug for BlockData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{} bytes>", self.length)
    }
}

/// Two blocks are the same decision when they have the same length; what is in them is for hashes to say.
impl PartialEq for BlockData {
    fn eq(&self, other: &Self) -> bool {
        self.length == other.length
    }
}

impl Eq for BlockData {}

impl Hash for BlockData {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.length.hash(state);
    }
}

impl Serialize for BlockData {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.length.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for BlockData {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self::absent(u32::deserialize(deserializer)?))
    }
}
