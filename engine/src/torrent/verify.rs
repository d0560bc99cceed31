//! Pieces on their way from received to have: hashed and written, in either order, then judged.
//!
//! Hashes go out in batches: several pieces side by side cost a processor a third of what they cost one by one. When
//! pieces come fast the next few are waited for, and none waits when they come slowly. Who lied when a piece failed is
//! for `smart_ban` to say.

use core::net::SocketAddr;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::smart_ban::{Senders, Shares, SmartBan};
use crate::disk::{BlockDigest, HashPiece, PieceHash, Run};
use crate::ids::{BlockIndex, PieceIndex};
use crate::limits::BLOCK_BYTES;
use crate::time::Instant;

/// The pieces under way, and those that failed before.
#[derive(Debug, Default)]
pub(crate) struct Verify {
    under_way: BTreeMap<PieceIndex, Progress>,
    waiting: Vec<HashPiece>,
    /// When the last piece became whole.
    whole_at: Option<Instant>,
    /// Until then pieces that wait may go on waiting for others.
    gather_until: Option<Instant>,
    batches_out: u32,
    /// Writes not yet returned, early ones included, and the bytes of the early ones.
    writes_out: BTreeMap<PieceIndex, (u32, u64)>,
    early_bytes: u64,
    /// The digests of blocks as they came, of pieces that will be read back.
    stored: BTreeMap<PieceIndex, BTreeMap<BlockIndex, BlockDigest>>,
    /// Pieces of which something was written, or was to be, when their file was found to be missing or short: that they do
    /// not read as they came is no news of the disk.
    gone: BTreeSet<PieceIndex>,
    smart_ban: SmartBan,
    /// In the pieces under way that several sent.
    shares: Shares,
    bytes: u64,
}

#[derive(Debug)]
struct Progress {
    senders: Senders,
    bytes: u64,
    /// To be hashed from disk, once all writes returned.
    read_back: bool,
    /// What was hashed, or will be, comes from disk.
    from_disk: bool,
    hash: Option<PieceHash>,
    /// A file of it came to be in doubt: what was written may be gone, whatever the hash of what came says.
    doubted: bool,
}

/// Hash and write are over.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) piece: PieceIndex,
    pub(crate) good: bool,
    /// Who is known by it to have sent wrong data.
    pub(crate) liars: Vec<SocketAddr>,
    /// What the disk gave back is not what was received, and nothing is known that would explain it: nobody is to blame but
    /// the disk.
    pub(crate) spoilt: bool,
}

