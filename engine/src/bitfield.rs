//! A set of pieces, in the order of the wire: the first piece is the high bit of the first byte (BEP 3).

use serde::{Deserialize, Serialize};

use crate::ids::PieceIndex;

/// A set of pieces of a torrent with a known piece count.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Bitfield {
    bytes: Vec<u8>,
    piece_count: u32,
    count: u32,
}

/// Why bytes from outside are no bitfield of this torrent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BitfieldError {
    /// The wire form has exactly one bit a piece, rounded up to bytes.
    #[error("bitfield is {got} bytes, this torrent's is {want}")]
    Length {
        /// Bytes received.
        got: usize,
        /// Bytes that fit the piece count.
        want: usize,
    },
    /// The bits after the last piece must be zero (BEP 3).
    #[error("bitfield has spare bits set")]
    SpareBits,
}

impl Bitfield {
    /// With no piece in it.
    pub fn new(piece_count: u32) -> Self {
        Self { bytes: vec![0; piece_count.div_ceil(8) as usize], piece_count, count: 0 }
    }

    /// With every piece in it.
    pub fn full(piece_count: u32) -> Self {
        let mut all =
            Self { bytes: vec![0xff; piece_count.div_ceil(8) as usize], piece_count, count: piece_count };
        if let (Some(last), 1..) = (all.bytes.last_mut(), piece_count % 8) {
            *last = 0xff << (8 - piece_count % 8);
        }
        all
    }

    /// From the wire.
    ///
    /// # Errors
    /// When the length does not fit the piece count, or bits after the last piece are set.
    pub fn from_wire(bytes: &[u8], piece_count: u32) -> Result<Self, BitfieldError> {
        let want = piece_count.div_ceil(8) as usize;
        if bytes.len() != want {
            return Err(BitfieldError::Length { got: bytes.len(), want });
        }
        let spare = (want as u32 * 8) - piece_count;
        if let Some(last) = bytes.last()
            && u32::from(*last).trailing_zeros() < spare
            && *last != 0
        {
            return Err(BitfieldError::SpareBits);
        }
        let count = bytes.iter().map(|byte| byte.count_ones()).sum();
        Ok(Self { bytes: bytes.to_vec(), piece_count, count })
    }

    /// For the wire: one bit a piece, spare bits zero.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How many pieces the torrent has.
    pub fn piece_count(&self) -> u32 {
        self.piece_count
    }

    /// How many pieces are in it.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Whether every piece is in it. True for a torrent without pieces.
    pub fn is_full(&self) -> bool {
        self.count == self.piece_count
    }

    /// Whether no piece is in it.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether `piece` is in it.
    pub fn has(&self, piece: PieceIndex) -> bool {
        let (byte, mask) = place(piece);
        self.bytes[byte] & mask != 0
    }

    /// Puts `piece` in; true if it was not there.
    pub fn set(&mut self, piece: PieceIndex) -> bool {
        assert!(piece.get() < self.piece_count, "a piece index is below the piece count");
        let (byte, mask) = place(piece);
        let new = self.bytes[byte] & mask == 0;
        self.bytes[byte] |= mask;
        self.count += u32::from(new);
        new
    }

    /// Takes `piece` out; true if it was there.
    pub fn clear(&mut self, piece: PieceIndex) -> bool {
        let (byte, mask) = place(piece);
        let was = self.bytes[byte] & mask != 0;
        self.bytes[byte] &= !mask;
        self.count -= u32::from(was);
        was
    }

    /// The pieces in it, ascending.
    pub fn iter(&self) -> impl Iterator<Item = PieceIndex> + '_ {
        self.bytes.iter().enumerate().filter(|(_, byte)| **byte != 0).flat_map(|(at, byte)| {
            let base = at as u32 * 8;
            (0..8u32).filter(move |bit| byte & (0x80 >> bit) != 0).map(move |bit| PieceIndex::new(base + bit))
        })
    }

    /// The pieces not in it, ascending.
    pub fn iter_missing(&self) -> impl Iterator<Item = PieceIndex> + '_ {
        (0..self.piece_count).map(PieceIndex::new).filter(|piece| !self.has(*piece))
    }
}

fn place(piece: PieceIndex) -> (usize, u8) {
    (piece.at() / 8, 0x80 >> (piece.get() % 8))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_has_no_spare_bits() {
        for pieces in 0..40 {
            let full = Bitfield::full(pieces);
            assert_eq!(Bitfield::from_wire(full.as_bytes(), pieces), Ok(full.clone()));
            assert_eq!(full.iter().count() as u32, pieces);
            assert!(full.is_full());
        }
    }

    #[test]
    fn spare_bits_and_wrong_lengths_are_refused() {
        assert_eq!(Bitfield::from_wire(&[0b1110_0001], 3), Err(BitfieldError::SpareBits));
        assert_eq!(Bitfield::from_wire(&[0b1110_0000], 3).map(|b| b.count()), Ok(3));
        assert_eq!(Bitfield::from_wire(&[], 3), Err(BitfieldError::Length { got: 0, want: 1 }));
        assert_eq!(Bitfield::from_wire(&[0, 0], 3), Err(BitfieldError::Length { got: 2, want: 1 }));
    }

    #[test]
    fn set_and_clear_count_once() {
        let mut field = Bitfield::new(10);
        assert!(field.set(PieceIndex::new(9)));
        assert!(!field.set(PieceIndex::new(9)));
        assert_eq!(
            (field.count(), field.has(PieceIndex::new(9)), field.has(PieceIndex::new(8))),
            (1, true, false)
        );
        assert!(field.clear(PieceIndex::new(9)));
        assert!(field.is_empty());
    }
}
