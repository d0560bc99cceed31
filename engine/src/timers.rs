//! One ordered table of deadlines: one entry a connection, a torrent or a consumer, never one a request.

use std::collections::{BTreeMap, BTreeSet};

use crate::time::Instant;

/// Deadlines by key. Moving one later is free: a key that comes due early asks its owner again.
#[derive(Debug)]
pub(crate) struct Timers<K> {
    by_time: BTreeSet<(Instant, K)>,
    by_key: BTreeMap<K, Instant>,
}

impl<K: Copy + Ord> Default for Timers<K> {
    fn default() -> Self {
        Self { by_time: BTreeSet::new(), by_key: BTreeMap::new() }
    }
}

impl<K: Copy + Ord> Timers<K> {
    /// Wakes `key` at `at` or earlier. An entry that is due earlier stays: its owner will set it anew.
    pub(crate) fn set(&mut self, key: K, at: Option<Instant>) {
        let Some(at) = at else { return };
        match self.by_key.get(&key) {
            Some(armed) if *armed <= at => return,
            Some(armed) => {
                self.by_time.remove(&(*armed, key));
            }
            None => {}
        }
        self.by_time.insert((at, key));
        self.by_key.insert(key, at);
    }

    /// Forgets `key`.
    pub(crate) fn remove(&mut self, key: K) {
        if let Some(at) = self.by_key.remove(&key) {
            self.by_time.remove(&(at, key));
        }
    }

    /// Takes the earliest key that is due, disarming it.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<K> {
        let (at, key) = *self.by_time.first()?;
        if at > now {
            return None;
        }
        self.remove(key);
        Some(key)
    }

    /// When the next one is due.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.by_time.first().map(|(at, _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_wins_and_later_moves_are_lazy() {
        let mut timers = Timers::default();
        timers.set('a', Some(Instant(10)));
        timers.set('a', Some(Instant(20)));
        timers.set('b', Some(Instant(5)));
        timers.set('c', None);
        assert_eq!(timers.next(), Some(Instant(5)));
        assert_eq!((timers.pop_due(Instant(4)), timers.pop_due(Instant(10))), (None, Some('b')));
        assert_eq!((timers.pop_due(Instant(10)), timers.pop_due(Instant(100))), (Some('a'), None));
    }
}
