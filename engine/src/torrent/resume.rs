//! When to write down what was done: a journal record for each good piece at once, which says as well what was only
//! touched since the last one; a snapshot every five seconds of activity or when much was written. One job at a time, so
//! that they stay in order.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::disk::Saved;
use crate::ids::PieceIndex;
use crate::time::Instant;

/// What of one torrent is not written down yet.
#[derive(Debug, Default)]
pub(crate) struct Resume {
    enabled: bool,
    /// What is on disk says that nobody writes: the next thing to write down is a snapshot.
    closed: bool,
    good: Vec<PieceIndex>,
    touched: BTreeSet<PieceIndex>,
    /// When those that were touched are written down at the latest.
    touched_by: Option<Instant>,
    doubted: BTreeSet<PieceIndex>,
    /// A record of pieces in doubt is under way.
    doubts_recording: bool,
    job_out: bool,
    /// Since when there is something that no snapshot holds.
    dirty_since: Option<Instant>,
    /// The same of what the snapshot under way holds.
    saving_since: Option<Instant>,
    /// Bytes written that no snapshot has synced.
    unsynced_bytes: u64,
    /// Pieces came to be in doubt that the last snapshot may claim; and those that the one under way says it of.
    doubts_unsaved: bool,
    doubts_saving: bool,
}

/// Something to write down.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Save {
    /// A journal record.
    Record {
        /// Pieces whose hash was right and whose write returned.
        good: Vec<PieceIndex>,
        /// Pieces of which a part was written, and pieces that were found gone.
        touched: Vec<PieceIndex>,
        /// Pieces that may be gone.
        doubted: Vec<PieceIndex>,
    },
    /// Everything.
    Snapshot,
}

impl Resume {
    /// The torrent is open; state can be saved, unless there is nowhere to.
    pub(crate) fn enable(&mut self, saved: Saved) {
        self.enabled = saved != Saved::Nowhere;
        self.closed = saved == Saved::AsClosed;
    }

    pub(crate) fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// Whether what is on disk is as an earlier run closed it, and still says all there is to say of pieces.
    pub(crate) fn is_as_closed(&self) -> bool {
        self.closed && !self.owes_record() && self.dirty_since.is_none()
    }

    fn owes_record(&self) -> bool {
        !self.good.is_empty() || !self.touched.is_empty() || !self.doubted.is_empty()
    }

    fn is_record_due(&self, now: Instant) -> bool {
        let is_urgent = !self.good.is_empty() || !self.doubted.is_empty();
        is_urgent || self.touched_by.is_some_and(|at| at <= now)
    }

    pub(crate) fn on_good(&mut self, now: Instant, piece: PieceIndex) {
        if self.enabled {
            self.good.push(piece);
            self.touched.remove(&piece);
            self.touched_by = self.touched_by.filter(|_| !self.touched.is_empty());
            self.doubted.remove(&piece);
            self.dirty_since.get_or_insert(now);
        }
    }

    /// A piece may be gone: were the process to end now, it is to be hashed. A snapshot is wanted at once.
    pub(crate) fn on_doubted(&mut self, piece: PieceIndex) {
        if self.enabled {
            self.doubts_unsaved = true;
            self.good.retain(|good| *good != piece);
            self.doubted.insert(piece);
        }
    }

    /// A piece is gone.
    pub(crate) fn on_lost(&mut self, now: Instant, piece: PieceIndex) {
        if self.enabled {
            self.good.retain(|good| *good != piece);
            self.doubted.remove(&piece);
            self.touched.insert(piece);
            self.touched_by = Some(now);
            self.dirty_since.get_or_insert(now);
        }
    }

    /// So many bytes more are on their way to the disk.
    pub(crate) fn on_unsynced(&mut self, bytes: u64) {
        self.unsynced_bytes += bytes;
    }

    /// A part of a piece was written; its file is newer than the journal knows, which it may be for a while. Where an earlier
    /// run closed it, it may not: all would be hashed again.
    pub(crate) fn on_touched(&mut self, now: Instant, piece: PieceIndex) {
        if self.enabled {
            self.touched.insert(piece);
            self.touched_by.get_or_insert(if self.closed { now } else { now + TOUCHED_WAIT });
        }
    }

    /// Whether what was saved may claim a piece that is in doubt.
    pub(crate) fn owes_doubts(&self) -> bool {
        self.doubts_unsaved || self.doubts_saving
    }

    /// Whether a later run would not know yet that pieces are in doubt.
    pub(crate) fn owes_doubts_record(&self) -> bool {
        self.doubts_recording || !self.doubted.is_empty()
    }

    /// What is to be written down now.
    pub(crate) fn poll(&mut self, now: Instant) -> Option<Save> {
        if self.job_out || !self.enabled {
            return None;
        }
        if self.is_record_due(now) && !self.closed {
            self.job_out = true;
            self.dirty_since.get_or_insert(now);
            self.touched_by = None;
            let touched = std::mem::take(&mut self.touched).into_iter().collect();
            let doubted: Vec<_> = std::mem::take(&mut self.doubted).into_iter().collect();
            self.doubts_recording = !doubted.is_empty();
            return Some(Save::Record { good: std::mem::take(&mut self.good), touched, doubted });
        }
        if self.is_record_due(now) || self.snapshot_at().is_some_and(|at| at <= now) {
            self.job_out = true;
            self.unsynced_bytes = 0;
            self.doubts_saving = std::mem::take(&mut self.doubts_unsaved);
            self.saving_since = self.dirty_since.take();
            return Some(Save::Snapshot);
        }
        None
    }

