//! Whose turn it is: no more torrents than [`Config::active_max`](crate::Config::active_max) have a place, and are opened,
//! checked and downloaded at once.
//!
//! A torrent that only seeds, or is finished, holds no place: it has little to do, and who waits for a download would
//! otherwise wait for ever. Nor does one to which nothing came for half an hour, but for a full disk: it goes on beside the
//! others.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use crate::ids::TorrentId;
use crate::time::Instant;

/// Torrents at work, and those that wait in the order they were added.
#[derive(Debug)]
pub(crate) struct Queue {
    active_max: usize,
    active: BTreeSet<TorrentId>,
    waiting: VecDeque<TorrentId>,
    look_at: Option<Instant>,
}

impl Queue {
    /// With this many places; one at least.
    pub(crate) fn new(active_max: u32) -> Self {
        let (active, waiting) = (BTreeSet::new(), VecDeque::new());
        Self { active_max: active_max.max(1) as usize, active, waiting, look_at: None }
    }

    /// A torrent was added and waits.
    pub(crate) fn add(&mut self, torrent: TorrentId) {
        self.waiting.push_back(torrent);
    }

    /// Who begins now, if there is a place.
    pub(crate) fn poll(&mut self) -> Option<TorrentId> {
        if self.active.len() >= self.active_max {
            return None;
        }
        let torrent = self.waiting.pop_front()?;
        self.active.insert(torrent);
        Some(torrent)
    }

    /// While somebody waits: when to [`Self::look`].
    pub(crate) fn look_at(&mut self, now: Instant) -> Option<Instant> {
        (!self.waiting.is_empty()).then(|| *self.look_at.get_or_insert(now + LOOK_EVERY))
    }

    /// Those that have places: they may not need them any longer.
    pub(crate) fn look(&mut self) -> Vec<TorrentId> {
        self.look_at = None;
        self.active.iter().copied().collect()
    }

    /// A torrent needs its place no longer.
    pub(crate) fn release(&mut self, torrent: TorrentId) {
        self.active.remove(&torrent);
    }

    /// A torrent is gone.
    pub(crate) fn remove(&mut self, torrent: TorrentId) {
        self.release(torrent);
        self.waiting.retain(|waiting| *waiting != torrent);
    }
}

/// Between looks at those that others wait for.
const LOOK_EVERY: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn torrents_begin_in_the_order_added_as_places_become_free() {
        let mut queue = Queue::new(2);
        (0..5).for_each(|n| queue.add(TorrentId(n)));
        let begun: Vec<_> = std::iter::from_fn(|| queue.poll()).collect();
        assert_eq!(begun, [TorrentId(0), TorrentId(1)]);
        queue.remove(TorrentId(2));
        queue.release(TorrentId(1));
        assert_eq!((queue.poll(), queue.poll()), (Some(TorrentId(3)), None));
        queue.remove(TorrentId(0));
        assert_eq!((queue.poll(), queue.poll()), (Some(TorrentId(4)), None));
    }
}
