//! When to write down what was done: a journal record for each good piece at once, a snapshot every five seconds of
//! activity, one job at a time so that they stay in order.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::ids::PieceIndex;
use crate::time::Instant;

/// What of one torrent is not written down yet.
#[derive(Debug, Default)]
pub(crate) struct Resume {
    enabled: bool,
    good: Vec<PieceIndex>,
    touched: BTreeSet<PieceIndex>,
    job_out: bool,
    /// When something was recorded that no snapshot holds.
    dirty_since: Option<Instant>,
}

/// Something to write down.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Save {
    /// A journal record.
    Record {
        /// Pieces whose hash was right and whose write returned.
        good: Vec<PieceIndex>,
        /// Pieces of which a part was written.
        touched: Vec<PieceIndex>,
    },
    /// Everything.
    Snapshot,
}

impl Resume {
    /// State can be saved.
    pub(crate) fn enable(&mut self) {
        self.enabled = true;
    }

    pub(crate) fn is_enabled(&self) -> bool {
        self.enabled
    }

    pub(crate) fn on_good(&mut self, piece: PieceIndex) {
        if self.enabled {
            self.good.push(piece);
            self.touched.remove(&piece);
        }
    }

    /// A part of a piece was written; its file is newer than the journal knows.
    pub(crate) fn on_touched(&mut self, piece: PieceIndex) {
        if self.enabled {
            self.touched.insert(piece);
        }
    }

    /// What is to be written down now.
    pub(crate) fn poll(&mut self, now: Instant) -> Option<Save> {
        if self.job_out || !self.enabled {
            return None;
        }
        if !self.good.is_empty() || !self.touched.is_empty() {
            self.job_out = true;
            self.dirty_since.get_or_insert(now);
            let touched = std::mem::take(&mut self.touched).into_iter().collect();
            return Some(Save::Record { good: std::mem::take(&mut self.good), touched });
        }
        if self.deadline().is_some_and(|at| at <= now) {
            self.job_out = true;
            self.dirty_since = None;
            return Some(Save::Snapshot);
        }
        None
    }

    /// The job is over. What failed is written down again later.
    pub(crate) fn on_saved(&mut self, now: Instant, failed: Option<Save>) {
        self.job_out = false;
        match failed {
            Some(Save::Record { good, touched }) => {
                self.good.extend(good);
                self.touched.extend(touched);
            }
            Some(Save::Snapshot) => self.dirty_since = Some(now),
            None => {}
        }
    }

    /// A snapshot is wanted soon.
    pub(crate) fn on_changed(&mut self, now: Instant) {
        self.dirty_since.get_or_insert(now);
    }

    /// When the next snapshot is due.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.dirty_since.filter(|_| self.enabled && !self.job_out).map(|since| since + SNAPSHOT_EVERY)
    }
}

const SNAPSHOT_EVERY: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_go_at_once_and_gather_while_one_is_out() {
        let mut resume = Resume::default();
        resume.enable();
        let piece = PieceIndex::new;
        resume.on_good(piece(1));
        assert_eq!(resume.poll(Instant(0)), Some(Save::Record { good: vec![piece(1)], touched: vec![] }));
        resume.on_touched(piece(2));
        resume.on_touched(piece(3));
        resume.on_good(piece(2));
        assert_eq!(resume.poll(Instant(1)), None);
        resume.on_saved(Instant(2), None);
        assert_eq!(
            resume.poll(Instant(3)),
            Some(Save::Record { good: vec![piece(2)], touched: vec![piece(3)] })
        );
        resume.on_saved(Instant(4), None);
        let five = Instant(5_000_000_000);
        assert_eq!((resume.poll(Instant(5)), resume.deadline()), (None, Some(five)));
        assert_eq!((resume.poll(five), resume.poll(five)), (Some(Save::Snapshot), None));
        resume.on_saved(five, None);
        assert_eq!(resume.deadline(), None);
    }

    #[test]
    fn without_a_place_nothing_is_kept() {
        let mut resume = Resume::default();
        resume.on_good(PieceIndex::new(1));
        assert_eq!(resume.poll(Instant(0)), None);
    }
}
