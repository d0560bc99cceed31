//! Access links: when bytes that want to pass now will have passed, in exact integer arithmetic.

/// One direction of an access link. Bytes pass one after the other; nothing sleeps, departures are booked.
#[derive(Clone, Copy, Debug)]
pub struct LinkClock {
    bits_per_second: u64,
    free_at: u64,
    remainder: u64,
}

impl LinkClock {
    /// An idle link of this rate.
    ///
    /// # Panics
    /// When the rate is zero.
    pub fn new(bits_per_second: u64) -> Self {
        assert!(bits_per_second > 0, "a link passes something");
        Self { bits_per_second, free_at: 0, remainder: 0 }
    }

    /// Books `bytes` that are there at `now`: when the last of them has passed.
    pub fn book(&mut self, now: u64, bytes: u64) -> u64 {
        if now > self.free_at {
            (self.free_at, self.remainder) = (now, 0);
        }
        // A fraction of a nanosecond is carried to the next bytes, so the rate is exact however they are cut.
        let nanobits = u128::from(bytes) * 8_000_000_000 + u128::from(self.remainder);
        let rate = u128::from(self.bits_per_second);
        self.remainder = (nanobits % rate) as u64;
        self.free_at = self.free_at.saturating_add(u64::try_from(nanobits / rate).unwrap_or(u64::MAX));
        self.free_at
    }

    /// How long these many bytes take to pass.
    pub fn takes(&self, bytes: u64) -> u64 {
        let ns = u128::from(bytes) * 8_000_000_000 / u128::from(self.bits_per_second);
        u64::try_from(ns).unwrap_or(u64::MAX)
    }

    /// From now on another rate; what was booked already passes as it was booked.
    ///
    /// # Panics
    /// When the rate is zero.
    pub fn set_rate(&mut self, bits_per_second: u64) {
        assert!(bits_per_second > 0, "a link passes something");
        (self.bits_per_second, self.remainder) = (bits_per_second, 0);
    }

    /// When it is idle, if nothing more is booked.
    pub fn free_at(&self) -> u64 {
        self.free_at
    }

    /// How long bytes that come now wait before they begin to pass.
    pub fn backlog(&self, now: u64) -> u64 {
        self.free_at.saturating_sub(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::SECOND;

    #[test]
    fn ten_megabits_a_second_take_their_time_however_they_are_cut() {
        let bytes = 12_500_000u64;
        for cut in [1_000u64, 1_460, 16_384, 100_000] {
            let mut link = LinkClock::new(10_000_000);
            let (mut left, mut done) = (bytes, 0);
            while left > 0 {
                let part = left.min(cut);
                done = link.book(0, part);
                left -= part;
            }
            assert_eq!(done, 10 * SECOND, "cut in {cut}");
        }
    }

    #[test]
    fn a_rate_that_divides_nothing_is_exact_in_the_long_run() {
        let mut link = LinkClock::new(7_777_777);
        let done = (0..7_777_777).map(|_| link.book(0, 1)).last();
        assert_eq!(done, Some(8 * SECOND));
    }

    #[test]
    fn another_rate_holds_for_what_comes_then() {
        let mut link = LinkClock::new(8_000);
        assert_eq!(link.book(0, 1_000), SECOND);
        link.set_rate(4_000);
        assert_eq!(link.book(0, 1_000), 3 * SECOND);
    }

    #[test]
    fn idle_time_is_not_saved_up() {
        let mut link = LinkClock::new(8_000);
        assert_eq!(link.book(0, 1_000), SECOND);
        assert_eq!(link.book(5 * SECOND, 1_000), 6 * SECOND);
        assert_eq!((link.backlog(5 * SECOND), link.backlog(7 * SECOND)), (SECOND, 0));
    }
}
