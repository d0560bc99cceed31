//! The storage map: pieces, blocks and files of one torrent, and how their bytes lie.

use super::paths::StoragePath;
use crate::ids::{FileIndex, PieceIndex};
use crate::limits::BLOCK_BYTES;

/// Files and pieces of one torrent. Immutable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    piece_length: u32,
    total_bytes: u64,
    files: Vec<FileEntry>,
}

/// A file as the torrent lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileEntry {
    /// Where on disk, below the download directory; starts with the torrent's name.
    pub path: StoragePath,
    /// Bytes. A symlink has none.
    pub length: u64,
    /// Of its first byte in the torrent.
    pub offset: u64,
    /// All zeros, never on disk (BEP 47).
    pub pad: bool,
    /// Where it points, below the download directory (BEP 47).
    pub symlink: Option<StoragePath>,
}

/// A range of one file that is a part of a range of the torrent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileRun {
    /// Which file.
    pub file: FileIndex,
    /// From where in it.
    pub offset: u64,
    /// How many bytes.
    pub length: u64,
    /// All zeros, never on disk.
    pub pad: bool,
}

impl Layout {
    /// Bytes in each piece but the last.
    pub fn piece_length(&self) -> u32 {
        self.piece_length
    }

    /// Bytes in all, pad files included.
    pub fn total_bytes(&self) -> u64 {
        self.total_bytes
    }

    /// How many pieces.
    pub fn piece_count(&self) -> u32 {
        todo!()
    }

    /// The files in the torrent's order, pad files and symlinks included.
    pub fn files(&self) -> &[FileEntry] {
        &self.files
    }

    /// A piece by its number on the wire, if there is one.
    pub fn piece(&self, index: u32) -> Option<PieceIndex> {
        (index < self.piece_count()).then(|| PieceIndex::new(index))
    }

    /// All pieces, ascending.
    pub fn pieces(&self) -> impl Iterator<Item = PieceIndex> + use<> {
        (0..self.piece_count()).map(PieceIndex::new)
    }

    /// Bytes in this piece.
    pub fn piece_bytes(&self, _piece: PieceIndex) -> u32 {
        todo!()
    }

    /// Offset of its first byte in the torrent.
    pub fn piece_offset(&self, piece: PieceIndex) -> u64 {
        u64::from(piece.get()) * u64::from(self.piece_length)
    }

    /// Blocks of 16 KiB in this piece, the last one shorter where it does not fit.
    pub fn block_count(&self, piece: PieceIndex) -> u32 {
        self.piece_bytes(piece).div_ceil(BLOCK_BYTES)
    }

    /// The parts of files that bytes `begin..begin + length` of a piece lie in, in order; zero-length files are in none.
    pub fn runs(&self, _piece: PieceIndex, _begin: u32, _length: u32) -> impl Iterator<Item = FileRun> + '_ {
        std::iter::empty()
    }

    /// The pieces that hold a byte of this file; empty for a zero-length file.
    pub fn pieces_of(&self, _file: FileIndex) -> std::ops::Range<u32> {
        todo!()
    }
}
