//! How fast bytes flow, in integers.

use std::time::Duration;

use crate::time::Instant;

/// Bytes per second over a sliding window of eight slots.
#[derive(Clone, Debug)]
pub(crate) struct Rate {
    slot_ns: u64,
    slots: [u64; SLOTS],
    /// Number of the newest slot since the beginning of time.
    newest: u64,
    /// When the first byte came, or came again after a silence of a whole window.
    since: Option<Instant>,
    total: u64,
}

impl Rate {
    /// Over this window; an eighth of it is the resolution.
    pub(crate) fn over(window: Duration) -> Self {
        let slot_ns = (window.as_nanos() as u64 / SLOTS as u64).max(1);
        Self { slot_ns, slots: [0; SLOTS], newest: 0, since: None, total: 0 }
    }

    /// Counts `bytes` now.
    pub(crate) fn add(&mut self, now: Instant, bytes: u64) {
        self.turn(now);
        self.since.get_or_insert(now);
        self.slots[self.newest as usize % SLOTS] += bytes;
        self.total += bytes;
    }

    /// All bytes ever counted.
    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    /// Bytes per second over the window, or over the time since it began if that is shorter.
    pub(crate) fn per_second(&self, now: Instant) -> u64 {
        let mut at = self.clone();
        at.turn(now);
        let Some(since) = at.since else { return 0 };
        let bytes: u64 = at.slots.iter().sum();
        let window = at.slot_ns * SLOTS as u64;
        let covered = (now.since(since).as_nanos() as u64).clamp(at.slot_ns, window);
        (u128::from(bytes) * 1_000_000_000 / u128::from(covered)) as u64
    }

    /// Moves to the slot of `now`, emptying those passed over.
    fn turn(&mut self, now: Instant) {
        let slot = now.0 / self.slot_ns;
        let passed = slot.saturating_sub(self.newest);
        if passed == 0 {
            return;
        }
        for step in 1..=passed.min(SLOTS as u64) {
            self.slots[(self.newest + step) as usize % SLOTS] = 0;
        }
        self.newest = slot;
        if self.slots.iter().all(|bytes| *bytes == 0) {
            self.since = None;
        }
    }
}

const SLOTS: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steady_flow_is_measured_from_the_start() {
        let mut rate = Rate::over(Duration::from_secs(2));
        let at = |ms: u64| Instant(ms * 1_000_000);
        for ms in (0..1000).step_by(10) {
            rate.add(at(5_000_000 + ms), 1000);
        }
        let measured = rate.per_second(at(5_001_000));
        assert!((95_000..=105_000).contains(&measured), "{measured}");
        assert_eq!(rate.per_second(at(5_004_000)), 0);
        assert_eq!(rate.total(), 100_000);
    }
}
