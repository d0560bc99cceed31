//! The storage map: pieces, blocks and files of one torrent, and how their bytes lie.
//!
//! The torrent is one run of bytes. Files lie in it one after the other in the torrent's order, pieces cut it at
//! equal distances, and neither knows of the other. Zero-length files and symlinks have a place in the list and no
//! byte. Pad files (BEP 47) have bytes, all zero, that are never on disk.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::paths::StoragePath;
use crate::ids::{FileIndex, PieceIndex};
use crate::limits::{BLOCK_BYTES, PIECE_LENGTH_MAX, PIECES_MAX, TOTAL_BYTES_MAX};

/// Files and pieces of one torrent. Immutable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    piece_length: u32,
    piece_count: u32,
    total_bytes: u64,
    files: Vec<FileEntry>,
}

/// A file to put into a layout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedFile {
    /// Where on disk, below the download directory; starts with the torrent's name.
    pub path: StoragePath,
    /// Bytes. Not looked at for a symlink, which has none.
    pub length: u64,
    /// All zeros, never on disk (BEP 47).
    pub pad: bool,
    /// Where it points, below the download directory (BEP 47).
    pub symlink: Option<StoragePath>,
    /// As the torrent names it, where that is not `path`.
    pub original: Option<Box<str>>,
}

impl ListedFile {
    /// A file that is neither pad nor symlink, on disk as the torrent names it.
    pub fn plain(path: StoragePath, length: u64) -> Self {
        Self { path, length, pad: false, symlink: None, original: None }
    }
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
    /// As the torrent names it, its components joined by `/`, where that is not `path`: for people to see, not escaped,
    /// never for a disk.
    pub original: Option<Box<str>>,
}

impl FileEntry {
    /// Whether it is a file on disk with bytes of its own, possibly none: neither pad nor symlink.
    pub fn is_stored(&self) -> bool {
        !self.pad && self.symlink.is_none()
    }

    /// Offset in the torrent of the byte after its last.
    fn end(&self) -> u64 {
        self.offset + self.length
    }
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

/// Why there is no layout of these pieces and files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum LayoutError {
    /// Pieces of no byte, or larger than [`PIECE_LENGTH_MAX`].
    #[error("piece length {0} is not between 1 and {PIECE_LENGTH_MAX}")]
    PieceLength(u32),
    /// The files together are larger than [`TOTAL_BYTES_MAX`].
    #[error("the files are larger than {TOTAL_BYTES_MAX} bytes together")]
    TotalBytes,
    /// More pieces than [`PIECES_MAX`].
    #[error("{0} pieces, but at most {PIECES_MAX} are supported")]
    TooManyPieces(u64),
    /// More files than an index can name.
    #[error("{0} files are too many")]
    TooManyFiles(usize),
}

impl Layout {
    /// Puts files one after the other and cuts them into pieces of `piece_length` bytes, of which the last may be
    /// shorter. A torrent without a byte has no piece.
    ///
    /// # Errors
    /// When a number is beyond its cap; nothing is sized by it before.
    pub fn new(piece_length: u32, files: Vec<ListedFile>) -> Result<Self, LayoutError> {
        if piece_length == 0 || piece_length > PIECE_LENGTH_MAX {
            return Err(LayoutError::PieceLength(piece_length));
        }
        if u32::try_from(files.len()).is_err() {
            return Err(LayoutError::TooManyFiles(files.len()));
        }
        let bytes_of = |file: &ListedFile| if file.symlink.is_some() { 0 } else { file.length };
        let total_bytes = files
            .iter()
            .try_fold(0u64, |total, file| total.checked_add(bytes_of(file)))
            .filter(|total| *total <= TOTAL_BYTES_MAX)
            .ok_or(LayoutError::TotalBytes)?;
        let pieces = total_bytes.div_ceil(u64::from(piece_length));
        let piece_count = u32::try_from(pieces)
            .ok()
            .filter(|count| *count <= PIECES_MAX)
            .ok_or(LayoutError::TooManyPieces(pieces))?;
        let mut offset = 0;
        let files = files
            .into_iter()
            .map(|file| {
                let length = bytes_of(&file);
                let ListedFile { path, pad, symlink, original, .. } = file;
                let entry = FileEntry { path, length, offset, pad, symlink, original };
                offset += length;
                entry
            })
            .collect();
        assert_eq!(offset, total_bytes, "files tile the torrent");
        Ok(Self { piece_length, piece_count, total_bytes, files })
    }

    /// Of a torrent of which nothing is known: no file and no piece.
    pub(crate) fn empty() -> Self {
        Self { piece_length: BLOCK_BYTES, piece_count: 0, total_bytes: 0, files: Vec::new() }
    }

    /// Bytes in each piece but the last.
    pub fn piece_length(&self) -> u32 {
        self.piece_length
    }

    /// Bytes in all, pad files included.
    pub fn total_bytes(&self) -> u64 {
        self.total_bytes
    }

