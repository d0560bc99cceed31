//! Pieces on their way from received to have: hashed and written, in either order, then judged.
//!
//! Hashes go out in batches: while one is under way the next gathers, so several pieces are hashed side by side when
//! they come fast, and none waits when they come slowly. A piece that failed with several contributors is suspect:
//! it is fetched from one peer alone, so the next failure has one culprit and no innocent is ever banned.

use core::net::SocketAddr;
use std::collections::{BTreeMap, BTreeSet};

use crate::disk::HashPiece;
use crate::ids::PieceIndex;

/// The pieces under way, and those that failed before.
#[derive(Debug, Default)]
pub(crate) struct Verify {
    under_way: BTreeMap<PieceIndex, Progress>,
    waiting: Vec<HashPiece>,
    batches_out: u32,
    /// Writes not yet returned, early ones included, and the bytes of the early ones.
    writes_out: BTreeMap<PieceIndex, (u32, u64)>,
    early_bytes: u64,
    suspects: BTreeSet<PieceIndex>,
    bytes: u64,
}

#[derive(Debug)]
struct Progress {
    contributors: BTreeSet<SocketAddr>,
    bytes: u64,
    /// To be hashed from disk, once all writes returned.
    read_back: bool,
    good: Option<bool>,
}

/// Hash and write are over.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) piece: PieceIndex,
    pub(crate) good: bool,
    /// Who alone sent it all, if one peer did.
    pub(crate) sole: Option<SocketAddr>,
}

impl Verify {
    /// A whole piece comes in. Its blocks, if all are in memory; else it is read back after its last write.
    pub(crate) fn begin(
        &mut self,
        piece: PieceIndex,
        blocks: Option<Vec<crate::block::BlockData>>,
        contributors: BTreeSet<SocketAddr>,
        bytes: u64,
    ) {
        let read_back = blocks.is_none();
        if let Some(blocks) = blocks {
            self.waiting.push(HashPiece { piece, blocks });
        }
        self.bytes += bytes;
        let progress = Progress { contributors, bytes, read_back, good: None };
        assert!(self.under_way.insert(piece, progress).is_none(), "a piece is verified once at a time");
        self.read_back_if_written(piece);
    }

    /// A write of a part of `piece` was given to the disk; `early_bytes` of it before the piece was whole.
    pub(crate) fn on_write_out(&mut self, piece: PieceIndex, early_bytes: u64) {
        let (count, bytes) = self.writes_out.entry(piece).or_default();
        *count += 1;
        *bytes += early_bytes;
        self.early_bytes += early_bytes;
    }

    /// Whether a write of `piece` has not returned.
    pub(crate) fn is_writing(&self, piece: PieceIndex) -> bool {
        self.writes_out.contains_key(&piece)
    }

    /// A write returned and succeeded.
    pub(crate) fn on_written(&mut self, piece: PieceIndex) -> Option<Verdict> {
        if let Some((count, bytes)) = self.writes_out.get_mut(&piece) {
            *count -= 1;
            if *count == 0 {
                self.early_bytes -= *bytes;
                self.writes_out.remove(&piece);
            }
        }
        self.read_back_if_written(piece);
        self.verdict(piece)
    }

    /// The hash of a piece is known.
    pub(crate) fn on_hashed(&mut self, piece: PieceIndex, good: bool) -> Option<Verdict> {
        self.under_way.get_mut(&piece)?.good = Some(good);
        self.verdict(piece)
    }

    /// The hash of a piece could not be taken: it is read back and tried again, once all of it is written.
    pub(crate) fn on_hash_failed(&mut self, piece: PieceIndex) {
        if let Some(progress) = self.under_way.get_mut(&piece) {
            progress.read_back = true;
        }
        self.read_back_if_written(piece);
    }

    /// The next pieces to hash side by side, while fewer than enough batches are out.
    pub(crate) fn next_batch(&mut self) -> Option<Vec<HashPiece>> {
        if self.batches_out >= BATCHES_OUT_MAX || self.waiting.is_empty() {
            return None;
        }
        self.batches_out += 1;
        let count = self.waiting.len().min(BATCH_PIECES_MAX);
        Some(self.waiting.drain(..count).collect())
    }

    pub(crate) fn on_batch_over(&mut self) {
        self.batches_out -= 1;
    }

