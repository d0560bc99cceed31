//! Places with the time between them, as whole numbers: a small table of one-way latencies in tenths of a millisecond.
//!
//! Figures are about half of what round trips over public networks take between such cities; two hosts in one place are
//! at two ends of its access networks.

use serde::{Deserialize, Serialize};

/// A named table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Geography {
    /// Eight cities in Europe, America and Asia.
    ThreeContinents,
    /// Five cities of one continent.
    Europe,
}

impl Geography {
    /// How many places there are to be drawn from.
    pub fn places(self) -> usize {
        self.table().len()
    }

    /// One way between two places, nanoseconds; the same in both directions.
    ///
    /// # Panics
    /// When there is no such place.
    pub fn latency(self, a: usize, b: usize) -> u64 {
        let (near, far) = (a.min(b), a.max(b));
        u64::from(self.table()[far][near]) * 100_000
    }

    /// Each place with all before it, and itself.
    fn table(self) -> &'static [&'static [u16]] {
        match self {
            Self::ThreeContinents => &[
                &[40],
                &[70, 40],
                &[120, 150, 40],
                &[400, 350, 450, 40],
                &[450, 400, 500, 110, 40],
                &[730, 680, 780, 310, 280, 40],
                &[1180, 1130, 1250, 830, 800, 530, 40],
                &[800, 820, 850, 1150, 1200, 870, 350, 40],
            ],
            Self::Europe => {
                &[&[40], &[70, 40], &[80, 60, 40], &[150, 190, 180, 40], &[160, 150, 100, 260, 40]]
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_directions_take_as_long_and_nowhere_is_nearer_than_home() {
        for geography in [Geography::ThreeContinents, Geography::Europe] {
            for a in 0..geography.places() {
                for b in 0..geography.places() {
                    assert_eq!(geography.latency(a, b), geography.latency(b, a));
                    assert!(geography.latency(a, b) >= geography.latency(a, a), "{geography:?} {a} {b}");
                }
            }
        }
        let far = Geography::ThreeContinents.latency(2, 6);
        assert_eq!(far, 125_000_000);
    }
}