    /// Bytes in files that are stored: without pad files.
    pub fn stored_bytes(&self) -> u64 {
        self.files.iter().filter(|file| file.is_stored()).map(|file| file.length).sum()
    }

    /// How many pieces.
    pub fn piece_count(&self) -> u32 {
        self.piece_count
    }

    /// The files in the torrent's order, pad files and symlinks included.
    pub fn files(&self) -> &[FileEntry] {
        &self.files
    }

    /// A file by its index.
    ///
    /// # Panics
    /// When the index is of another torrent.
    pub fn file(&self, file: FileIndex) -> &FileEntry {
        &self.files[file.0 as usize]
    }

    /// A piece by its number on the wire, if there is one.
    pub fn piece(&self, index: u32) -> Option<PieceIndex> {
        (index < self.piece_count).then(|| PieceIndex::new(index))
    }

    /// All pieces, ascending.
    pub fn pieces(&self) -> impl Iterator<Item = PieceIndex> + use<> {
        (0..self.piece_count).map(PieceIndex::new)
    }

    /// Bytes in this piece.
    ///
    /// # Panics
    /// When the piece is of another torrent.
    pub fn piece_bytes(&self, piece: PieceIndex) -> u32 {
        assert!(piece.get() < self.piece_count, "a piece index is below the piece count");
        let left = self.total_bytes - self.piece_offset(piece);
        u32::try_from(left).map_or(self.piece_length, |left| left.min(self.piece_length))
    }

    /// Whether every byte of this piece is one of a pad file.
    ///
    /// # Panics
    /// When the piece is of another torrent.
    pub fn is_padding(&self, piece: PieceIndex) -> bool {
        self.runs(piece, 0, self.piece_bytes(piece)).all(|run| run.pad)
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
    ///
    /// # Panics
    /// When the range is not within the piece.
    pub fn runs(&self, piece: PieceIndex, begin: u32, length: u32) -> impl Iterator<Item = FileRun> + '_ {
        let end = begin.checked_add(length).expect("a range lies within its piece");
        assert!(end <= self.piece_bytes(piece), "a range lies within its piece");
        let start = self.piece_offset(piece) + u64::from(begin);
        self.runs_of_range(start..start + u64::from(length))
    }