    /// Bytes that memory still holds of whole pieces and of early writes.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes + self.early_bytes
    }

    /// Bytes of early writes that have not returned.
    pub(crate) fn early_bytes(&self) -> u64 {
        self.early_bytes
    }

    /// Whether any piece must come from one peer alone.
    pub(crate) fn has_suspects(&self) -> bool {
        !self.suspects.is_empty()
    }

    /// Whether `piece` must come from one peer alone.
    pub(crate) fn is_suspect(&self, piece: PieceIndex) -> bool {
        self.suspects.contains(&piece)
    }

    fn read_back_if_written(&mut self, piece: PieceIndex) {
        if self.is_writing(piece) {
            return;
        }
        if let Some(progress) = self.under_way.get_mut(&piece)
            && std::mem::take(&mut progress.read_back)
        {
            self.waiting.push(HashPiece { piece, blocks: Vec::new() });
        }
    }

    fn verdict(&mut self, piece: PieceIndex) -> Option<Verdict> {
        if self.is_writing(piece) {
            return None;
        }
        let good = self.under_way.get(&piece)?.good?;
        let progress = self.under_way.remove(&piece)?;
        self.bytes -= progress.bytes;
        let sole =
            (progress.contributors.len() == 1).then(|| progress.contributors.first().copied()).flatten();
        if good {
            self.suspects.remove(&piece)
        } else {
            self.suspects.insert(piece)
        };
        Some(Verdict { piece, good, sole })
    }
}

/// With one batch hashing and one on its way there, both cores are busy and the next still gathers.
const BATCHES_OUT_MAX: u32 = 2;
const BATCH_PIECES_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::BlockData;

    fn piece(n: u32) -> PieceIndex {
        PieceIndex::new(n)
    }

    fn begin(verify: &mut Verify, n: u32, in_memory: bool, from: &[u16]) {
        let contributors = from.iter().map(|port| SocketAddr::from(([10, 0, 0, 1], *port))).collect();
        verify.on_write_out(piece(n), 0);
        verify.begin(piece(n), in_memory.then(|| vec![BlockData::absent(5)]), contributors, 5);
    }

    #[test]
    fn have_needs_both_hash_and_write() {
        for hash_first in [true, false] {
            let mut verify = Verify::default();
            begin(&mut verify, 1, true, &[1]);
            assert_eq!(verify.next_batch().map(|batch| batch.len()), Some(1));
            let (first, second) = if hash_first {
                (verify.on_hashed(piece(1), true), verify.on_written(piece(1)))
            } else {
                (verify.on_written(piece(1)), verify.on_hashed(piece(1), true))
            };
            assert_eq!(first, None);
            assert!(second.is_some_and(|verdict| verdict.good));
            assert!(verify.under_way.is_empty() && verify.bytes() == 0);
        }
    }

    #[test]
    fn a_piece_on_disk_is_hashed_after_its_last_write() {
        let mut verify = Verify::default();
        verify.on_write_out(piece(1), 0);
        begin(&mut verify, 1, false, &[1]);
        assert_eq!((verify.on_written(piece(1)), verify.next_batch()), (None, None));
        assert_eq!(verify.on_written(piece(1)), None);
        assert_eq!(verify.next_batch(), Some(vec![HashPiece { piece: piece(1), blocks: Vec::new() }]));
    }

    #[test]
    fn hashes_gather_while_batches_are_out() {
        let mut verify = Verify::default();
        (0..2).for_each(|n| {
            begin(&mut verify, n, true, &[1]);
            assert!(verify.next_batch().is_some());
        });
        (2..30).for_each(|n| begin(&mut verify, n, true, &[1]));
        assert_eq!(verify.next_batch(), None);
        verify.on_batch_over();
        assert_eq!(verify.next_batch().map(|batch| batch.len()), Some(16));
    }

    #[test]
    fn a_failure_of_many_makes_the_piece_suspect_and_blames_nobody() {
        let mut verify = Verify::default();
        let fail = |verify: &mut Verify, from: &[u16]| {
            begin(verify, 1, true, from);
            verify.on_written(piece(1));
            verify.on_hashed(piece(1), false).unwrap()
        };
        let verdict = fail(&mut verify, &[1, 2]);
        assert_eq!((verdict.sole, verify.is_suspect(piece(1))), (None, true));
        let verdict = fail(&mut verify, &[2]);
        assert!(verdict.sole.is_some());
    }
}
