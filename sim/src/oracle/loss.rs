//! What the end of a process, or of its machine, costs: of all that was verified, what is not there again once the next
//! process has looked at its disk.

use std::collections::{BTreeMap, BTreeSet};

/// Of one host.
#[derive(Debug, Default)]
pub(super) struct LossWatch {
    /// By torrent and piece: when it was verified first.
    verified_at: BTreeMap<(usize, u32), u64>,
    /// The same of what a process had that ended, with the time of its end.
    missed: BTreeMap<(usize, u32), (u64, u64)>,
    /// By torrent: what is still to be hashed.
    unchecked: BTreeMap<usize, BTreeSet<u32>>,
    worst: u64,
}

impl LossWatch {
    /// A piece is verified and written.
    pub(super) fn on_good(&mut self, torrent: usize, piece: u32, now: u64) {
        let since = self.missed.remove(&(torrent, piece)).map_or(now, |(since, _)| since);
        self.verified_at.entry((torrent, piece)).or_insert(since);
    }

    /// A piece is no longer had, and for a reason.
    pub(super) fn on_gone(&mut self, torrent: usize, piece: u32) {
        self.verified_at.remove(&(torrent, piece));
        self.missed.remove(&(torrent, piece));
    }

    /// The process ends without a word.
    pub(super) fn on_killed(&mut self, now: u64) {
        let had = std::mem::take(&mut self.verified_at);
        for (piece, since) in had {
            self.missed.entry(piece).or_insert((since, now));
        }
        self.unchecked.clear();
    }

    /// The next one believes some pieces and will hash others. Gives how old the oldest is that is lost.
    pub(super) fn on_opened(
        &mut self,
        torrent: usize,
        have: &BTreeSet<u32>,
        unchecked: BTreeSet<u32>,
        now: u64,
    ) -> u64 {
        have.iter().for_each(|piece| self.on_good(torrent, *piece, now));
        self.unchecked.insert(torrent, unchecked);
        self.settle(torrent)
    }

    /// A piece was hashed on disk.
    pub(super) fn on_checked(&mut self, torrent: usize, piece: u32, good: bool, now: u64) -> u64 {
        if good {
            self.on_good(torrent, piece, now);
        }
        if let Some(unchecked) = self.unchecked.get_mut(&torrent) {
            unchecked.remove(&piece);
        }
        self.settle(torrent)
    }

    /// The greatest age of anything that was lost, nanoseconds.
    pub(super) fn worst(&self) -> u64 {
        self.worst
    }

    /// When all of a torrent was looked at, what is missing is lost.
    fn settle(&mut self, torrent: usize) -> u64 {
        if self.unchecked.get(&torrent).is_none_or(|unchecked| !unchecked.is_empty()) {
            return 0;
        }
        let lost = self.missed.extract_if((torrent, 0)..(torrent + 1, 0), |_, _| true);
        let age = lost.map(|(_, (since, ended))| ended.saturating_sub(since)).max().unwrap_or(0);
        self.worst = self.worst.max(age);
        age
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_found_again_is_as_old_as_it_was_when_the_process_ended() {
        let mut loss = LossWatch::default();
        for (piece, at) in [(0, 10), (1, 20), (2, 30), (3, 40)] {
            loss.on_good(0, piece, at);
        }
        loss.on_good(1, 0, 1);
        loss.on_gone(0, 0);
        loss.on_killed(50);
        assert_eq!(loss.on_opened(0, &[2].into(), [1, 3].into(), 60), 0);
        assert_eq!(loss.on_checked(0, 3, true, 61), 0);
        assert_eq!(loss.on_checked(0, 1, false, 62), 30);
        // What was found again keeps its age, so the next time nothing excuses its loss.
        loss.on_killed(100);
        assert_eq!(loss.on_opened(0, &[2].into(), [].into(), 110), 60);
        assert_eq!(loss.worst(), 60);
    }

    #[test]
    fn an_end_before_all_was_looked_at_leaves_the_question_open() {
        let mut loss = LossWatch::default();
        loss.on_good(0, 7, 10);
        loss.on_killed(50);
        assert_eq!(loss.on_opened(0, &[].into(), [7].into(), 60), 0);
        loss.on_killed(70);
        assert_eq!(loss.on_opened(0, &[].into(), [].into(), 80), 40);
    }
}