    /// The same for any range of bytes of the torrent.
    ///
    /// # Panics
    /// When the range is not within the torrent.
    pub fn runs_of_range(&self, bytes: Range<u64>) -> impl Iterator<Item = FileRun> + '_ {
        assert!(bytes.start <= bytes.end && bytes.end <= self.total_bytes, "a range lies within the torrent");
        let first = self.files.partition_point(|file| file.end() <= bytes.start);
        (first..)
            .zip(&self.files[first..])
            .take_while(move |(_, file)| file.offset < bytes.end)
            .filter(|(_, file)| file.length > 0)
            .map(move |(index, file)| {
                let from = file.offset.max(bytes.start);
                let to = file.end().min(bytes.end);
                FileRun {
                    file: FileIndex(index as u32),
                    offset: from - file.offset,
                    length: to - from,
                    pad: file.pad,
                }
            })
    }

    /// The pieces that hold a byte of this file; empty for a zero-length file.
    ///
    /// # Panics
    /// When the file is of another torrent.
    pub fn pieces_of(&self, file: FileIndex) -> Range<u32> {
        let file = self.file(file);
        let piece_length = u64::from(self.piece_length);
        let first = (file.offset / piece_length) as u32;
        if file.length == 0 { first..first } else { first..file.end().div_ceil(piece_length) as u32 }
    }

    /// The files that have a byte in this piece, in order.
    pub fn files_of(&self, piece: PieceIndex) -> impl Iterator<Item = FileIndex> + '_ {
        self.runs(piece, 0, self.piece_bytes(piece)).map(|run| run.file)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn path(name: usize) -> StoragePath {
        StoragePath::from_names([name.to_string().as_str()])
    }

    fn layout(piece_length: u32, lengths: &[u64]) -> Layout {
        let files = lengths.iter().enumerate().map(|(name, length)| ListedFile::plain(path(name), *length));
        Layout::new(piece_length, files.collect()).unwrap()
    }

    #[test]
    fn last_piece_is_short() {
        let layout = layout(32768, &[32768 + 16385]);
        let pieces: Vec<_> =
            layout.pieces().map(|p| (layout.piece_bytes(p), layout.block_count(p))).collect();
        assert_eq!(pieces, [(32768, 2), (16385, 2)]);
    }

    #[test]
    fn piece_length_need_not_be_a_multiple_of_a_block() {
        for piece_length in [1, 128, 16383, 16385, 20000] {
            let layout = layout(piece_length, &[50_000]);
            assert_eq!(layout.pieces().map(|p| u64::from(layout.piece_bytes(p))).sum::<u64>(), 50_000);
            let blocks: u64 = layout.pieces().map(|p| u64::from(layout.block_count(p))).sum();
            assert!(blocks >= 50_000u64.div_ceil(u64::from(BLOCK_BYTES)));
        }
    }

    #[test]
    fn zero_length_files_have_a_place_and_no_run() {
        let layout = layout(4, &[0, 3, 0, 0, 3, 0]);
        let runs: Vec<_> =
            layout.runs_of_range(0..6).map(|run| (run.file.0, run.offset, run.length)).collect();
        assert_eq!(runs, [(1, 0, 3), (4, 0, 3)]);
        assert_eq!(layout.pieces_of(FileIndex(2)), 0..0);
        assert_eq!(layout.pieces_of(FileIndex(4)), 0..2);
    }

    #[test]
    fn a_torrent_without_bytes_has_no_piece() {
        assert_eq!(layout(1, &[0, 0]).piece_count(), 0);
        assert_eq!(layout(1, &[]).piece_count(), 0);
    }

    #[test]
    fn numbers_beyond_their_cap_are_refused() {
        let check = |piece_length, length| {
            Layout::new(piece_length, vec![ListedFile::plain(path(0), length)])
                .map(|layout| layout.piece_count())
        };
        assert_eq!(check(0, 1), Err(LayoutError::PieceLength(0)));
        assert_eq!(check(PIECE_LENGTH_MAX + 1, 1), Err(LayoutError::PieceLength(PIECE_LENGTH_MAX + 1)));
        assert_eq!(check(PIECE_LENGTH_MAX, TOTAL_BYTES_MAX), Ok(1 << 19));
        assert_eq!(check(PIECE_LENGTH_MAX, TOTAL_BYTES_MAX + 1), Err(LayoutError::TotalBytes));
        assert_eq!(check(1, u64::from(PIECES_MAX)), Ok(PIECES_MAX));
        assert_eq!(check(1, u64::from(PIECES_MAX) + 1), Err(LayoutError::TooManyPieces(2_097_153)));
        let two = vec![ListedFile::plain(path(0), u64::MAX), ListedFile::plain(path(1), 2)];
        assert_eq!(Layout::new(1, two), Err(LayoutError::TotalBytes));
    }

    #[test]
    fn a_symlink_has_no_bytes() {
        let mut link = ListedFile::plain(path(0), 17);
        link.symlink = Some(path(1));
        let layout = Layout::new(4, vec![link, ListedFile::plain(path(1), 5)]).unwrap();
        assert_eq!((layout.total_bytes(), layout.files()[1].offset), (5, 0));
    }

    fn layouts() -> impl Strategy<Value = Layout> {
        let length = prop_oneof![2 => Just(0u64), 5 => 1..40u64, 1 => 40..400u64];
        let file = (length, proptest::bool::weighted(0.2));
        (1..70u32, proptest::collection::vec(file, 0..40)).prop_map(|(piece_length, files)| {
            let listed = files
                .into_iter()
                .enumerate()
                .map(|(name, (length, pad))| ListedFile { pad, ..ListedFile::plain(path(name), length) });
            Layout::new(piece_length, listed.collect()).unwrap()
        })
    }

    proptest! {
        #[test]
        fn runs_tile_the_torrent_exactly(layout in layouts()) {
            let mut at = 0;
            for piece in layout.pieces() {
                let bytes = layout.piece_bytes(piece);
                prop_assert!(bytes > 0);
                for run in layout.runs(piece, 0, bytes) {
                    let file = layout.file(run.file);
                    prop_assert!(run.length > 0 && run.offset + run.length <= file.length);
                    prop_assert_eq!((file.offset + run.offset, file.pad), (at, run.pad));
                    at += run.length;
                }
                prop_assert_eq!(at, layout.piece_offset(piece) + u64::from(bytes));
            }
            prop_assert_eq!(at, layout.total_bytes());
        }

        #[test]
        fn a_part_of_a_piece_is_the_same_part_of_its_runs(layout in layouts(), seed in any::<(u32, u32, u32)>()) {
            prop_assume!(layout.piece_count() > 0);
            let piece = layout.piece(seed.0 % layout.piece_count()).unwrap();
            let bytes = layout.piece_bytes(piece);
            let begin = seed.1 % (bytes + 1);
            let length = seed.2 % (bytes - begin + 1);
            let mut at = layout.piece_offset(piece) + u64::from(begin);
            let end = at + u64::from(length);
            for run in layout.runs(piece, begin, length) {
                prop_assert_eq!(layout.file(run.file).offset + run.offset, at);
                at += run.length;
            }
            prop_assert_eq!(at, end);
        }

        #[test]
        fn pieces_of_and_files_of_are_inverse(layout in layouts()) {
            for piece in layout.pieces() {
                let files: Vec<_> = layout.files_of(piece).collect();
                for index in (0..layout.files().len() as u32).map(FileIndex) {
                    prop_assert_eq!(files.contains(&index), layout.pieces_of(index).contains(&piece.get()));
                }
            }
        }
    }
}
