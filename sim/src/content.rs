//! Payload as a pure function of (torrent, offset), made once per run set and passed around by reference.

use bytes::Bytes;

use crate::trace::mix;

/// All payload of one torrent, its files one after the other.
#[derive(Clone, Debug)]
pub struct Content {
    bytes: Bytes,
}

impl Content {
    /// The payload of the torrent called `name`.
    pub fn new(name: &str, length: u64) -> Self {
        let key = name.bytes().fold(0x7461_6970_6569, |key, byte| mix(key ^ u64::from(byte)));
        let mut bytes = Vec::with_capacity(length as usize + 8);
        for word in 0..length.div_ceil(8) {
            bytes.extend_from_slice(&word_at(key, word).to_le_bytes());
        }
        bytes.truncate(length as usize);
        Self { bytes: bytes.into() }
    }

    /// Bytes in all.
    pub fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// A part of it, shared.
    ///
    /// # Panics
    /// When it reaches past the end.
    pub fn slice(&self, offset: u64, length: u64) -> Bytes {
        self.bytes.slice(offset as usize..(offset + length) as usize)
    }

    /// Whether `part` is what lies at `offset`: by address first, by comparison second.
    pub fn is_at(&self, offset: u64, part: &[u8]) -> bool {
        let Some(here) = self.bytes.get(offset as usize..offset as usize + part.len()) else { return false };
        std::ptr::eq(here.as_ptr(), part.as_ptr()) || here == part
    }

    /// Where parts end that are, one after the other, what lies at `offset`; none when they are not.
    pub fn end_of<'a>(&self, offset: u64, mut parts: impl Iterator<Item = &'a [u8]>) -> Option<u64> {
        parts.try_fold(offset, |at, part| self.is_at(at, part).then_some(at + part.len() as u64))
    }

    /// The bytes themselves.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes
    }
}

fn word_at(key: u64, word: u64) -> u64 {
    mix(key.wrapping_add(word.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_longer_torrent_begins_alike_and_another_name_does_not() {
        let (short, long, other) =
            (Content::new("a", 1000), Content::new("a", 3000), Content::new("b", 1000));
        assert_eq!(short.as_slice(), &long.as_slice()[..1000]);
        assert_ne!(short.as_slice(), other.as_slice());
        assert_eq!((short.len(), short.slice(10, 20).len()), (1000, 20));
    }

    #[test]
    fn bytes_are_recognised_where_they_belong_and_nowhere_else() {
        let content = Content::new("a", 4096);
        let copy = content.as_slice()[100..200].to_vec();
        assert!(content.is_at(100, &content.slice(100, 100)));
        assert!(content.is_at(100, &copy));
        assert!(!content.is_at(101, &copy));
        assert!(!content.is_at(4000, &copy));
    }
}
