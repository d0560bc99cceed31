//! Whether the machine slept.
//!
//! A driver wakes the engine when [`crate::Engine::poll_timeout`] says, or soon after. When that is overdue by more than
//! any scheduling explains, nobody ran: the machine was suspended, or the process stopped. Then connections are dead
//! that look alive, and waits that were to spare others have long done so. The engine begins anew with everybody.

use std::time::Duration;

use crate::time::Instant;

/// Whether nobody ran for a while before `now`: the engine was to be woken, and `heard` of nothing since then.
pub(crate) fn has_slept(heard: Instant, now: Instant, due: impl FnOnce() -> Option<Instant>) -> bool {
    now.since(heard) >= OVERDUE && due().is_some_and(|due| now.since(due) >= OVERDUE)
}

/// A machine that swaps or is overloaded is late by seconds; a peer that heard nothing for longer than this may have
/// dropped us.
const OVERDUE: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_wake_that_is_long_overdue_is_a_sleep() {
        let at = |seconds: u64| Instant(seconds * 1_000_000_000);
        let slept = |due, now| has_slept(at(20), at(now), || due);
        assert!(!slept(None, 1_000_000), "nothing was to happen");
        assert!(!slept(Some(at(50)), 40));
        assert!(!slept(Some(at(50)), 79));
        assert!(slept(Some(at(50)), 80));
        assert!(!has_slept(at(51), at(80), || Some(at(50))), "something was heard later");
    }
}