    /// The job is over. What failed is written down again later.
    pub(crate) fn on_saved(&mut self, failed: Option<Save>) {
        self.job_out = false;
        self.doubts_recording = false;
        let saving = std::mem::take(&mut self.doubts_saving);
        match failed {
            Some(Save::Record { good, touched, doubted }) => {
                // What became of a piece meanwhile counts.
                let news =
                    |piece: &PieceIndex| !self.touched.contains(piece) && !self.doubted.contains(piece);
                let good: Vec<_> = good.into_iter().filter(news).collect();
                let doubted: Vec<_> =
                    doubted.into_iter().filter(|piece| !self.touched.contains(piece)).collect();
                let is_good: BTreeSet<_> = self.good.iter().copied().collect();
                self.touched.extend(touched.into_iter().filter(|piece| !is_good.contains(piece)));
                self.doubted.extend(doubted.into_iter().filter(|piece| !is_good.contains(piece)));
                self.good.extend(good);
                if !self.touched.is_empty() {
                    self.touched_by = Some(Instant::START);
                }
            }
            Some(Save::Snapshot) => {
                self.dirty_since = self.saving_since.or(self.dirty_since);
                self.doubts_unsaved |= saving;
            }
            None => self.closed = false,
        }
    }

    /// Everybody begins: what is not written down yet is, soon.
    pub(crate) fn on_begun(&mut self, now: Instant) {
        if !self.closed {
            self.on_changed(now);
        }
    }

    /// A snapshot is wanted soon.
    pub(crate) fn on_changed(&mut self, now: Instant) {
        self.dirty_since.get_or_insert(now);
    }

    /// When something is to be written down that can wait.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let may = self.enabled && !self.job_out;
        [self.touched_by, self.snapshot_at()].into_iter().flatten().min().filter(|_| may)
    }

    fn snapshot_at(&self) -> Option<Instant> {
        let since = self.dirty_since?;
        let is_urgent = self.unsynced_bytes >= UNSYNCED_BYTES_MAX || self.doubts_unsaved;
        Some(if is_urgent { since } else { since + SNAPSHOT_EVERY })
    }
}