impl Verify {
    /// A whole piece comes in. Its blocks, if all are in memory; else it is read back after its last write.
    pub(crate) fn begin(
        &mut self,
        now: Instant,
        piece: PieceIndex,
        blocks: Option<Vec<crate::block::BlockData>>,
        senders: Senders,
        bytes: u64,
    ) {
        let read_back = blocks.is_none();
        let comes_fast = self.whole_at.replace(now).is_some_and(|before| now.since(before) < GATHER_TIME);
        if self.waiting.is_empty() {
            self.gather_until = comes_fast.then(|| now + GATHER_TIME);
        }
        if let Some(blocks) = blocks {
            self.wait(piece, blocks);
        }
        self.bytes += bytes;
        self.shares.add(&senders.sources());
        let progress =
            Progress { senders, bytes, read_back, from_disk: read_back, hash: None, doubted: false };
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

    /// These blocks were written, and had these digests when they came, in order.
    pub(crate) fn on_stored(&mut self, piece: PieceIndex, runs: &[Run], digests: &[BlockDigest]) {
        if digests.is_empty() {
            return;
        }
        let blocks = runs.iter().flat_map(|run| (run.begin / BLOCK_BYTES..).zip(&run.blocks));
        let stored = self.stored.entry(piece).or_default();
        stored.extend(blocks.zip(digests).map(|((block, _), digest)| (BlockIndex(block), *digest)));
    }

    /// The hash of a piece is known.
    pub(crate) fn on_hashed(&mut self, piece: PieceIndex, hash: PieceHash) -> Option<Verdict> {
        self.under_way.get_mut(&piece)?.hash = Some(hash);
        self.verdict(piece)
    }

    /// The hash of a piece could not be taken: it is read back and tried again, once all of it is written.
    pub(crate) fn on_hash_failed(&mut self, piece: PieceIndex) {
        if let Some(progress) = self.under_way.get_mut(&piece) {
            progress.read_back = true;
            progress.from_disk = true;
        }
        self.read_back_if_written(piece);
    }

    /// What was written of these pieces may be gone. Those that are good by then are read back.
    pub(crate) fn on_doubted(&mut self, pieces: impl Iterator<Item = PieceIndex>) {
        if self.under_way.is_empty() && self.stored.is_empty() {
            return;
        }
        for piece in pieces {
            let progress = self.under_way.get_mut(&piece);
            if progress.is_some() || self.stored.contains_key(&piece) {
                self.gone.insert(piece);
            }
            if let Some(progress) = progress {
                progress.doubted = true;
            }
        }
    }

    /// The next pieces to hash side by side, while fewer than enough batches are out. With `more` to come, a batch waits
    /// for it a little.
    pub(crate) fn next_batch(&mut self, now: Instant, more: bool) -> Option<Vec<HashPiece>> {
        if self.batches_out >= BATCHES_OUT_MAX || self.waiting.is_empty() {
            return None;
        }
        if more && self.gather_until.is_some_and(|until| now < until) && !self.has_gathered() {
            return None;
        }
        self.gather_until = None;
        self.batches_out += 1;
        let count = self.waiting.len().min(BATCH_PIECES_MAX);
        Some(self.waiting.drain(..count).collect())
    }

    /// When a batch that gathers goes out as it is.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.gather_until.filter(|_| self.batches_out < BATCHES_OUT_MAX && !self.waiting.is_empty())
    }

    /// Whether what waits is worth hashing side by side.
    fn has_gathered(&self) -> bool {
        let bytes = || {
            self.waiting
                .iter()
                .flat_map(|piece| &piece.blocks)
                .map(|block| u64::from(block.len()))
                .sum::<u64>()
        };
        self.waiting.len() >= LANES || bytes() >= GATHER_BYTES_MAX
    }

    pub(crate) fn on_batch_over(&mut self) {
        self.batches_out -= 1;
    }

    /// Bytes that memory still holds of whole pieces and of early writes.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes + self.early_bytes
    }

    /// Whether any piece must come from one peer alone.
    pub(crate) fn has_suspects(&self) -> bool {
        !self.smart_ban.is_empty()
    }

    /// Whether `piece` must come from one peer alone.
    pub(crate) fn is_suspect(&self, piece: PieceIndex) -> bool {
        self.smart_ban.is_suspect(piece)
    }

    /// In the pieces that several sent and that are not judged, and in those that failed.
    pub(crate) fn shares(&self) -> [&Shares; 2] {
        [&self.shares, self.smart_ban.shares()]
    }

    fn wait(&mut self, piece: PieceIndex, blocks: Vec<crate::block::BlockData>) {
        let digests = self.smart_ban.wants_digests(piece);
        self.waiting.push(HashPiece { piece, blocks, digests });
    }

    fn read_back_if_written(&mut self, piece: PieceIndex) {
        if self.is_writing(piece) {
            return;
        }
        if let Some(progress) = self.under_way.get_mut(&piece)
            && std::mem::take(&mut progress.read_back)
        {
            self.wait(piece, Vec::new());
        }
    }

    fn verdict(&mut self, piece: PieceIndex) -> Option<Verdict> {
        if self.is_writing(piece) {
            return None;
        }
        let progress = self.under_way.get_mut(&piece)?;
        if progress.hash.as_ref()?.good && std::mem::take(&mut progress.doubted) {
            (progress.hash, progress.from_disk) = (None, true);
            self.wait(piece, Vec::new());
            return None;
        }
        let Progress { senders, bytes, from_disk, hash, .. } = self.under_way.remove(&piece)?;
        let PieceHash { good, digests } = hash?;
        self.bytes -= bytes;
        self.shares.remove(&senders.sources());
        let stored = self.stored.remove(&piece).unwrap_or_default();
        let is_other = !good && from_disk && !senders.sent(&stored, &digests);
        let spoilt = !self.gone.remove(&piece) && is_other;
        let liars = if is_other {
            Vec::new()
        } else if good {
            self.smart_ban.on_passed(piece, &digests)
        } else {
            self.smart_ban.on_failed(piece, senders, digests).into_iter().collect()
        };
        Some(Verdict { piece, good, liars, spoilt })
    }
}

