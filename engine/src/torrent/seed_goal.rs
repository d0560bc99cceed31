//! When seeding has been enough: by what was given, or by time.

use crate::command::SeedGoal;
use crate::time::Instant;

/// How far a torrent is from its goal.
#[derive(Debug)]
pub(super) struct SeedProgress {
    goal: SeedGoal,
    since: Option<Instant>,
}

impl SeedProgress {
    pub(super) fn new(goal: SeedGoal) -> Self {
        Self { goal, since: None }
    }

    /// The torrent seeds since now, unless it did already.
    pub(super) fn on_seeding(&mut self, now: Instant) {
        self.since.get_or_insert(now);
    }

    /// Something is missing again; the time starts anew.
    pub(super) fn on_incomplete(&mut self) {
        self.since = None;
    }

    /// Whether it is enough. The ratio is of what is wanted, not of what was downloaded: who brought the files along has
    /// a goal that can be reached as well.
    pub(super) fn is_reached(&self, now: Instant, uploaded_bytes: u64, wanted_bytes: u64) -> bool {
        let Some(since) = self.since else { return false };
        let ratio = self.goal.ratio_permille.is_some_and(|permille| {
            u128::from(uploaded_bytes) * 1000 >= u128::from(wanted_bytes) * u128::from(permille)
        });
        ratio || self.goal.time.is_some_and(|time| now >= since + time)
    }

    /// When time alone will have been enough.
    pub(super) fn deadline(&self) -> Option<Instant> {
        Some(self.since? + self.goal.time?)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn either_goal_is_enough_and_none_is_never() {
        let at = |seconds: u64| Instant(seconds * 1_000_000_000);
        let mut goal = SeedProgress::new(SeedGoal { ratio_permille: Some(1500), time: None });
        assert!(!goal.is_reached(at(0), 9999, 100), "not while downloading");
        goal.on_seeding(at(1));
        assert!(!goal.is_reached(at(99), 149, 100) && goal.is_reached(at(1), 150, 100));
        assert_eq!(goal.deadline(), None);
        let mut goal =
            SeedProgress::new(SeedGoal { ratio_permille: None, time: Some(Duration::from_secs(60)) });
        goal.on_seeding(at(10));
        goal.on_seeding(at(50));
        assert_eq!(goal.deadline(), Some(at(70)));
        assert!(!goal.is_reached(at(69), u64::MAX, 1) && goal.is_reached(at(70), 0, 1));
        let mut none = SeedProgress::new(SeedGoal::default());
        none.on_seeding(at(0));
        assert!(!none.is_reached(at(u64::MAX >> 40), u64::MAX, 0));
    }
}
