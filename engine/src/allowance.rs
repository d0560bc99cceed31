//! So much a second, and a burst: how often something may be done.

use std::time::Duration;

use crate::time::Instant;

#[derive(Debug)]
pub(crate) struct Allowance {
    per_second: u64,
    burst: u64,
    /// In billionths.
    left: u64,
    at: Instant,
}

impl Allowance {
    pub(crate) fn new(per_second: u64, burst: u64) -> Self {
        Self { per_second, burst, left: burst * BILLION, at: Instant::START }
    }

    /// Takes so much, if there is as much.
    pub(crate) fn take(&mut self, now: Instant, amount: u64) -> bool {
        let passed = u64::try_from(now.since(self.at).as_nanos()).unwrap_or(u64::MAX);
        self.left =
            self.left.saturating_add(passed.saturating_mul(self.per_second)).min(self.burst * BILLION);
        self.at = self.at.max(now);
        let enough = self.left >= amount * BILLION;
        if enough {
            self.left -= amount * BILLION;
        }
        enough
    }

    /// When there is one more.
    pub(crate) fn next_at(&self) -> Instant {
        let missing = BILLION.saturating_sub(self.left);
        self.at + Duration::from_nanos(missing.div_ceil(self.per_second))
    }
}

const BILLION: u64 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_so_much_a_second() {
        let mut allowance = Allowance::new(10, 3);
        let taken = |allowance: &mut Allowance, at| (0..100).filter(|_| allowance.take(at, 1)).count();
        assert_eq!(taken(&mut allowance, Instant::START), 3);
        assert_eq!(allowance.next_at(), Instant::START + Duration::from_millis(100));
        let next = allowance.next_at();
        assert_eq!(taken(&mut allowance, next), 1);
        assert_eq!(taken(&mut allowance, Instant::START + Duration::from_millis(310)), 2);
        assert_eq!(taken(&mut allowance, Instant::START + Duration::from_secs(3600)), 3);
    }
}