/// With a second for the disk to sync what was written meanwhile, a power cut costs the last five seconds at most.
const SNAPSHOT_EVERY: Duration = Duration::from_secs(4);
/// A file may be newer by this than what is written down of it, and more: ten seconds are forgiven.
const TOUCHED_WAIT: Duration = Duration::from_secs(2);
/// More than this is not left to be synced at the end, when somebody waits for it.
const UNSYNCED_BYTES_MAX: u64 = 256 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_go_at_once_and_gather_while_one_is_out() {
        let mut resume = Resume::default();
        resume.enable(Saved::Begun);
        let piece = PieceIndex::new;
        let record = |good: &[u32], touched: &[u32], doubted: &[u32]| {
            let pieces = |numbers: &[u32]| numbers.iter().map(|number| piece(*number)).collect();
            Some(Save::Record { good: pieces(good), touched: pieces(touched), doubted: pieces(doubted) })
        };
        resume.on_good(Instant(0), piece(1));
        assert_eq!(resume.poll(Instant(0)), record(&[1], &[], &[]));
        resume.on_touched(Instant(1), piece(2));
        resume.on_touched(Instant(1), piece(3));
        resume.on_good(Instant(1), piece(2));
        assert_eq!(resume.poll(Instant(1)), None);
        resume.on_saved(None);
        assert_eq!(resume.poll(Instant(3)), record(&[2], &[3], &[]));
        resume.on_saved(None);
        let four = Instant(4_000_000_000);
        assert_eq!((resume.poll(Instant(5)), resume.deadline()), (None, Some(four)));
        assert_eq!((resume.poll(four), resume.poll(four)), (Some(Save::Snapshot), None));
        resume.on_saved(Some(Save::Snapshot));
        assert_eq!(
            resume.poll(four),
            Some(Save::Snapshot),
            "what failed is due at once when it is tried again"
        );
        // What comes while it is under way is as old as it is, not as the next snapshot.
        resume.on_good(four, piece(4));
        resume.on_saved(None);
        assert_eq!(resume.poll(four), record(&[4], &[], &[]));
        resume.on_saved(None);
        assert_eq!(resume.deadline(), Some(Instant(8_000_000_000)));
    }

    #[test]
    fn what_was_only_touched_waits_for_a_better_reason_a_little_while() {
        let mut resume = Resume::default();
        resume.enable(Saved::Begun);
        let (first, second) = (PieceIndex::new(1), PieceIndex::new(2));
        let record = |good: &[PieceIndex], touched: &[PieceIndex]| {
            Some(Save::Record { good: good.to_vec(), touched: touched.to_vec(), doubted: Vec::new() })
        };
        let due = Instant(5) + TOUCHED_WAIT;
        resume.on_touched(Instant(5), first);
        resume.on_touched(Instant(6), second);
        assert_eq!((resume.poll(Instant(6)), resume.deadline()), (None, Some(due)));
        resume.on_good(Instant(7), second);
        assert_eq!((resume.poll(Instant(7)), resume.deadline()), (record(&[second], &[first]), None));
        resume.on_saved(None);

        resume.on_touched(Instant(8), first);
        let due = Instant(8) + TOUCHED_WAIT;
        let failed = resume.poll(due);
        assert_eq!(failed, record(&[], &[first]));
        resume.on_saved(failed);
        assert_eq!(resume.poll(due), record(&[], &[first]), "what failed waits no more");
        resume.on_saved(None);

        // Nothing is said of it that is good by then.
        resume.on_touched(due, first);
        resume.on_good(due, first);
        assert_eq!(resume.poll(due), record(&[first], &[]));
        resume.on_saved(None);
        assert_eq!(resume.poll(due + TOUCHED_WAIT), Some(Save::Snapshot), "there is nothing to record");
    }

    #[test]
    fn what_was_closed_stays_so_until_a_snapshot_says_that_somebody_writes() {
        for is_lost in [true, false] {
            let mut resume = Resume::default();
            resume.enable(Saved::AsClosed);
            resume.on_begun(Instant(0));
            let far = Instant(60_000_000_000);
            assert_eq!((resume.poll(far), resume.is_as_closed()), (None, true));
            if is_lost {
                resume.on_lost(Instant(1), PieceIndex::new(3));
            } else {
                resume.on_touched(Instant(1), PieceIndex::new(3));
            }
            assert!(!resume.is_as_closed());
            for failed in [true, false] {
                assert_eq!(resume.poll(Instant(2)), Some(Save::Snapshot));
                assert_eq!(resume.poll(Instant(2)), None, "one at a time");
                resume.on_saved(failed.then_some(Save::Snapshot));
            }
            assert!(matches!(resume.poll(Instant(3)), Some(Save::Record { .. })));
            resume.on_saved(None);
            assert!(!resume.is_as_closed());
        }
    }

    #[test]
    fn much_that_was_written_is_synced_at_once() {
        let mut resume = Resume::default();
        resume.enable(Saved::Begun);
        resume.on_good(Instant(5), PieceIndex::new(1));
        assert!(matches!(resume.poll(Instant(5)), Some(Save::Record { .. })));
        resume.on_saved(None);
        resume.on_unsynced(UNSYNCED_BYTES_MAX - 1);
        assert_eq!(resume.poll(Instant(6)), None);
        resume.on_unsynced(1);
        assert_eq!((resume.deadline(), resume.poll(Instant(6))), (Some(Instant(5)), Some(Save::Snapshot)));
        resume.on_saved(None);
        resume.on_good(Instant(7), PieceIndex::new(2));
        assert!(matches!(resume.poll(Instant(7)), Some(Save::Record { .. })));
        resume.on_saved(None);
        assert_eq!(resume.poll(Instant(8)), None, "what was synced counts no more");
    }

    #[test]
    fn of_a_record_that_failed_only_what_still_holds_is_written_again() {
        let mut resume = Resume::default();
        resume.enable(Saved::Begun);
        let piece = PieceIndex::new;
        (1..=3).for_each(|number| resume.on_good(Instant(0), piece(number)));
        resume.on_doubted(piece(2));
        let failed = resume.poll(Instant(1));
        resume.on_lost(Instant(2), piece(1));
        resume.on_good(Instant(2), piece(2));
        resume.on_doubted(piece(3));
        resume.on_saved(failed);
        let left = Save::Record { good: vec![piece(2)], touched: vec![piece(1)], doubted: vec![piece(3)] };
        assert_eq!(resume.poll(Instant(3)), Some(left));
    }

    #[test]
    fn what_is_in_doubt_is_saved_at_once_and_owed_until_then() {
        let mut resume = Resume::default();
        resume.enable(Saved::Begun);
        assert!(!resume.owes_doubts());
        resume.on_doubted(PieceIndex::new(1));
        assert!(matches!(resume.poll(Instant(5)), Some(Save::Record { .. })));
        resume.on_saved(None);
        for failed in [true, false] {
            assert_eq!((resume.owes_doubts(), resume.poll(Instant(6))), (true, Some(Save::Snapshot)));
            assert!(resume.owes_doubts(), "until it is saved");
            resume.on_saved(failed.then_some(Save::Snapshot));
        }
        assert!(!resume.owes_doubts());
        assert_eq!(resume.poll(Instant(7)), None);
    }

    #[test]
    fn without_a_place_nothing_is_kept() {
        let mut resume = Resume::default();
        resume.on_good(Instant(0), PieceIndex::new(1));
        resume.on_doubted(PieceIndex::new(2));
        resume.on_lost(Instant(0), PieceIndex::new(3));
        assert_eq!((resume.poll(Instant(0)), resume.owes_doubts()), (None, false));
    }
}
