//! Time on a real machine, and what an engine must be told of it at its start.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use taipei_engine::driver::Clock;
use taipei_engine::{Instant, StartValues};

use crate::platform;

/// A clock that begins at zero and goes on while the machine sleeps.
#[derive(Clone, Copy, Debug)]
pub struct BootClock {
    start_ns: u64,
}

impl Default for BootClock {
    fn default() -> Self {
        Self::new()
    }
}

impl BootClock {
    /// Begins now.
    pub fn new() -> Self {
        Self { start_ns: platform::boot_clock_ns() }
    }
}

impl Clock for BootClock {
    fn now(&self) -> Instant {
        Instant(platform::boot_clock_ns().saturating_sub(self.start_ns))
    }

    /// A timer of tokio does not count while the machine sleeps, so long waits are cut into slices.
    async fn sleep_until(&self, deadline: Instant) {
        loop {
            let left = deadline.since(self.now());
            if left.is_zero() {
                return;
            }
            tokio::time::sleep(left.min(SLICE)).await;
        }
    }
}

/// A name for this boot of the machine: another one when writes that were not synced may have been lost.
pub fn boot_id() -> [u8; 16] {
    platform::boot_id_text().as_deref().and_then(parse_boot_id).unwrap_or_else(boot_id_by_time)
}

/// What an engine is told at its start. Without a seed, one that nobody can guess.
pub fn start_values(seed: Option<u64>) -> StartValues {
    StartValues {
        // The keys of the standard library's hasher come from the system's source of randomness.
        seed: seed.unwrap_or_else(|| RandomState::new().build_hasher().finish()),
        boot_id: boot_id(),
        wall_seconds: i64::try_from(since_1970().as_secs()).unwrap_or(i64::MAX),
    }
}

/// 32 hexadecimal digits, with dashes between.
fn parse_boot_id(text: &str) -> Option<[u8; 16]> {
    let digits: String = text.trim().chars().filter(|c| *c != '-').collect();
    (digits.len() == 32).then_some(())?;
    Some(u128::from_str_radix(&digits, 16).ok()?.to_be_bytes())
}

/// The minute in which the machine started. Wrong by one where the wall clock was set since; then more is hashed than
/// needed.
fn boot_id_by_time() -> [u8; 16] {
    let started = since_1970().saturating_sub(Duration::from_nanos(platform::boot_clock_ns()));
    u128::from(started.as_secs() / 60).to_be_bytes()
}

fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// The longest that a machine may be awake before we notice that a deadline passed while it slept.
const SLICE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_boot_id_is_sixteen_bytes_in_hexadecimal() {
        let id = parse_boot_id("00112233-4455-6677-8899-aabbccddeeff\n").unwrap();
        assert_eq!(id[..4], [0, 0x11, 0x22, 0x33]);
        assert_eq!(parse_boot_id("no"), None);
        assert_eq!(parse_boot_id("zz112233-4455-6677-8899-aabbccddeeff"), None);
    }

    #[test]
    fn start_values_differ_in_the_seed_alone() {
        assert_eq!(start_values(Some(7)).seed, 7);
        assert_eq!(start_values(None).boot_id, start_values(None).boot_id);
        assert_ne!(start_values(None).seed, start_values(None).seed);
    }

    #[tokio::test]
    async fn sleeping_ends_at_the_deadline() {
        let clock = BootClock::new();
        let deadline = clock.now() + Duration::from_millis(3);
        clock.sleep_until(deadline).await;
        assert!(clock.now() >= deadline);
        clock.sleep_until(Instant::START).await;
    }
}