/// With one batch hashing and one on its way there, both cores are busy and the next still gathers.
const BATCHES_OUT_MAX: u32 = 2;
const BATCH_PIECES_MAX: usize = 16;
/// Pieces side by side that a processor hashes at its full speed.
const LANES: usize = 4;
/// More than this does not wait for other pieces.
const GATHER_BYTES_MAX: u64 = 8 << 20;
/// A piece that comes so soon after another may wait so long for the next: of pieces of 1 MiB none waits at
/// less than 100 MB/s.
const GATHER_TIME: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::BlockData;

    fn piece(n: u32) -> PieceIndex {
        PieceIndex::new(n)
    }

    fn begin(verify: &mut Verify, n: u32, in_memory: bool, from: &[u16]) {
        begin_at(Instant::START, verify, n, in_memory, from);
    }

    fn begin_at(now: Instant, verify: &mut Verify, n: u32, in_memory: bool, from: &[u16]) {
        let mut senders = Senders::new(from.len() as u32);
        for (block, port) in (0..).zip(from) {
            senders.add(BlockIndex(block), SocketAddr::from(([10, 0, 0, 1], *port)));
        }
        verify.on_write_out(piece(n), 0);
        verify.begin(now, piece(n), in_memory.then(|| vec![BlockData::absent(5)]), senders, 5);
    }

    fn hash(good: bool) -> PieceHash {
        PieceHash { good, digests: Vec::new() }
    }

    #[test]
    fn have_needs_both_hash_and_write() {
        for hash_first in [true, false] {
            let mut verify = Verify::default();
            begin(&mut verify, 1, true, &[1]);
            assert_eq!(verify.next_batch(Instant::START, false).map(|batch| batch.len()), Some(1));
            let (first, second) = if hash_first {
                (verify.on_hashed(piece(1), hash(true)), verify.on_written(piece(1)))
            } else {
                (verify.on_written(piece(1)), verify.on_hashed(piece(1), hash(true)))
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
        assert_eq!((verify.on_written(piece(1)), verify.next_batch(Instant::START, false)), (None, None));
        assert_eq!(verify.on_written(piece(1)), None);
        assert_eq!(
            verify.next_batch(Instant::START, false),
            Some(vec![HashPiece { piece: piece(1), blocks: Vec::new(), digests: false }])
        );
    }

    /// A piece that was written early is read back and fails: received and read back are letters. Its file may have come to
    /// be in doubt in between.
    fn spoilt(received: &[u8], read_back: &[u8], in_doubt: bool) -> (bool, usize, bool) {
        let mut verify = Verify::default();
        let of = |letters: &[u8]| letters.iter().map(|one| BlockDigest((*one).into())).collect::<Vec<_>>();
        verify.on_write_out(piece(1), 0);
        let runs = [Run { begin: 0, blocks: vec![BlockData::absent(BLOCK_BYTES); 2] }];
        verify.on_stored(piece(1), &runs, &of(received));
        assert_eq!(verify.on_written(piece(1)), None);
        if in_doubt {
            verify.on_doubted([piece(0), piece(1)].into_iter());
        }
        begin(&mut verify, 1, false, &[1, 1]);
        assert_eq!(verify.on_written(piece(1)), None);
        let digests = of(read_back);
        let verdict = verify.on_hashed(piece(1), PieceHash { good: false, digests }).unwrap();
        assert!(verify.stored.is_empty() && verify.gone.is_empty());
        (verdict.spoilt, verdict.liars.len(), verify.is_suspect(piece(1)))
    }

    #[test]
    fn what_the_disk_spoilt_blames_nobody() {
        assert_eq!(spoilt(b"ax", b"ax", false), (false, 1, true), "it came so");
        assert_eq!(spoilt(b"ab", b"ax", false), (true, 0, false));
        assert_eq!(spoilt(b"ab", b"", false), (true, 0, false), "it is gone");
        assert_eq!(spoilt(b"", b"ax", false), (true, 0, false), "nobody knows what came");
    }

    #[test]
    fn a_file_that_was_cut_is_no_failing_disk() {
        assert_eq!(spoilt(b"ab", b"ax", true), (false, 0, false));
        assert_eq!(spoilt(b"ax", b"ax", true), (false, 1, true), "it came so");
    }

    #[test]
    fn a_right_piece_in_doubt_is_read_back_and_a_wrong_one_blames_who_sent_it() {
        for right in [true, false] {
            let mut verify = Verify::default();
            begin(&mut verify, 1, true, &[1]);
            assert!(verify.next_batch(Instant::START, false).is_some());
            verify.on_doubted([piece(0), piece(1)].into_iter());
            assert_eq!(verify.on_written(piece(1)), None);
            let verdict = verify.on_hashed(piece(1), hash(right));
            assert_eq!(verdict.is_none(), right);
            if let Some(verdict) = verdict {
                assert!(!verdict.spoilt && verdict.liars.len() == 1);
                continue;
            }
            verify.on_batch_over();
            let batch = verify.next_batch(Instant::START, false).unwrap();
            assert!(batch.iter().all(|asked| asked.piece == piece(1) && asked.blocks.is_empty()));
            assert!(verify.on_hashed(piece(1), hash(true)).is_some_and(|verdict| verdict.good));
        }
    }

    #[test]
    fn hashes_gather_while_batches_are_out() {
        let mut verify = Verify::default();
        (0..2).for_each(|n| {
            begin(&mut verify, n, true, &[1]);
            assert!(verify.next_batch(Instant::START, false).is_some());
        });
        (2..30).for_each(|n| begin(&mut verify, n, true, &[1]));
        assert_eq!(verify.next_batch(Instant::START, false), None);
        verify.on_batch_over();
        assert_eq!(verify.next_batch(Instant::START, false).map(|batch| batch.len()), Some(16));
    }

    #[test]
    fn pieces_that_come_fast_wait_for_each_other_and_others_do_not() {
        let at = |ms: u64| Instant::START + Duration::from_millis(ms);
        let mut verify = Verify::default();
        let mut next = |now: u64, came: Option<u32>, more: bool| {
            came.iter().for_each(|n| begin_at(at(now), &mut verify, *n, true, &[1]));
            let batch = verify.next_batch(at(now), more).map(|batch| batch.len());
            batch.iter().for_each(|_| verify.on_batch_over());
            (batch, verify.deadline())
        };
        assert_eq!(next(100, Some(0), true), (Some(1), None), "the first");
        assert_eq!(next(110, Some(1), true), (Some(1), None), "comes slowly");
        assert_eq!(next(119, Some(2), true), (None, Some(at(129))));
        assert_eq!(next(121, Some(3), true), (None, Some(at(129))));
        assert_eq!(next(129, None, true), (Some(2), None), "waited long enough");
        assert_eq!(next(130, Some(4), true), (None, Some(at(140))));
        assert_eq!(next(130, Some(5), true), (None, Some(at(140))));
        assert_eq!(next(131, Some(6), true), (None, Some(at(140))));
        assert_eq!(next(132, Some(7), true), (Some(4), None), "as many as go side by side");
        assert_eq!(next(133, Some(8), true), (None, Some(at(143))));
        assert_eq!(next(134, None, false), (Some(1), None), "nothing more comes");
    }

    #[test]
    fn a_failure_of_many_makes_the_piece_suspect_and_blames_nobody() {
        let mut verify = Verify::default();
        let fail = |verify: &mut Verify, from: &[u16]| {
            begin(verify, 1, true, from);
            verify.on_written(piece(1));
            verify.on_hashed(piece(1), hash(false)).unwrap()
        };
        let verdict = fail(&mut verify, &[1, 2]);
        assert_eq!((verdict.liars, verify.is_suspect(piece(1))), (vec![], true));
        let verdict = fail(&mut verify, &[2]);
        assert_eq!(verdict.liars.len(), 1);
    }
}
